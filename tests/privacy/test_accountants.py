"""The two counts against numbers from other accountants and other code."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import yaml
from opacus.accountants import PRVAccountant

from methods.core import registry
from methods.core.accounting.calibration import calibrate, epsilon
from methods.core.release import Budget, PublicSpec, Release
from workflow.common.errors import UserError

DELTA = 1e-5
REFERENCE = json.loads(Path(__file__).with_name("reference.json").read_text())


def shard_query(**changes) -> Release:
    """GS-WGAN's released gradient at its published setting, its critics on a public schedule."""
    fields = dict(
        name="gradient", kind="gaussian", clip=1.0, noise=1.07, bounded="function", rows=32, rate=1 / 1000,
        sampling="one_shard_of_k", max_uses=20000,
    )  # fmt: skip
    return Release(**(fields | changes))


def dp_sgd(**changes) -> Release:
    fields = dict(
        bounded="sum", rows=60000, rate=0.01, noise=1.12, sampling="poisson", max_uses=1000, adjacency="add_or_remove"
    )
    return shard_query(**(fields | changes))


def all_records(**changes) -> Release:
    return shard_query(**(dict(bounded="sum", rows=60000, rate=1.0, noise=5.0, sampling="all", max_uses=1) | changes))


def reference_kind(row: dict) -> str:
    return f"{row['relation']}-{row['accounting']}-{row['source'].split('(')[0].strip()}"


def reference_rows(kind: str, each: int) -> list[dict]:
    """Rows of one accountant: all plans of papers, and one in `each` of a series that varies noise, rows and uses."""
    rows = [row for row in REFERENCE if reference_kind(row) == kind]
    series = [row for row in rows if row["name"] == "sigma-for-epsilon"]
    return [row for row in rows if row not in series] + series[::each]


@pytest.mark.parametrize("each", [24, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", sorted({reference_kind(row) for row in REFERENCE}))
def test_reference_numbers_are_met(kind, each):
    """Rows are grouped by the accountant that made them: "equal" within its tolerance, "at_most" and "at_least" bounds.

    A Renyi count of the Poisson pair (joint_rdp, dp_accounting's and Opacus's RDP at other orders) bounds the exact
    cost of that pair from above; the pair composed in one direction (joint_remove) bounds the shared draw from below;
    Renyi counts of drawing without replacement bound the shared draw, whose own pair is tighter.
    """
    met = {
        "equal": lambda cost, row: cost == pytest.approx(row["epsilon"], abs=row["tolerance"]),
        "at_most": lambda cost, row: cost <= row["epsilon"] + row["tolerance"],
        "at_least": lambda cost, row: cost >= row["epsilon"] - row["tolerance"],
    }
    missed = []
    for row in reference_rows(kind, each):
        releases = [Release.from_dict(fields) for fields in row["releases"]]
        cost = epsilon(releases, row["delta"], row["accounting"])
        if not met[row["relation"]](cost, row):
            missed.append((row["name"], row["releases"], row["epsilon"], cost))
    assert missed == []


@pytest.mark.parametrize("noise, shards, printed", [(1.07, 1000, 9.9926), (0.61135, 2543, 9.9993)])
def test_published_count_of_gs_wgan_is_the_authors(noise, shards, printed):
    cost = epsilon([shard_query(noise=noise, rate=1 / shards)], DELTA, "published")
    assert cost == pytest.approx(printed, abs=1e-3)


def test_published_count_is_autodps_where_it_is_installed():
    rdp_acct = pytest.importorskip("autodp.rdp_acct")
    for noise, rate, count in [(2.0, 0.01, 3000), (0.8, 0.002, 50000), (4.0, 0.05, 400)]:
        accountant = rdp_acct.anaRDPacct()
        accountant.compose_subsampled_mechanism(lambda order, s=noise: order / (2 * s**2), rate, coeff=count)
        ours = epsilon([shard_query(noise=noise, rate=rate, rows=1, max_uses=count)], DELTA, "published")
        assert ours == pytest.approx(accountant.get_eps(DELTA), rel=1e-3)


def test_rows_that_share_a_draw_are_one_query_and_cost_more_than_published():
    joint = epsilon([shard_query()], DELTA, "sound")
    assert joint == pytest.approx(epsilon([shard_query(rows=1, noise=1.07 / math.sqrt(32))], DELTA, "sound"), rel=1e-9)
    assert joint > 30 * epsilon([shard_query()], DELTA, "published")


def test_rows_that_each_draw_a_shard_are_uses_of_their_own():
    per_row = epsilon([shard_query(rows=8, max_uses=50, draws="per_row")], DELTA, "sound")
    assert per_row == pytest.approx(epsilon([shard_query(rows=1, max_uses=400)], DELTA, "sound"), rel=1e-9)


def test_hidden_state_costs_more_than_public_state():
    public, hidden = (epsilon([shard_query(state=state)], DELTA, "sound") for state in ("public", "hidden"))
    assert hidden > 1.5 * public


def test_a_sum_over_one_drawn_shard_claims_no_amplification():
    """The sums of two shards may lie further apart than one record moves either."""
    sums = [shard_query(bounded="sum", state=state) for state in ("public", "hidden")]
    assert epsilon(sums[:1], DELTA, "sound") == epsilon(sums[1:], DELTA, "sound")


def test_hidden_state_of_a_poisson_function_claims_no_amplification():
    hidden = dict(sampling="poisson", rate=0.01, rows=1, noise=20.0, max_uses=50, state="hidden")
    whole = dict(sampling="all", rate=1.0, rows=1, noise=20.0, max_uses=50)
    assert epsilon([shard_query(**hidden)], DELTA, "sound") == epsilon([shard_query(**whole)], DELTA, "sound")


def test_a_drawn_batch_that_is_no_sum_is_not_given_the_cheaper_pair_of_sums():
    function, total = (dp_sgd(bounded=kind, rows=1, adjacency="replace_one") for kind in ("function", "sum"))
    assert epsilon([function], DELTA, "sound") > 1.5 * epsilon([total], DELTA, "sound")


def test_symmetric_pair_is_not_below_the_one_sided_pair_nor_above_the_revealed_draw():
    """One-sided composition of the mixture pair is a lower bound on any sound answer (add-or-remove's own pair)."""
    setting = dict(sampling="poisson", bounded="function", rate=0.01, rows=1, noise=1.0, max_uses=300)
    one_sided = epsilon([shard_query(**setting, adjacency="add_or_remove")], DELTA, "sound")
    symmetric = epsilon([shard_query(**setting)], DELTA, "sound")
    revealed = epsilon([shard_query(**setting | {"sampling": "one_shard_of_k"}, state="hidden")], DELTA, "sound")
    assert one_sided < symmetric < revealed


@pytest.mark.parametrize("noise, rate, steps", [(1.12, 0.01, 30304), (0.8, 0.005, 1000), (3.0, 0.1, 500)])
def test_dp_sgd_agrees_with_opacus(noise, rate, steps):
    opacus = PRVAccountant()
    opacus.history = [(noise, rate, steps)]
    cost = epsilon([dp_sgd(noise=noise, rate=rate, max_uses=steps)], DELTA, "sound")
    # Opacus reports the upper end of an interval 0.02 wide.
    assert cost == pytest.approx(opacus.get_epsilon(DELTA), abs=0.025)


def test_a_sum_of_drawn_shards_has_no_other_count_than_the_sound_one():
    drawn = dict(sampling="poisson", rate=0.03, state="hidden")
    release = shard_query(bounded="sum", rows=1000, noise=0.5, max_uses=50, **drawn)
    assert epsilon([release], DELTA, "published") == epsilon([release], DELTA, "sound")
    # Records that are drawn on their own have authors, who count as Opacus does.
    assert epsilon([dp_sgd()], DELTA, "published") != epsilon([dp_sgd()], DELTA, "sound")


def mixture(rate: float, point: np.ndarray, grid: np.ndarray) -> np.ndarray:
    """Density on a plane's grid [N, N, 2] of unit noise around the origin, or with chance `rate` around a point."""
    bells = [np.exp(-((grid - centre) ** 2).sum(-1) / 2) / (2 * math.pi) for centre in (np.zeros(2), point)]
    return (1 - rate) * bells[0] + rate * bells[1]


@pytest.mark.parametrize("rate, noise", [(0.3, 0.3), (0.032, 0.43), (0.05, 1.0), (0.5, 2.0)])
def test_the_ends_of_a_diameter_are_the_worst_answers_of_a_drawn_shard(rate, noise):
    """Two worlds' answers lie anywhere in a ball around the undrawn answer; three points lie in a plane."""
    radius = 1 / (2 * noise)
    # Symmetric, so that mirrored answers give the same sum.
    axis, step = np.linspace(-radius - 6, radius + 6, 301, retstep=True)
    grid = np.stack(np.meshgrid(axis, axis), axis=-1)
    angles, lengths = np.linspace(0, math.pi, 7), (0.0, 0.5, 1.0)
    first = mixture(rate, np.array([radius, 0.0]), grid)
    shorter = mixture(rate, np.array([radius / 2, 0.0]), grid)
    for eps in (0.0, 0.1, 0.5, 1.0, 3.0):

        def curve(p: np.ndarray, q: np.ndarray, eps: float = eps) -> float:
            return float(np.maximum(p - math.exp(eps) * q, 0).sum() * step**2)

        worst = curve(first, mixture(rate, np.array([-radius, 0.0]), grid))
        for angle in angles:
            for length in lengths:
                other = mixture(rate, length * radius * np.array([math.cos(angle), math.sin(angle)]), grid)
                found = [curve(p, other) for p in (first, shorter)] + [curve(other, p) for p in (first, shorter)]
                assert max(found) <= worst * (1 + 1e-9) + 1e-9


QUICK = Path(__file__).parents[2] / "workflow/config/quick.yaml"


@pytest.mark.parametrize("epsilon_", [1.0, 10.0])
@pytest.mark.parametrize("method", ["dp_cgan", "dpgan"])
def test_the_plans_of_dp_sgd_methods_cost_what_opacus_says(method, epsilon_):
    """At the settings of preset quick, the noise that `plan` finds, read from the release as DP-SGD reads it."""
    public = PublicSpec("mnist", (1, 28, 28), 10, 60_000)
    chosen = yaml.safe_load(QUICK.read_text())["methods"][method]
    hyper = registry.hyper(method, {name: value for name, value in chosen.items() if not name.startswith("chosen_")})
    (release,) = registry.load(method).plan(hyper, public, Budget(epsilon_, DELTA, "sound"))
    opacus = PRVAccountant()
    # Opacus: noise of standard deviation multiplier * clip on a sum of clipped gradients.
    opacus.history = [(release.scale / hyper.clip, hyper.batch_size / public.num_train, hyper.steps)]
    expected = opacus.get_epsilon(DELTA)
    assert epsilon([release], DELTA, "sound") == pytest.approx(expected, abs=0.025)
    assert expected == pytest.approx(epsilon_, abs=0.03)


def test_gaussians_without_a_draw_compose_as_one():
    parts = [all_records(name="a", noise=3.0), all_records(name="b", noise=4.0, adjacency="replace_one")]
    assert epsilon(parts, DELTA, "sound") == pytest.approx(epsilon([all_records(noise=2.4)], DELTA, "sound"), rel=1e-9)


def test_mixed_plans_compose_to_more_than_each_part_and_less_than_their_sum():
    parts = [all_records(noise=2.0), shard_query(name="shards", noise=8.0, max_uses=5000)]
    alone = [epsilon([part], DELTA, "sound") for part in parts]
    halves = [epsilon([part], DELTA / 2, "sound") for part in parts]
    assert max(alone) < epsilon(parts, DELTA, "sound") < sum(halves)


def test_pure_laplace_composition_is_below_basic_composition():
    release = shard_query(kind="laplace", bounded="sum", sampling="all", rate=1.0, noise=50.0, max_uses=400)
    assert epsilon([release.used(1)], 1e-12, "sound") == pytest.approx(1 / 50, rel=0.01)
    assert epsilon([release], DELTA, "sound") < 0.5 * 400 / 50


@pytest.mark.parametrize("accounting", ["published", "sound"])
@pytest.mark.parametrize("changes", [dict(kind="laplace"), dict(kind="gaussian"), dict(bounded="votes")])
def test_each_answer_of_a_use_costs_a_use(changes, accounting):
    many = epsilon([all_records(**changes, noise=20.0, answers=6, max_uses=5)], DELTA, accounting)
    assert many == epsilon([all_records(**changes, noise=20.0, max_uses=30)], DELTA, accounting)
    assert many > epsilon([all_records(**changes, noise=20.0, max_uses=5)], DELTA, accounting)


def test_published_count_of_teachers_is_the_authors():
    # DataLens on MNIST: sigma 800 at k 300 lasts for 1,643 images (rdp_utils.py).
    datalens = dict(noise=800 / (2 * math.sqrt(300)), clip=math.sqrt(300))
    costs = [epsilon([all_records(**datalens, answers=n, max_uses=1)], DELTA, "published") for n in (1643, 1660)]
    assert costs[0] == pytest.approx(10, abs=0.02) and costs[0] < 10 < costs[1]
    # As its authors convert; 54 steps of 30 images.
    cost = epsilon([all_records(**datalens, answers=30, max_uses=54)], DELTA, "published")
    assert cost == pytest.approx(9.913, abs=0.005)
    # PATE-GAN at lambda 1e-3 and epsilon 10: 2,407 generator steps of 320 queries.
    pate_gan = dict(kind="laplace", clip=0.5, noise=1e3, answers=320)
    costs = [epsilon([all_records(**pate_gan, max_uses=n)], DELTA, "published") for n in (2407, 2420)]
    assert costs[0] == pytest.approx(10, abs=0.01) and costs[0] < 10 < costs[1]


def test_orders_whose_series_does_not_converge_are_passed_over_without_a_warning(caplog):
    assert 0 < epsilon([dp_sgd(rate=0.017067, noise=0.5, max_uses=100)], DELTA, "published") < math.inf
    assert not caplog.records


@pytest.mark.parametrize("accounting", ["published", "sound"])
def test_unused_releases_are_free_and_noiseless_ones_cost_everything(accounting):
    assert epsilon([dp_sgd(max_uses=0)], DELTA, accounting) == 0
    assert epsilon([dp_sgd(noise=0.0)], DELTA, accounting) == math.inf
    assert epsilon([dp_sgd(kind="none")], DELTA, accounting) == math.inf


def test_where_no_sound_bound_is_known_none_is_invented():
    with pytest.raises(UserError, match="Laplace"):
        epsilon([dp_sgd(kind="laplace")], DELTA, "sound")
    with pytest.raises(UserError, match="adjacenc"):
        epsilon([dp_sgd(), all_records(name="other")], DELTA, "sound")
    with pytest.raises(UserError, match="published, sound"):
        epsilon([dp_sgd()], DELTA, "exact")


@pytest.mark.parametrize("make", [shard_query, dp_sgd, all_records])
@pytest.mark.parametrize("accounting", ["published", "sound"])
def test_calibrated_noise_fits_the_budget_and_less_would_not(make, accounting):
    budget = Budget(3.0, DELTA, accounting)
    noise = calibrate(lambda noise: (make(noise=noise),), budget)
    assert epsilon([make(noise=noise)], DELTA, accounting) <= 3.0
    assert epsilon([make(noise=noise * 0.998)], DELTA, accounting) > 3.0


def test_calibration_knows_the_classical_answers():
    assert calibrate(lambda noise: (all_records(noise=noise),), Budget(1.0, DELTA, "sound")) == pytest.approx(
        3.73063, rel=2e-3
    )
    assert calibrate(lambda noise: (shard_query(noise=noise),), Budget(10.0, DELTA, "published")) == pytest.approx(
        1.07, rel=2e-3
    )


def test_a_budget_no_noise_can_meet_is_refused():
    with pytest.raises(UserError, match="no noise fits"):
        calibrate(lambda noise: (all_records(noise=0.1),), Budget(1.0, DELTA, "sound"))


@pytest.mark.parametrize(
    "epsilon_, delta, accounting",
    [(0, DELTA, "sound"), (-1, DELTA, "sound"), (math.nan, DELTA, "sound"), (1, 0, "sound"), (1, 1, "published"),
     (math.inf, DELTA, "sound"), (1, DELTA, "none"), (1, DELTA, "rdp")],
)  # fmt: skip
def test_senseless_budgets_are_refused(epsilon_, delta, accounting):
    with pytest.raises(UserError):
        Budget(epsilon_, delta, accounting)


@pytest.mark.parametrize(
    "changes",
    [dict(kind="gauss"), dict(bounded="rows"), dict(sampling="shuffle"), dict(clip=0.0), dict(clip=math.inf),
     dict(noise=-1.0), dict(noise=math.nan), dict(rows=0), dict(max_uses=-1), dict(rate=0.0), dict(rate=1.5),
     dict(sampling="all", rate=0.5), dict(bounded="sum", draws="per_row"), dict(state="secret"), dict(adjacency="x"),
     dict(rate=0.3), dict(answers=0), dict(answers=2), dict(bounded="sum", answers=2), dict(bounded="votes", clip=1.0),
     dict(bounded="votes", sampling="all", rate=1.0, clip=0.5),
     dict(bounded="votes", sampling="all", rate=1.0, kind="laplace")],
)  # fmt: skip
def test_senseless_releases_are_refused(changes):
    with pytest.raises(UserError):
        shard_query(**changes)
