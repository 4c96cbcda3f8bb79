"""Inception score, FID, precision and recall of one sample set, by torch-fidelity's public call and by this suite.

Both read the same images through the same network. torch-fidelity's call makes the features of the real images each
time; this suite keeps them, as every sample set of a data set meets the same ones, and adds the wavelet distance.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from evaluation.features import RealFeatures
from evaluation.fidelity import fidelity, metrics
from evaluation.nets import Classifier
from evaluation.protocol import Protocol
from workflow.common.contracts import LabelledImages
from workflow.common.torchvision_guard import ensure_torchvision

ensure_torchvision()  # before torch_fidelity, which imports torchvision

from torch_fidelity import (  # noqa: E402
    KEY_METRIC_FID,
    KEY_METRIC_ISC_MEAN,
    KEY_METRIC_PRECISION,
    KEY_METRIC_RECALL,
    FeatureExtractorBase,
    register_feature_extractor,
)

Scores = dict[str, float]
# torch-fidelity knows an extractor by a name, which it takes once.
_turn = itertools.count()
NAMES = {
    "is": KEY_METRIC_ISC_MEAN, "fid_classifier": KEY_METRIC_FID, "precision": KEY_METRIC_PRECISION,
    "recall": KEY_METRIC_RECALL,
}  # fmt: skip


@dataclass(frozen=True)
class Pair:
    """A sample set and real images, as many on each side, and the network that both ways ask."""

    samples: LabelledImages
    real: LabelledImages
    network: Classifier

    @property
    def protocol(self) -> Protocol:
        """Every image of both sides counts in every metric."""
        count = len(self.samples)
        return Protocol(num_samples=count, fid_real_images=count, prc_images=count)


def pair(count: int) -> Pair:
    """Returns random grey images of 28x28, `count` on each side, and a network with random weights."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    sides = [rng.integers(low, 256, (count, 1, 28, 28), dtype=np.uint8) for low in (0, 32)]
    labels = np.arange(count) % 10
    return Pair(*(LabelledImages(images, labels) for images in sides), Classifier("small", (1, 28, 28), 10).eval())


def ours(pair: Pair) -> Callable[[], Scores]:
    """Returns a call of `evaluation.fidelity` that knows the real images' features, as the command does."""
    real = RealFeatures.of(pair.network, pair.real, pair.protocol)

    def run() -> Scores:
        values, _ = fidelity(pair.samples, real, pair.network, pair.protocol)
        return {name: values[name] for name in NAMES}

    return run


def by_torch_fidelity(pair: Pair) -> Callable[[], Scores]:
    """Returns a call of torch-fidelity's `calculate_metrics` with the same network."""
    name = f"classifier-{next(_turn)}"
    # It takes a class alone, and makes an object of it at each call.
    register_feature_extractor(name, type(name, (_Extractor,), {"of": pair}))

    def run() -> Scores:
        found = metrics(
            pair.samples.images, pair.real.images, isc=True, fid=True, prc=True, feature_extractor=name,
            feature_layer_isc="logits", feature_layer_fid="features", feature_layer_prc="features",
        )  # fmt: skip
        return {name: found[key] for name, key in NAMES.items()}

    return run


class _Extractor(FeatureExtractorBase):
    """The classifier as torch-fidelity wants it: grey images come in three equal channels."""

    of: Pair

    def __init__(self, name: str, features_list: list[str], **_: Any) -> None:
        super().__init__(name, features_list)
        self.network = self.of.network

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        return "logits", "features"

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, ...]:
        features = self.network.features(images[:, :1])
        found = {"logits": self.network.head(features), "features": features}
        return tuple(found[name] for name in self.features_list)
