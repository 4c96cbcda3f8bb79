"""provenance.json: the settings, the data and the time behind a set of results."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from workflow import record
from workflow.common.files import write_json
from workflow.common.run_states import CALL, GRAPH


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Results of one run on one data set, with two measured jobs of `train` and one of `data`."""
    split = {"count": 2, "per_class": [1, 1], "sha256": "aa"}
    files = {
        "scores.csv": "preset\n",
        "data/mnist/card.json": json.dumps({"source": "a mirror", "splits": {"train": split, "test": split}}),
        "runs/mnist/dpac/eps10/seed0/run.json": json.dumps({"train_seconds": 30.5}),
        "logs/train/a.tsv": "s\n20\n",
        "logs/train/b.tsv": "s\n12.25\n",
        "logs/data/mnist.tsv": "s\n3\n",
        "logs/data/mnist.log": "text",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_the_record_holds_settings_data_and_times(root):
    assert record.main(["--root", str(root), "--settings", '{"preset": "quick"}', "--out", str(root / "p.json")]) == 0
    written = json.loads((root / "p.json").read_text())
    assert written["settings"] == {"preset": "quick"}
    assert written["data"] == {"mnist": {"source": "a mirror", "splits": {"train": "aa", "test": "aa"}}}
    assert written["job_seconds"] == {"data": 3.0, "train": 32.2, "total": 35.2}
    assert (written["train_seconds"], written["runs"]) == (30.5, 1)
    assert "torch" in written["packages"]


def test_the_record_names_the_code_that_trained_each_run(root):
    for seed, origin in (("1", {"commit": "aa", "modified": False}), ("2", {"commit": "aa", "modified": True})):
        path = root / f"runs/mnist/dpac/eps10/seed{seed}/run.json"
        path.parent.mkdir()
        path.write_text(json.dumps({"provenance": origin}))
    (root / "runs/mnist/dpac/eps10/seed0/run.json").write_text(json.dumps({"provenance": {"commit": "bb"}}))
    assert record.record(root, {})["runs_by_commit"] == {"aa": 1, "aa modified": 1, "bb": 1}


def test_the_record_names_the_code_that_made_each_warm_start(root):
    assert "warm_starts_by_commit" not in record.record(root, {})
    for key, made in (("a", {"provenance": {"commit": "aa"}}), ("b", {"provenance": {"commit": "bb"}}), ("c", {})):
        path = root / f"private/critics/mnist/{key}/done.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(made))
    assert record.record(root, {})["warm_starts_by_commit"] == {"None": 1, "aa": 1, "bb": 1}


@pytest.mark.parametrize("told", [{"name": "other"}, {"begun": None}, {"steps": -1}, None], ids=str)
def test_the_record_holds_how_long_the_call_has_taken_that_made_the_scores_and_no_others(root, monkeypatch, told):
    call = {"name": "mine", "begun": time.time() - 100.0, "steps": 3, "all_steps": 7}
    monkeypatch.setenv(CALL, "mine")
    write_json(root / GRAPH, {"call": call})
    waited = record.record(root, {})["call"]
    assert 100.0 <= waited.pop("wall_seconds") < 200.0 and waited == {"steps": 3, "all_steps": 7}
    write_json(root / GRAPH, {"call": told and call | told})
    assert "call" not in record.record(root, {})
    # As where a person writes the record anew.
    write_json(root / GRAPH, {"call": call})
    monkeypatch.delenv(CALL)
    assert "call" not in record.record(root, {})


def test_results_without_scores_are_refused_in_one_line(root, capsys):
    (root / "scores.csv").unlink()
    assert record.main(["--root", str(root), "--out", str(root / "p.json")]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert not (root / "p.json").exists()
