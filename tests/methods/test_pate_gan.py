"""PATE-GAN: what a teacher's vote may weigh, and what the student learns from."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from teacher_runs import (
    build,
    check_an_averaged_run_resumes,
    check_one_record_moves_one_teacher,
    records,
    trained,
    votes,
)

from methods.core.accounting import data_dependent
from methods.core.rng import named_rng
from methods.core.teachers.gan import Round
from workflow.common.errors import UserError


@pytest.mark.parametrize("labels", ["majority", "share"])
def test_a_record_moves_one_teacher_and_nothing_public(
    labels: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A vote is one bit: it takes some images and a teacher that has learnt to move one.
    check_one_record_moves_one_teacher("pate_gan", tmp_path, monkeypatch, labels=labels, teacher_steps=5, batch_size=16)


@pytest.mark.parametrize("spoil", [-50.0, 50.0, 1e30, math.inf, math.nan])
def test_a_teacher_moves_each_answer_by_at_most_the_declared_sensitivity(
    spoil: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = votes("pate_gan", None, monkeypatch, tmp_path)
    spoiled = votes("pate_gan", spoil, monkeypatch, tmp_path)
    (release,) = build("pate_gan").context.releases
    assert honest.shape == (4,) and release.sensitivity == 1.0
    assert ((honest - spoiled).abs() <= 1).all()


def test_a_teacher_that_changes_its_mind_moves_the_answer_by_all_the_sensitivity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = votes("pate_gan", 50.0, monkeypatch, tmp_path)
    fake = votes("pate_gan", math.nan, monkeypatch, tmp_path)
    torch.testing.assert_close(real - fake, torch.ones(4).double(), atol=1e-5, rtol=0)


def test_each_image_is_an_answer_and_the_noise_is_laplace() -> None:
    (release,) = build("pate_gan").context.releases
    assert (release.kind, release.bounded, release.rows, release.answers, release.max_uses) == (
        "laplace",
        "sum",
        6,
        4,
        3,
    )
    assert (release.sampling, release.rate, release.adjacency, release.clip) == ("all", 1.0, "replace_one", 0.5)
    assert release.scale == release.noise > 0


@pytest.mark.parametrize(("labels", "wanted"), [("majority", [1.0, 0.0, 1.0, 0.0]), ("share", [1.0, 0.0, 4 / 6, 0.0])])
def test_the_student_learns_from_the_noisy_answer(labels: str, wanted: list, monkeypatch: pytest.MonkeyPatch) -> None:
    method, seen = build("pate_gan", labels=labels, student_steps=2), []
    monkeypatch.setattr(method, "_student_step", lambda current, targets: seen.append(targets))
    current = Round(0, named_rng(0), *method._inputs(named_rng(0)), torch.zeros(4, 1, 28, 28))
    method._learn(current, torch.tensor([3.0, -9.0, 1.0, -3.0]))
    assert len(seen) == 2
    torch.testing.assert_close(seen[0], torch.tensor(wanted))


def test_the_data_dependent_epsilon_is_for_the_majority_alone(tmp_path: Path) -> None:
    majority = trained(build("pate_gan"), records(), tmp_path).private_report(1e-5)
    assert 0 < majority["eps_data_dependent"] <= 10 * 1.15
    # A smaller delta costs more.
    method = trained(build("pate_gan"), records(), tmp_path)
    assert method.private_report(1e-7)["eps_data_dependent"] > majority["eps_data_dependent"]
    assert trained(build("pate_gan", labels="share"), records(), tmp_path).private_report(1e-5) == {}


@pytest.mark.parametrize("labels", ["majority", "share"])
def test_the_data_dependent_cost_is_that_of_the_true_votes(labels: str) -> None:
    method = build("pate_gan", labels=labels)
    # Twice the clip, so that the scale (200) is not the noise multiplier (100).
    method._release = dataclasses.replace(method._release, noise=100.0, clip=1.0)
    # Of 2,000 teachers 1,800, 1,000 and 600 vote real: sums 800, 0 and -400.
    real = torch.arange(2000)[:, None] < torch.tensor([1800, 1000, 600])
    for _ in range(2):
        method._account(real.float() - 0.5)
    log_q = torch.tensor([-800 / 200, 0.0, -400 / 200]).double() - math.log(2)
    wanted = 2 * data_dependent.laplace_cost(log_q, 100.0)
    assert (wanted < 0.9 * 6 * data_dependent.laplace_rdp(100.0)).any()
    torch.testing.assert_close(method._spent, wanted if labels == "majority" else torch.zeros_like(wanted))


def test_an_averaged_run_resumes(tmp_path: Path) -> None:
    check_an_averaged_run_resumes("pate_gan", tmp_path)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"num_teachers": 25}, "num_teachers must be at most 24, the training records of toy; got 25"),
        ({"labels": "soft"}, "labels must be majority or share, got"),
    ],
)
def test_settings_that_make_no_sense_are_refused(overrides: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build("pate_gan", **overrides)
