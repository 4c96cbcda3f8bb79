"""One command makes a whole run, stops in time, and continues when it is called again."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from toys import TINY_GAN, Killed, killed_at

from methods.__main__ import main
from methods.commands import run as whole_run
from methods.core import registry
from methods.core.runs import outputs
from methods.core.runs.folder import is_begun, is_complete
from workflow.common.contracts import load_images
from workflow.common.files import write_json, write_npz

ROOT = Path(__file__).resolve().parents[2]
SMALL = TINY_GAN | {"steps": 12, "warm_start_steps": 1}


@pytest.fixture
def data(tmp_path):
    folder = tmp_path / "data"
    draws = np.random.default_rng(0)
    images, labels = draws.integers(0, 256, (60, 1, 28, 28), dtype=np.uint8), np.arange(60) % 10
    write_npz(folder / "train.npz", images=images, labels=labels)
    write_json(
        folder / "card.json",
        {"dataset": "tiny", "image_shape": [1, 28, 28], "num_classes": 10, "splits": {"train": {"count": 60}}},
    )
    return folder


def call(data, out, *more: str, **settings) -> int:
    chosen = [f"--set={key}={value}" for key, value in (SMALL | settings).items()]
    common = ["run", "gs_wgan", "--data", str(data), "--device", "cpu", "--num", "40", "--accounting", "published"]
    return main([*common, "--out", str(out), *chosen, *more])


def test_a_run_leaves_its_release_and_keeps_the_rest_private(tmp_path, data):
    assert call(data, tmp_path / "run") == 0
    names = {path.name for path in (tmp_path / "run").iterdir()}
    released = {"plan.json", "ledger.jsonl", "log.csv", "generator.safetensors", "run.json", "samples-000.npz"}
    assert names == released | {"private"}
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert (record["steps_done"], record["device"]) == (12, "cpu")
    samples = load_images(tmp_path / "run" / "samples-000.npz")
    assert len(samples) == 40 and np.bincount(samples.labels).tolist() == [4] * 10


def test_samples_are_split_below_the_size_and_joined_again(tmp_path, data, monkeypatch):
    monkeypatch.setattr(whole_run, "_PART_BYTES", 16 * 28 * 28)
    call(data, tmp_path / "run")
    assert len(list((tmp_path / "run").glob("samples-*.npz"))) == 3
    assert main(["join", str(tmp_path / "run"), "--out", str(tmp_path / "all.npz")]) == 0
    monkeypatch.undo()
    call(data, tmp_path / "other")
    whole, joined = load_images(tmp_path / "other" / "samples-000.npz"), load_images(tmp_path / "all.npz")
    assert np.array_equal(whole.images, joined.images) and np.array_equal(whole.labels, joined.labels)


def test_two_runs_of_one_seed_are_byte_equal_and_another_seed_is_not(tmp_path, data):
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        call(data, tmp_path / name, "--seed", seed)
    first, second, other = ((tmp_path / name / "generator.safetensors").read_bytes() for name in "abc")
    assert first == second != other


def test_a_run_stopped_in_time_goes_on_to_the_same_end(tmp_path, data, monkeypatch, capsys):
    call(data, tmp_path / "straight")
    timers = []

    class Timer:
        """Goes off where the test says so."""

        def __init__(self, seconds, function, arguments):
            self.go_off = lambda: function(*arguments)
            timers.append(self)

        def start(self):
            if len(timers) == 1:
                self.go_off()

        def cancel(self):
            pass

    cls = registry.load("gs_wgan")
    step = cls.step

    def with_alarm(self, t, data, ledger):
        if len(timers) == 2 and t == 5:
            timers[1].go_off()
        return step(self, t, data, ledger)

    monkeypatch.setattr(whole_run.threading, "Timer", Timer)
    monkeypatch.setattr(cls, "step", with_alarm)
    codes = []
    for _ in range(3):
        try:
            codes.append(call(data, tmp_path / "slots", "--minutes", "9"))
        except SystemExit as end:
            codes.append(end.code)
    assert codes == [75, 75, 0]
    assert "continuing after step 6 of 12" in capsys.readouterr().err
    ends = [(tmp_path / name / "generator.safetensors").read_bytes() for name in ("straight", "slots")]
    assert ends[0] == ends[1]


def test_a_finished_run_is_sampled_again_and_never_trained_again(tmp_path, data, monkeypatch):
    call(data, tmp_path / "run")
    before = (tmp_path / "run" / "ledger.jsonl").read_bytes()
    killed_at(monkeypatch, "gs_wgan", 0)
    (tmp_path / "run" / "samples-000.npz").unlink()
    assert call(data, tmp_path / "run") == 0
    assert (tmp_path / "run" / "samples-000.npz").exists()
    assert (tmp_path / "run" / "ledger.jsonl").read_bytes() == before


def test_a_run_killed_before_its_working_ledger_was_gone_ends_with_the_next_call(tmp_path, data, monkeypatch):
    def killed(folder):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(outputs, "publish", killed)
        call(data, tmp_path / "run")
    assert is_begun(tmp_path / "run")
    assert call(data, tmp_path / "run") == 0
    assert is_complete(tmp_path / "run") and (tmp_path / "run" / "samples-000.npz").exists()
    assert (tmp_path / "run" / "ledger.jsonl").read_text().count('"charge"') == 12


def test_a_finished_run_whose_record_is_gone_is_not_trained_again(tmp_path, data, capsys):
    call(data, tmp_path / "run")
    before = (tmp_path / "run" / "run.json").read_bytes()
    (tmp_path / "run" / "run.json").unlink()
    assert call(data, tmp_path / "run") == 0
    assert "put back" in capsys.readouterr().err
    assert (tmp_path / "run" / "run.json").read_bytes() == before


def test_a_folder_begun_with_other_settings_is_refused(tmp_path, data, capsys):
    call(data, tmp_path / "run")
    assert call(data, tmp_path / "run", steps=13) == 2
    assert "begun with other settings" in capsys.readouterr().err


WITHOUT = """
import sys
for name in ("yaml", "opacus", "torchvision", "torch_fidelity", "sklearn", "snakemake", "pandas", "matplotlib"):
    sys.modules[name] = None
from methods.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


def test_a_machine_that_only_trains_needs_none_of_the_suites_packages(tmp_path, data):
    chosen = [f"--set={key}={value}" for key, value in (SMALL | {"steps": 1, "warm_start_steps": 0}).items()]
    command = ["run", "gs_wgan", "--data", str(data), "--num", "10", "--device", "cpu", "--accounting", "published"]
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT, *command, "--out", str(tmp_path / "run"), *chosen],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "samples-000.npz").exists()


@pytest.mark.parametrize(
    ("more", "named"),
    [
        (("--minutes", "0"), "--minutes"), (("--minutes", "nan"), "--minutes"), (("--minutes", "inf"), "--minutes"),
        (("--num", "0"), "--num"), (("--threads", "none"), "--threads"), (("--device", "tpu"), "tpu"),
        (("--device", "meta"), "meta"),
    ],
)
def test_wrong_input_is_one_line(tmp_path, data, more, named, capsys):
    assert call(data, tmp_path / "run", *more) == 2
    message = capsys.readouterr().err.strip()
    assert named in message and len(message.splitlines()) == 1


def test_joining_nothing_says_what_to_do(tmp_path, capsys):
    assert main(["join", str(tmp_path), "--out", str(tmp_path / "all.npz")]) == 2
    assert "python -m methods run" in capsys.readouterr().err
