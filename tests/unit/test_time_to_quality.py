"""Seconds until a run's samples are good enough: looks at steps that grow, a clock that stops while they score."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
import torch

from benchmarks import time_to_quality
from benchmarks.time_to_quality import Wanted, look_steps, looks, row
from evaluation.protocol import Protocol
from methods.core.privacy.private_data import PrivateData
from methods.core.release import NO_BUDGET, PublicSpec
from methods.core.runs.plan import Plan
from workflow.common.contracts import LabelledImages

CPU = torch.device("cpu")
SPEC = PublicSpec("toy", (1, 8, 8), 2, 40)
RECORDS = LabelledImages(np.random.default_rng(0).integers(0, 256, (40, 1, 8, 8), dtype=np.uint8), np.arange(40) % 2)


@pytest.fixture(scope="module")
def plan():
    hyper = {"steps": 20, "batch_size": 5, "hidden": 3, "latent": 2}
    return Plan.make("dp_cgan", "dp_cgan", hyper, SPEC, NO_BUDGET, 0)


@pytest.fixture
def scored(monkeypatch):
    """Replaces gen2real by accuracies that grow by a tenth with each look, and takes the seconds of a fake clock."""
    seen, now = [], [0.0]

    def score(direction, samples, test, protocol, seed, threads):
        assert direction == "g2r"
        now[0] += 1000
        seen.append(samples)
        return {"g2r_cnn": len(seen) / 10, "g2r_mlp": 0.0}

    def monotonic():
        now[0] += 1
        return now[0]

    monkeypatch.setattr(time_to_quality, "score", score)
    monkeypatch.setattr(time_to_quality.time, "monotonic", monotonic)
    return seen


def looked(plan, folder, accuracy, number=4):
    data = PrivateData(torch.from_numpy(RECORDS.images), torch.from_numpy(RECORDS.labels))
    return looks(plan, data, RECORDS, Protocol(), Wanted("g2r_cnn", accuracy, number, 6), CPU, folder, 1)


def test_looks_are_spread_by_a_factor_up_to_the_last_step():
    assert look_steps(1000, 3) == [10, 100, 1000]
    assert look_steps(2, 15) == [1, 2]
    assert look_steps(7, 1) == [7]


def test_a_run_ends_at_the_first_set_that_is_good_enough_and_scoring_takes_no_time(plan, tmp_path, scored):
    found = looked(plan, tmp_path, 0.2)
    assert [look["accuracy"] for look in found] == [0.1, 0.2]
    assert [look["steps"] for look in found] == look_steps(20, 4)[:2]
    assert all(look["seconds"] < 1000 for look in found)
    last = [str(found[1]["steps"]), f"{found[1]['seconds']:.1f}", "yes"]
    assert row(plan, found, Wanted("g2r_cnn", 0.2, 4, 6))[-4:-1] == last


def test_a_run_that_never_gets_there_says_so_with_its_best(plan, tmp_path, scored):
    found = looked(plan, tmp_path, 0.9)
    assert found[-1]["steps"] == 20
    assert row(plan, found, Wanted("g2r_cnn", 0.9, 4, 6))[6:] == ["20", f"{found[-1]['seconds']:.1f}", "no", "0.3000"]


def test_looks_that_are_kept_are_not_made_again_unless_the_wish_is_another(plan, tmp_path, scored):
    first = looked(plan, tmp_path, 0.2)
    assert looked(plan, tmp_path, 0.2) == first and len(scored) == 2
    looked(plan, tmp_path, 0.3)
    assert len(scored) > 2


def test_the_last_set_is_the_one_that_the_whole_run_draws(plan, tmp_path, scored):
    once = looked(plan, tmp_path / "a", 0.9)
    again = looked(plan, tmp_path / "b", 0.9)
    assert once[-1]["steps"] == again[-1]["steps"] == 20
    assert np.array_equal(scored[len(once) - 1].images, scored[-1].images)


def test_the_command_writes_a_row_a_run_and_what_it_ran_on(plan, tmp_path, scored):
    run, data = tmp_path / "run", tmp_path / "data"
    run.mkdir(), data.mkdir()
    (run / "plan.json").write_text(json.dumps(plan.to_dict()))
    for split in ("train", "test"):
        np.savez(data / f"{split}.npz", images=RECORDS.images, labels=RECORDS.labels)
    arguments = ["--runs", str(run), "--data", str(data), "--looks", "2", "--accuracy", "0.1", "--device", "cpu"]
    arguments += ["--work", str(tmp_path / "work"), "--out", str(tmp_path / "out.csv")]
    assert time_to_quality.main(arguments) == 0
    with (tmp_path / "out.csv").open() as file:
        (found,) = csv.DictReader(file)
    assert (found["run"], found["wanted"], found["steps"], found["reached"]) == ("dp_cgan", "0.1", "1", "yes")
    assert "commit" in json.loads((tmp_path / "out.json").read_text())


@pytest.mark.parametrize("wrong", [["--accuracy", "2"], ["--looks", "0"], ["--metric", "fid"]])
def test_a_wrong_argument_is_one_line(wrong, tmp_path, capsys):
    paths = ["--runs", str(tmp_path), "--data", str(tmp_path), "--work", str(tmp_path), "--out", str(tmp_path / "out")]
    assert time_to_quality.main([*paths, *wrong]) == 2
    assert capsys.readouterr().err.startswith("error: ")
