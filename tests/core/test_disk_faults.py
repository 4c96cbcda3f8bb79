"""A disk that is full, read-only or broken costs one line, no charge, and nothing of what was there before."""

from __future__ import annotations

import errno
import json
import os
import resource
import signal
import sys
from collections import Counter
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from toys import TINY_GAN, TOY, toy_images, unrehearsed

from methods.__main__ import main
from methods.core.privacy import answers
from methods.core.release import Budget
from methods.core.runs.plan import Plan
from workflow.common.files import write_json, write_npz

FAULTS = [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EIO, errno.EDQUOT]
MERF = {"features": 32, "steps": 3, "batch_size": 10, "hidden": 8, "channels": 4}


class Disk:
    """Fails each operation of a kind on files below a folder from the n-th on, until it is mended."""

    hooked: Disk | None = None

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        self.folder, self.kind, self.left, self.error, self.hit = folder, None, 0, 0, False
        for name in ("open", "fsync", "replace", "rename", "mkdir", "posix_fallocate", "link"):
            monkeypatch.setattr(os, name, self._failing("rename" if name == "replace" else name, getattr(os, name)))
        # A hook stays for the process's life.
        if Disk.hooked is None:
            sys.addaudithook(lambda *event: Disk.hooked._hook(*event))
        Disk.hooked = self

    def breaks(self, kind: str | None, after: int = 0, error: int = errno.ENOSPC) -> None:
        self.kind, self.left, self.error, self.hit = kind, after, error, False

    def _fail(self, kind: str, path: object) -> None:
        if kind != self.kind or not self._ours(path):
            return
        self.left -= 1
        if self.left < 0:
            self.hit = True
            raise OSError(self.error, os.strerror(self.error), *([str(path)] if isinstance(path, str | Path) else []))

    def _ours(self, path: object) -> bool:
        if isinstance(path, int):
            path = os.readlink(f"/proc/self/fd/{path}")
        return str(path).startswith(str(self.folder))

    def _failing(self, kind, whole):
        def failing(path, *rest, **named):
            if kind != "open":
                self._fail(kind, path)
            return whole(path, *rest, **named)

        return failing

    def _hook(self, event: str, arguments: tuple) -> None:
        if event == "open" and self.kind == "open" and arguments[2] & (os.O_CREAT | os.O_WRONLY | os.O_RDWR):
            self._fail("open", arguments[0])


def files(folder: Path, method: str) -> list[str]:
    """Writes a plan and its records beside `folder`; returns the command that trains it there."""
    hyper = MERF if method == "dp_merf" else TINY_GAN | {"steps": 30}
    plan = Plan.make(method, "run", hyper, TOY, Budget(10.0, 1e-5, "published"), seed=0)
    place = folder.parent
    write_json(place / "plan.json", plan.to_dict())
    write_npz(place / "train.npz", images=toy_images().numpy(), labels=np.arange(60) % 10)
    return ["train", "--plan", str(place / "plan.json"), "--data", str(place / "train.npz"), "--out", str(folder)]


def charged(folder: Path) -> Counter[str]:
    """Returns how often each use was charged in a ledger, published or not."""
    ledgers = [path for path in (folder / "ledger.jsonl", folder / "private" / "ledger.jsonl") if path.exists()]
    records = [json.loads(line) for line in ledgers[0].read_text().splitlines()] if ledgers else []
    return Counter(record["use"] for record in records if "charge" in record)


@pytest.fixture
def disk(monkeypatch, tmp_path) -> Disk:
    disk = Disk(monkeypatch, tmp_path / "run")
    yield disk
    disk.breaks(None)


KINDS = ["open", "fsync", "rename", "mkdir", "posix_fallocate"]
# Faults of these that a run of many uses meets, one of few meets as well.
ALIKE = {("open", "gs_wgan"), ("mkdir", "gs_wgan")}


@pytest.mark.parametrize(
    ("kind", "method"),
    [
        pytest.param(*case, marks=[pytest.mark.slow] if case in ALIKE else [])
        for case in product(KINDS, ("dp_merf", "gs_wgan"))
    ],
)
def test_a_fault_of_the_disk_is_one_line_and_retries_charge_nothing(
    tmp_path, disk, capsys, monkeypatch, kind, method
):
    # Answers of gs_wgan's 30 uses are lost with the process, so a retry that charged first would show.
    monkeypatch.setattr(answers, "FEW", 29)
    unrehearsed(monkeypatch)
    command, folder = files(tmp_path / "run", method), tmp_path / "run"
    hits, charges = 0, Counter()
    for after, error in ((0, FAULTS[0]), (1, FAULTS[1]), (2, FAULTS[2]), (5, FAULTS[3]), (9, FAULTS[4]), (14, 5)):
        for retry in range(3):
            disk.breaks(kind, 0 if retry else after, error)
            code = main(command)
            # A folder that is there already need not be made.
            if not disk.hit or (code == 0 and kind == "mkdir"):
                break
            hits += 1
            message = capsys.readouterr().err.splitlines()[-1]
            assert code == 2 and message.startswith("error: ") and os.strerror(error) in message, message
            assert str(folder) in message
            charges = charged(folder) if retry == 0 else charges
            assert charged(folder) == charges
    disk.breaks(None)
    assert main(command) in (0, 2)
    record = json.loads((folder / "run.json").read_text())
    assert hits >= (1 if kind in ("posix_fallocate", "mkdir") else 3)
    planned = record["steps_planned"]
    assert record["steps_done"] >= (planned if method == "dp_merf" else planned - hits)
    assert max(charged(folder).values()) == 1


def with_small_files(size: int, command: list[str]) -> tuple[int, str]:
    """Runs a command in a forked process that can write no file beyond `size` bytes; returns its status and stderr."""
    reads, writes = os.pipe()
    child = os.fork()
    if child:
        os.close(writes)
        with os.fdopen(reads) as said:
            text = said.read()
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), text
    status = 1
    try:
        sys.stderr = os.fdopen(writes, "w", buffering=1)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
        status = main(command)
    finally:
        os._exit(status)


@pytest.mark.parametrize("size", [100, 700, 2100, 20_000])
def test_a_write_that_the_system_cuts_short_is_one_line_and_loses_nothing(tmp_path, monkeypatch, size):
    """In the ledger's first line, in its second, in what the run was begun with, in the checkpoint."""
    unrehearsed(monkeypatch)
    command, folder = files(tmp_path / "run", "gs_wgan"), tmp_path / "run"
    for _ in range(3):
        status, text = with_small_files(size, command)
        (line,) = [one for one in text.splitlines() if not one.startswith("continuing")]
        assert status == 2
        assert line.startswith(f"error: cannot write {folder / 'private'}/") and "File too large (" in line
        assert "GiB free on its disk)" in line and not charged(folder)
    assert main(command) == 0
    assert json.loads((folder / "run.json").read_text())["steps_done"] == 30


def test_samples_and_warm_starts_that_find_no_room_are_one_line_as_well(tmp_path, disk, capsys):
    assert main(files(tmp_path / "run", "dp_merf")) == 0
    write_json(tmp_path / "run" / "plan.json", json.loads((tmp_path / "plan.json").read_text()))
    sample = ["sample", "--run", str(tmp_path / "run"), "--num", "4", "--out", str(tmp_path / "run" / "samples.npz")]
    for kind in ("open", "fsync", "rename"):
        disk.breaks(kind)
        capsys.readouterr()
        assert main(sample) == 2 and disk.hit
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"error: cannot write {tmp_path / 'run' / 'samples.npz'}: No space left on device (")
    disk.breaks(None)
    assert main(sample) == 0


def test_a_file_in_place_of_a_folder_is_one_line(tmp_path, capsys):
    command = files(tmp_path / "run", "dp_merf")
    (tmp_path / "run").write_text("in the way")
    assert main(command) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"error: cannot write {tmp_path / 'run'}")
