"""A disturbed run refunds nothing, answers nothing twice, and ends as if nothing had been; the judge sees it if not."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from toys import ROOT

from methods.core.privacy.grant import Grant
from tests.faults.scenarios import ANSWERS, SCENARIOS, STEPS, fresh, judge, prepare

SCENARIO = SCENARIOS["dp_cgan"]
RELEASE = "discriminator_gradient"


def command(*arguments: str) -> str:
    """Runs the command in a process of its own, which forks, and returns what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.kills", *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_some_faults_of_each_kind_end_well():
    text = command("--scenario", "dp_merf", "--scenario", "dp_cgan", "--points", "5", "--sizes", "1", "--random", "2")
    assert "0 faults found" in text
    assert all(f"{kind} " in text for kind in ("kill", "random kill", "no file beyond a size"))


def test_answers_of_every_kind_are_written_down():
    others = {"release", "open", "close", "poisson_batch", "shard"}
    assert set(ANSWERS) == {name for name in vars(Grant) if not name.startswith("_")} - others


@pytest.mark.faults
def test_every_fault_at_every_file_operation_ends_well():
    text = command()
    cases, kills = (int(text.rsplit(end, 1)[0].split()[-1]) for end in (" cases, ", ", ENOSPC"))
    assert "0 faults found" in text and cases > 500, kills


@pytest.fixture(scope="module")
def straight(tmp_path_factory) -> Path:
    from tests.faults.kills import play

    origin, work = tmp_path_factory.mktemp("faults") / "origin", tmp_path_factory.mktemp("faults") / "straight"
    prepare(origin)
    fresh(work, origin)
    assert play(SCENARIO, work) == 0
    (work / "trace").write_text("".join(f"{RELEASE} {use} {use:064x}\n" for use in range(1, STEPS + 1)))
    return work


@pytest.fixture
def work(straight, tmp_path) -> Path:
    return Path(shutil.copytree(straight, tmp_path / "work"))


def wrong(work: Path, straight: Path) -> str:
    return "; ".join(judge(SCENARIO, work, straight).wrong)


def test_the_judge_passes_an_undisturbed_run(work, straight):
    outcome = judge(SCENARIO, work, straight)
    assert (outcome.wrong, outcome.lost) == ([], 0.0)


def test_the_judge_sees_a_use_that_was_answered_two_ways(work, straight):
    with (work / "trace").open("a") as trace:
        trace.write(f"{RELEASE} 7 {7:064x}\n{RELEASE} 9 {8:064x}\n")
    assert wrong(work, straight) == f"use 9 of {RELEASE} was answered 2 ways"


def test_the_judge_sees_an_answer_that_the_ledger_does_not_show(work, straight):
    with (work / "trace").open("a") as trace:
        trace.write(f"{RELEASE} {STEPS + 1} {0:064x}\n")
    assert f"use {STEPS + 1} of {RELEASE} was answered, the ledger ends at {STEPS}" in wrong(work, straight)


def test_the_judge_sees_a_record_that_says_less_than_its_ledger(work, straight):
    record = json.loads((work / "run" / "run.json").read_text())
    (work / "run" / "run.json").write_text(json.dumps(record | {"eps_sound": record["eps_sound"] / 2}))
    assert "its ledger more" in wrong(work, straight)


def test_the_judge_sees_lost_charges_and_files_left_behind(work, straight):
    lines = (work / "trace").read_text().splitlines(keepends=True)
    (work / "trace").write_text("".join(lines[:-4]))
    (work / "run" / ".log.abc.csv").touch()
    outcome = judge(SCENARIO, work, straight)
    assert outcome.lost == pytest.approx(4 / STEPS)
    assert outcome.wrong == ["run/.log.abc.csv was left behind"]


def test_the_judge_sees_another_result(work, straight):
    other = SCENARIOS["dp_merf"]
    samples = (straight / "samples.npz").read_bytes()
    (work / "samples.npz").write_bytes(samples[: len(samples) // 2])
    with pytest.raises(Exception, match="samples"):
        judge(SCENARIO, work, straight)
    assert other.kept == ("samples.npz",)
