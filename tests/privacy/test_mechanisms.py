"""What a grant releases: how far one record can move it, and how much noise it gets."""

import numpy as np
import pytest
import torch
from scipy import stats

from methods.core.privacy.grant import Grant, UnaccountedAccess
from methods.core.privacy.ledger import Ledger
from methods.core.privacy.noise import NoiseSource, clip_rows
from methods.core.privacy.private_data import PrivateData
from methods.core.release import Budget, Release

NONE = Budget(float("inf"), 1e-5, "none")
ADVERSARIAL = {
    "inf": [float("inf"), 1.0, 0.0],
    "minus inf": [0.0, float("-inf"), 0.0],
    "nan": [float("nan")] * 3,
    "overflowing norm": [1e30, -1e30, 1e30],
    "largest float": [3.4e38] * 3,
    "tiny": [1e-40, 0.0, 0.0],
    "zero": [0.0, 0.0, 0.0],
    "opposite": [-5.0, 0.0, 0.0],
    "on the bound": [0.7, 0.0, 0.0],
}


def a_release(**changes) -> Release:
    fields = dict(
        name="answer", kind="gaussian", clip=0.7, noise=2.0, bounded="function", rows=100_000, rate=1.0, sampling="all",
        max_uses=1000,
    )  # fmt: skip
    return Release(**(fields | changes))


def answer(tmp_path, rows, seed=0, uses=1, **changes) -> torch.Tensor:
    """What a fresh run releases in its use number `uses` for rows [R, D]."""
    release = a_release(**changes)
    path = tmp_path / f"{len(list(tmp_path.iterdir()))}.jsonl"
    with Ledger.open(path, [release], NONE, noise_key=str(seed).encode()) as ledger:
        for _ in range(uses):
            with ledger.charge("answer") as grant:
                out = grant.rows(rows) if release.bounded == "function" else grant.sum(rows.split(2))
    return out


def norm(rows: torch.Tensor, kind: str) -> float:
    return float(rows.double().norm(p=2 if kind == "gaussian" else 1))


@pytest.mark.parametrize("kind", ["gaussian", "laplace"])
@pytest.mark.parametrize("bounded", ["function", "sum"])
@pytest.mark.parametrize("before", ADVERSARIAL)
@pytest.mark.parametrize("after", ["inf", "nan", "overflowing norm", "opposite", "on the bound"])
def test_replacing_a_record_moves_the_answer_at_most_the_sensitivity(tmp_path, kind, bounded, before, after):
    others = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    changes = dict(kind=kind, bounded=bounded, noise=0.0)
    answers = [
        answer(tmp_path, torch.cat([others, torch.tensor([ADVERSARIAL[name]])]), **changes) for name in (before, after)
    ]
    assert all(torch.isfinite(one).all() for one in answers)
    moved = norm(answers[0] - answers[1], kind)
    assert moved <= a_release(**changes).sensitivity * (1 + 1e-5)


def test_the_declared_sensitivity_is_reached():
    rows = clip_rows(torch.tensor([[9.0, 0.0], [-9.0, 0.0]]), 0.7, "gaussian")
    assert float((rows[0] - rows[1]).norm()) == pytest.approx(a_release().sensitivity, rel=1e-5)


@pytest.mark.parametrize(
    ("count", "width", "draws"),
    [(60_000, 40, {}), (1_000_000, 5, {}), (3_000, 784, dict(sampling="poisson", rate=0.5))], ids=str
)  # fmt: skip
def test_one_of_many_records_moves_a_sum_by_the_sensitivity_and_no_rounding_more(count, width, draws, monkeypatch):
    sums = []
    monkeypatch.setattr(Grant, "_noisy", lambda grant, total: sums.append(total.double()) or total)
    release = a_release(bounded="sum", rows=count, **draws)
    rows = torch.randn(1, width, generator=torch.Generator().manual_seed(1))
    for record in (rows, -rows):
        chunks = [record, *rows.expand(count - 1, width).split(997)]
        assert Grant(release, NoiseSource(b"1"), 1).sum(chunks).dtype == torch.float32
    moved = float((sums[0] - sums[1]).norm())
    assert moved <= release.sensitivity and moved == pytest.approx(release.sensitivity, rel=2e-6)


@pytest.mark.parametrize("record", ADVERSARIAL)
def test_removing_a_record_moves_a_sum_at_most_the_clip(tmp_path, record):
    others = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    changes = dict(bounded="sum", noise=0.0, adjacency="add_or_remove")
    with_it = answer(tmp_path, torch.cat([others, torch.tensor([ADVERSARIAL[record]])]), **changes)
    moved = norm(with_it - answer(tmp_path, others, **changes), "gaussian")
    assert moved <= a_release(**changes).sensitivity * (1 + 1e-5) == pytest.approx(0.7, rel=1e-4)


def test_rows_within_the_bound_pass_unchanged_and_longer_ones_keep_their_direction():
    rows = torch.tensor([[0.3, 0.4], [30.0, 40.0]])
    assert torch.allclose(clip_rows(rows, 1.0, "gaussian"), torch.tensor([[0.3, 0.4], [0.6, 0.8]]), atol=1e-5)
    assert torch.allclose(clip_rows(rows, 1.4, "laplace"), torch.tensor([[0.3, 0.4], [0.6, 0.8]]), atol=1e-5)


def test_a_row_whose_squares_overflow_is_scaled_and_not_dropped():
    rows = clip_rows(torch.tensor([[3e30, 4e30]]), 1.0, "gaussian")
    assert torch.allclose(rows, torch.tensor([[0.6, 0.8]]), atol=1e-5)


@pytest.mark.parametrize("kind", ["gaussian", "laplace"])
@pytest.mark.parametrize("clip", [1.0, 1e-3, 1e-5, 1e-9])
def test_no_row_ends_above_its_clip_however_near_it_is_to_the_largest_float(clip, kind):
    """Single precision has few digits for the factors of such rows, and none for those of the longest."""
    rows = torch.logspace(20, 38.5, 800, dtype=torch.float64).float()[:, None].expand(-1, 784)
    clipped = clip_rows(rows, clip, kind)
    longest = max(norm(row, kind) for row in clipped)
    assert clip * (1 - 1e-5) < longest <= clip


@pytest.mark.parametrize("kind, law", [("gaussian", stats.norm), ("laplace", stats.laplace)])
@pytest.mark.parametrize("bounded, adjacency, sensitivity", [
    ("function", "replace_one", 1.4), ("sum", "replace_one", 1.4), ("sum", "add_or_remove", 0.7),
    # A record more may turn a function of all of them round, and reach across the whole ball.
    ("function", "add_or_remove", 1.4),
])  # fmt: skip
def test_noise_has_the_declared_scale_and_no_other(tmp_path, kind, law, bounded, adjacency, sensitivity):
    rows = torch.zeros(1, 20_000)
    noise = answer(tmp_path, rows, kind=kind, bounded=bounded, adjacency=adjacency).flatten().numpy()
    scale = 2.0 * sensitivity
    assert stats.kstest(noise, law(scale=scale).cdf).pvalue > 1e-3
    for wrong in (2 / 3, 3 / 2):
        assert stats.kstest(noise, law(scale=wrong * scale).cdf).pvalue < 1e-6


def test_rows_get_independent_noise(tmp_path):
    noise = answer(tmp_path, torch.zeros(2, 20_000)).numpy()
    assert abs(np.corrcoef(noise)[0, 1]) < 0.03


def test_noise_is_the_same_for_a_seed_and_new_for_each_use(tmp_path):
    rows = torch.zeros(2, 50)
    assert torch.equal(answer(tmp_path, rows, seed=5), answer(tmp_path, rows, seed=5))
    assert not torch.equal(answer(tmp_path, rows, seed=5), answer(tmp_path, rows, seed=6))
    first, second = answer(tmp_path, rows, uses=1), answer(tmp_path, rows, uses=2)
    assert abs(np.corrcoef(first.flatten(), second.flatten())[0, 1]) < 0.5


def test_a_resumed_run_continues_the_straight_runs_noise(tmp_path):
    straight = answer(tmp_path, torch.zeros(2, 50), uses=3)
    path = tmp_path / "resumed.jsonl"
    for part, uses in enumerate([2, 1]):
        with Ledger.open(path, [a_release()], NONE, resume=part == 1, noise_key=b"0") as ledger:
            for _ in range(uses):
                with ledger.charge("answer") as grant:
                    out = grant.rows(torch.zeros(2, 50))
    assert torch.equal(out, straight)


@pytest.mark.parametrize("chunks, width", [([torch.zeros(0, 50)], None), ([], 50)])
def test_an_empty_poisson_batch_still_gets_a_noisy_answer(tmp_path, chunks, width):
    release = a_release(bounded="sum", sampling="poisson", rate=0.1)
    with Ledger.open(tmp_path / "ledger.jsonl", [release], NONE) as ledger, ledger.charge("answer") as grant:
        out = grant.sum(chunks, width=width)
    assert out.shape == (50,) and float(out.std()) > 0.5 * release.scale


def test_a_sum_is_noised_once_however_it_is_cut(tmp_path):
    rows = torch.randn(9, 50)
    changes = dict(bounded="sum")
    noise = answer(tmp_path, torch.zeros(1, 50), **changes)
    expected = clip_rows(rows, 0.7, "gaussian").sum(0) + noise
    # Both answers are rounded to the grid.
    assert (answer(tmp_path, rows, **changes) - expected).abs().max() <= a_release(**changes).grid


def test_each_answer_of_a_use_is_clipped_on_its_own(tmp_path):
    rows = torch.tensor([[3.0, 4.0, 0.03, 0.04]])
    out = answer(tmp_path, rows, bounded="sum", answers=2, noise=0.0)
    assert torch.allclose(out, torch.tensor([0.42, 0.56, 0.03, 0.04]), atol=1e-4)
    with pytest.raises(ValueError, match="rows of 3"):
        answer(tmp_path, rows[:, :3], bounded="sum", answers=2)


def ballots(tmp_path, choices, **changes) -> torch.Tensor:
    """The counts [answers, 4] that one use of a "votes" release gives."""
    release = a_release(bounded="votes", clip=1.0, answers=choices.shape[1], **changes)
    path = tmp_path / f"{len(list(tmp_path.iterdir()))}.jsonl"
    with Ledger.open(path, [release], NONE) as ledger, ledger.charge("answer") as grant:
        return grant.votes(choices, bins=4)


def test_votes_are_counted_per_ballot_and_one_voter_moves_each_by_the_sensitivity(tmp_path):
    choices = torch.tensor([[0, 3], [0, 1], [2, 3]])
    counts = ballots(tmp_path, choices, noise=0.0)
    assert counts.tolist() == [[2, 0, 1, 0], [0, 1, 0, 2]]
    choices[0] = torch.tensor([1, 2])
    moved = (ballots(tmp_path, choices, noise=0.0) - counts).norm(dim=1)
    sensitivity = a_release(bounded="votes", clip=1.0).sensitivity
    assert moved.tolist() == pytest.approx([sensitivity] * 2) == [2**0.5] * 2


def test_votes_get_noise_of_the_declared_scale(tmp_path):
    noise = ballots(tmp_path, torch.zeros(0, 5000, dtype=torch.int64)).flatten().numpy()
    assert stats.kstest(noise, stats.norm(scale=2 * 2**0.5).cdf).pvalue > 1e-3
    assert stats.kstest(noise, stats.norm(scale=2 * 2**0.5 * 1.1).cdf).pvalue < 1e-6


@pytest.mark.parametrize("choices", [[[4, 0]], [[-1, 0]], [[0]]])
def test_votes_for_what_does_not_exist_are_refused(tmp_path, choices):
    release = a_release(bounded="votes", clip=1.0, answers=2)
    with Ledger.open(tmp_path / "ledger.jsonl", [release], NONE) as ledger, ledger.charge("answer") as grant:
        with pytest.raises(ValueError, match="answer"):
            grant.votes(torch.tensor(choices), bins=4)
        assert grant.open


def drawn(tmp_path, uses=300, seed=0, **changes) -> list:
    """The records, or the shard, that each use of a release draws."""
    release = a_release(max_uses=uses, **changes)
    path = tmp_path / f"{len(list(tmp_path.iterdir()))}.jsonl"
    draws = []
    with Ledger.open(path, [release], NONE, noise_key=str(seed).encode()) as ledger:
        for _ in range(uses):
            with ledger.charge("answer") as grant:
                draws.append(grant.poisson_batch(1000).tolist() if release.sampling == "poisson" else grant.shard())
    return draws


def test_poisson_batches_draw_each_record_on_its_own_at_the_declared_rate(tmp_path):
    batches = drawn(tmp_path, sampling="poisson", rate=0.02, bounded="sum")
    sizes = np.array([len(batch) for batch in batches])
    assert sizes.mean() == pytest.approx(20, abs=1)
    assert sizes.var() == pytest.approx(20 * 0.98, rel=0.3)
    assert all(len(set(batch)) == len(batch) for batch in batches)


def test_shards_are_drawn_uniformly(tmp_path):
    counts = np.bincount(drawn(tmp_path, sampling="one_shard_of_k", rate=1 / 10, uses=1000), minlength=10)
    assert len(counts) == 10 and stats.chisquare(counts).pvalue > 1e-3
    assert set(drawn(tmp_path, uses=20)) == {0}


def test_what_is_drawn_is_a_secret_of_the_noise_key(tmp_path):
    kind = dict(sampling="one_shard_of_k", rate=1 / 100, uses=50)
    assert drawn(tmp_path, **kind) == drawn(tmp_path, **kind) != drawn(tmp_path, seed=1, **kind)


def test_a_grant_draws_only_as_declared_and_while_open(tmp_path):
    with Ledger.open(tmp_path / "ledger.jsonl", [a_release()], NONE) as ledger:
        with ledger.charge("answer") as grant, pytest.raises(UnaccountedAccess, match="poisson"):
            grant.poisson_batch(10)
        with pytest.raises(UnaccountedAccess):
            grant.shard()


def test_half_precision_rows_are_noised_in_single_precision(tmp_path):
    assert answer(tmp_path, torch.ones(2, 5, dtype=torch.bfloat16)).dtype == torch.float32


def test_without_privacy_rows_pass_unclipped(tmp_path):
    release = a_release(kind="none")
    with Ledger.open(tmp_path / "ledger.jsonl", [release], NONE) as ledger, ledger.charge("answer") as grant:
        assert torch.equal(grant.rows(torch.full((2, 3), 50.0)), torch.full((2, 3), 50.0))


@pytest.mark.parametrize("bounded, method", [("function", "rows"), ("sum", "sum")])
def test_more_rows_than_declared_are_refused(tmp_path, bounded, method):
    release = a_release(bounded=bounded, rows=3)
    with Ledger.open(tmp_path / "ledger.jsonl", [release], NONE) as ledger, ledger.charge("answer") as grant:
        rows = torch.zeros(4, 2)
        with pytest.raises(ValueError, match="allows 3 rows"):
            getattr(grant, method)(rows if bounded == "function" else rows.split(1))


def test_a_release_answers_only_as_declared(tmp_path):
    with Ledger.open(tmp_path / "ledger.jsonl", [a_release()], NONE) as ledger, ledger.charge("answer") as grant:
        for wrong in (grant.sum, grant.noise, lambda rows: grant.votes(rows, bins=2)):
            with pytest.raises(ValueError, match="is a function, not a"):
                wrong(torch.zeros(1, 2))
    laplace = a_release(kind="laplace", bounded="sum")
    ledger = Ledger.open(tmp_path / "laplace.jsonl", [laplace], NONE)
    # What a library has clipped in L2 is not bounded in L1.
    with ledger, ledger.charge("answer") as grant, pytest.raises(ValueError, match="laplace"):
        grant.noise(torch.zeros(2))


def test_private_data_shows_its_size_and_nothing_else():
    data = PrivateData(torch.full((3, 1, 2, 2), 7, dtype=torch.uint8), torch.tensor([4, 5, 6]))
    public = {name: getattr(data, name) for name in dir(data) if not name.startswith("_")}
    assert len(data) == 3 and list(public) == ["read"]
    assert repr(data) == "PrivateData(3 records)"


def test_private_data_reads_what_is_asked(tmp_path):
    images = torch.arange(6, dtype=torch.uint8).reshape(6, 1, 1, 1)
    data = PrivateData(images, torch.arange(6))
    with Ledger.open(tmp_path / "ledger.jsonl", [a_release()], NONE) as ledger, ledger.charge("answer") as grant:
        assert isinstance(grant, Grant)
        got, labels = data.read(grant, np.array([4, 1]))
        assert got.flatten().tolist() == labels.tolist() == [4, 1]
        assert data.read(grant, [])[0].shape == (0, 1, 1, 1)
        for index in ([6], [-1]):
            with pytest.raises(IndexError):
                data.read(grant, index)


# Every way to answer: the release, and what a record may do to it.
ANSWERS = {
    "gaussian rows": dict(kind="gaussian", bounded="function"),
    "laplace rows": dict(kind="laplace", bounded="function"),
    "gaussian sum": dict(kind="gaussian", bounded="sum"),
    "laplace sum": dict(kind="laplace", bounded="sum"),
    "gaussian sum, 3 answers": dict(kind="gaussian", bounded="sum", answers=3),
    "laplace sum, 3 answers": dict(kind="laplace", bounded="sum", answers=3),
    "gaussian votes": dict(kind="gaussian", bounded="votes", clip=1.0, answers=2),
    "gaussian noise": dict(kind="gaussian", bounded="sum"),
}


def given(tmp_path, name: str, rows: torch.Tensor, **changes) -> torch.Tensor:
    """What the answer method gives for rows [R, D] (votes: choices [R, answers], of 40,000 bins)."""
    release = a_release(**(ANSWERS[name] | changes))
    path = tmp_path / f"{len(list(tmp_path.iterdir()))}.jsonl"
    with Ledger.open(path, [release], NONE, noise_key=b"0") as ledger, ledger.charge("answer") as grant:
        if name == "gaussian votes":
            return grant.votes(rows, bins=40_000)
        if name == "gaussian noise":
            return grant.noise(torch.zeros(40_000))
        return grant.sum([rows], width=rows.shape[1]) if release.bounded == "sum" else grant.rows(rows)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", [name for name in ANSWERS if name not in ("gaussian votes", "gaussian noise")])
def test_each_row_or_answer_moves_by_its_sensitivity_at_most_in_every_precision(tmp_path, name, dtype):
    """A "function": a neighbouring shard changes all rows. A "sum": one record changes its row, in all answers."""
    release = a_release(**ANSWERS[name])
    rows = torch.tensor(list(ADVERSARIAL.values()) * 2, dtype=torch.float64)
    draws = torch.Generator().manual_seed(2)
    rows = torch.cat([rows, 10 * torch.randn(40, 3, generator=draws).double()]).repeat(1, release.answers)
    farthest = 0.0
    for shift in range(1, len(rows), 2):
        before, after = rows.to(dtype), rows.roll(shift, 0).to(dtype)
        if release.bounded == "sum":
            opposite = list(ADVERSARIAL).index("opposite")
            before, after = (torch.cat([rows[:5].to(dtype), one[opposite][None]]) for one in (before, after))
        moved = given(tmp_path, name, before, noise=0.0) - given(tmp_path, name, after, noise=0.0)
        assert torch.isfinite(moved).all()
        farthest = max(farthest, *(norm(block, release.kind) for block in moved.reshape(-1, 3)))
    # In the precision of the answer, which is single at least.
    assert 0.9 * release.sensitivity < farthest <= release.sensitivity * (1 + 1e-5)


@pytest.mark.parametrize("record", ADVERSARIAL)
@pytest.mark.parametrize("kind", ["gaussian", "laplace"])
def test_the_only_record_of_a_batch_moves_its_sum_at_most_the_clip(tmp_path, kind, record):
    changes = dict(noise=0.0, sampling="poisson", rate=0.1, adjacency="add_or_remove")
    row, empty = torch.tensor([ADVERSARIAL[record]]), torch.zeros(0, 3)
    with_it, without = (given(tmp_path, f"{kind} sum", rows, **changes) for rows in (row, empty))
    assert torch.equal(without, torch.zeros(3))
    assert norm(with_it, kind) <= 0.7 * (1 + 1e-5)


def test_an_empty_batch_of_every_kind_is_answered(tmp_path):
    for name in ("gaussian rows", "laplace rows", "gaussian sum", "laplace sum, 3 answers"):
        out = given(tmp_path, name, torch.zeros(0, 6))
        assert out.shape == ((0, 6) if "sum" not in name else (6,))
    assert given(tmp_path, "gaussian votes", torch.zeros(0, 2, dtype=torch.int64)).std() > 1


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("noise", [0.5, 2.0])
def test_every_answer_has_noise_of_the_declared_scale_and_no_other(tmp_path, name, noise):
    release = a_release(**ANSWERS[name], noise=noise)
    empty = torch.zeros(0, 2, dtype=torch.int64) if name == "gaussian votes" else torch.zeros(1, 30_000)
    seen = given(tmp_path, name, empty, noise=noise).double().numpy().reshape(max(1, release.answers), -1)
    law = stats.norm if release.kind == "gaussian" else stats.laplace
    for block in seen:
        assert len(block) >= 10_000
        assert stats.kstest(block, law(scale=noise * release.sensitivity).cdf).pvalue > 1e-4
        for wrong in (2 / 3, 3 / 2):
            assert stats.kstest(block, law(scale=wrong * noise * release.sensitivity).cdf).pvalue < 1e-9
    if len(seen) > 1:
        assert abs(np.corrcoef(seen)[0, 1]) < 0.05
