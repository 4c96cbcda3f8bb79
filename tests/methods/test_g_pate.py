"""G-PATE: what a teacher's ballot may weigh, how a vote becomes a direction, and what stays private."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from teacher_runs import (
    TINY,
    build,
    check_an_averaged_run_resumes,
    check_one_record_moves_one_teacher,
    first_round,
    records,
    trained,
    votes,
)

from methods.core import registry
from methods.core.accounting import data_dependent
from methods.core.release import Budget, PublicSpec
from methods.core.rng import named_rng
from methods.core.teachers.ensemble import Teachers
from methods.core.teachers.gan import Round
from methods.g_pate import GPATE, bins_of
from workflow.common.errors import UserError

SMALL = {"projected": 3, "bins": 4, "threshold": 0.3}


def test_a_record_moves_one_teacher_and_nothing_public(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_one_record_moves_one_teacher("g_pate", tmp_path, monkeypatch, **SMALL)


@pytest.mark.parametrize("spoil", [-50.0, 1e30, math.inf, math.nan])
def test_a_teacher_moves_each_ballot_by_at_most_the_declared_sensitivity(
    spoil: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A wide range puts honest votes in the middle bins, so that a spoiled one can move.
    honest = votes("g_pate", None, monkeypatch, tmp_path, step_size=1.0, **SMALL)
    spoiled = votes("g_pate", spoil, monkeypatch, tmp_path, step_size=1.0, **SMALL)
    (release,) = build("g_pate", **SMALL).context.releases
    assert honest.shape == (4 * 3, 4) and (honest.sum(dim=1) == 6).all() and (spoiled.sum(dim=1) == 6).all()
    assert release.sensitivity == pytest.approx(math.sqrt(2))
    moved = (honest - spoiled).norm(dim=1)
    assert moved.max() > 0 and (moved <= release.sensitivity + 1e-12).all()


def test_a_gradient_beyond_the_range_is_one_vote_for_an_outer_bin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = votes("g_pate", None, monkeypatch, tmp_path, step_size=1.0, **SMALL)
    gradients = Teachers.gradients

    def huge(*inputs):
        for first, chunk in enumerate(gradients(*inputs)):
            if first == 0:
                chunk[0] = chunk[0].sign() * 1e30
            yield chunk

    monkeypatch.setattr(Teachers, "gradients", huge)
    spoiled = votes("g_pate", None, monkeypatch, tmp_path, step_size=1.0, **SMALL)
    assert (honest[:, [0, 3]] == 0).all() and (spoiled[:, [0, 3]].sum(dim=1) == 1).all()
    assert spoiled[:, 0].any() and spoiled[:, 3].any()
    torch.testing.assert_close((honest - spoiled).norm(dim=1), torch.full((12,), math.sqrt(2)).double())


def test_votes_do_not_depend_on_how_many_teachers_are_in_work_at_a_time() -> None:
    method = build("g_pate", step_size=1e-4, **SMALL)
    kept = SimpleNamespace(votes=lambda choices, bins: choices)
    whole = method._vote(kept, first_round(method))
    method._teachers._chunk = 2
    assert len(whole.unique(dim=0)) == TINY["num_teachers"]
    assert torch.equal(method._vote(kept, first_round(method)), whole)


def test_bins_are_equal_and_hold_what_lies_outside() -> None:
    values = torch.tensor([-math.inf, -9.0, -1.0, -0.51, -0.49, -0.01, 0.01, 0.99, 1.0, 9.0, math.inf, math.nan])
    assert bins_of(values, 1.0, 4).tolist() == [0, 0, 0, 0, 1, 1, 2, 3, 3, 3, 3, 2]


def test_a_vote_without_majority_is_refused_and_a_winner_is_projected_back(monkeypatch: pytest.MonkeyPatch) -> None:
    method = build("g_pate", batch_size=2, step_size=0.4, scale=2.0, **SMALL)
    current = Round(0, named_rng(0), *method._inputs(named_rng(0)), torch.zeros(2, 1, 28, 28))
    targets = []
    monkeypatch.setattr(method, "_regress", lambda current, wanted: targets.append(wanted) or 0.0)
    # Of six teachers 1.8 must agree: bin 0 wins (centre -0.3), then bin 3 (0.3), and the last vote is refused.
    method._learn(
        current, torch.tensor([[5.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.9], [1.7, 1.6, 1.5, 1.4]]).repeat(2, 1)
    )
    projection = method._projections(0)[0]
    assert projection.shape == (784, 3) and float(projection.var()) == pytest.approx(1 / 3, rel=0.1)
    torch.testing.assert_close(targets[0][0].flatten(), 2 * (projection @ torch.tensor([-0.3, 0.3, 0.0])))


def test_projections_are_fresh_each_round_and_public() -> None:
    method, again = build("g_pate", **SMALL), build("g_pate", **SMALL)
    assert torch.equal(method._projections(1), again._projections(1))
    assert not torch.equal(method._projections(0), method._projections(1))


def test_the_noise_is_the_authors_by_their_count() -> None:
    public = PublicSpec("mnist", (1, 28, 28), 10, 60000)
    (release,) = GPATE.plan(registry.hyper("g_pate", {}), public, Budget(10.0, 1e-5, "published"))
    # main.py: sigma 100 answers about 1,530 images of ten dimensions.
    assert release.scale == pytest.approx(100, rel=0.01)
    assert (release.rows, release.answers, release.max_uses) == (2000, 300, 51)


def test_the_data_dependent_epsilon_is_reported_and_private(tmp_path: Path) -> None:
    method = trained(build("g_pate", **SMALL), records(), tmp_path)
    report = method.private_report(1e-5)
    # Six teachers never agree beyond noise: the bound is the worst case, by Renyi DP instead of the exact curve.
    assert report["eps_data_dependent"] == pytest.approx(10, rel=0.15)
    assert "spent" in method.private_state() and "spent" not in method.public_state()
    again = build("g_pate", **SMALL)
    again.load(method.public_state(), method.private_state())
    assert again.private_report(1e-5) == report
    assert build("g_pate", **SMALL).private_report(1e-5) == {}


def test_the_data_dependent_cost_is_that_of_the_true_votes() -> None:
    method = build("g_pate", **SMALL | {"threshold": 0.5})
    method.hp = dataclasses.replace(method.hp, num_teachers=2000)
    method._release = dataclasses.replace(method._release, noise=100.0)
    # Counts 0, 1800, 200, 0, where a winner needs 1,000 votes; and 500 each, which leaves no winner.
    voters = torch.arange(2000)
    for _ in range(2):
        method._account(torch.stack([1 + (voters >= 1800).long(), voters % 4], dim=1))
    scale = 100 * math.sqrt(2)
    q = sum(math.erfc((1800 - count) / (2 * scale)) / 2 for count in (0, 200, 0))
    q += math.erfc((1800 - 1000) / (scale * math.sqrt(2))) / 2
    sure = data_dependent.gaussian_cost(torch.tensor([math.log(q)]).double(), 100.0)
    passed = 4 * math.erfc((1000 - 500) / (scale * math.sqrt(2))) / 2
    close = data_dependent.gaussian_cost(torch.tensor([math.log(passed)]).double(), 100.0)
    assert (sure < 0.9 * data_dependent.gaussian_rdp(100.0)).any()
    torch.testing.assert_close(method._spent, 2 * (sure + close))


def test_an_averaged_run_resumes(tmp_path: Path) -> None:
    check_an_averaged_run_resumes("g_pate", tmp_path, **SMALL)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"num_teachers": 25}, "num_teachers must be at most 24, the training records of toy; got 25"),
        ({"bins": 1}, "bins must be 2 to 1024, got 1"),
        ({"projected": 0}, "projected must be 1 to 4096, got 0"),
        ({"step_size": 0.0}, "step_size must be 1e-09 to 1000, got 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(overrides: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build("g_pate", **SMALL | overrides)
