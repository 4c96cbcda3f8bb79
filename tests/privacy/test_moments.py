"""Second moments by class: what they are, how far one record moves them, and how much noise they get."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from methods.core.accounting.calibration import calibrate, epsilon
from methods.core.privacy.grant import UnaccountedAccess
from methods.core.privacy.ledger import Ledger
from methods.core.privacy.moments import packed, second_moments, unpacked
from methods.core.release import NO_BUDGET, Budget, Release
from workflow.common.errors import UserError

CLASSES, WIDTH = 3, 4
RELEASE = Release(
    name="moments", kind="gaussian", clip=1.0, noise=0.0, bounded="moments", rows=1000, rate=1.0, sampling="all",
    max_uses=10**6,
)  # fmt: skip
ROOT_TWO = math.sqrt(2)


def drawn(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Random rows float64 [count, WIDTH], of which some are longer than 1, and their classes."""
    rng = torch.Generator().manual_seed(seed)
    return torch.randn(count, WIDTH, generator=rng).double(), torch.randint(CLASSES, (count,), generator=rng)


@pytest.fixture
def ask(tmp_path: Path):
    """Returns what a grant answers to rows and classes in chunks of two."""
    ledgers = {}

    def answer(rows: torch.Tensor, labels: torch.Tensor, release: Release = RELEASE) -> torch.Tensor:
        if release not in ledgers:
            path = tmp_path / f"{len(ledgers)}.jsonl"
            ledgers[release] = Ledger.open(path, [release], NO_BUDGET, noise_key=b"7")
        with ledgers[release].charge("moments") as grant:
            return grant.moments(zip(rows.split(2), labels.split(2), strict=True), CLASSES, WIDTH)

    yield answer
    for ledger in ledgers.values():
        ledger.close()


def test_packing_keeps_the_norm_and_is_undone_by_unpacking() -> None:
    one, two = (second_moments(*drawn(9, seed), CLASSES) for seed in (1, 2))
    assert packed(one).shape == (CLASSES, 10)
    assert float((packed(one) - packed(two)).norm()) == pytest.approx(float((one - two).norm()), rel=1e-12)
    torch.testing.assert_close(unpacked(packed(one)), one, rtol=1e-14, atol=0)


def test_the_answer_is_each_class_sum_of_outer_products_of_rows_cut_to_norm_one(ask) -> None:
    rows, labels = drawn(40)
    expected = torch.zeros(CLASSES, WIDTH, WIDTH, dtype=torch.float64)
    for row, label in zip(rows.tolist(), labels.tolist(), strict=True):
        cut = np.array(row) / max(1.0, float(np.linalg.norm(row)))
        expected[label] += torch.from_numpy(np.outer(cut, cut))
    torch.testing.assert_close(unpacked(ask(rows, labels)), expected, rtol=0, atol=1e-4)
    torch.testing.assert_close(unpacked(ask(1e25 * rows, labels)).diagonal(0, 1, 2).sum(1), labels.bincount().double(),
                               rtol=1e-5, atol=0)  # fmt: skip


def test_a_class_without_rows_answers_zero_and_so_do_no_rows_at_all(ask) -> None:
    rows, _ = drawn(3)
    found = ask(rows, torch.tensor([0, 0, 2]))
    assert (found[1] == 0).all() and (found[0] != 0).all()
    assert torch.equal(ask(rows[:0], torch.zeros(0, dtype=torch.int64)), torch.zeros(CLASSES, 10, dtype=torch.float64))


def moved(ask, before: tuple[torch.Tensor, int], after: tuple[torch.Tensor, int] | None, release=RELEASE) -> float:
    """How far the answer of five records and one more moves where that one is another, or missing."""
    rows, labels = drawn(5)

    def answer(record: tuple[torch.Tensor, int] | None) -> torch.Tensor:
        if record is None:
            return ask(rows, labels, release)
        return ask(torch.cat([rows, record[0][None]]), torch.cat([labels, torch.tensor([record[1]])]), release)

    return float((answer(before) - answer(after)).norm())


def vector(*values: float) -> torch.Tensor:
    return torch.tensor(values + (0.0,) * (WIDTH - len(values)), dtype=torch.float64)


ADVERSARIAL = {
    "unit": vector(1.0), "opposite": vector(-1.0), "orthogonal": vector(0.0, 1.0), "long": vector(1e6, -1e6),
    "longest": vector(1e300, 1e300), "inf": vector(math.inf, 1.0), "nan": vector(math.nan), "zero": vector(0.0),
    "short": vector(1e-30), "diagonal": vector(0.5, 0.5, 0.5, 0.5), "other diagonal": vector(0.5, -0.5, 0.5, -0.5),
}  # fmt: skip


@pytest.mark.parametrize("before", ADVERSARIAL)
def test_exchanging_a_record_for_an_adversarial_one_moves_at_most_root_two(ask, before: str) -> None:
    for after in ADVERSARIAL.values():
        for label in range(2):
            assert moved(ask, (ADVERSARIAL[before], 0), (after, label)) <= ROOT_TWO
        assert moved(ask, (after, 1), None) <= 1.0


@pytest.mark.parametrize("classes", ["one", "two"])
def test_a_search_for_the_worst_exchange_comes_to_root_two_and_not_beyond(ask, classes: str) -> None:
    """Steps at random from random pairs, each kept where the answer moves further."""
    rng = torch.Generator().manual_seed(11)
    other, found = (0 if classes == "one" else 1), []
    for _ in range(3):
        pair, best, size = 2 * torch.randn(2, WIDTH, generator=rng).double(), 0.0, 1.0
        for _ in range(100):
            tried = pair + size * torch.randn(2, WIDTH, generator=rng)
            far = moved(ask, (tried[0], 0), (tried[1], other))
            pair, best, size = (tried, far, size) if far > best else (pair, best, size * 0.97)
        found.append(best)
    assert max(found) <= ROOT_TWO == RELEASE.sensitivity
    assert min(found) >= 0.999 * ROOT_TWO


def test_adding_a_record_moves_the_answer_by_at_most_one(ask) -> None:
    release = dataclasses.replace(RELEASE, adjacency="add_or_remove")
    rng = torch.Generator().manual_seed(3)
    found = [moved(ask, (3 * torch.randn(WIDTH, generator=rng).double(), 1), None, release) for _ in range(50)]
    assert 0.999 <= max(found) <= 1.0 == release.sensitivity


@pytest.mark.parametrize(("adjacency", "sensitivity"), [("replace_one", ROOT_TWO), ("add_or_remove", 1.0)])
def test_every_packed_entry_has_noise_of_the_declared_scale(ask, adjacency: str, sensitivity: float) -> None:
    noise = 0.7
    noisy = dataclasses.replace(RELEASE, noise=noise, adjacency=adjacency)
    rows, labels = drawn(6)
    exact = ask(rows, labels)
    found = torch.stack([ask(rows, labels, noisy) - exact for _ in range(250)]).numpy() / (noise * sensitivity)
    assert stats.kstest(found.ravel(), "norm").pvalue > 1e-3
    # On and off the diagonal alike.
    assert found.std(0) == pytest.approx(np.ones((CLASSES, 10)), abs=0.22)


@pytest.mark.parametrize(("eps", "multiplier"), [(10.0, 0.49989), (1.0, 3.73063)])
def test_one_release_costs_the_exact_gaussian_noise(eps: float, multiplier: float) -> None:
    once = dataclasses.replace(RELEASE, max_uses=1)
    noise = calibrate(lambda noise: [dataclasses.replace(once, noise=noise)], Budget(eps, 1e-5, "sound"))
    assert noise == pytest.approx(multiplier, rel=1e-3)
    assert epsilon([dataclasses.replace(once, noise=multiplier)], 1e-5, "sound") == pytest.approx(eps, rel=1e-4)


def test_without_a_budget_rows_are_summed_as_they_are(ask) -> None:
    rows, labels = drawn(20)
    free = dataclasses.replace(RELEASE, kind="none")
    torch.testing.assert_close(ask(5 * rows, labels, free), packed(second_moments(5 * rows, labels, CLASSES)))


def test_a_release_of_moments_answers_nothing_else_and_no_other_answers_them(tmp_path: Path) -> None:
    rows, labels = drawn(4)
    total = dataclasses.replace(RELEASE, name="sum", bounded="sum")
    with Ledger.open(tmp_path / "ledger.jsonl", [RELEASE, total], NO_BUDGET) as ledger:
        for name, ask in (
            ("moments", lambda grant: grant.sum([rows])), ("moments", lambda grant: grant.rows(rows)),
            ("moments", lambda grant: grant.noise(rows)), ("sum", lambda grant: grant.moments([], CLASSES, WIDTH)),
        ):  # fmt: skip
            with ledger.charge(name) as grant, pytest.raises(ValueError, match="not a"):
                ask(grant)
        with ledger.charge("moments") as grant:
            grant.moments([(rows, labels)], CLASSES, WIDTH)
            with pytest.raises(UnaccountedAccess, match="charge the ledger for each answer"):
                grant.moments([(rows, labels)], CLASSES, WIDTH)


@pytest.mark.parametrize(
    ("rows", "labels", "message"),
    [
        (drawn(2)[0], torch.tensor([0, CLASSES]), "classes are 0 .. 2"),
        (drawn(2)[0], torch.tensor([-1, 0]), "classes are 0 .. 2"),
        (drawn(2)[0][:, :3], torch.tensor([0, 1]), r"rows \[R, 4\] with a class each, got \[2, 3\]"),
        (drawn(2)[0], torch.tensor([0]), "with a class each"),
        (torch.zeros(1001, WIDTH), torch.zeros(1001, dtype=torch.int64), "allows 1000 rows a use"),
    ],
)
def test_rows_that_do_not_fit_are_refused(tmp_path: Path, rows, labels, message: str) -> None:
    with (
        Ledger.open(tmp_path / "ledger.jsonl", [RELEASE], NO_BUDGET) as ledger,
        ledger.charge("moments") as grant,
        pytest.raises(ValueError, match=message),
    ):
        grant.moments([(rows, labels)], CLASSES, WIDTH)


@pytest.mark.parametrize(
    "changes",
    [dict(clip=0.5), dict(kind="laplace"), dict(sampling="poisson", rate=0.5), dict(answers=2), dict(draws="per_row")],
)
def test_moments_of_another_clip_noise_or_draw_cannot_be_declared(changes: dict) -> None:
    with pytest.raises(UserError, match="release moments"):
        dataclasses.replace(RELEASE, **changes)
