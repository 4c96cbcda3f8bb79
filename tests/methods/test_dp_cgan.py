"""DP-CGAN: what its discriminator step reads, and what must not depend on a private batch."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from opacus.accountants import PRVAccountant
from toys import without_noise

from methods.core import registry
from methods.core.method import Context
from methods.core.privacy.grant import Grant
from methods.core.privacy.ledger import BudgetExhausted, Ledger
from methods.core.privacy.private_data import PrivateData
from methods.core.release import Budget, PublicSpec
from methods.core.rng import named_rng
from methods.dp_cgan import DPCGAN
from workflow.common.errors import UserError

FREE = Budget(math.inf, 1e-5, "none")
PUBLIC = PublicSpec("toy", (1, 28, 28), 10, 60)
# The discriminator stays what it is, whatever the data are: a few free steps could end with every hidden unit at zero.
FROZEN = {"learning_rate": 0.0, "learning_rate_end": 0.0}


def records(seed: int = 0) -> PrivateData:
    rng = named_rng(seed, "records")
    images = torch.randint(256, (60, 1, 28, 28), generator=rng).to(torch.uint8)
    return PrivateData(images, torch.randint(10, (60,), generator=rng))


def build(budget: Budget = FREE, public: PublicSpec = PUBLIC, **overrides: object) -> DPCGAN:
    hp = registry.hyper("dp_cgan", {"steps": 4, "batch_size": 6, "hidden": 8, **overrides})
    return DPCGAN(hp, Context(public, DPCGAN.plan(hp, public, budget), 0, torch.device("cpu")))


def trained(method: DPCGAN, data: PrivateData, folder: Path, budget: Budget = FREE) -> DPCGAN:
    with Ledger.open(folder / "ledger.jsonl", method.context.releases, budget) as ledger:
        for t in range(method.num_steps):
            method.step(t, data, ledger)
    return method


def test_each_step_is_one_use_and_the_ledger_stops_it(tmp_path: Path) -> None:
    budget = Budget(10.0, 1e-5, "published")
    method, data = build(budget), records()
    with Ledger.open(tmp_path / "ledger.jsonl", method.context.releases, budget) as ledger:
        for t in range(method.num_steps):
            method.step(t, data, ledger)
            assert ledger.uses("discriminator_gradient") == t + 1
        with pytest.raises(BudgetExhausted):
            method.step(method.num_steps, data, ledger)


def test_the_noise_agrees_with_opacus_own_accountant() -> None:
    public = PublicSpec("mnist", (1, 28, 28), 10, 60000)
    hp = registry.hyper("dp_cgan", {"steps": 3000, "batch_size": 600})
    (release,) = DPCGAN.plan(hp, public, Budget(10.0, 1e-5, "sound"))
    accountant = PRVAccountant()
    accountant.history = [(release.noise, release.rate, release.max_uses)]
    assert release.rate == 0.01
    assert accountant.get_epsilon(1e-5) == pytest.approx(10.0, rel=0.01)


class Recorder:
    """Stands in for PrivateData: remembers each batch, and can leave one record out of it."""

    def __init__(self, data: PrivateData, without: int | None = None) -> None:
        self.data, self.without, self.batches = data, without, []

    def __len__(self) -> int:
        return len(self.data)

    def read(self, grant: object, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.batches.append(index.tolist())
        return self.data.read(grant, index if self.without is None else index[index != self.without])


def test_each_record_joins_a_batch_at_the_rate_that_the_plan_declares(tmp_path: Path) -> None:
    method, data = build(steps=400, hidden=2), Recorder(records())
    (release,) = method.context.releases
    trained(method, data, tmp_path)
    assert all(len(batch) == len(set(batch)) for batch in data.batches)
    # Sizes sum to Bin(400 * 60, rate): standard deviation 46 at rate 0.1.
    assert sum(map(len, data.batches)) == pytest.approx(400 * 60 * release.rate, abs=4 * 46)
    assert release.rate == 0.1


@pytest.mark.parametrize("drawn", [[5, 59], [], list(range(31))])
def test_a_step_reads_the_batch_that_its_grant_draws_whatever_its_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drawn: list[int]
) -> None:
    monkeypatch.setattr(Grant, "poisson_batch", lambda self, count: torch.tensor(drawn, dtype=torch.int64))
    data = Recorder(records())
    trained(build(steps=1), data, tmp_path)
    assert data.batches == [drawn]


@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_fakes_have_uniform_labels(ema: float) -> None:
    method = build(public=PublicSpec("toy", (1, 28, 28), 10, 2000), batch_size=2000, ema=ema)
    counts = method._fakes(named_rng(0, "draws"))[:, -10:].sum(0)
    # Five standard deviations of a count of 200.
    assert counts.sum() == 2000 and (counts - 200).abs().max() < 67


def test_one_record_moves_the_discriminator_by_at_most_the_declared_sensitivity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_noise(monkeypatch)
    budget = Budget(10.0, 1e-5, "sound")
    settings = {"steps": 1, "batch_size": 60, "clip": 0.01, "learning_rate": 1.0, "learning_rate_end": 1.0}
    states = []
    for name, without in (("all", None), ("less", 7)):
        method = build(budget, optimizer="sgd", **settings)
        (release,) = method.context.releases
        trained(method, Recorder(records(), without), tmp_path / name, budget)
        states.append(torch.cat([value.flatten() for value in method.private_state()["discriminator"].values()]))
    # A plain step of rate 1 moves by the sum over the expected batch; a gradient this large always meets its clip.
    moved = float((states[0] - states[1]).norm()) * 60
    assert moved == pytest.approx(release.sensitivity, rel=1e-3)


def test_a_generator_step_is_blind_to_the_private_batch(tmp_path: Path) -> None:
    one = trained(build(**FROZEN), records(0), tmp_path / "a").public_state()
    other = trained(build(**FROZEN), records(1), tmp_path / "b").public_state()
    before = build(**FROZEN).public_state()
    assert all(torch.equal(one[key], other[key]) for key in one)
    assert any(not torch.equal(one[key], before[key]) for key in one)


def test_the_discriminator_learns_from_the_private_batch(tmp_path: Path) -> None:
    one = trained(build(), records(0), tmp_path / "a").private_state()["discriminator"]
    other = trained(build(), records(1), tmp_path / "b").private_state()["discriminator"]
    assert any(not torch.equal(one[key], other[key]) for key in one)


def test_the_generator_waits_for_its_turn(tmp_path: Path) -> None:
    start = build(generator_every=3).public_state()
    method, data = build(generator_every=3, **FROZEN), records()
    with Ledger.open(tmp_path / "ledger.jsonl", method.context.releases, FREE) as ledger:
        moved = []
        for t in range(4):
            method.step(t, data, ledger)
            moved.append(any(not torch.equal(start[key], value) for key, value in method.public_state().items()))
    assert moved == [False, False, True, True]


def test_the_average_is_what_is_sampled(tmp_path: Path) -> None:
    method = trained(build(ema=0.5, **FROZEN), records(), tmp_path)
    average, last = method.public_state(), method.private_state()["generator"]
    assert average.keys() == last.keys()
    assert any(not torch.equal(average[key], last[key]) for key in average)


def test_an_empty_poisson_batch_makes_a_noisy_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    public = PublicSpec("toy", (1, 28, 28), 10, 60)
    budget = Budget(10.0, 1e-5, "published")
    hp = registry.hyper("dp_cgan", {"steps": 2, "batch_size": 1, "hidden": 8})
    (release,) = DPCGAN.plan(hp, public, budget)
    method = DPCGAN(hp, Context(public, (release,), 0, torch.device("cpu")))
    monkeypatch.setattr(Grant, "poisson_batch", lambda self, count: torch.zeros(0, dtype=torch.int64))
    before = {key: value.clone() for key, value in method.private_state()["discriminator"].items()}
    with Ledger.open(tmp_path / "ledger.jsonl", (release,), budget) as ledger:
        method.step(0, records(), ledger)
        assert ledger.uses(release.name) == 1
    assert all(not torch.equal(before[key], value) for key, value in method.private_state()["discriminator"].items())


def test_an_unknown_optimizer_is_refused() -> None:
    with pytest.raises(UserError, match="optimizer must be sgd or adam, got"):
        build(optimizer="rmsprop")


@pytest.mark.parametrize(
    ("field", "value"),
    [("steps", 0), ("batch_size", 0), ("clip", 0.0), ("generator_every", 0), ("learning_rate", -0.1), ("ema", 7.0)],
)
def test_a_setting_out_of_range_is_refused(field: str, value: float) -> None:
    with pytest.raises(UserError, match=rf"dp_cgan\.{field} must be .*, got {value}"):
        build(**{field: value})


def test_the_discriminator_is_told_which_rows_are_records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method, data, seen = build(), records(), []
    monkeypatch.setattr(method._private, "step", lambda grant, losses, rows: seen.append(rows))
    with Ledger.open(tmp_path / "ledger.jsonl", method.context.releases, FREE) as ledger, ledger.internal("a") as grant:
        known = {tuple(image.flatten().tolist()) for image in data.read(grant, range(len(data)))[0]}
        method.step(0, data, ledger)
    (rows,) = seen
    pixels = (rows[:, : len(next(iter(known)))] * 255).round().int()
    assert [tuple(row.tolist()) in known for row in pixels] == (rows[:, -1] == 1).tolist()
    assert 0 < rows[:, -1].sum() < len(rows)
