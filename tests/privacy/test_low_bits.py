"""Answers without tell-tale bits: an adversary who knows all but one row's sign learns no more than epsilon allows."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from methods.core.privacy.grant import Grant, UnaccountedAccess
from methods.core.privacy.ledger import Ledger
from methods.core.privacy.noise import NoiseSource, on_grid
from methods.core.release import NO_BUDGET, Release

COUNT = 40_000
# So much noise that an answer's size says next to nothing of one row: sensitivity / scale.
MU = 1 / 40


def a_release(kind: str, bounded: str, answers: int = 1) -> Release:
    clip = 1.0 if bounded == "votes" else 0.7
    return Release(
        name="answer", kind=kind, clip=clip, noise=1 / MU, bounded=bounded, rows=COUNT, rate=1.0, sampling="all",
        max_uses=1, answers=answers,
    )  # fmt: skip


# Each kind of answer, as COUNT values [COUNT] that one row's sign [COUNT] of +-1 goes into.
ANSWERS = {
    "gaussian rows": (a_release("gaussian", "function"), lambda grant, signs: grant.rows(0.7 * signs[:, None])),
    "laplace rows": (a_release("laplace", "function"), lambda grant, signs: grant.rows(0.7 * signs[:, None])),
    "gaussian sum": (
        a_release("gaussian", "sum", COUNT), lambda grant, signs: grant.sum([torch.rand(3, COUNT), 0.7 * signs[None]]),
    ),
    "laplace sum": (
        a_release("laplace", "sum", COUNT), lambda grant, signs: grant.sum([torch.rand(3, COUNT), 0.7 * signs[None]]),
    ),
    "votes": (
        a_release("gaussian", "votes", COUNT),
        lambda grant, signs: grant.votes((signs[None] > 0).long().expand(3, -1), bins=2)[:, 1],
    ),
    "a library's sum": (a_release("gaussian", "sum"), lambda grant, signs: grant.noise(0.7 * signs + 1.3)),
}  # fmt: skip


def answered(name: str, signs: torch.Tensor, folder: Path, key: bytes = b"0") -> torch.Tensor:
    """Returns the noisy answers float32 [COUNT] for the signs."""
    release, answer = ANSWERS[name]
    torch.manual_seed(0)
    ledger = Ledger.open(folder / "ledger.jsonl", [release], NO_BUDGET, noise_key=key)
    with ledger, ledger.charge("answer") as grant:
        return answer(grant, signs).flatten()


def coins() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).choice([-1.0, 1.0], COUNT)).float()


@pytest.mark.parametrize("name", ANSWERS)
def test_every_answer_is_a_multiple_of_the_public_grid(name, tmp_path):
    release, _ = ANSWERS[name]
    assert math.log2(release.grid).is_integer() and 2**-11 < release.grid / release.scale <= 2**-10
    answers = answered(name, coins(), tmp_path).double() / release.grid
    assert torch.equal(answers, answers.round())


@pytest.mark.parametrize("name", ANSWERS)
def test_the_lowest_bits_of_an_answer_do_not_tell_the_sign_of_a_row(name, tmp_path):
    """The adversary learns from half of the answers which low bits go with which sign, and guesses the other half."""
    signs = coins()
    answers = answered(name, signs, tmp_path)
    positive = signs.numpy() > 0
    half = COUNT // 2
    # By chance and by what the answer's size gives away under mu, at three standard deviations.
    allowed = half * stats.norm.cdf(MU / 2) + 3 * math.sqrt(half) / 2
    multiples = (answers.double() / ANSWERS[name][0].grid).round().long().numpy()
    for bits in (answers.numpy().view(np.int32) & 0xFF, multiples & 0xFF):
        share = np.bincount(bits[:half], positive[:half], 256) - np.bincount(bits[:half], ~positive[:half], 256)
        assert ((share[bits[half:]] > 0) == positive[half:]).sum() <= allowed


@pytest.mark.parametrize("name", ANSWERS)
def test_the_same_noise_puts_both_signs_on_the_same_values(name, tmp_path):
    """What the row adds is rounded away below the grid: each value of one world is a value of the other."""
    release, _ = ANSWERS[name]
    one, other = (answered(name, sign * torch.ones(COUNT), tmp_path / str(sign)) for sign in (1, -1))
    steps = (one.double() - other.double()) / release.grid
    assert torch.equal(steps, steps.round()) and steps.abs().min() > 0


@pytest.mark.parametrize("name", ANSWERS)
def test_no_kind_of_grant_answers_twice(name, tmp_path):
    release, answer = ANSWERS[name]
    ledger = Ledger.open(tmp_path / "ledger.jsonl", [release.used(2)], NO_BUDGET)
    with ledger, ledger.charge("answer") as grant:
        answer(grant, coins())
        with pytest.raises(UnaccountedAccess):
            answer(grant, coins())


def test_noise_and_secret_draws_of_a_use_share_no_stream():
    source = NoiseSource(b"key")
    purposes = [source.rng("answer", 1, purpose).random(8).tolist() for purpose in ("noise", "records")]
    others = [source.rng(*names).random(8).tolist() for names in (("answer", 2), ("other", 1))]
    default = source.rng("answer", 1).random(8).tolist()
    assert default == purposes[0] and len({tuple(values) for values in (*purposes, *others)}) == 4


def test_so_many_uses_that_a_key_of_few_bits_would_repeat_share_no_stream():
    # Of 32 bits, twenty thousand uses would repeat some with probability .05; of 24 bits, surely.
    source = NoiseSource(b"key")
    firsts = {int(source.rng("answer", use).bit_generator.random_raw()) for use in range(20_000)}
    assert len(firsts) == 20_000
    assert source.rng("answer", 1).bit_generator.state["state"]["key"].max() >= 2**48


def test_noise_on_the_grid_has_the_law_of_the_noise(tmp_path):
    for name, law in (("gaussian rows", stats.norm), ("laplace rows", stats.laplace)):
        release, _ = ANSWERS[name]
        noise = answered(name, torch.zeros(COUNT), tmp_path / name).double().numpy()
        assert stats.kstest(noise / release.scale, law.cdf).pvalue > 1e-3
        assert np.var(noise) == pytest.approx(release.scale**2 * law.var(), rel=0.05)


def test_rounding_moves_a_value_to_the_nearest_multiple_and_no_further():
    values = torch.linspace(-3, 3, 1001, dtype=torch.float64)
    assert (on_grid(values, 0.25) - values).abs().max() <= 0.125
    assert set((on_grid(values, 0.25) * 4).tolist()) == set(range(-12, 13))


def test_an_answer_without_noise_lies_on_no_grid():
    release = a_release("gaussian", "sum").without_noise()
    with pytest.raises(ValueError, match="no noise"):
        _ = release.grid
    assert torch.equal(Grant(release, None, 1).sum([torch.tensor([[0.1, 0.2]])]), torch.tensor([0.1, 0.2]))
