"""Classifiers of one dataset, trained once on its real train split: IS and FID features, and real2gen's MLP and CNN."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from evaluation import nets, utility
from evaluation.features import RealFeatures
from evaluation.fitting import CnnSettings, accuracy, fit_cnn
from evaluation.inputs import check_alike
from evaluation.protocol import Protocol
from workflow.common.allocator import keep_freed
from workflow.common.contracts import LabelledImages, load_images
from workflow.common.errors import command
from workflow.common.files import sha256, write_json
from workflow.common.options import Parser, whole
from workflow.common.seeds import MOST_SEED

FEATURES = "features"
NAMES = (FEATURES, *utility.MODELS)


def train(
    train_split: LabelledImages, test_split: LabelledImages, protocol: Protocol, seed: int, threads: int, out: Path
) -> dict[str, Any]:
    """Trains the feature network, real2gen's CNN and MLP; writes their files into `out` and returns the card.

    Beside them goes what fidelity needs of the train split: its features are the same for every sample set.

    The feature network keeps its last epoch, as the paper's does; the others keep the epoch that does best on held-out
    train images. The test split is read once, for the accuracies on the card.
    """
    card = {name: train_one(name, train_split, test_split, protocol, seed, threads, out) for name in NAMES}
    return card | about(train_split)


def about(train_split: LabelledImages) -> dict[str, Any]:
    """Returns what the card says of all the classifiers of a train split."""
    return {"image_shape": list(train_split.image_shape), "num_classes": _classes(train_split)}


def train_one(
    name: str,
    train_split: LabelledImages,
    test_split: LabelledImages,
    protocol: Protocol,
    seed: int,
    threads: int,
    out: Path,
) -> dict[str, Any]:
    """Trains one classifier of NAMES, on which the others do not depend; writes its files and returns its details."""
    if name == FEATURES:
        model, details = _feature_network(train_split, protocol, seed, threads, out)
    else:
        fitted = utility.fit("r2g", train_split, _classes(train_split), protocol, seed, threads, names=[name])
        model, details, _ = fitted[name]
        utility.store(name, model, out)
    return details | {"test_accuracy": accuracy(model, test_split)}


def _feature_network(
    train_split: LabelledImages, protocol: Protocol, seed: int, threads: int, out: Path
) -> tuple[nets.Classifier, dict[str, Any]]:
    settings = CnnSettings(
        protocol.feature_epochs, protocol.feature_lr, protocol.batch_size, protocol.schedule,
        crop=protocol.feature_crop, min_steps=protocol.min_steps,
    )  # fmt: skip
    classes = _classes(train_split)
    network, _, details = fit_cnn(protocol.feature_network, train_split, classes, settings, seed, threads)
    nets.save(network, out / nets.FEATURES)
    RealFeatures.of(network, train_split, protocol).save(out)
    return network, details


def _classes(train_split: LabelledImages) -> int:
    return int(train_split.labels.max()) + 1


@command
def main(argv: list[str] | None = None) -> int:
    """Runs `python -m evaluation.classifiers`."""
    parser = Parser(prog="python -m evaluation.classifiers", description=__doc__)
    parser.add_argument("--train", type=Path, required=True, help="npz of the real train split")
    parser.add_argument("--test", type=Path, required=True, help="npz of the real test split")
    parser.add_argument("--protocol", help="settings, as JSON text or a JSON file")
    parser.add_argument("--seed", type=whole("--seed", 0, MOST_SEED), default=0)
    parser.add_argument("--threads", type=whole("--threads"), default=1, help="CPU threads (default 1)")
    parser.add_argument("--out", type=Path, required=True, help="folder to write into")
    arguments = parser.parse_args(argv)
    keep_freed()
    protocol = Protocol.parse(arguments.protocol)
    train_split, test_split = load_images(arguments.train), load_images(arguments.test)
    check_alike(test_split, train_split, (str(arguments.test), str(arguments.train)))
    card = train(train_split, test_split, protocol, arguments.seed, arguments.threads, arguments.out)
    # Last, so that a card means a complete folder.
    write_json(arguments.out / "classifiers.json", card | {"train_sha256": sha256(arguments.train)})
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
