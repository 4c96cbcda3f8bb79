"""benchmarks/gpu_session.sh goes on where the last slot ended; tried with a stand-in for python that trains nothing."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from benchmarks import gpu_rows

ROOT = Path(__file__).resolve().parents[2]
# Notes each call, and ends as the file `ends` says for the first call that has its words, once.
STAND_IN = """#!/bin/sh
echo "$*" >> "$OUT/calls"
while read -r code words; do
  case "$*" in *"$words"*) [ -e "$OUT/$code.ended" ] || { : > "$OUT/$code.ended"; exit "$code"; } ;; esac
done < "$OUT/ends"
case "$*" in
  *gpu_rows*) printf 'paper/a\\tmnist\\tdpac --run a --set "x={b: 1}"\\npaper/b\\tfashion_mnist\\tgs_wgan --run b\\n' ;;
  *"methods run"*) for last in "$@"; do [ "$before" != --out ] || mkdir -p "$last"; before=$last; done ;;
esac
"""


@pytest.fixture
def session(tmp_path: Path):
    """A call of the script: of a slot's minutes, parts, and how calls end; returns exit code, stderr and new calls."""
    python = tmp_path / "python"
    python.write_text(STAND_IN)
    python.chmod(0o755)
    out = tmp_path / "out folder"
    out.mkdir()

    def call(*arguments: str, ends: str = "") -> tuple[int, str, list[str]]:
        (out / "ends").write_text(ends)
        (out / "calls").write_text("")
        environment = os.environ | {"OUT": str(out), "PYTHON": str(python), "DATA": "DATA"}
        done = subprocess.run(
            [ROOT / "benchmarks/gpu_session.sh", *arguments], env=environment, capture_output=True, text=True
        )
        calls = (out / "calls").read_text().splitlines()
        return done.returncode, done.stderr, [call for call in calls if not call.startswith("-c ")]

    return call


def test_each_slot_goes_on_where_the_last_one_ended(session) -> None:
    code, error, calls = session("10", ends="75 --run b\n")
    assert code == 75 and "paper/b goes on in the next one" in error
    named = ["-m pytest", "-m benchmarks --only", "benchmarks.gpu_rows paper", "run dpac --run a", "--run b"]
    assert len(calls) == 5 and all(words in call for words, call in zip(named, calls, strict=True))
    assert "--set x={b: 1} --data DATA/mnist" in calls[3]
    code, _, calls = session("10")
    assert code == 0 and len(calls) == 1 and "run gs_wgan --run b --data DATA/fashion_mnist" in calls[0]
    assert session("10")[::2] == (0, [])


def test_nothing_is_trained_on_a_card_whose_tests_fail(session) -> None:
    code, error, calls = session("10", ends="3 pytest\n")
    assert code == 1 and len(calls) == 1 and "tests failed with exit code 3" in error


def test_what_a_short_slot_has_no_time_for_is_left_to_the_next_one(session) -> None:
    code, error, calls = session("2", "speed")
    assert (code, calls) == (75, []) and "speed goes on in the next one" in error


def test_nothing_begins_where_torch_sees_no_card(session) -> None:
    code, error, calls = session("10", ends="1 torch.cuda.is_available\n")
    assert (code, calls) == (2, []) and "has no torch that sees a GPU" in error


@pytest.mark.parametrize(
    ("arguments", "says"),
    [((), "got ''"), (("0",), "2 to 9999, got '0'"), (("ten",), "got 'ten'"), (("10", "papers"), "valid: tests,")],
)
def test_a_wrong_call_ends_in_one_line(session, arguments, says) -> None:
    code, error, calls = session(*arguments)
    assert (code, calls) == (2, []) and error.startswith("error: ") and says in error and error.count("\n") == 1


def test_the_runs_are_those_of_the_presets_in_the_order_of_the_session(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_rows.main(["paper", "teachers"]) in (0, None)
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    folders = [folder for folder, _, _ in rows]
    assert folders[:3] == [f"paper/runs/mnist/{run}/eps10/seed0" for run in ("dpac", "gs_wgan", "dpac_scatter")]
    assert [folder.split("/")[2] for folder in folders] == (["mnist"] * 4 + ["fashion_mnist"] * 4) * 2
    assert len({folder for folder in folders if folder.startswith("teachers/")}) == 8
    assert all("--paper" in arguments for folder, _, arguments in rows if folder.split("/")[3] in ("dpac", "gs_wgan"))
    assert all("--over-budget" in arguments for folder, _, arguments in rows if "as_released" in folder)
    # A card has room for teachers in 32 bits; the processor would draw the rounding of 16.
    assert all("teacher_memory=fp32" in arguments for folder, _, arguments in rows if folder.startswith("teachers/"))
    assert not any("teacher_memory" in arguments for folder, _, arguments in rows if folder.startswith("paper/"))


def test_another_part_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_rows.main(["papers"]) == 2
    assert "unknown part 'papers'" in capsys.readouterr().err
