"""Fidelity of a sample set against real images: inception score, FID, precision and recall, through torch-fidelity."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from evaluation import nets
from evaluation.protocol import Protocol
from evaluation.utility import capped, check_alike, check_fit
from workflow.common.contracts import LabelledImages, load_images
from workflow.common.errors import UserError, command
from workflow.common.files import sha256, write_json
from workflow.common.torchvision_guard import ensure_torchvision

ensure_torchvision()  # before torch_fidelity, which imports torchvision

from torch_fidelity import (  # noqa: E402
    KEY_METRIC_FID,
    KEY_METRIC_ISC_MEAN,
    KEY_METRIC_ISC_STD,
    KEY_METRIC_PRECISION,
    KEY_METRIC_RECALL,
    FeatureExtractorBase,
    calculate_metrics,
    register_feature_extractor,
)
from torch_fidelity.defaults import DEFAULTS  # noqa: E402

EXTRACTOR = "dataset-classifier"
# Torch hub names the file it downloads after the first digits of its SHA-256.
INCEPTION_FILE = "weights-inception-2015-12-05-6726825d.pth"
INCEPTION_HASH = "6726825d"


class RgbImages(Dataset):
    """uint8 images [3, H, W], the only form torch-fidelity takes; grey is repeated to three channels."""

    def __init__(self, images: np.ndarray) -> None:
        self.images = torch.from_numpy(images)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor:
        return self.images[index].expand(3, -1, -1)


class ClassifierExtractor(FeatureExtractorBase):
    """torch-fidelity's view of a dataset's feature network, read from `feature_extractor_weights_path`.

    Features: "penultimate" [N, D], the input of the last layer, and "logits" [N, classes].
    """

    def __init__(
        self, name: str, features_list: list[str], feature_extractor_weights_path: Path, **kwargs: Any
    ) -> None:
        super().__init__(name, features_list)
        self.network = nets.load(feature_extractor_weights_path)

    @staticmethod
    def get_provided_features_list() -> tuple[str, ...]:
        """Returns the names of the features."""
        return "penultimate", "logits"

    @staticmethod
    def get_default_feature_layer_for_metric(metric: str) -> str:
        """Returns the feature a metric uses: logits for the inception score, else the penultimate layer."""
        return "logits" if metric == "isc" else "penultimate"

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Maps uint8 [N, 3, H, W] to the requested features, in the order requested."""
        features = self.network.features(images[:, : self.network.image_shape[0]])
        found = {"penultimate": features, "logits": self.network.head(features)}
        return tuple(found[name] for name in self.features_list)


register_feature_extractor(EXTRACTOR, ClassifierExtractor)


def metrics(samples: np.ndarray, real: np.ndarray | None, **wanted: Any) -> dict[str, float]:
    """Calls torch-fidelity on uint8 images [N, C, H, W], after checking that it knows each argument.

    It ignores arguments it does not know, so a misspelt one would change a metric silently. Its cache is off: it is
    keyed by names, not by content.
    """
    arguments = {
        "input1": RgbImages(samples), "input2": None if real is None else RgbImages(real), "batch_size": 256,
        "cuda": torch.cuda.is_available(), "cache": False, "save_cpu_ram": True, "verbose": False, "rng_seed": 2020,
        **wanted,
    }  # fmt: skip
    foreign = set(arguments) - set(DEFAULTS)
    if foreign:
        raise TypeError(f"torch-fidelity has no argument {', '.join(sorted(foreign))}")
    return calculate_metrics(**arguments)


def fidelity(
    samples: LabelledImages, real: LabelledImages, weights: Path, protocol: Protocol
) -> tuple[dict[str, Any], list[str]]:
    """Returns the metrics of `samples` against `real`, and a notice for each metric that has no value.

    Metrics, from the features of the network in `weights` (see ClassifierExtractor):
        is, is_std: inception score over `is_splits` splits, mean and standard deviation; 1 .. classes, more is better.
        fid_classifier: Frechet distance of penultimate features; at least 0 up to rounding; never comparable with
            an FID of Inception features.
        precision, recall: in 0 .. 1, of k-nearest-neighbour manifolds (Kynkaanniemi et al., 2019; torch-fidelity's k
            of 3) of at most `prc_images` images a side.
        distinct_fraction: different images / images. num_samples, num_real: images compared.
    """
    common = {"feature_extractor": EXTRACTOR, "feature_extractor_weights_path": weights}
    found: dict[str, Any] = {"num_samples": len(samples), "num_real": min(len(real), protocol.fid_real_images)}
    notices: list[str] = []
    wide_real = capped(real, protocol.fid_real_images, "fid").images
    if len(samples) >= max(2, protocol.is_splits) and len(wide_real) >= 2:
        wide = metrics(samples.images, wide_real, isc=True, fid=True, isc_splits=protocol.is_splits, **common)
        found |= {"is": wide[KEY_METRIC_ISC_MEAN], "is_std": wide[KEY_METRIC_ISC_STD]}
        found["fid_classifier"] = wide[KEY_METRIC_FID]
    near = [capped(data, protocol.prc_images, "prc").images for data in (samples, real)]
    if min(map(len, near)) > DEFAULTS["prc_neighborhood"]:
        narrow = metrics(*near, prc=True, **common)
        found |= {"precision": narrow[KEY_METRIC_PRECISION], "recall": narrow[KEY_METRIC_RECALL]}
    for name in ("is", "is_std", "fid_classifier", "precision", "recall"):
        if not math.isfinite(found.get(name, math.nan)):
            found.pop(name, None)
            notices.append(f"no {name}: not defined for {len(samples)} samples and {len(real)} real images")
    found["distinct_fraction"] = distinct_fraction(samples.images)
    return found, notices


def distinct_fraction(images: np.ndarray) -> float:
    """Returns the number of different images over the number of images."""
    return len({image.tobytes() for image in images}) / len(images)


def inception_weights(protocol: Protocol) -> Path | None:
    """Returns torch-fidelity's Inception weights: the protocol's file, else torch hub's cached one, else None.

    Raises:
        UserError: the protocol names a file that is missing, or the file is not the published one (it is a pickle, so
            no other is opened).
    """
    cached = Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION_FILE
    path = Path(protocol.inception_weights) if protocol.inception_weights else cached
    if not path.is_file():
        if protocol.inception_weights:
            raise UserError(f"no such file: {path}; protocol inception_weights must name a copy of {INCEPTION_FILE}")
        return None
    if not sha256(path).startswith(INCEPTION_HASH):
        raise UserError(f"{path} is not torch-fidelity's {INCEPTION_FILE}: its SHA-256 starts otherwise")
    return path


def inception_fid(
    samples: LabelledImages, real: LabelledImages, protocol: Protocol
) -> tuple[dict[str, Any], list[str]]:
    """Returns `fid_inception` (torch-fidelity's inception-v3-compat, 2048 features) or a notice why there is none."""
    if protocol.inception_images == 0:
        return {}, []
    weights = inception_weights(protocol)
    if weights is None:
        folder = Path(torch.hub.get_dir()) / "checkpoints"
        return {}, [f"no fid_inception: {INCEPTION_FILE} is neither in {folder} nor named by inception_weights"]
    pair = [capped(data, protocol.inception_images, "inception").images for data in (samples, real)]
    if min(map(len, pair)) < 2:
        return {}, ["no fid_inception: it needs at least 2 images on each side"]
    found = metrics(
        *pair, fid=True, feature_extractor="inception-v3-compat", feature_extractor_weights_path=str(weights)
    )
    return {"fid_inception": found[KEY_METRIC_FID]}, []


@command
def main(argv: list[str] | None = None) -> int:
    """Runs `python -m evaluation.fidelity`."""
    parser = argparse.ArgumentParser(prog="python -m evaluation.fidelity", description=__doc__)
    parser.add_argument("--samples", type=Path, required=True, help="npz of synthetic (or real) images and labels")
    parser.add_argument("--real", type=Path, required=True, help="npz of the real train split")
    parser.add_argument("--classifiers", type=Path, required=True, help="folder of evaluation.classifiers")
    parser.add_argument("--protocol", help="settings, as JSON text or a JSON file")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True, help="fidelity.json to write")
    arguments = parser.parse_args(argv)
    torch.set_num_threads(arguments.threads)
    protocol = Protocol.parse(arguments.protocol)
    samples = capped(load_images(arguments.samples), protocol.num_samples, "samples")
    real = load_images(arguments.real)
    check_alike(samples, real, (str(arguments.samples), str(arguments.real)))
    weights = arguments.classifiers / "features.safetensors"
    check_fit(samples, nets.load(weights), arguments.classifiers)
    found, notices = fidelity(samples, real, weights, protocol)
    by_inception, more = inception_fid(samples, real, protocol)
    for notice in notices + more:
        print(f"notice: {notice}", file=sys.stderr)
    write_json(arguments.out, found | by_inception)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
