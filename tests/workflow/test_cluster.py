"""What a cluster is asked for, and how Slurm is asked where it keeps no accounts."""

from __future__ import annotations

import types
from pathlib import Path

import pytest

from workflow import cluster

SHORT, LONG = (75, 1, 10), (7200, 1, 485)


@pytest.mark.parametrize(("seconds", "attempt", "expected"), [(0, 1, 5), SHORT, (75, 2, 20), LONG, (1, 3, 18)])
def test_minutes_follow_the_presets_seconds_and_grow_with_each_attempt(seconds, attempt, expected) -> None:
    assert cluster.minutes("train", seconds, attempt) == expected


def test_a_training_that_nobody_measured_gets_a_day() -> None:
    rules = ("train", "warmstart", "classifiers", "sample")
    assert [cluster.minutes(rule, None) for rule in rules] == [1440, 1440, 240, 60]
    assert cluster.minutes("train", None, attempt=2) == 2880


def scontrol(folder: Path, monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    """Puts a `scontrol` first in the path that says `said`."""
    (folder / "scontrol").write_text(f"#!/bin/sh\ncat <<'END'\n{said}\nEND\n")
    (folder / "scontrol").chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


OFF = "Configuration data as of now\nAccountingStorageType   = accounting_storage/none\nMinJobAge = 300 sec"
ON = OFF.replace("/none", "/slurmdbd")


@pytest.mark.parametrize(("said", "asked", "expected"), [
    (OFF, "sacct", "squeue"), (ON, "sacct", "sacct"), ("", "sacct", "sacct"), (ON, "squeue", "squeue"),
    (OFF, None, None),
])  # fmt: skip
def test_squeue_says_how_jobs_are_where_no_accounts_are_kept(tmp_path, monkeypatch, said, asked, expected) -> None:
    scontrol(tmp_path, monkeypatch, said)
    settings = types.SimpleNamespace(status_command=asked)
    changed = cluster.choose_status_command(settings)
    assert settings.status_command == expected
    assert changed == (expected if expected != asked else None)


def test_other_executors_have_no_such_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scontrol(tmp_path, monkeypatch, OFF)
    settings = types.SimpleNamespace()
    assert cluster.choose_status_command(settings) is None and vars(settings) == {}
    assert cluster.choose_status_command(None) is None


def test_without_slurm_nothing_is_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert cluster.keeps_accounts()


def test_every_rule_is_tried_as_often_as_the_call_says_and_never_less() -> None:
    rules = [types.SimpleNamespace(restart_times=times) for times in (0, 1, 5)]
    workflow = types.SimpleNamespace(execution_settings=types.SimpleNamespace(retries=3), rules=rules)
    cluster.raise_retries(workflow)
    assert [rule.restart_times for rule in rules] == [3, 3, 5]
