"""`python -m methods watch` tells from files alone how far the runs of a graph are."""

from __future__ import annotations

import os
import pty
import signal
import socket
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from methods.__main__ import main
from methods.commands import watch
from workflow.common.files import write_json
from workflow.common.live import FAILED, STOPPED, Live, live_path, tell
from workflow.common.run_states import GRAPH

ROOT = Path(__file__).resolve().parents[2]


def a_run(root: Path, run: str, *files: str, **planned) -> Path:
    folder = root / "runs/mnist" / run / "eps10/seed0"
    write_json(folder / "plan.json", {"epsilon": 10.0, "accounting": "sound"})
    for name in files:
        write_json(folder / name, {"steps_done": 40, "steps_planned": 40, "train_seconds": 61.4})
    return folder


def log(root: Path, rule: str, run: str, text: str) -> None:
    path = root / "logs" / rule / f"mnist-{run}-eps10-seed0.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def shown(capsys, *arguments: str) -> list[str]:
    assert main(["watch", *arguments]) == 0
    return capsys.readouterr().out.splitlines()


@pytest.fixture
def results(tmp_path) -> Path:
    """Runs in every state below results/quick; the names say which."""
    root = tmp_path / "results/quick"
    a_run(root, "planned")
    values = {"loss": 0.12345}
    tell(a_run(root, "training"), Live(30, 40, values, rate=0.5, epsilon=8.218))
    tell(a_run(root, "stopped"), Live(7, 40, state=STOPPED))
    gone = Live(9, 40, updated=time.time(), host=socket.gethostname(), pid=2**22 + 1, checkpoint=6)
    write_json(live_path(a_run(root, "killed")), asdict(gone))
    tell(a_run(root, "broken"), Live(3, 40, state=FAILED, reason="cannot write x: No space left"))
    a_run(root, "trained", "run.json")
    a_run(root, "sampled", "run.json", "samples.npz")
    a_run(root, "scored", "run.json", "samples.npz", "fidelity.json", "utility.json")
    a_run(root, "unscored", "run.json", "samples.npz")
    log(root, "fidelity", "unscored", "Traceback (most recent call last):\n  File x\nValueError: NaN\n\n")
    log(root, "train", "scored", "error: of an attempt before the one that went well\n")
    told = ["results/quick/runs/mnist/scored/eps10/seed0", "results/quick/runs/mnist/later/eps10/seed0"]
    write_json(root / GRAPH, {"runs": told, "line": "progress: 5/60 steps", "updated": time.time() - 300})
    return tmp_path / "results"


def test_every_run_of_a_graph_has_its_state_and_what_moves_stands_first(results, capsys):
    head, call, *rows = shown(capsys, str(results))
    assert head.endswith(
        "quick: 10 runs: 1 waiting, 1 planned, 1 training, 2 stopped, 1 trained, 1 sampled, 1 scored, 2 failed"
    )
    assert call == "  progress: 5/60 steps (said 5 min ago)"
    table = {row.split()[2]: (row.split()[0], row.partition("seed0")[2].strip()) for row in rows}
    assert table == {
        "training": (
            "training", "step 30 of 40, loss 0.1235, 2 s/step, about 20 s left, epsilon 8.22 of 10 spent (sound count)",
        ),
        "broken": ("failed", "cannot write x: No space left"),
        "unscored": ("failed", "fidelity: ValueError: NaN"),
        "killed": ("stopped", "step 9 of 40; the same command continues from its checkpoint after step 6"),
        "stopped": ("stopped", "step 7 of 40; the same command continues"),
        "trained": ("trained", "40 steps in 61 s"),
        "sampled": ("sampled", "40 steps in 61 s"),
        "planned": ("planned", ""),
        "later": ("waiting", ""),
        "scored": ("scored", "40 steps in 61 s"),
    }  # fmt: skip
    assert list(table) == [
        "training",
        "broken",
        "unscored",
        "killed",
        "stopped",
        "trained",
        "sampled",
        "planned",
        "later",
        "scored",
    ]


def test_a_preset_or_a_run_may_be_named_and_a_run_that_no_graph_made(results, tmp_path, capsys):
    assert shown(capsys, str(results / "quick"))[2:] == shown(capsys, str(results))[2:]
    run = results / "quick/runs/mnist/trained/eps10/seed0"
    assert shown(capsys, str(run))[1] == "  trained   mnist trained eps10 seed0  40 steps in 61 s"
    write_json(tmp_path / "mine/first/plan.json", {})
    assert shown(capsys, str(tmp_path / "mine"))[1] == "  planned   first"


def test_nothing_to_watch_is_said_and_a_folder_that_is_not_there_is_bad_input(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["watch"]) == 2
    assert capsys.readouterr().err == "error: no folder results to watch; name the results, such as results/quick\n"
    (tmp_path / "results/published").mkdir(parents=True)
    assert shown(capsys) == ["no runs under results yet: snakemake and python -m methods run make some"]


@pytest.mark.parametrize("damage", ["{", "[]", '{"runs": 3, "line": "x", "updated": 0}'])
def test_files_that_are_half_written_or_foreign_are_passed_over(results, capsys, damage):
    (results / "quick" / GRAPH).write_text(damage)
    live_path(results / "quick/runs/mnist/training/eps10/seed0").write_text(damage)
    rows = shown(capsys, str(results))
    assert "  planned   mnist training eps10 seed0" in rows and "later" not in "".join(rows)


def test_on_a_terminal_it_looks_again_until_ctrl_c_which_is_no_failure(results):
    controller, terminal = pty.openpty()
    command = [sys.executable, "-m", "methods", "watch", "--every", "0.05"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "80", "LINES": "24"}
    with subprocess.Popen(
        command, cwd=results.parent, env=environment, stdout=terminal, stderr=terminal, start_new_session=True
    ) as watching:
        os.close(terminal)
        text = ""
        while text.count("10 runs") < 3:
            text += os.read(controller, 4096).decode()
        watching.send_signal(signal.SIGINT)
        while True:
            try:
                text += os.read(controller, 4096).decode()
            except OSError:
                break
    os.close(controller)
    assert watching.returncode == 0 and "interrupted" not in text and "Traceback" not in text
    assert "Ctrl-C ends the watching and no run" in text


@pytest.mark.parametrize(
    "told",
    [7, ["runs/mnist/a/eps1/seed0"], "", "/", "a\0b", "runs/mnist/a/epsx/seed0", f"runs/mnist/{'a' * 300}/eps1/seed0"],
    ids=["number", "list", "empty", "root", "null", "epsilon", "long"],
)
def test_a_call_that_tells_nonsense_of_its_runs_hides_no_other(results, capsys, told):
    content = {"runs": [], "line": "ended: 1/1 steps", "updated": time.time()}
    write_json(results / "quick" / GRAPH, content)
    without = shown(capsys, str(results))
    write_json(results / "quick" / GRAPH, {**content, "runs": [told]})
    found = shown(capsys, str(results))
    assert found == without or len(found) == len(without) + 1


def test_a_folder_that_may_not_be_entered_hides_no_other(results, capsys, monkeypatch):
    stat = os.stat

    def refused(path, *arguments, **named):
        if "closed" in str(path):
            raise PermissionError(13, "Permission denied", str(path))
        return stat(path, *arguments, **named)

    (results / "closed").mkdir()
    before = shown(capsys, str(results))
    monkeypatch.setattr(os, "stat", refused)
    assert shown(capsys, str(results)) == before


def test_what_a_log_holds_is_shown_and_not_obeyed(results, capsys):
    log(results / "quick", "train", "planned", "error: \x1b[2Jcleared \x07\n")
    (line,) = (line for line in shown(capsys, str(results)) if "cleared" in line)
    assert line.endswith("train: error: \\x1b[2Jcleared \\x07")


@pytest.mark.parametrize("height", [1, 2, 3, 4, 30])
def test_no_more_is_drawn_than_the_terminal_is_high(capsys, monkeypatch, height):
    monkeypatch.setattr(watch.shutil, "get_terminal_size", lambda: os.terminal_size((80, height)))
    watch._draw([f"line {number}" for number in range(10)] + ["end"])
    drawn = capsys.readouterr().out.count("\n")
    assert drawn == min(max(height - 1, 1), 11)


def test_a_run_whose_samples_were_made_elsewhere_is_shown_though_it_has_no_plan(tmp_path, capsys):
    folder = tmp_path / "runs/mnist/theirs/eps10/seed0"
    write_json(folder / "run.json", {"accounting": "claimed"})
    (folder / "samples.npz").touch()
    assert shown(capsys, str(tmp_path))[1:] == ["  sampled   mnist theirs eps10 seed0"]
    for name in ("fidelity.json", "utility.json"):
        (folder / name).touch()
    assert shown(capsys, str(tmp_path))[1:] == ["  scored    mnist theirs eps10 seed0"]
    assert shown(capsys, str(folder))[1:] == ["  scored    mnist theirs eps10 seed0"]
    log(tmp_path, "external", "lost", "error: samples.npz: no such file\n")
    told = ["results/quick/runs/mnist/lost/eps10/seed0"]
    write_json(tmp_path / GRAPH, {"runs": told, "line": "ended", "updated": time.time()})
    failed = "  failed    mnist lost eps10 seed0    external: error: samples.npz: no such file"
    assert failed in shown(capsys, str(tmp_path))
