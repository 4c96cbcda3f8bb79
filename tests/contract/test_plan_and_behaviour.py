"""What a run does is what its plan declares, and what it releases is a function of granted answers alone.

Every grant of a short run of every method is recorded: what it drew, what was read under it, what it was asked and what
it answered. All draws come from fixed keys, so a statistical test gives the same verdict each time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import harness
import pytest
import torch
from recorded_runs import CASES, NAMES, SPEC, differences, neighbour, read_by, replayed, run
from scipy import stats
from tape import Tape, Use

from methods.core import registry
from methods.core.accounting.calibration import check_plan, epsilon
from methods.core.privacy.grant import Grant
from methods.core.privacy.ledger import Ledger
from methods.core.release import NO_BUDGET, Budget, Release
from workflow.common.errors import UserError

# The chance that honest code fails one statistical test; another seed is not needed, as the draws are fixed.
DOUBT = 1e-4
NUMBERS = 5000
USES = 1000


@pytest.fixture(scope="module", params=CASES, ids=NAMES)
def case(request: pytest.FixtureRequest) -> tuple[str, dict]:
    """A method and settings that differ from the smallest."""
    return request.param


@pytest.fixture(scope="module")
def recorded(case: tuple[str, dict], tmp_path_factory: pytest.TempPathFactory) -> harness.Run:
    """A finished run and its tape; tests only read it."""
    return run(case, tmp_path_factory.mktemp("recorded"))


def first_uses(one: harness.Run) -> Iterator[Use]:
    """Yields the first recorded use of each release."""
    for release in one.releases:
        yield next(use for use in one.tape.uses if use.release.name == release.name)


@pytest.fixture
def ledger(recorded: harness.Run, tmp_path: Path) -> Iterator[Ledger]:
    """A ledger of the run's releases, each with many uses."""
    # Many more than are used: a ledger waits for the disk once in half a percent of them.
    lasting = [release.used(300 * USES) for release in recorded.releases]
    with Ledger.open(tmp_path / "ledger.jsonl", lasting, NO_BUDGET, noise_key=b"many uses") as many:
        yield many


# The release is a function of the answers.


@pytest.mark.parametrize("turns", ["dark", "bright"])
def test_log_and_generator_are_functions_of_the_answers(
    recorded: harness.Run, case: tuple[str, dict], turns: str, tmp_path: Path
) -> None:
    other = replayed(recorded, case, tmp_path, turns)
    # The draws are others indeed, or nothing would be shown.
    drawn = [[use.drawn[0][1].tolist() for use in one.tape.uses if use.drawn] for one in (recorded, other)]
    assert drawn[0] != drawn[1] or all(release.rate == 1 for release in recorded.releases), "draws are not the grant's"
    assert len(other.tape.uses) == len(recorded.tape.uses)
    assert differences(recorded, other) == []
    if all(release.sampling == "all" for release in recorded.releases):
        # Whose records a teacher has, for one, follows from public values.
        assert other.tape.batches == recorded.tape.batches, "which records are read follows from the records"


# What a replay must find, put into methods that are clean: a number computed from records on its way into the log.


def with_the_size_of_its_batch(cls: type) -> type:
    class Mutant(cls):
        def step(self, t, data, ledger):
            sizes = []

            class Counting:
                def __len__(self):
                    return len(data)

                def read(self, grant, index):
                    sizes.append(len(index))
                    return data.read(grant, index)

            return super().step(t, Counting(), ledger) | {"batch": float(sum(sizes))}

    return Mutant


def with_the_norm_without_noise(cls: type) -> type:
    class Mutant(cls):
        def step(self, t, data, ledger):
            with pytest.MonkeyPatch.context() as patch:
                norms = []
                whole = Grant._noisy

                def noisy(grant, answer):
                    norms.append(float(answer.norm()))
                    return whole(grant, answer)

                patch.setattr(Grant, "_noisy", noisy)
                return super().step(t, data, ledger) | {"gradient_norm": norms[0]}

    return Mutant


@pytest.mark.parametrize("name", ["dp_cgan", "dp_sinkhorn", "gs_wgan"])
@pytest.mark.parametrize("mutate", [with_the_size_of_its_batch, with_the_norm_without_noise])
def test_a_number_computed_from_records_in_the_log_is_found(name, mutate, tmp_path, monkeypatch) -> None:
    case = (name, harness.SOUND if name == "gs_wgan" else {})
    mutant = mutate(registry.load(name))
    monkeypatch.setattr(registry, "load", lambda _: mutant)
    recorded = run(case, tmp_path / "one")
    assert any("log" in found for found in differences(recorded, replayed(recorded, case, tmp_path / "two")))


# A use is what the plan says.


def test_every_use_of_the_plan_is_used_and_answers_once(recorded: harness.Run) -> None:
    for release in recorded.releases:
        uses = [use for use in recorded.tape.uses if use.release.name == release.name]
        assert len(uses) == release.max_uses
        assert all(use.release == release and len(use.asked) == 1 for use in uses)


def test_no_use_has_more_rows_than_the_plan_says_and_rows_that_cost_are_all_used(recorded: harness.Run) -> None:
    for release in recorded.releases:
        counts = [len(use.rows) for use in recorded.tape.uses if use.release == release and use.rows is not None]
        assert all(count <= release.rows for count in counts)
        assert release.bounded != "function" or max(counts) == release.rows


def test_a_use_draws_once_from_all_units_or_not_at_all(recorded: harness.Run) -> None:
    for use in recorded.tape.uses:
        release = use.release
        if release.sampling == "all":
            assert all(units == 1 for units, _ in use.drawn)
            continue
        assert release.draws == "per_step", "a grant draws once a use, and all its rows come from that"
        assert len(use.drawn) == 1, f"a use of {release.name} asks grant.poisson_batch or grant.shard once, as declared"
        ((units, _),) = use.drawn
        whole = {SPEC.num_train} | ({release.rows} if release.bounded == "sum" else set())
        assert units in whole if release.sampling == "poisson" else units == round(1 / release.rate)


def draws_records(use: Use) -> bool:
    """Returns whether what a use draws are records, and not shards."""
    return use.release.sampling == "poisson" and use.drawn[0][0] == SPEC.num_train


def test_a_use_reads_the_records_that_it_drew_all_of_them_and_once(recorded: harness.Run) -> None:
    for use in recorded.tape.uses:
        if use.drawn and draws_records(use):
            # All of them, too: were some left out for others' sake, one record would move others' rows.
            assert read_by(use) == set(use.drawn[0][1].tolist()) and sum(map(len, use.read)) == len(read_by(use))


@pytest.fixture(scope="module")
def forced(recorded: harness.Run, case: tuple[str, dict], tmp_path_factory: pytest.TempPathFactory) -> dict:
    """The first uses that draw, of runs that draw no unit, the first or the last alone, by these names."""
    drawn = {"none": lambda units: torch.arange(0), "first": lambda units: torch.tensor([0]),
             "last": lambda units: torch.tensor([units - 1])}  # fmt: skip
    samplings = {release.sampling for release in recorded.releases} - {"all"}
    names = {"poisson": drawn.keys(), "one_shard_of_k": drawn.keys() - {"none"}}.get("".join(samplings), set())
    before = next((number for number, use in enumerate(recorded.tape.uses) if use.drawn), 0)
    folder = tmp_path_factory.mktemp("forced")
    tapes = {name: Tape(stop_after=before + 2, draw=drawn[name]) for name in names}
    return {name: run(case, folder / name, tape=tape).tape.uses[before:] for name, tape in tapes.items()}


def test_what_a_use_reads_follows_its_draw_wherever_that_falls(forced: dict) -> None:
    for use in forced.get("none", ()):
        assert read_by(use) == set() and use.answer is not None
    for first, last in zip(forced.get("first", ()), forced.get("last", ()), strict=True):
        if draws_records(first):
            assert (read_by(first), read_by(last)) == ({0}, {SPEC.num_train - 1})
            continue
        # Which shard has which records is the method's business, but no record has two.
        assert read_by(first) and read_by(last) and not read_by(first) & read_by(last)


def test_draws_follow_the_declared_rate(recorded: harness.Run, ledger: Ledger) -> None:
    for use in first_uses(recorded):
        release = use.release
        if release.sampling == "all":
            continue
        ((units, _),) = use.drawn
        counts, sizes = torch.zeros(units), []
        for _ in range(USES):
            with ledger.charge(release.name) as grant:
                poisson = release.sampling == "poisson"
                drawn = grant.poisson_batch(units) if poisson else torch.tensor([grant.shard()])
            counts[drawn] += 1
            sizes.append(len(drawn))
        expected, rate = USES * release.rate, release.rate
        deviation = (USES * units * rate * (1 - rate)) ** 0.5
        assert release.sampling != "poisson" or abs(float(counts.sum()) - units * expected) < 4 * deviation
        spread = counts.double().sub(expected).square().sum() / (expected * (1 - rate))
        # Of one shard of K the counts have K - 1 degrees of freedom, and a variance without the factor 1 - 1 / K.
        freedom = units if release.sampling == "poisson" else units - 1
        spread = spread if release.sampling == "poisson" else spread * (1 - rate)
        assert DOUBT < stats.chi2.cdf(float(spread), freedom) < 1 - DOUBT
        if release.sampling == "poisson":
            sizes = torch.tensor(sizes).double()
            assert float(sizes.var()) == pytest.approx(units * rate * (1 - rate), rel=0.25)


# Noise and clip.


def residuals(use: Use, ledger: Ledger) -> torch.Tensor:
    """Returns at least NUMBERS units of noise: answers to the same question of one use after another, less the exact.

    [asked, entries] in units of the scale.
    """
    release, found = use.release, []
    while sum(map(torch.numel, found)) < NUMBERS:
        with ledger.charge(release.name) as grant:
            found.append((use.ask(grant).double() - use.exact.double()).flatten() / release.scale)
    return torch.stack(found)


def test_answers_carry_noise_of_the_declared_law_and_scale(recorded: harness.Run, ledger: Ledger) -> None:
    for use in first_uses(recorded):
        if use.release.kind == "none":
            assert torch.equal(use.answer, use.exact)
            continue
        noise = residuals(use, ledger)
        law = stats.norm if use.release.kind == "gaussian" else stats.laplace
        assert stats.kstest(noise.flatten().numpy()[:20_000], law.cdf).pvalue > DOUBT
        # Four standard deviations: of a square's mean, 2 / n of a normal number and 5 * 4 / n of a Laplace one.
        variance, slack = law.var(), 4 * (2 if law is stats.norm else 20) ** 0.5 / noise.numel() ** 0.5
        assert float(noise.square().mean()) == pytest.approx(variance, abs=slack)


def test_the_answers_of_a_run_carry_the_same_noise(recorded: harness.Run) -> None:
    noisy = [use for use in recorded.tape.uses if use.release.kind != "none"]
    if not noisy:
        return
    parts = [((use.answer.double() - use.exact.double()) / use.release.scale).flatten() for use in noisy]
    law = stats.norm if noisy[0].release.kind == "gaussian" else stats.laplace
    assert stats.kstest(torch.cat(parts).numpy()[:20_000], law.cdf).pvalue > DOUBT
    # No use repeats another's.
    assert len({tuple(part[:8].tolist()) for part in parts}) == len(parts)


def test_noise_of_one_use_says_nothing_of_anothers(recorded: harness.Run, ledger: Ledger) -> None:
    for use in first_uses(recorded):
        if use.release.kind != "none":
            with ledger.charge(use.release.name) as grant:
                one = (use.ask(grant).double() - use.exact.double()).flatten()
            with ledger.charge(use.release.name) as grant:
                other = (use.ask(grant).double() - use.exact.double()).flatten()
            assert not torch.equal(one, other)
            scale = use.release.scale**2 * (1 if use.release.kind == "gaussian" else 2) * len(one) ** 0.5
            assert abs(float(one @ other)) < 5 * scale


def clipped(release: Release, rows: torch.Tensor) -> torch.Tensor:
    """Returns rows [R, D] float64, each block of D / answers entries cut to the clip; a non-finite one is 0."""
    blocks = rows.double().reshape(len(rows) * release.answers, -1)
    blocks = torch.where(blocks.isfinite().all(1, keepdim=True), blocks, 0.0)
    norms = torch.linalg.vector_norm(blocks, 2 if release.kind == "gaussian" else 1, dim=1, keepdim=True)
    return (blocks * (release.clip / norms.clamp_min(1e-300)).clamp(max=1)).view(rows.shape)


def test_answers_are_those_of_rows_clipped_at_the_declared_bound(recorded: harness.Run) -> None:
    for use in recorded.tape.uses:
        release, rows = use.release, use.rows
        if rows is None or release.bounded == "votes" or release.kind == "none" or not len(rows):
            continue
        expected = clipped(release, rows)
        if release.bounded == "sum":
            expected = expected.sum(0)
        if release.bounded == "moments":
            outer = expected[:, :, None] * expected[:, None, :]
            expected = torch.stack([outer[use.classes == label].sum(0) for label in range(len(use.exact))])
            row, column = torch.triu_indices(*expected.shape[1:])
            expected = expected[:, row, column] * torch.where(row == column, 1.0, 2**0.5)
        tolerance = 3e-6 * release.clip * len(rows) + release.grid * len(rows)
        torch.testing.assert_close(use.exact.double().view(expected.shape), expected, rtol=0, atol=tolerance)


def exact_of(release: Release, rows: torch.Tensor, ledger: Ledger) -> torch.Tensor:
    """Returns what a grant makes of rows [1, D] before it adds noise."""
    tape = Tape()
    with tape.running(), ledger.charge(release.name) as grant:
        grant.rows(rows) if release.bounded == "function" else grant.sum([rows])
    return tape.uses[0].exact.double().flatten()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_row_beyond_the_clip_ends_at_it_and_one_within_stays_what_it_is(
    recorded: harness.Run, ledger: Ledger, dtype: torch.dtype
) -> None:
    for release in recorded.releases:
        if release.bounded in ("votes", "moments") or release.kind == "none":
            continue
        order, entries = (2 if release.kind == "gaussian" else 1), 24 * release.answers
        unit = torch.randn(1, entries, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        unit /= torch.linalg.vector_norm(unit.view(release.answers, -1), order, dim=1).max()
        for factor in (1.5, 40.0, 1e20):
            blocks = exact_of(release, (factor * release.clip * unit).to(dtype), ledger).view(release.answers, -1)
            norm = torch.linalg.vector_norm(blocks, order, dim=1)
            # Never above, whatever is rounded, and below by what no figure shows.
            assert float(norm.max()) <= release.clip
            assert float(norm.max()) >= release.clip * (1 - 3e-6) - release.grid * 5
        for factor in (0.3, 1 - 1e-5):
            row = (factor * release.clip * unit).to(dtype)
            found = exact_of(release, row, ledger)
            torch.testing.assert_close(found, row.double().flatten(), rtol=1e-15, atol=release.grid)


def moves(recorded: harness.Run, case: tuple[str, dict], folder: Path, attempt: int) -> bool:
    """Returns whether one record moves an answer of any release; by no more than its sensitivity, or a test fails."""
    moved = []
    for number, release in enumerate(recorded.releases):
        use, other = neighbour(recorded, case, folder / f"{attempt} {number}", release, attempt)
        blocks = release.rows if release.bounded == "function" else release.answers
        change = (use.exact.double() - other.double()).reshape(blocks, -1)
        norms = torch.linalg.vector_norm(change, 1 if release.kind == "laplace" else 2, dim=1)
        moved.append(float(norms.max()))
        assert moved[-1] <= release.sensitivity * (1 + 1e-6) + release.grid * change.shape[1] ** 0.5
    return max(moved) > 0


def test_one_record_moves_an_answer_by_at_most_the_declared_sensitivity(
    recorded: harness.Run, case: tuple[str, dict], tmp_path: Path
) -> None:
    if any(release.kind == "none" for release in recorded.releases):
        return
    # Of whole votes a record may change none.
    shown = any(moves(recorded, case, tmp_path, attempt) for attempt in range(8))
    assert shown, "nothing was shown: a step this small moves no answer; see harness.TINY"


def test_the_budget_check_knows_no_slack(recorded: harness.Run) -> None:
    if recorded.budget.accounting == "none" or recorded.budget.over_budget:
        return
    budget = recorded.budget
    cost = epsilon(recorded.releases, budget.delta, budget.accounting)
    check_plan(recorded.releases, dataclasses.replace(budget, epsilon=cost))
    with pytest.raises(UserError, match="over the budget"):
        check_plan(recorded.releases, Budget(cost * (1 - 1e-6), budget.delta, budget.accounting))
