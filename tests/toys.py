"""Small inputs that several tests share: records, settings, and a machine that goes down during training."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from evaluation.protocol import Protocol
from methods.commands import release
from methods.core import registry
from methods.core.privacy.grant import Grant
from methods.core.privacy.private_data import PrivateData
from methods.core.release import PublicSpec
from methods.core.runs import train
from workflow import datasets, merging, presets
from workflow.common.contracts import LabelledImages
from workflow.grid import Config

ROOT = Path(__file__).resolve().parents[1]
TOY = PublicSpec("toy", (1, 28, 28), 10, 60)
CPU = torch.device("cpu")
# A sharded GAN of the smallest size.
TINY_GAN: dict[str, Any] = {
    "steps": 4, "batch_size": 3, "num_shards": 6, "critic_batch": 4, "critic_steps": 1, "warm_start_steps": 0,
    "warm_start_width": 2, "generator": "dcgan", "generator_width": 2, "critic_width": 2,
}  # fmt: skip
TINY_DPAC = TINY_GAN | {
    "classifier_start": 0, "classifier_fake_steps": 1, "classifier_real_steps": 1, "fakes_per_class": 1,
}  # fmt: skip


def toy_images(changed: int | None = None) -> torch.Tensor:
    """Returns the random images uint8 [60, 1, 28, 28] of TOY; `changed` is inverted."""
    images = torch.randint(0, 256, (60, 1, 28, 28), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    if changed is not None:
        images[changed] = 255 - images[changed]
    return images


def toy_records(changed: int | None = None) -> PrivateData:
    """Returns the records of TOY, labels 0 .. 9 again and again."""
    return PrivateData(toy_images(changed), torch.arange(60) % 10)


class Recorder:
    """Stands in for PrivateData and remembers which records were read."""

    def __init__(self, data: PrivateData) -> None:
        self.data, self.seen = data, set()

    def read(self, grant: Any, index: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Reads as PrivateData does."""
        self.seen |= set(torch.as_tensor(index).tolist())
        return self.data.read(grant, index)


class Killed(Exception):
    """What `killed_at` raises in place of a step."""


def killed_at(monkeypatch: pytest.MonkeyPatch, method: str, step: int) -> None:
    """Lets each run of `method` die when it comes to `step`."""
    unrehearsed(monkeypatch)
    cls = registry.load(method)
    whole = cls.step

    def stop(self, t, data, ledger):
        if t == step:
            raise Killed
        return whole(self, t, data, ledger)

    monkeypatch.setattr(cls, "step", stop)


def unrehearsed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets runs begin without a rehearsal, for what is to happen to their own steps."""
    for module in (train, release):
        monkeypatch.setattr(module, "rehearse", lambda *_: None)


def without_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets every grant answer exactly: clipped, but without noise and grid."""
    monkeypatch.setattr(Grant, "_noisy", lambda self, answer: answer)


def squares(count: int, seed: int, classes: int = 3, channels: int = 1, size: int = 28) -> LabelledImages:
    """Returns images of noise with a bright square whose place is the label; labels cycle through the classes.

    Any sane classifier learns them in seconds.
    """
    random = np.random.default_rng(seed)
    labels = np.arange(count, dtype=np.int64) % classes
    images = random.integers(0, 60, (count, channels, size, size), dtype=np.uint8)
    for image, label in zip(images, labels, strict=True):
        image[:, 4 + 7 * label : 9 + 7 * label, 8:18] = 220
    return LabelledImages(images, labels)


def copied_sources(folder: Path) -> Path:
    """Copies into `folder` what the graph needs of the repository, and returns it."""
    for name in ("workflow", "methods", "evaluation", "profiles", "results/published"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "Snakefile", folder)
    return folder


def shipped(preset: str) -> Config:
    """Returns the configuration of a preset as it is shipped; one without data sets gets a set of pictures."""
    keys = [field.name for field in dataclasses.fields(Protocol)]
    held = merging.shipped_content(preset)["datasets"]
    own = {} if held else {"datasets": {"pictures": {"folder": "pictures"}}}
    return presets.load({"preset": preset, **own}, datasets=datasets.NAMES, methods=registry, protocol_keys=keys)
