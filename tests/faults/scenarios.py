"""Tiny whole runs by their commands, and what must hold of what they leave, however they were disturbed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from methods.commands import release
from methods.core.accounting.calibration import epsilon
from methods.core.privacy.grant import Grant
from methods.core.release import Release
from methods.core.runs import train
from tests.toys import TINY_GAN
from workflow.common.contracts import load_images
from workflow.common.files import write_json, write_npz

# So many that five of a hundred are two or more.
STEPS = 40
_RECORDS, _CLASSES = 60, 10
_GAN = TINY_GAN | {"steps": STEPS, "warm_start_steps": 1}
_TEACHERS = {
    "steps": STEPS, "batch_size": 2, "num_teachers": 4, "teacher_network": "mlp", "hidden": 4, "width": 2, "latent": 3,
    "pretrain_steps": 1, "teacher_batch": 3, "teacher_steps": 1, "projected": 2,
}  # fmt: skip
ANSWERS = ("rows", "sum", "votes", "moments", "noise")


@dataclass(frozen=True)
class Scenario:
    """Commands that make one run from a folder of data; `{work}` in an argument is where everything lies."""

    name: str
    commands: tuple[tuple[str, ...], ...]
    # The folder that holds the run's record and ledger when all is done; None for a release, which keeps its own.
    run: str | None = "run"
    kept: tuple[str, ...] = field(default=())


def _run(method: str, settings: dict[str, Any], *more: str) -> tuple[str, ...]:
    chosen = [f"--set={key}={json.dumps(value)}" for key, value in settings.items()]
    return (
        "run", method, "--data", "{work}/data", "--device", "cpu", "--num", "40", "--out", "{work}/run", *chosen, *more
    )  # fmt: skip


def _whole(name: str, method: str, settings: dict[str, Any], *more: str) -> Scenario:
    join = ("join", "{work}/run", "--out", "{work}/samples.npz")
    return Scenario(name, (_run(method, settings, *more), join), kept=("samples.npz",))


_MERF = {"features": 32, "steps": 4, "batch_size": 10, "hidden": 4, "channels": 2}
_NTK = {"width": 8, "steps": 4, "batch_size": 10, "hidden": 4, "channels": 2}
# So few records that no rule would split their classes.
_GAUSS = {"cutoff": 4.0, "least_rank": 3, "least_signal": 0.0}
_SCATTER = _GAUSS | {"classifier_steps": STEPS, "steps": 4, "batch_size": 8, "width": 2, "candidates": 2}
SCENARIOS = {
    one.name: one
    for one in (
        _whole("gs_wgan", "gs_wgan", _GAN, "--accounting", "published"),
        _whole("dp_cgan", "dp_cgan", {"steps": STEPS, "batch_size": 20, "hidden": 4}),
        _whole("dp_merf", "dp_merf", _MERF),
        _whole("dp_ntk", "dp_ntk", _NTK),
        _whole("dp_gauss", "dp_gauss", _GAUSS),
        _whole("dpac_scatter", "dpac_scatter", _SCATTER),
        _whole("g_pate", "g_pate", _TEACHERS),
        _whole("secret", "dp_cgan", {"steps": STEPS, "batch_size": 20, "hidden": 4}, "--secret-noise"),
        Scenario(
            "release",
            (
                (
                    "release", "dp_cgan", "--data", "{work}/data", "--out", "{work}/given", "--device", "cpu",
                    f"--set=steps={STEPS}", "--set=batch_size=20", "--set=hidden=4",
                ),
            ),
            run=None,
            kept=("given/samples.npz",),
        ),
    )
}  # fmt: skip


def prepare(work: Path) -> None:
    """Writes the data set, as `python -m workflow.datasets` would, into `work`/data."""
    draws = np.random.default_rng(0)
    images = draws.integers(0, 256, (_RECORDS, 1, 28, 28), dtype=np.uint8)
    labels = np.arange(_RECORDS, dtype=np.int64) % _CLASSES
    write_npz(work / "data" / "train.npz", images=images, labels=labels)
    digest = load_images(work / "data" / "train.npz").digest()
    write_json(work / "data" / "card.json", {
        "dataset": "tiny", "image_shape": [1, 28, 28], "num_classes": _CLASSES,
        "class_names": [f"class {number}" for number in range(_CLASSES)],
        "splits": {"train": {"count": _RECORDS, "sha256": digest}},
    })  # fmt: skip


def write_down_answers(handle: int) -> None:
    """Lets this process write a line to a file's `handle` for each answer that a grant hands out.

    A line holds the release, the use and a digest of the answer. A rehearsal's answers are of random images, and do not
    count.
    """
    rehearse = train.rehearse

    def unwritten(*arguments: Any) -> None:
        with pytest.MonkeyPatch.context() as patch:
            for name, answering in plain.items():
                patch.setattr(Grant, name, answering)
            rehearse(*arguments)

    plain = {name: getattr(Grant, name) for name in ANSWERS}
    train.rehearse = release.rehearse = unwritten
    for name in ANSWERS:
        setattr(Grant, name, _written(getattr(Grant, name), handle))


def _written(answering: Any, handle: int) -> Any:
    def answer(self: Grant, *arguments: Any, **named: Any) -> Any:
        value = answering(self, *arguments, **named)
        digest = hashlib.sha256(value.detach().cpu().contiguous().numpy().tobytes()).hexdigest()
        os.write(handle, f"{self.release.name} {self._use} {digest}\n".encode())
        return value

    return answer


@dataclass
class Outcome:
    """What a disturbed run came to: its faults in words, and the share of its planned charges that were lost."""

    wrong: list[str]
    lost: float


def judge(scenario: Scenario, work: Path, straight: Path) -> Outcome:
    """Compares a run that was disturbed and then ended with the `straight` one."""
    wrong = list(_left_over(work))
    answered = _answers(work / "trace")
    wrong += [f"use {use} of {name} was answered {len(each)} ways" for (name, use), each in answered.items()
              if len(each) > 1]  # fmt: skip
    lost = 0.0
    if scenario.run is not None:
        folder = work / scenario.run
        record = json.loads((folder / "run.json").read_text())
        spent = uses(folder / "ledger.jsonl")
        wrong += _refunds(folder, spent, answered, record)
        lost = 1 - record["steps_done"] / record["steps_planned"]
        gone = sum(count - len([use for one, use in answered if one == name]) for name, count in spent.items())
        lost = max(lost, gone / sum(release.max_uses for release in _header(folder / "ledger.jsonl")[0]))
    if lost == 0 and scenario.name not in ("secret", "release"):
        wrong += [f"{name} is another than the undisturbed run's" for name in scenario.kept
                  if not _same(work / name, straight / name)]  # fmt: skip
    wrong += [f"{name} is not whole" for name in scenario.kept if not _is_whole(work / name)]
    return Outcome(wrong, lost)


def is_done(scenario: Scenario, work: Path) -> bool:
    """Returns whether a release is whole and its workplace gone: then its command has nothing left to do."""
    return scenario.run is None and (work / "given").exists() and not (work / "given.private").exists()


def _left_over(work: Path) -> Iterator[str]:
    for path in work.rglob("*"):
        if path.name.startswith(".") or ".partial" in path.name:
            yield f"{path.relative_to(work)} was left behind"


def _answers(trace: Path) -> dict[tuple[str, int], set[str]]:
    answers: dict[tuple[str, int], set[str]] = defaultdict(set)
    for line in trace.read_text().splitlines() if trace.exists() else []:
        name, use, digest = line.rsplit(" ", 2)
        answers[name, int(use)].add(digest)
    return answers


def _header(ledger: Path) -> tuple[tuple[Release, ...], float]:
    """Returns the releases that a ledger was begun with, and the delta of its budget."""
    header = json.loads(ledger.read_text().splitlines()[0])
    return tuple(Release.from_dict(fields) for fields in header["plan"]), header["budget"]["delta"]


def uses(ledger: Path) -> dict[str, int]:
    """Returns the number of the last use of each release that a published ledger shows as charged."""
    last: dict[str, int] = defaultdict(int)
    for line in ledger.read_text().splitlines()[1:]:
        record = json.loads(line) if line.startswith("{") and line.endswith("}") else {}
        if "charge" in record:
            last[record["charge"]] = max(last[record["charge"]], record["use"])
    return dict(last)


def _refunds(folder: Path, spent: dict[str, int], answered: Any, record: dict[str, Any]) -> Iterator[str]:
    for name, use in answered:
        if use > spent.get(name, 0):
            yield f"use {use} of {name} was answered, the ledger ends at {spent.get(name, 0)}"
    releases, delta = _header(folder / "ledger.jsonl")
    shown = tuple(release.used(min(spent.get(release.name, 0), release.max_uses)) for release in releases)
    if record["eps_sound"] < epsilon(shown, delta, "sound") * (1 - 1e-9):
        yield f"run.json says epsilon {record['eps_sound']}, its ledger more"


def _same(one: Path, other: Path) -> bool:
    first, second = load_images(one), load_images(other)
    return np.array_equal(first.images, second.images) and np.array_equal(first.labels, second.labels)


def _is_whole(path: Path) -> bool:
    return path.exists() and len(load_images(path)) >= 40


def fresh(work: Path, origin: Path) -> None:
    """Makes `work` a copy of the prepared folder `origin`."""
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(origin, work)
