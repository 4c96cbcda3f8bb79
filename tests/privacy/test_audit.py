"""The audit's bounds hold where the code is honest, and break through the accountant's where it is not."""

from __future__ import annotations

import csv
import dataclasses
import io
import json

import numpy as np
import pytest
import torch

from methods.__main__ import main
from methods.core.accounting.calibration import epsilon
from methods.core.audit import bounds, coverage, mechanism, whole_run
from methods.core.audit.canaries import shape_of
from methods.core.audit.mechanism import Audit
from methods.core.privacy import grant, noise
from methods.core.privacy.ledger import Ledger
from methods.core.privacy.private_data import PrivateData
from methods.core.release import NO_BUDGET, Budget, PublicSpec, Release
from methods.core.runs.plan import Plan
from methods.core.speed import one_backward_pass
from workflow.common.errors import UserError

DELTA = 1e-5


def a_release(**changes) -> Release:
    fields = dict(
        name="answer", kind="gaussian", clip=0.7, noise=3.0, bounded="sum", rows=10_000, rate=1.0, sampling="all",
        max_uses=1,
    )  # fmt: skip
    return Release(**(fields | changes))


# What to audit, with how many coins, the share of eps_sound that the attack finds, and how much less noise it catches.
PLANS = {
    "one sum, as dp_merf": (a_release(), 200_000, 0.5, 1 / 2),
    "DP-SGD": (
        a_release(sampling="poisson", rate=0.25, noise=1.0, adjacency="add_or_remove", max_uses=2), 150_000, 0.4, 1 / 2,
    ),
    "Poisson sum of shards with hidden state": (
        a_release(sampling="poisson", rate=0.25, noise=0.6, state="hidden", max_uses=2), 150_000, 0.4, 1 / 2,
    ),
    "votes": (a_release(bounded="votes", clip=1.0, noise=9.0, answers=4, max_uses=2), 200_000, 0.4, 1 / 2),
    "second moments": (a_release(bounded="moments", clip=1.0, noise=3.0), 30_000, 0.3, 1 / 3),
    "Laplace sum": (a_release(kind="laplace", noise=2.0, answers=2), 150_000, 0.7, 1 / 2),
    "function of all": (a_release(bounded="function", rows=2, noise=3.0), 8_000, 0.35, 1 / 3),
    # The bound reveals the draws and the attack does not see them, so it finds less.
    "one shard of K with hidden state": (
        a_release(bounded="function", rows=2, noise=1.5, sampling="one_shard_of_k", rate=1 / 2, state="hidden"),
        8_000, 0.15, 1 / 8,
    ),
}  # fmt: skip


def audited(plan: str, **options) -> tuple[float, float]:
    """epsilon_lower of a plan, and what the accountant proves."""
    release, coins, *_ = PLANS[plan]
    found = mechanism.audit([release], DELTA, **({"canaries": coins} | options))
    assert found.releases == (release,)
    return found.epsilon_lower, epsilon(found.releases, DELTA, "sound")


@pytest.mark.parametrize("plan", PLANS)
def test_an_honest_mechanism_stays_under_its_bound_and_not_far(plan):
    lower, sound = audited(plan)
    assert PLANS[plan][2] * sound < lower <= sound < 6


@pytest.mark.parametrize("plan", PLANS)
def test_too_little_noise_is_caught(plan, monkeypatch):
    draw, less = noise.NoiseSource.draw, PLANS[plan][3]
    monkeypatch.setattr(
        noise.NoiseSource, "draw",
        lambda self, kind, like, scale, name, use: draw(self, kind, like, less * scale, name, use),
    )  # fmt: skip
    lower, sound = audited(plan)
    assert lower > 1.05 * sound


@pytest.mark.parametrize("plan", [plan for plan in PLANS if plan != "votes"])
def test_a_missing_clip_is_caught(plan, monkeypatch):
    monkeypatch.setattr(grant, "clip_rows", lambda rows, clip, kind: rows)
    clipping = one_backward_pass.OneBackwardPass
    factors = clipping.get_clipping_coef
    monkeypatch.setattr(clipping, "get_clipping_coef", lambda self: torch.ones_like(factors(self)))
    lower, sound = audited(plan, canaries=8_000)
    assert lower > 1.05 * sound


def finite_nowhere_checked(rows: torch.Tensor, clip: float, kind: str) -> torch.Tensor:
    norms = rows.norm(p={"gaussian": 2, "laplace": 1}[kind], dim=1, keepdim=True)
    return rows * (clip / norms).clamp(max=1.0)


@pytest.mark.parametrize("plan", [plan for plan in PLANS if plan != "votes"])
def test_a_non_finite_row_let_through_is_caught(plan, monkeypatch):
    lower, sound = audited(plan, non_finite=True, canaries=400)
    assert lower <= sound
    monkeypatch.setattr(grant, "clip_rows", finite_nowhere_checked)
    # DP-SGD asks torch.isfinite of every gradient norm.
    monkeypatch.setattr(torch, "isfinite", lambda values: torch.ones_like(values, dtype=torch.bool))
    lower, sound = audited(plan, non_finite=True, canaries=1_500)
    assert lower > 1.05 * sound


def randomized_response(draws, count: int, eps: float, delta: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """Scores and coins of the worst (eps, delta)-DP answer: with delta it gives the coin away."""
    coins = draws.random(count) < 0.5
    truth = np.where(coins, 1.0, -1.0)
    said = np.where(draws.random(count) < 1 / (1 + np.exp(-eps)), truth, -truth)
    return np.where(draws.random(count) < delta, 2 * truth, said) + 1e-6 * draws.random(count), coins


@pytest.mark.parametrize("bound", [bounds.from_independent_trials, bounds.from_one_run])
@pytest.mark.parametrize("eps, delta", [(0.5, 0.0), (2.0, 0.0), (1.0, 1e-3)])
def test_a_bound_exceeds_the_truth_no_more_often_than_its_confidence_says(bound, eps, delta):
    draws = np.random.default_rng(3)
    found = np.array([bound(*randomized_response(draws, 600, eps, delta), delta, 0.9) for _ in range(100)])
    # Binomial(100, 0.1) stays below 20 but for one case in a thousand.
    assert (found > eps).sum() <= 20
    if eps == 2.0:
        assert np.median(found) > 0.6 * eps


@pytest.mark.parametrize("bound", [bounds.from_independent_trials, bounds.from_one_run])
def test_a_larger_delta_proves_less_and_more_coins_prove_more(bound):
    scores, coins = randomized_response(np.random.default_rng(0), 4000, 2.0)
    assert bound(scores, coins, 1e-2, 0.95) < bound(scores, coins, 0.0, 0.95)
    assert bound(scores[:200], coins[:200], 0.0, 0.95) < bound(scores, coins, 0.0, 0.95)
    assert bound(scores, coins, 0.0, 0.999) < bound(scores, coins, 0.0, 0.9)
    assert bound(np.zeros(4000), coins, 0.0, 0.95) == bound(scores[:1], coins[:1], 0.0, 0.95) == 0.0


def test_no_canary_is_guessed_both_ways(monkeypatch):
    guessed = []
    monkeypatch.setattr(
        bounds, "_one_run_bound", lambda canaries, guesses, *_: float(guessed.append((canaries, guesses)) or guesses)
    )
    for count in range(1, 40):
        bounds.from_one_run(np.arange(count, dtype=float), np.arange(count) >= count / 2, 0.0)
    assert len(guessed) > 100 and all(guesses <= canaries for canaries, guesses in guessed)


def test_scores_that_rounding_alone_tells_apart_are_equal_and_keep_their_order():
    scores = np.array([0.1 + 0.2, np.inf, -1.0, 0.3, np.inf, 0.3 + 1e-6, -np.inf])
    together = bounds.joined(scores)
    assert np.unique(together, return_inverse=True)[1].tolist() == [2, 4, 1, 2, 4, 3, 0]
    assert np.allclose(together[[0, 2, 3, 5]], scores[[0, 2, 3, 5]])
    assert bounds.joined(np.zeros(0)).shape == (0,)


@pytest.mark.parametrize("bound", [bounds.from_independent_trials, bounds.from_one_run])
def test_a_bound_does_not_read_the_coin_in_the_last_bits_of_equal_scores(bound):
    draws = np.random.default_rng(0)
    coins = draws.random(4000) < 0.5
    # Multiples of 1 / 7 that are equal on paper, each an ulp higher where the coin is True.
    scores = draws.integers(-3, 4, 4000) / 7
    assert bound(np.where(coins, np.nextafter(scores, 1), scores), coins, 0.0, 0.999) < 0.3
    assert bound(scores + 1e-3 * coins, coins, 0.0, 0.999) > 1


def test_a_saturated_laplace_ratio_has_one_value_on_each_side():
    release = a_release(kind="laplace", noise=1.0, clip=0.7)
    canaries = shape_of(release)(release, 4, False)
    far = torch.tensor([0.70001, 0.9, 3.1, 1e4, float("nan")])
    assert np.array_equal(canaries._ratio(far, 0.7, -0.7, 0.0, 1.4), np.array([1.0] * 4 + [np.inf]))
    assert np.array_equal(canaries._ratio(-far[:4], 0.7, -0.7, 0.0, 1.4), np.array([-1.0] * 4))


def test_equal_distances_of_images_are_equal_scores():
    images = torch.randint(256, (40, 1, 8, 8), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    assert np.array_equal(whole_run.nearest(images, images.flip(0)), np.zeros(40))
    # One grey level in one pixel, wherever it is.
    moved = images.flatten(1).clone()
    moved[torch.arange(40), torch.arange(40)] ^= 1
    found = whole_run.nearest(moved.view_as(images), images)
    assert np.array_equal(found, np.full(40, 1 / 8))


def test_the_p_value_is_that_of_steinke_nasr_and_jagielski():
    """By hand for 3 guesses of 10 coins at epsilon log 3, so that a guess is right with probability 3 / 4."""
    below = {2: 27 / 64, 1: 9 / 64, 0: 1 / 64}
    share = max(below[2], (below[2] + below[1]) / 2, 37 / 64 / 3)
    for delta in (0.0, 0.01):
        expected = 27 / 64 + 2 * 10 * delta * share
        assert bounds.one_run_p_value(10, 3, 3, np.log(3), delta) == pytest.approx(expected)


def test_what_is_too_dear_is_audited_with_fewer_uses_and_says_so():
    release = a_release(sampling="poisson", rate=0.01, max_uses=5000, adjacency="add_or_remove")
    found = mechanism.audit([release], DELTA, seconds=0.2)
    assert 1 <= found.releases[0].max_uses < 500 and found.releases[0] == release.used(found.releases[0].max_uses)
    assert mechanism.audit([release], DELTA, seconds=0.2) == found


def test_several_releases_are_audited_together():
    pair = (a_release(), a_release(name="second", kind="laplace", noise=4.0))

    def bounds_of(releases):
        audits = (mechanism.audit(releases, DELTA, canaries=150_000, seed=seed) for seed in range(2))
        return [audit.epsilon_lower for audit in audits]

    both = bounds_of(pair)
    assert np.mean(both) > np.mean(bounds_of(pair[:1]))
    assert max(both) <= epsilon(pair, DELTA, "sound")


@pytest.mark.parametrize(
    "changes, says",
    [
        (dict(kind="none"), "no noise"),
        (dict(kind="laplace", sampling="poisson", rate=0.5), "Laplace noise on drawn records"),
        (dict(bounded="function", sampling="poisson", rate=0.5, draws="per_row"), "each have their own draw"),
        (dict(max_uses=0), "uses no release"),
    ],
)
def test_what_no_canary_fits_is_refused(changes, says):
    with pytest.raises(UserError, match=says):
        mechanism.audit([a_release(**changes)], DELTA)


SPEC = PublicSpec("grey", (1, 28, 28), 10, 400)


def a_plan(method: str, run: str = "", **hyper) -> Plan:
    return Plan.make(method, run or method, hyper, SPEC, Budget(2.0, DELTA, "sound"), seed=0)


def records() -> PrivateData:
    draws = torch.Generator().manual_seed(0)
    images = torch.randint(256, (SPEC.num_train, *SPEC.image_shape), generator=draws).to(torch.uint8)
    return PrivateData(images, torch.arange(SPEC.num_train) % SPEC.num_classes)


TINY_GAN = dict(
    steps=2, num_shards=2, warm_start_steps=1, warm_start_width=4, generator="dcgan", generator_width=4, critic_width=4,
    critic_steps=1, batch_size=4,
)  # fmt: skip
TRAINED = {
    "dp_merf": dict(features=64, steps=5), "dp_cgan": dict(steps=4, batch_size=16), "gs_wgan": TINY_GAN,
    "dp_ntk": dict(width=16, steps=5, batch_size=16, hidden=8, channels=4),
    "dpac_scatter": dict(classifier_steps=3, steps=3, batch_size=8, width=4),
    "dpac": {**TINY_GAN, "classifier_start": 1, "classifier_fake_steps": 1, "classifier_real_steps": 1},
}  # fmt: skip


@pytest.mark.parametrize("method", TRAINED)
def test_a_training_run_leaks_no_more_than_it_promises(method):
    found = whole_run.audit(
        a_plan(method, **TRAINED[method]), records(), torch.device("cpu"), canaries=100, samples=40
    )
    assert found.canaries == 100
    assert found.epsilon_lower <= epsilon(found.releases, DELTA, "sound") <= 2.0


STARTED = {
    "dp_cgan": dict(steps=4, batch_size=16),
    "gs_wgan": {
        **TINY_GAN, "warm_start_steps": 0, "shards_per_step": 2.0, "num_shards": 8, "spectral_norm": False,
        "critic_batch": 4,
    },
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("method", STARTED)
def test_a_start_is_attacked_with_the_steps_after_it_and_both_leak_no_more_than_promised(method):
    plan = a_plan(method, start="dp_gauss", start_steps=2, **STARTED[method])
    found = mechanism.audit(plan.releases, DELTA, canaries=10_000)
    assert found.releases == plan.releases and len(plan.releases) == 3
    assert 0 < found.epsilon_lower <= plan.costs["sound"] <= 2.0
    assert max(epsilon(part, DELTA, "sound") for part in (plan.releases[:2], plan.releases[2:])) < plan.costs["sound"]
    whole = whole_run.audit(plan, records(), torch.device("cpu"), canaries=100, samples=40)
    assert whole.epsilon_lower <= plan.costs["sound"]


@pytest.mark.parametrize("method", ["dp_merf", "dp_cgan"])
def test_a_generator_that_repeats_its_records_is_caught(method, monkeypatch):
    """dp_merf promises for exchanged records, dp_cgan for present or absent ones."""
    def parrot(plan, door, where, samples, device):
        with Ledger.open(where / "ledger.jsonl", (), NO_BUDGET) as ledger, ledger.internal("all") as grant:
            return door.read(grant, torch.arange(len(door)))[0]

    monkeypatch.setattr(whole_run, "_generate", parrot)
    found = whole_run.audit(a_plan(method, **TRAINED[method]), records(), torch.device("cpu"), canaries=200)
    assert found.epsilon_lower > 1.5 * epsilon(found.releases, DELTA, "sound")


# A non-finite canary is alone in its answer and so costs most; an honest release tells it least.
@pytest.mark.parametrize("attack, audits, limit", [
    ("mechanism", 40, 4), ("non_finite", 20, 3), ("training", 200, 15), ("bound", 200, 15),
    pytest.param("mechanism", 200, 15, marks=pytest.mark.slow),
    pytest.param("non_finite", 60, 6, marks=pytest.mark.slow),
])  # fmt: skip
def test_of_many_audits_no_more_than_one_in_twenty_exceeds_the_truth(attack, audits, limit):
    """The seeds are fixed: a share above the limit is a fault of the code, or the luck of one series in twenty."""
    for case in coverage.cases([attack]):
        found = case.covered(audits)
        assert found.above <= found.limit == limit, found


def test_a_row_that_gives_its_coin_away_exceeds_the_limit_by_the_fewest_coins(monkeypatch):
    monkeypatch.setattr(grant, "clip_rows", finite_nowhere_checked)
    for case in coverage.cases(["non_finite"]):
        # Opacus has a check of its own, and of K shards most answers tell nothing.
        if case.mechanism not in ("DP-SGD", "one shard of K", "Poisson sum of shards"):
            assert case.covered(20).above > coverage.limit(20), case


def test_a_mechanism_that_spends_more_than_it_says_exceeds_the_limit():
    for case in coverage.cases(["bound"]):
        assert dataclasses.replace(case, epsilon=0.8).covered(100).above > coverage.limit(100)


def test_the_limit_is_what_a_binomial_stays_within():
    draws = np.random.default_rng(0).binomial(200, 0.05, 100_000)
    assert (draws <= 15).mean() >= 0.95 > (draws <= 14).mean() and coverage.limit(200) == 15


def test_the_command_prints_the_coverage_of_each_mechanism(capsys):
    assert main(["audit-coverage", "--audits", "3", "--attack", "bound"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["mechanism"].split(":")[0] for row in rows] == ["randomized response"] * 2
    assert all(row["audits"] == "3" and row["share_above"] <= row["limit"] for row in rows)
    assert main(["audit-coverage", "--audits", "0"]) == 2


def table(capsys, *arguments: str) -> list[dict[str, str]]:
    assert main(["audit", *map(str, arguments)]) in (0, None)
    return list(csv.DictReader(io.StringIO(capsys.readouterr().out)))


def test_the_command_audits_plans_and_passes_over_what_is_not_private(capsys, tmp_path):
    free = Plan.make("dp_merf", "bare", TRAINED["dp_merf"], SPEC, Budget(float("inf"), DELTA, "none"), seed=0)
    plans = [*(a_plan("dp_merf", run, **TRAINED["dp_merf"]) for run in ("dp_merf", "twin")), free]
    paths = [tmp_path / f"{number}.json" for number in range(3)]
    for path, plan in zip(paths, plans, strict=True):
        path.write_text(json.dumps(plan.to_dict()))
    rows = table(capsys, "--plan", *paths, "--seconds", "0.3")
    assert [row["run"] for row in rows] == ["dp_merf", "twin"]
    assert rows[0] | {"run": "twin"} == rows[1]
    assert 0 < float(rows[0]["epsilon_lower"]) <= float(rows[0]["eps_sound"]) <= 2.0
    out = tmp_path / "audit.json"
    main(["audit", "--plan", str(paths[0]), "--seconds", "0.3", "--out", str(out)])
    (stored,) = json.loads(out.read_text())
    assert stored["epsilon_lower"] == float(rows[0]["epsilon_lower"]) and stored["confidence"] == 0.95


@pytest.mark.parametrize("lower, told", [(0.5, []), (4.0, ["published", "sound"])])
def test_the_command_says_where_a_lower_bound_exceeds_a_count(lower, told, monkeypatch, capsys):
    monkeypatch.setattr(
        mechanism, "audit", lambda releases, *_, **options: Audit(releases, 100, options["confidence"], lower)
    )
    assert main(["audit", "dp_merf", "--epsilon", "1", "--confidence", "0.99"]) in (0, None)
    said = [line for line in capsys.readouterr().err.splitlines() if "exceeds" in line]
    assert [line.partition("exceeds eps_")[2].split()[0] for line in said] == told
    assert all("dp_merf on mnist: epsilon_lower 4 " in line and "at confidence 0.99" in line for line in said)


def test_a_lower_bound_is_rounded_down(monkeypatch, capsys):
    monkeypatch.setattr(mechanism, "audit", lambda releases, *_, **options: Audit(releases, 100, 0.95, 2.34567))
    (row,) = table(capsys, "dp_merf", "--epsilon", "1")
    assert row["epsilon_lower"] == "2.3456"


def test_the_command_takes_a_method_and_its_settings(capsys):
    (row,) = table(
        capsys, "dp_cgan", "--records", "2000", "--set", "steps=3", "--epsilon", "3", "--seconds", "0.2"
    )
    assert row["dataset"] == "mnist" and row["epsilon"] == "3" and row["max_uses"] == "3"
    assert float(row["epsilon_lower"]) <= float(row["eps_sound"])


@pytest.mark.parametrize(
    "arguments, says",
    [
        ([], "either --plan FILE ... or the name"),
        (["dp_merf", "--confidence", "1"], "--confidence must lie strictly between 0 and 1, got 1.0"),
        (["dp_merf", "--seconds", "0"], "--seconds must be a number above 0 and at most 1e+06, got 0"),
        (["dp_merf", "--uses", "0"], "--uses must be at least 1, got 0"),
        (["dp_merf", "--attack", "training"], "--attack training needs --data"),
        (["dp_merf", "--out", "audit.txt"], "--out must end in .csv or .json, got audit.txt"),
        (["dp_merf", "--epsilon", "inf"], "does not go with accounting"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(capsys, arguments, says):
    assert main(["audit", *arguments]) == 2
    error = capsys.readouterr().err
    assert says in error and error.count("\n") == 1
