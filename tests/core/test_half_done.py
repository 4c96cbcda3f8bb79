"""A warm start that is stopped goes on within its file, and its critics are those of one that was not."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

import pytest
import torch
from toys import CPU, TINY_GAN, TOY, toy_records

from methods.core import registry
from methods.core.method import WARM_START_SOURCE, Context
from methods.core.privacy.ledger import Ledger
from methods.core.release import NO_BUDGET
from methods.core.runs import warm_start
from methods.core.sharded import half_done, pretraining
from workflow.common import process
from workflow.common.errors import UserError

HP = registry.hyper(
    "gs_wgan", TINY_GAN | {"num_shards": 10, "warm_start_steps": 4, "spectral_norm": True}
)


def critics(folder: Path, source: str | None = None) -> dict[str, bytes]:
    """Makes all critics in a folder, which notes them as those of `source`, and returns its files besides that note."""
    note = folder / WARM_START_SOURCE
    with Ledger.open(folder.with_suffix(".jsonl"), (), NO_BUDGET, resume=folder.exists()) as ledger:
        folder.mkdir(exist_ok=True)
        if source is not None:
            note.write_text(source)
        pretraining.pretrain(HP, Context(TOY, (), 0, CPU), toy_records(), ledger, folder)
    return {path.name: path.read_bytes() for path in folder.iterdir() if path != note}


def stopped(folder: Path, monkeypatch: pytest.MonkeyPatch, at: int) -> list[str]:
    """Lets the training of critics end at its step `at`, counted over all files; returns what is left in the folder."""
    monkeypatch.setattr(half_done, "SECONDS", 0.0)
    whole, calls = pretraining._train_generators, []

    def stop(*given) -> None:
        calls.append(1)
        if len(calls) == at:
            raise KeyboardInterrupt
        whole(*given)

    monkeypatch.setattr(pretraining, "_train_generators", stop)
    with pytest.raises(KeyboardInterrupt):
        critics(folder)
    monkeypatch.setattr(pretraining, "_train_generators", whole)
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def straight(tmp_path_factory) -> dict[str, bytes]:
    return critics(tmp_path_factory.mktemp("straight") / "critics")


@pytest.mark.parametrize(("at", "left"), [(3, ["half-00000-00007.pt"]), (7, None)])
def test_it_goes_on_from_the_last_step_that_was_kept_and_ends_equal(at, left, straight, tmp_path, monkeypatch) -> None:
    there = stopped(tmp_path / "critics", monkeypatch, at)
    assert there == (left or ["critics-00000-00007.safetensors", "half-00008-00009.pt"])
    steps, whole = [], pretraining._train_generators
    monkeypatch.setattr(pretraining, "_train_generators", lambda *given: steps.append(1) or whole(*given))
    assert critics(tmp_path / "critics") == straight
    # Of 4 steps a file, those before the one that was begun are not done again.
    assert len(steps) == 8 - at + 1


@pytest.mark.parametrize("harm", ["cut", pytest.param("empty", marks=pytest.mark.slow), "of other critics"])
def test_a_damaged_or_strange_file_costs_time_alone(harm, straight, tmp_path, monkeypatch) -> None:
    folder = tmp_path / "critics"
    stopped(folder, monkeypatch, 3)
    half = folder / "half-00000-00007.pt"
    if harm == "of other critics":
        (tmp_path / "other").mkdir()
        stopped(tmp_path / "other" / "critics", monkeypatch, 7)
        half.write_bytes((tmp_path / "other" / "critics" / "half-00008-00009.pt").read_bytes())
    else:
        half.write_bytes(b"" if harm == "empty" else half.read_bytes()[:1000])
    assert critics(folder) == straight


def test_what_is_half_done_from_other_records_is_not_gone_on_from(straight, tmp_path, monkeypatch) -> None:
    """Shapes alone do not tell records apart: a file that a process of before left would bring its records along."""
    folder = tmp_path / "critics"
    stopped(folder, monkeypatch, 3)
    steps, whole = [], pretraining._train_generators
    monkeypatch.setattr(pretraining, "_train_generators", lambda *given: steps.append(1) or whole(*given))
    assert critics(folder, "other records") == straight
    assert len(steps) == 8


@pytest.mark.parametrize("threads", [1, 2])
def test_one_that_is_told_to_end_keeps_every_step_that_it_did(threads, straight, tmp_path, monkeypatch) -> None:
    steps, whole, before = [], pretraining._train_generators, torch.get_num_threads()
    note, noted = process.Signals.note, threading.Event()

    def step(*given) -> None:
        whole(*given)
        steps.append(1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert noted.wait(60)

    monkeypatch.setattr(pretraining, "_train_generators", step)
    monkeypatch.setattr(process.Signals, "note", lambda *given: note(*given) or noted.set())
    torch.set_num_threads(threads)
    try:
        while len(steps) < 8:
            done = len(steps)
            noted.clear()
            with pytest.raises(process.Stopped, match=str(128 + signal.SIGTERM)) as end:
                critics(tmp_path / "critics")
            assert len(steps) > done and "of 10 critics of the warm start" in end.value.kept
    finally:
        torch.set_num_threads(before)
    assert critics(tmp_path / "critics") == straight
    assert len(steps) == 8


def test_what_is_half_done_is_its_owners_alone(tmp_path, monkeypatch) -> None:
    stopped(tmp_path / "critics", monkeypatch, 3)
    assert (tmp_path / "critics" / "half-00000-00007.pt").stat().st_mode & 0o777 == 0o600


def test_a_kill_after_the_critics_were_written_leaves_no_half_of_them_for_good(straight, tmp_path) -> None:
    folder = tmp_path / "critics"
    folder.mkdir()
    folder.with_suffix(".jsonl").touch()
    for name, content in straight.items():
        (folder / name).write_bytes(content)
    (folder / "half-00008-00009.pt").write_bytes(b"left by a kill")
    assert critics(folder) == straight


def test_a_second_maker_discards_nothing_while_the_first_one_works(tmp_path, monkeypatch) -> None:
    made = []

    def make(train: str) -> None:
        warm_start.make("toy", {"critics": 1}, TOY, toy_records(), 0, CPU, tmp_path, train)

    class Maker:
        @staticmethod
        def check_warm_start(settings, public) -> None:
            pass

        @staticmethod
        def make_warm_start(settings, context, data, ledger, out) -> None:
            made.append(1)
            assert made == [1], "the second maker was let in"
            there = {path.name: path.read_bytes() for path in out.iterdir()}
            with pytest.raises(UserError, match="in use by another process"):
                make("other records")
            assert {path.name: path.read_bytes() for path in out.iterdir()} == there

    monkeypatch.setattr(warm_start.registry, "load", lambda name: Maker)
    make("records")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["done.json", "ledger.jsonl", "source.json"]


def test_a_short_training_keeps_nothing(tmp_path, monkeypatch) -> None:
    saved = []
    monkeypatch.setattr(half_done.torch, "save", lambda *given: saved.append(given))
    critics(tmp_path / "critics")
    assert not saved
