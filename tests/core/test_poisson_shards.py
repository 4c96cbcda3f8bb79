"""Several Poisson-drawn shards answer a step: what is read, what one record can move, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from toys import CPU, TINY_DPAC, TINY_GAN, TOY, Recorder, toy_records

from methods.core import registry
from methods.core.accounting.calibration import epsilon
from methods.core.method import Context
from methods.core.partition import partition
from methods.core.privacy.grant import Grant
from methods.core.privacy.ledger import Ledger
from methods.core.privacy.private_data import PrivateData
from methods.core.release import NO_BUDGET, Budget
from methods.core.sharded import stacks
from methods.core.sharded.poisson_shards import FAKES_PER_CLASS, PoissonStep, shard_rng
from workflow.common.errors import UserError

SOUND = Budget(10.0, 1e-5, "sound")
SUMMED = {"shards_per_step": 2.0, "spectral_norm": False}


def settings(method: str, **overrides):
    return registry.hyper(method, (TINY_DPAC if method == "dpac" else TINY_GAN) | SUMMED | overrides)


def start(folder: Path, method: str, data: PrivateData, budget: Budget = SOUND, **overrides):
    hp = settings(method, **overrides)
    releases = registry.load(method).plan(hp, TOY, budget)
    made = registry.load(method)(hp, Context(TOY, releases, 0, CPU))
    ledger = Ledger.open(folder / "ledger.jsonl", releases, budget, noise_key=b"1")
    made.prepare(data, ledger, None)
    return made, ledger


def row_of(drawn: torch.Tensor) -> dict[int, int]:
    """Returns at which row of a step's sum each drawn shard stands."""
    order = [shard for stack in stacks.at_once(drawn, CPU) for shard in stack.numbers[stack.places].tolist()]
    return {shard: row for row, shard in enumerate(order)}


class Rows:
    """Takes the place of the sanitised sum: keeps each step's rows as they came, and answers with their plain sum."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps: list[torch.Tensor] = []
        keep = self.steps

        def plain(grant: Grant, chunks, width: int, device=None) -> torch.Tensor:
            rows = torch.cat([torch.zeros(0, width), *chunks])
            keep.append(rows)
            return rows.sum(0)

        monkeypatch.setattr(Grant, "sum", plain)


@pytest.mark.parametrize("method", ["gs_wgan", "dpac"])
def test_the_plan_is_one_sum_of_poisson_drawn_shards_at_a_sound_epsilon(method):
    (release,) = registry.load(method).plan(settings(method), TOY, SOUND)
    assert (release.bounded, release.sampling, release.state) == ("sum", "poisson", "hidden")
    assert release.rate == 2 / 6 and release.rows == 6 and release.max_uses == 4
    # The gradients of all three images are one row, in the ball that holds three rows of norm 1.
    assert release.clip == pytest.approx(math.sqrt(3))
    assert 9.9 < epsilon([release], 1e-5, "sound") <= 10


def test_at_the_published_size_several_shards_need_less_noise_than_the_loop_as_released():
    """The paper's K, T and B at a sound epsilon 10, in units of what one expected shard adds to the sum."""
    size = {"num_shards": 1000, "steps": 20000, "batch_size": 32}
    public = registry.load("gs_wgan")
    one = public.plan(registry.hyper("gs_wgan", size), _mnist(), SOUND)[0]
    many = public.plan(settings("gs_wgan", **size, shards_per_step=16.0), _mnist(), SOUND)[0]
    # One shard's whole row against the noise: clip per image 1, so sqrt(32) in all; 16 shards add up.
    of_one = math.sqrt(32) * one.clip / one.scale
    of_many = 16 * many.clip / many.scale
    assert of_many > 25 * of_one


@pytest.fixture
def grant(tmp_path):
    ledger = Ledger.open(tmp_path / "other.jsonl", (), NO_BUDGET)
    with ledger, ledger.internal("test") as opened:
        yield opened


def _mnist():
    return type(TOY)("mnist", (1, 28, 28), 10, 60_000)


@pytest.mark.parametrize("method", ["gs_wgan", "dpac"])
def test_a_step_reads_the_drawn_shards_alone_and_charges_one_use(tmp_path, method, monkeypatch):
    drawn = []
    draw = Grant.poisson_batch
    monkeypatch.setattr(Grant, "poisson_batch", lambda self, count: drawn.append(draw(self, count)) or drawn[-1])
    data = Recorder(toy_records())
    made, ledger = start(tmp_path, method, data)
    for t in range(4):
        data.seen = set()
        made.step(t, data, ledger)
        assert data.seen <= set(made.mechanism.shards[drawn[-1]].flatten().tolist())
        assert bool(data.seen) == bool(len(drawn[-1]))
        assert ledger.uses("image_gradient") == t + 1
    assert len({len(draw) for draw in drawn}) > 1


@pytest.mark.parametrize("method", ["gs_wgan", "dpac"])
def test_a_record_moves_the_row_of_its_shard_and_no_other_in_every_step(tmp_path, method, monkeypatch):
    """With the same answers, so the same generator: what a step's critics remember is their own shards' records."""
    shard, rows = 4, []
    changed = int(partition(60, 6, seed=0)[shard, 0])
    answer = torch.ones(3 * 784) / 28
    drawn = []
    draw = Grant.poisson_batch
    monkeypatch.setattr(Grant, "poisson_batch", lambda self, count: drawn.append(draw(self, count)) or drawn[-1])
    for name, data in (("a", toy_records()), ("b", toy_records(changed))):
        kept = []
        monkeypatch.setattr(
            Grant, "sum", lambda self, chunks, width, device, kept=kept: kept.append(list(chunks)) or answer
        )
        made, ledger = start(tmp_path / name, method, data, steps=6, shards_per_step=4.0, critic_batch=10)
        for t in range(6):
            made.step(t, data, ledger)
        rows.append([torch.cat(step) if step else torch.zeros(0, 3 * 784) for step in kept])
    visited = 0
    for draws, before, after in zip(drawn[:6], *rows, strict=True):
        for one, place in row_of(draws).items():
            moved = not torch.allclose(before[place], after[place], rtol=1e-3, atol=1e-6)
            assert moved == (one == shard)
            visited += one == shard
    assert visited > 1


@pytest.mark.parametrize("method", ["gs_wgan", "dpac"])
def test_neighbours_move_the_answer_by_no_more_than_the_declared_bound(tmp_path, method, monkeypatch, grant):
    """The real grant, with the noise that both runs share."""
    shard = 3
    extreme = toy_records()
    images = extreme.read(grant, torch.arange(60))[0].clone()
    images[partition(60, 6, seed=0)[shard]] = 255
    answers, real = [], Grant.sum
    monkeypatch.setattr(Grant, "sum", lambda *given: answers.append(real(*given)) or answers[-1])
    for name, data in (("a", toy_records()), ("b", PrivateData(images, torch.arange(60) % 10))):
        made, ledger = start(tmp_path / name, method, data, shards_per_step=5.5, clip=0.05)
        made.step(0, data, ledger)
    distance = float((answers[0] - answers[1]).norm())
    (release,) = made.context.releases
    assert 0 < distance <= release.sensitivity * 1.001


def test_the_worst_critic_moves_the_answer_by_the_declared_bound_exactly(tmp_path, monkeypatch):
    """One shard's critic turns round, with gradients far above the clip: the bound is met, so half of it would fail."""
    monkeypatch.setattr(Grant, "poisson_batch", lambda self, count: torch.arange(count))
    answers, real = [], Grant.sum
    monkeypatch.setattr(Grant, "sum", lambda *given: answers.append(real(*given)) or answers[-1])
    for name, turned in (("a", 1.0), ("b", -1.0)):
        made, ledger = start(tmp_path / name, "gs_wgan", toy_records())
        sides = torch.ones(6, 1, 1, 1, 1)
        sides[2] = turned
        made.shard_gradients = lambda t, critics, fakes, labels, step, sides=sides: 1e3 * sides * torch.ones_like(fakes)
        made.step(0, toy_records(), ledger)
    (release,) = made.context.releases
    # Six clips of sqrt(3) in single precision, beside noise of the same size.
    assert float((answers[0] - answers[1]).norm()) == pytest.approx(2 * math.sqrt(3) * made.hp.clip, rel=1e-4)
    assert release.sensitivity == pytest.approx(2 * math.sqrt(3) * made.hp.clip)


def test_an_empty_draw_still_answers_with_noise(tmp_path, monkeypatch):
    monkeypatch.setattr(Grant, "poisson_batch", lambda self, count: torch.zeros(0, dtype=torch.int64))
    data = Recorder(toy_records())
    made, ledger = start(tmp_path, "gs_wgan", data, batch_size=50)
    norm = made.step(0, data, ledger)["noisy_gradient_norm"]
    assert not data.seen
    # An image's share of the noise, once the sum is divided by the two shards expected.
    assert norm == pytest.approx(made.context.releases[0].scale / 2 * 28, rel=0.05)


def test_the_mean_gradient_is_by_the_expected_number_of_shards(tmp_path, monkeypatch):
    rows = Rows(monkeypatch)
    made, ledger = start(tmp_path, "gs_wgan", toy_records(), shards_per_step=5.9)
    seen = made.step(0, toy_records(), ledger)["noisy_gradient_norm"]
    (step,) = rows.steps
    assert seen == pytest.approx(float((step.sum(0) / 5.9).view(3, -1).norm(dim=1).mean()), rel=1e-5)


def test_a_critic_batch_holds_distinct_records_of_its_own_shard_with_fakes_of_their_labels(grant):
    images = torch.arange(60, dtype=torch.uint8).view(60, 1, 1, 1).expand(60, 1, 2, 2).contiguous()
    data = PrivateData(images, torch.arange(60) % 10)
    parts = partition(60, 6, seed=0)
    fakes = (torch.arange(10 * FAKES_PER_CLASS) % 10).float().view(-1, 1, 1, 1)
    rng = torch.Generator().manual_seed(0)
    rngs = [shard_rng(rng, shard) for shard in (5, 2)]
    shards = stacks.Stack(torch.tensor([5, 2]), torch.arange(2))
    step = PoissonStep(shards, parts[[5, 2]], data, grant, rngs, fakes)
    read, labels = step.read(4)
    assert read.shape == (2, 4, 1, 2, 2) and labels.shape == (2, 4)
    for place, shard in enumerate((5, 2)):
        which = (read[place, :, 0, 0, 0] * 255).round().long().tolist()
        assert len(set(which)) == 4 and set(which) <= set(parts[shard].tolist())
        assert labels[place].tolist() == [record % 10 for record in which]
    assert torch.equal(step.fakes_like(labels)[..., 0, 0, 0].long(), labels)
    assert step.read(99)[0].shape[1] == 10


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("method", ["gs_wgan", "dpac"])
@pytest.mark.parametrize(("drawn", "hidden"), [([0, 2, 3, 5], 2), ([0, 1, 2, 4], 0), ([1, 4], 4)])
def test_whether_a_shard_is_drawn_moves_no_bit_of_anothers_row(
    drawn, hidden, method, precision, tmp_path, monkeypatch
):  # fmt: skip
    """The sound count reveals the others' rows: nothing that they do may follow from the one that is hidden.

    Neither what they draw, nor the last bits of what they compute, of which learning makes other rows in a few steps.
    """
    found = {}
    for name, draws in (("with", drawn), ("without", [shard for shard in drawn if shard != hidden])):
        rows: list[torch.Tensor] = []
        # Nothing is answered, so that the generator is the same in both; the critics remember all they saw.
        monkeypatch.setattr(
            Grant, "sum", lambda grant, chunks, width, device=None, rows=rows: rows.append(torch.cat([*chunks]))
            or torch.zeros(width),
        )  # fmt: skip
        monkeypatch.setattr(Grant, "poisson_batch", lambda grant, count, draws=draws: torch.tensor(draws))
        others = {"classifier_start": 0} if method == "dpac" else {}
        # Of an odd number of channels, whose networks end amid a processor's vectors.
        settings_ = {"critic_steps": 2, "critic_width": 3, "precision": precision, **others}
        made, ledger = start(tmp_path / name, method, toy_records(), **settings_)
        for t in range(3):
            made.step(t, toy_records(), ledger)
        found[name] = [{shard: step[row] for shard, row in row_of(torch.tensor(draws)).items()} for step in rows]
    assert hidden in found["with"][0]
    for both, alone in zip(found["with"], found["without"], strict=True):
        for shard, row in alone.items():
            assert row.any() and torch.equal(both[shard], row)


def test_the_classifier_joins_at_its_step_and_adds_its_share(tmp_path, monkeypatch):
    rows = Rows(monkeypatch)
    shared = {"shards_per_step": 6.0, "critic_steps": 1}
    for name, start_at, weight in (("before", 9, 0.2), ("joined", 0, 0.2), ("alone", 0, 1.0)):
        made, ledger = start(
            tmp_path / name, "dpac", toy_records(), classifier_start=start_at, classifier_weight=weight,
            critic_weight=1 - weight, **shared,
        )  # fmt: skip
        made.step(0, toy_records(), ledger)
    critic, both, classifier = rows.steps
    torch.testing.assert_close(both, 0.8 * critic + 0.2 * classifier, rtol=1e-3, atol=1e-5)
    assert not torch.allclose(critic, classifier, atol=1e-2)


def test_a_new_classifier_sees_the_same_fakes_for_every_drawn_shard_of_a_step(tmp_path, monkeypatch):
    rows = Rows(monkeypatch)
    monkeypatch.setitem(stacks._AT_ONCE, "cpu", 2)
    made, ledger = start(
        tmp_path, "dpac", toy_records(), shards_per_step=6.0, classifier_start=0, r2g=False, critic_weight=0.0
    )
    made.step(0, toy_records(), ledger)
    (of_all_shards,) = rows.steps
    # Fakes alone taught it, so the shards' rows are one row.
    assert len(of_all_shards) == 6 and of_all_shards.any()
    torch.testing.assert_close(of_all_shards, of_all_shards[:1].expand(6, -1))


def test_without_init_a_drawn_shards_classifier_is_kept_and_no_other_shards(tmp_path, monkeypatch):
    monkeypatch.setattr(Grant, "poisson_batch", lambda self, count: torch.tensor([1, 4]))
    made, ledger = start(tmp_path, "dpac", toy_records(), fresh_classifier=False, classifier_real_steps=2)
    for t in range(2):
        made.step(t, toy_records(), ledger)
    # One update on fakes and two on records, in each of two steps.
    assert made.classifiers.state()["updates"].tolist() == [0, 6, 0, 0, 6, 0]


@pytest.mark.parametrize(("method", "kept"), [("gs_wgan", {}), ("dpac", {}), ("dpac", {"fresh_classifier": False})])
def test_a_restored_run_goes_on_as_the_straight_one(tmp_path, method, kept):
    data = toy_records()
    straight, ledger = start(tmp_path / "a", method, data, **kept)
    for t in range(2):
        straight.step(t, data, ledger)
    public = {name: value.clone() for name, value in straight.public_state().items()}
    torch.save(straight.private_state(), tmp_path / "state.pt")
    for t in (2, 3):
        straight.step(t, data, ledger)
    ledger.close()
    other, again = start(tmp_path / "b", method, data, **kept)
    for _ in range(2):
        with again.charge("image_gradient"):
            pass
    other.resume(data, again)
    other.load(public, torch.load(tmp_path / "state.pt"))
    for t in (2, 3):
        other.step(t, data, again)
    assert all(torch.equal(other.public_state()[name], value) for name, value in straight.public_state().items())


@pytest.mark.parametrize(
    ("method", "changes", "named"),
    [
        ("gs_wgan", {"warm_start_steps": 1}, "warm_start_steps"),
        ("gs_wgan", {"spectral_norm": True}, "spectral_norm"),
        ("gs_wgan", {"shards_per_step": 7.0}, "num_shards"),
        ("gs_wgan", {"shards_per_step": -1.0}, "shards_per_step"),
        ("dpac", {"mix_phases": True}, "two phases"),
        ("dpac", {"as_released": True}, "as_released"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(method, changes, named):
    with pytest.raises(UserError, match=named):
        registry.load(method).plan(settings(method, **changes), TOY, SOUND)
