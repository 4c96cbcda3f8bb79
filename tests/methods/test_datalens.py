"""DataLens: what a teacher's compressed gradient may weigh, and that nothing else reaches the generator."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from teacher_runs import (
    BUDGET,
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
from methods.core.privacy.ledger import BudgetExhausted, Ledger
from methods.core.release import Budget, PublicSpec
from methods.core.rng import named_rng
from methods.core.teachers.gan import Round
from methods.datalens import DataLens, stochastic_signs
from workflow.common.errors import UserError

TOP_K = {"top_k": 20}


def test_a_record_moves_one_teacher_and_nothing_public(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_one_record_moves_one_teacher("datalens", tmp_path, monkeypatch, **TOP_K)


@pytest.mark.parametrize("spoil", [-50.0, 1e30, math.inf, math.nan])
def test_a_teacher_moves_each_image_by_at_most_the_declared_sensitivity(
    spoil: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = votes("datalens", None, monkeypatch, tmp_path, **TOP_K)
    spoiled = votes("datalens", spoil, monkeypatch, tmp_path, **TOP_K)
    (release,) = build("datalens", **TOP_K).context.releases
    moved = (honest - spoiled).flatten(1).norm(dim=1)
    assert release.sensitivity == pytest.approx(2 * math.sqrt(20))
    assert moved.max() > 0 and (moved <= release.sensitivity).all()


def test_signs_are_those_of_the_largest_entries() -> None:
    gradients = torch.randn(3, 4, 50, generator=named_rng(0, "gradients"))
    signs = stochastic_signs(gradients, 6, 1e-30, named_rng(0, "coins"))
    kept = gradients.abs() >= gradients.abs().topk(6, dim=2).values[..., -1:]
    assert torch.equal(signs, torch.where(kept, gradients.sign(), 0.0))


def test_a_sign_is_as_sure_as_its_entry_is_large() -> None:
    gradient = torch.tensor([1.0, 0.5, 0.0, -0.5, -1.0]).expand(20_000, 1, 5)
    means = stochastic_signs(gradient, 5, 0.0, named_rng(0, "coins")).mean(dim=0)[0]
    torch.testing.assert_close(means, gradient[0, 0], atol=0.03, rtol=0)
    means = stochastic_signs(gradient, 5, 0.5, named_rng(0, "coins")).mean(dim=0)[0]
    torch.testing.assert_close(means, torch.tensor([1.0, 1.0, 0.0, -1.0, -1.0]), atol=0.03, rtol=0)


def test_an_entry_that_is_not_a_number_counts_as_zero() -> None:
    gradient = torch.tensor([math.nan, math.inf, -math.inf, 0.5, -1.0]).expand(20_000, 1, 5)
    means = stochastic_signs(gradient, 5, 0.0, named_rng(0, "coins")).mean(dim=0)[0]
    torch.testing.assert_close(means, torch.tensor([0.0, 0.0, 0.0, 0.5, -1.0]), atol=0.03, rtol=0)


def test_the_noise_is_the_authors_by_their_count() -> None:
    public = PublicSpec("mnist", (1, 28, 28), 10, 60000)
    (release,) = DataLens.plan(registry.hyper("datalens", {}), public, Budget(10.0, 1e-5, "published"))
    # main.py: sigma 800 at k 300 lasts 1,643 images; 109 rounds of 15 are 1,635.
    assert release.scale == pytest.approx(800, rel=0.01)
    assert (release.rows, release.answers, release.max_uses) == (4000, 15, 109)


def test_the_threshold_decides_which_pixels_move(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    method = build("datalens", threshold=0.5, step_size=0.25, **TOP_K)
    current = Round(0, named_rng(0), *method._inputs(named_rng(0)), torch.full((4, 1, 28, 28), 0.5))
    targets = []
    monkeypatch.setattr(method, "_regress", lambda current, wanted: targets.append(wanted) or 0.0)
    answer = torch.zeros(4, 1, 28, 28)
    answer[0, 0, 0, :4] = torch.tensor([3.01, 2.99, -3.01, -2.99])
    method._learn(current, answer)
    assert targets[0][0, 0, 0, :5].tolist() == [0.75, 0.5, 0.25, 0.5, 0.5]


def test_each_step_is_one_use_and_the_ledger_stops_it(tmp_path: Path) -> None:
    method = build("datalens", **TOP_K)
    with Ledger.open(tmp_path / "ledger.jsonl", method.context.releases, BUDGET) as ledger:
        for t in range(TINY["steps"]):
            method.step(t, records(), ledger)
            assert ledger.uses("votes") == t + 1
        with pytest.raises(BudgetExhausted):
            method.step(TINY["steps"], records(), ledger)


def test_an_averaged_run_resumes(tmp_path: Path) -> None:
    check_an_averaged_run_resumes("datalens", tmp_path, **TOP_K)


def test_signs_do_not_depend_on_how_many_teachers_are_in_work_at_a_time() -> None:
    # By their largest entry, few signs are sure.
    method = build("datalens", max_gradient=0.0, **TOP_K)
    whole = list(method._signs(first_round(method)))
    method._teachers._chunk = 2
    parts = list(method._signs(first_round(method)))
    assert (len(whole), len(parts)) == (1, 3)
    assert torch.equal(torch.cat(parts), whole[0])


def test_there_is_no_data_dependent_report(tmp_path: Path) -> None:
    assert trained(build("datalens", **TOP_K), records(), tmp_path).private_report(1e-5) == {}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"num_teachers": 25}, "num_teachers must be at most 24, the training records of toy; got 25"),
        ({"top_k": 785}, "top_k must be 1 to 784, the entries of an image; got 785"),
        ({"batch_size": 1}, "batch_size must be 2 to 4096, got 1"),
        ({"ema": 1.0}, "ema must be 0 to 0.9999, got 1.0"),
        ({"max_gradient": -1.0}, "max_gradient must be 0 to 1e\\+06, got -1.0"),
        ({"teacher_network": "resnet"}, "must be conv, conv_norm or mlp, got"),
    ],
)
def test_settings_that_make_no_sense_are_refused(overrides: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build("datalens", **overrides)


def test_images_of_odd_sides_are_refused() -> None:
    with pytest.raises(UserError, match="multiples of 4"):
        DataLens.plan(registry.hyper("datalens", TINY), PublicSpec("odd", (1, 30, 28), 10, 24), BUDGET)


def test_a_teacher_answers_signs_alone_and_no_more_than_top_k_of_them() -> None:
    method = build("datalens", **TOP_K)
    rows = torch.cat(list(method._signs(first_round(method))))
    assert set(rows.unique().tolist()) == {-1.0, 0.0, 1.0}
    assert (rows.view(len(rows), -1, 784).count_nonzero(dim=2) == TOP_K["top_k"]).all()
