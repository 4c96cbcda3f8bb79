"""Fidelity of a sample set against real images: inception score, FID, precision and recall, through torch-fidelity,
and the Frechet wavelet distance."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from evaluation import nets
from evaluation.features import RealFeatures, extract, moments
from evaluation.inputs import capped, check_alike, check_fit, drawn
from evaluation.nets import Classifier
from evaluation.protocol import Protocol
from evaluation.wavelets import packet_moments, wavelet_distance
from workflow.common.allocator import keep_freed
from workflow.common.contracts import LabelledImages, load_images
from workflow.common.errors import UserError, command
from workflow.common.files import refuse_folder, sha256, write_json
from workflow.common.options import Parser, whole
from workflow.common.torch_threads import use_threads
from workflow.common.torchvision_guard import ensure_torchvision

ensure_torchvision()  # before torch_fidelity, which imports torchvision

from torch_fidelity import (  # noqa: E402
    KEY_METRIC_FID,
    KEY_METRIC_ISC_MEAN,
    KEY_METRIC_ISC_STD,
    KEY_METRIC_PRECISION,
    KEY_METRIC_RECALL,
    calculate_metrics,
)
from torch_fidelity.defaults import DEFAULTS  # noqa: E402
from torch_fidelity.metric_fid import fid_statistics_to_metric  # noqa: E402
from torch_fidelity.metric_isc import isc_features_to_metric  # noqa: E402
from torch_fidelity.metric_prc import prc_features_to_metric  # noqa: E402

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
    samples: LabelledImages, real: RealFeatures, network: Classifier, protocol: Protocol
) -> tuple[dict[str, Any], list[str]]:
    """Returns the metrics of `samples` against real images, and a notice for each metric that has no value.

    Metrics, all but `fwd` and `distinct_fraction` from the features and the logits of `network`, by torch-fidelity's
    functions of features:
        is, is_std: inception score over `is_splits` splits, mean and standard deviation; 1 .. classes, more is better.
        fid_classifier: Frechet distance of penultimate features; at least 0 up to rounding; never comparable with
            an FID of Inception features.
        precision, recall: in 0 .. 1, of k-nearest-neighbour manifolds (Kynkaanniemi et al., 2019; torch-fidelity's k
            of 3) of at most `prc_images` images a side.
        fwd: Frechet wavelet distance (evaluation/wavelets.py), which no network has a part in; at least 0 up to
            rounding.
        distinct_fraction: different images / images. num_samples, num_real: images compared.
    """
    features, logits = extract(network, samples.images)
    values: dict[str, float] = {}
    if len(samples) >= max(2, protocol.is_splits):
        values |= inception_score(logits, protocol.is_splits)
    if min(len(samples), real.count) >= 2:
        values["fwd"] = wavelet_distance(packet_moments(samples.images), real.packets)
        values |= frechet_distance(moments(features), {"mu": real.mu, "sigma": real.sigma})
    near = features[drawn(len(features), protocol.prc_images, "prc")]
    if min(len(near), len(real.near)) > DEFAULTS["prc_neighborhood"]:
        values |= precision_recall(near, torch.from_numpy(real.near))
    names = {
        "is": KEY_METRIC_ISC_MEAN, "is_std": KEY_METRIC_ISC_STD, "fid_classifier": KEY_METRIC_FID,
        "precision": KEY_METRIC_PRECISION, "recall": KEY_METRIC_RECALL, "fwd": "fwd",
    }  # fmt: skip
    defined = {name: values[key] for name, key in names.items() if math.isfinite(values.get(key, math.nan))}
    counts = {"num_samples": len(samples), "num_real": real.count}
    notices = [
        f"no {name}: not defined for {len(samples)} samples and {real.count} real images"
        for name in names
        if name not in defined
    ]
    return counts | defined | {"distinct_fraction": distinct_fraction(samples.images)}, notices


def inception_score(logits: Tensor, splits: int) -> dict[str, float]:
    """Returns torch-fidelity's inception score of logits [N, classes], in the order of its default seed."""
    return isc_features_to_metric(logits, splits, DEFAULTS["samples_shuffle"], DEFAULTS["rng_seed"])


def frechet_distance(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> dict[str, float]:
    """Returns torch-fidelity's Frechet distance of two `moments`; none where one is not finite."""
    if not all(np.isfinite(value).all() for value in (*one.values(), *other.values())):
        return {}
    return fid_statistics_to_metric(one, other, verbose=False)


def precision_recall(samples: Tensor, real: Tensor) -> dict[str, float]:
    """Returns torch-fidelity's precision and recall of features [N, D] and [M, D]."""
    return prc_features_to_metric(samples, real, save_cpu_ram=True, verbose=False)


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
        nowhere = f"is neither in {folder} nor named by the protocol's inception_weights"
        return {}, [f"no fid_inception: {INCEPTION_FILE} {nowhere}"]
    pair = [capped(data, protocol.inception_images, "inception").images for data in (samples, real)]
    if min(map(len, pair)) < 2:
        return {}, ["no fid_inception: it needs at least 2 images on each side"]
    values = metrics(
        *pair, fid=True, feature_extractor="inception-v3-compat", feature_extractor_weights_path=str(weights)
    )
    return {"fid_inception": values[KEY_METRIC_FID]}, []


@command
def main(argv: list[str] | None = None) -> int:
    """Runs `python -m evaluation.fidelity`."""
    parser = Parser(prog="python -m evaluation.fidelity", description=__doc__)
    parser.add_argument("--samples", type=Path, required=True, help="npz of synthetic (or real) images and labels")
    parser.add_argument("--real", type=Path, required=True, help="npz of the real train split")
    parser.add_argument("--classifiers", type=Path, required=True, help="folder of evaluation.classifiers")
    parser.add_argument("--protocol", help="settings, as JSON text or a JSON file")
    parser.add_argument("--threads", type=whole("--threads"), default=1, help="CPU threads (default 1)")
    parser.add_argument("--out", type=Path, required=True, help="fidelity.json to write")
    arguments = parser.parse_args(argv)
    keep_freed()
    refuse_folder(arguments.out)
    use_threads(arguments.threads)
    protocol = Protocol.parse(arguments.protocol)
    samples = capped(load_images(arguments.samples), protocol.num_samples, "samples")
    real = load_images(arguments.real)
    check_alike(samples, real, (str(arguments.samples), str(arguments.real)))
    network = nets.load(arguments.classifiers / nets.FEATURES)
    check_fit(samples, network, arguments.classifiers)
    real_features = RealFeatures.find(arguments.classifiers, network, real, protocol)
    scores, notices = fidelity(samples, real_features, network, protocol)
    by_inception, more = inception_fid(samples, real, protocol)
    for notice in notices + more:
        print(f"notice: {notice}", file=sys.stderr)
    write_json(arguments.out, scores | by_inception)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
