"""What is measured, and at which sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from methods.core import registry

QUICK = Path(__file__).resolve().parents[1] / "workflow" / "config" / "quick.yaml"
DATASET, EPSILON = "mnist", 10.0


@dataclass(frozen=True)
class Case:
    """One method with its settings: `hyper` overrides the method's defaults."""

    method: str
    hyper: Mapping[str, Any]

    @property
    def hp(self) -> Any:
        """The method's Hyper object. Raises UserError for a setting that the method does not have."""
        return registry.hyper(self.method, self.hyper)


@dataclass(frozen=True)
class Axis:
    """One line of the scaling part: the same small settings at several values of one of them.

    `measures` is "warm_start" (seconds of the whole warm start), "total" (seconds of all steps) or "step" (seconds of
    one step); `name` is a hyper-parameter of GS-WGAN, or image_size.
    """

    name: str
    measures: str
    values: tuple[int, ...]


@dataclass(frozen=True)
class Sizes:
    """All sizes of one call.

    Attributes:
        iterations: case name -> what one iteration of it trains.
        warm_start: case name -> a warm start of all its shards.
        num_train: records of the iteration cases.
        shard_size: records of a shard where the number of shards is the benchmark's own.
        seconds: least time of one timed block; short iterations are repeated within it.
        roofline: the iteration case whose rate is compared with the machine's.
        channels, batch, pixels: the convolutions of the roofline, [batch, channels, p, p] for each p, 3x3 to as many
            channels.
        matrix: device type -> rows and columns of the roofline's square matrices.
        scaled: settings of all scaling axes, and those axes.
        steps: timed steps of one point of an axis that measures "step".
    """

    iterations: Mapping[str, Case]
    warm_start: Mapping[str, Case]
    num_train: int
    shard_size: int
    seconds: float
    roofline: str
    channels: int
    batch: int
    pixels: tuple[int, ...]
    matrix: Mapping[str, int]
    scaled: Mapping[str, Any]
    axes: tuple[Axis, ...]
    steps: int


def quick(method: str, **overrides: Any) -> Case:
    """Returns a method at the settings of preset quick for MNIST, as workflow/config/quick.yaml states them."""
    row = yaml.safe_load(QUICK.read_text(encoding="utf-8"))["methods"][method]
    settings = {**row, **row.get("per_dataset", {}).get(DATASET, {})}
    # A row also says how it was chosen and how it is counted.
    hyper = {name: value for name, value in settings.items() if name in registry.fields(method)}
    return Case(method, {**hyper, **overrides})


def paper(method: str, **overrides: Any) -> Case:
    """Returns a method at its published settings for MNIST."""
    return Case(method, {**registry.paper_settings(method, DATASET, EPSILON), **overrides})


def full() -> Sizes:
    """Returns the sizes of `python -m benchmarks`."""
    # More steps than are ever timed: the ledger ends a run that has taken its last.
    run = {"steps": 100_000, "warm_start_steps": 0}
    return Sizes(
        iterations={
            "resnet64": paper("gs_wgan", precision="bf16", **run),
            "resnet64_fp32": paper("gs_wgan", precision="fp32", **run),
            "dcgan64": paper("gs_wgan", generator="dcgan", precision="bf16", **run),
            "gs_wgan_quick": quick("gs_wgan", **run),
            "dpac_quick": quick("dpac", **run),
        },
        warm_start={"warm_start_quick": quick("gs_wgan", num_shards=64)},
        num_train=60_000,
        shard_size=60,
        seconds=1.0,
        roofline="resnet64",
        channels=256,
        batch=32,
        pixels=(16, 32),
        matrix={"cpu": 2048, "cuda": 8192},
        scaled={
            "steps": 1000, "num_shards": 8, "batch_size": 32, "critic_steps": 2, "warm_start_steps": 1,
            "generator": "dcgan", "generator_width": 8, "warm_start_width": 8, "critic_width": 8,
            "spectral_norm": False, "precision": "bf16",
        },
        axes=(
            Axis("num_shards", "warm_start", (16, 32, 64, 128)),
            Axis("steps", "total", (50, 100, 200, 400)),
            Axis("batch_size", "step", (16, 32, 64, 128)),
            Axis("critic_width", "step", (8, 16, 32, 64)),
            Axis("image_size", "step", (28, 32)),
        ),
        steps=20,
    )  # fmt: skip
