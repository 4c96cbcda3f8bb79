"""`python -m benchmarks.distances`: how FID on classifier features and the Frechet wavelet distance order image sets.

Sets whose order is plain to the eye are made from real images; sets that methods generated are added by --samples. Each
is scored by both distances, the first with several feature networks that differ in their seed alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional

from evaluation.features import extract, moments
from evaluation.fidelity import KEY_METRIC_FID, frechet_distance
from evaluation.fitting import CnnSettings, fit_cnn
from evaluation.inputs import capped
from evaluation.protocol import Protocol
from evaluation.wavelets import packet_moments, wavelet_distance
from workflow.common.contracts import LabelledImages, load_images
from workflow.common.errors import UserError, command
from workflow.common.files import write_csv
from workflow.common.options import Parser, whole

COLUMNS = ("set", "fwd", "fwd_linear")
COUNT = 10_000


def degraded(train: LabelledImages, test: LabelledImages) -> Iterator[tuple[str, np.ndarray]]:
    """Yields names and uint8 images [N, C, H, W]: real test images, and what was done to them."""
    rng, images = np.random.default_rng(0), test.images
    yield "real", images
    yield "noise of 2 grey levels", _grey(images + rng.normal(0, 2, images.shape))
    yield "noise of 8 grey levels", _grey(images + rng.normal(0, 8, images.shape))
    yield "noise of 32 grey levels", _grey(images + rng.normal(0, 32, images.shape))
    yield "blurred over 3x3 pixels", _blurred(images, 3)
    yield "blurred over 5x5 pixels", _blurred(images, 5)
    yield "half of the classes", images[test.labels <= test.labels.max() // 2]
    yield "one class", images[test.labels == 0]
    yield "100 images again and again", images[rng.integers(0, min(100, len(images)), len(images))]
    yield "a Gaussian per class", gaussian_per_class(train, len(images), rng)


def gaussian_per_class(data: LabelledImages, count: int, rng: np.random.Generator) -> np.ndarray:
    """Returns `count` uint8 images drawn from Gaussians that have the pixels' mean and covariance of each class."""
    classes, drawn = np.unique(data.labels), []
    for label in classes:
        pixels = data.images[data.labels == label].reshape(-1, int(np.prod(data.image_shape))).astype(np.float64)
        values, vectors = np.linalg.eigh(np.cov(pixels, rowvar=False))
        normal = rng.standard_normal((-(-count // len(classes)), len(values)))
        drawn.append(pixels.mean(0) + normal * np.sqrt(values.clip(0)) @ vectors.T)
    return _grey(np.concatenate(drawn)[:count]).reshape(-1, *data.image_shape)


def _grey(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _blurred(images: np.ndarray, width: int) -> np.ndarray:
    values = torch.from_numpy(images).float()
    return _grey(functional.avg_pool2d(values, width, 1, width // 2, count_include_pad=False).numpy())


def measure(
    train: LabelledImages, sets: dict[str, np.ndarray], seeds: list[int], protocol: Protocol, threads: int
) -> list[list[str]]:
    """Returns the rows of the csv: each set's name and distances from the train split."""
    settings = CnnSettings(
        protocol.feature_epochs, protocol.feature_lr, protocol.batch_size, protocol.schedule,
        min_steps=protocol.min_steps,
    )  # fmt: skip
    classes, real = int(train.labels.max()) + 1, capped(train, protocol.fid_real_images, "fid").images
    networks = [fit_cnn(protocol.feature_network, train, classes, settings, seed, threads)[0] for seed in seeds]
    by_network = [moments(extract(network, real)[0]) for network in networks]
    log_scaled, linear = packet_moments(real), packet_moments(real, scaled=lambda coefficients: coefficients)
    rows = []
    for name, images in sets.items():
        distances = [
            wavelet_distance(packet_moments(images), log_scaled),
            wavelet_distance(packet_moments(images, scaled=lambda coefficients: coefficients), linear),
        ]
        for network, reference in zip(networks, by_network, strict=True):
            found = frechet_distance(moments(extract(network, images)[0]), reference)
            distances.append(found[KEY_METRIC_FID])
        rows.append([name, *(f"{distance:.4g}" for distance in distances)])
    return rows


def _named(text: str) -> tuple[str, Path]:
    name, equals, path = text.partition("=")
    if not equals or not name:
        raise UserError(f"--samples takes name=samples.npz, got {text!r}")
    return name, Path(path)


@command
def main(argv: list[str] | None = None) -> None:
    """Runs `python -m benchmarks.distances`."""
    parser = Parser(prog="python -m benchmarks.distances", description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with train.npz and test.npz")
    parser.add_argument("--samples", nargs="*", default=[], metavar="NAME=samples.npz", help="generated sets")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the feature networks")
    parser.add_argument("--protocol", help="settings of the evaluation, as JSON text or a JSON file")
    parser.add_argument("--threads", type=whole("--threads"), default=1, help="CPU threads (default 1)")
    parser.add_argument("--out", type=Path, required=True, help="csv to write")
    options = parser.parse_args(argv)
    train, test = (load_images(options.data / f"{split}.npz") for split in ("train", "test"))
    sets = dict(degraded(train, capped(test, COUNT, "samples")))
    sets |= {name: capped(load_images(path), COUNT, "samples").images for name, path in map(_named, options.samples)}
    rows = measure(train, sets, options.seeds, Protocol.parse(options.protocol), options.threads)
    write_csv(options.out, (*COLUMNS, *(f"fid_classifier_{seed}" for seed in options.seeds)), rows)


if __name__ == "__main__":
    raise SystemExit(main())
