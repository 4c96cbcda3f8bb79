"""Settings of the evaluation commands, the same for every method of a preset."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from workflow.common.errors import UserError, unknown
from workflow.common.files import read_json

FEATURE_NETWORKS = ("small", "vgg11_bn")
SCHEDULES = ("onecycle", "step")


def _setting(default: Any, text: str, low: float | None = None, high: float | None = None) -> Any:
    return field(default=default, metadata={"help": text, "low": low, "high": high})


@dataclass(frozen=True)
class Protocol:
    """Every evaluation setting. Defaults are preset `quick`: all of one sample set in about a minute on one core.

    The utility settings follow the released code of GS-WGAN and DP-GAN-DPAC except for the epochs: the authors have 50,
    schedule `step`, `cnn_g2r_lr` 0.05, `cnn_r2g_lr` 0.02 and `mlp_*_iterations` 1000 (DPAC's README).

    Raises:
        UserError: a value of the wrong type or outside its range.
    """

    num_samples: int = _setting(10_000, "images of a sample set that are scored; more are left out by a fixed draw", 1)
    batch_size: int = _setting(128, "images per optimiser step of each CNN", 2)
    min_steps: int = _setting(1000, "optimiser steps that small data sets get by more epochs than asked for below", 0)
    schedule: str = _setting("onecycle", "learning rate over the steps: one cycle, or x0.1 after 80% of the epochs")
    feature_network: str = _setting("small", f"network behind IS, FID, precision and recall: {FEATURE_NETWORKS}")
    feature_epochs: int = _setting(3, "epochs of the feature network on the real train split", 1)
    feature_lr: float = _setting(0.1, "peak learning rate of the feature network", 1e-6, 10)
    feature_crop: int = _setting(0, "pixels of padding for random crops while training the feature network", 0, 16)
    cnn_r2g_epochs: int = _setting(4, "epochs of real2gen's CNN on the real train split", 1)
    cnn_r2g_lr: float = _setting(0.05, "peak learning rate of real2gen's CNN", 1e-6, 10)
    cnn_g2r_epochs: int = _setting(15, "epochs of gen2real's CNN on the samples", 1)
    cnn_g2r_lr: float = _setting(0.05, "peak learning rate of gen2real's CNN", 1e-6, 10)
    mlp_r2g_iterations: int = _setting(15, "most epochs of real2gen's MLP", 1)
    mlp_g2r_iterations: int = _setting(60, "most epochs of gen2real's MLP", 1)
    holdout: float = _setting(0.1, "fraction of a classifier's own training images that chooses its epoch", 0.01, 0.5)
    is_splits: int = _setting(10, "splits of the inception score", 1)
    fid_real_images: int = _setting(60_000, "most real train images behind the FID's real statistics", 2)
    prc_images: int = _setting(5_000, "most images on each side of precision and recall (cost is quadratic)", 5)
    inception_images: int = _setting(10_000, "most images on each side of the Inception FID; 0 leaves it out", 0)
    inception_weights: str = _setting("", "file of torch-fidelity's Inception weights; empty: torch hub's cache")

    def __post_init__(self) -> None:
        for entry in fields(self):
            object.__setattr__(self, entry.name, _checked(entry, getattr(self, entry.name)))
        if self.feature_network not in FEATURE_NETWORKS:
            raise unknown("protocol feature_network", self.feature_network, FEATURE_NETWORKS)
        if self.schedule not in SCHEDULES:
            raise unknown("protocol schedule", self.schedule, SCHEDULES)

    @classmethod
    def parse(cls, text: str | None) -> Protocol:
        """Returns the protocol of inline JSON text or of a JSON file; None gives the defaults.

        Raises:
            UserError: malformed JSON, an unknown key (the valid ones are named), or a value out of range.
        """
        values = _read(text) if text else {}
        if not isinstance(values, dict):
            raise UserError(f"--protocol must be a JSON object of settings, got {values!r}")
        names = {entry.name for entry in fields(cls)}
        for key in values:
            if key not in names:
                raise unknown("protocol key", key, names)
        return cls(**values)


def _read(text: str) -> Any:
    if not text.lstrip().startswith("{"):
        return read_json(Path(text))
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise UserError(f"--protocol is not valid JSON: {error}") from None


def _checked(entry: Any, value: Any) -> Any:
    kind = type(entry.default)
    accepted = (int, float) if kind is float else kind
    if isinstance(value, bool) or not isinstance(value, accepted):
        raise UserError(f"protocol {entry.name} must be of type {kind.__name__}, got {value!r}")
    low, high = entry.metadata["low"], entry.metadata["high"]
    # Written so that NaN fails as well.
    if (low is not None and not value >= low) or (high is not None and not value <= high):
        limits = f"at least {low:g}" + (f" and at most {high:g}" if high is not None else "")
        raise UserError(f"protocol {entry.name} must be {limits}, got {value!r}")
    return kind(value)
