"""Utility of a sample set: gen2real trains on samples and tests on real images, real2gen the other way round."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Collection, Iterable
from pathlib import Path
from statistics import fmean
from typing import Any

from evaluation import nets
from evaluation.fitting import CnnSettings, Mlp, accuracy, fit_cnn, fit_mlp
from evaluation.inputs import capped, check_alike, check_fit
from evaluation.nets import Classifier
from evaluation.protocol import Protocol
from workflow.common.allocator import keep_freed
from workflow.common.contracts import LabelledImages, load_images
from workflow.common.errors import UserError, command, unknown
from workflow.common.files import refuse_folder, write_json
from workflow.common.options import Parser, whole
from workflow.common.seeds import MOST_SEED, derive

DIRECTIONS = ("g2r", "r2g")
MODELS = ("mlp", "cnn")
Model = Classifier | Mlp


def fit(
    direction: str,
    data: LabelledImages,
    num_classes: int,
    protocol: Protocol,
    seed: int,
    threads: int = 1,
    each_epoch: Callable[[Classifier], None] | None = None,
    names: Collection[str] = MODELS,
) -> dict[str, tuple[Model, dict[str, Any], Model]]:
    """Trains the MLP and the CNN of one direction on `data`: the samples (g2r) or the real train split (r2g).

    `each_epoch` looks at the CNN after each of its epochs. Neither depends on the other; `names` are those wanted.

    Returns:
        By name ("mlp", "cnn"): the model of the epoch chosen on held-out images of `data`, details of its training,
        and the last epoch's model.
    """
    setting = {name: getattr(protocol, name) for name in ("batch_size", "schedule", "holdout", "min_steps")}
    epochs, lr = (getattr(protocol, f"cnn_{direction}_{name}") for name in ("epochs", "lr"))
    iterations = getattr(protocol, f"mlp_{direction}_iterations")
    found: dict[str, tuple[Model, dict[str, Any], Model]] = {}
    if "mlp" in names:
        mlp, details = fit_mlp(data, iterations, protocol.holdout, seed, threads, protocol.min_steps)
        found["mlp"] = (mlp, details, mlp)
    if "cnn" in names:
        cnn, last, details = fit_cnn(
            nets.utility_cnn(data.image_shape), data, num_classes, CnnSettings(epochs, lr, **setting), seed, threads,
            each_epoch,
        )  # fmt: skip
        found["cnn"] = (cnn, details, last)
    return found


def score(
    direction: str,
    samples: LabelledImages,
    test: LabelledImages,
    protocol: Protocol,
    seed: int,
    stored: dict[str, Model] | None = None,
    threads: int = 1,
) -> dict[str, Any]:
    """Scores one direction: accuracies `<direction>_mlp` and `<direction>_cnn`, and details of each classifier.

    With the protocol's `best_on_test`, g2r has `g2r_cnn_best_on_test` as well: the highest accuracy on `test` that the
    CNN had after any of its epochs, as DataLens' and G-PATE's authors report. It picks on what it is scored on. With
    `g2r_classifiers` above 1 each accuracy of g2r is the mean of so many classifiers' (`<name>_each`, in the order of
    their seeds), the first of which is that of 1; details are of the first.

    Args:
        direction: "g2r" trains on `samples` and tests once on `test`; "r2g" tests classifiers trained on the real train
            split on `samples`.
        samples: synthetic images with the labels they were made for.
        test: the real test split; only g2r reads it.
        protocol: evaluation settings.
        seed: root seed of initial weights, batch order and holdout.
        stored: r2g's classifiers ("mlp", "cnn"), from `evaluation.classifiers`; unused by g2r.
        threads: CPU threads.

    Source: GS-WGAN and DP-GAN-DPAC evaluation code; departures: `evaluation.protocol.SOURCES`.
    """
    if direction == "r2g":
        models = {name: (model, {}, model) for name, model in (stored or {}).items()}
        return _accuracies(direction, models, samples)
    seeds = [seed, *(derive(seed, "gen2real", number) for number in range(1, protocol.g2r_classifiers))]
    first, *others = (_gen2real(samples, test, protocol, one, threads) for one in seeds)
    return first | _means([first, *others]) if others else first


def _gen2real(
    samples: LabelledImages, test: LabelledImages, protocol: Protocol, seed: int, threads: int
) -> dict[str, Any]:
    on_test: list[float] = []
    num_classes = 1 + int(max(test.labels.max(), samples.labels.max()))
    look = (lambda model: on_test.append(accuracy(model, test))) if protocol.best_on_test else None
    models = fit("g2r", samples, num_classes, protocol, seed, threads, look)
    best = {"g2r_cnn_best_on_test": max(on_test)} if on_test else {}
    return best | _accuracies("g2r", models, test)


def _accuracies(
    direction: str, models: dict[str, tuple[Model, dict[str, Any], Model]], target: LabelledImages
) -> dict[str, Any]:
    """Returns the accuracy of each model of `fit` on `target`, and its details."""
    result: dict[str, Any] = {}
    for name, (model, details, last) in models.items():
        result[f"{direction}_{name}"] = accuracy(model, target)
        if last is not model:
            same = details.get("best_epoch") == details["epochs"]
            of_last = result[f"{direction}_{name}"] if same else accuracy(last, target)
            details = details | {"last_epoch_accuracy": of_last}
        if details:
            result[f"{direction}_{name}_details"] = details
    return result


def _means(passes: list[dict[str, Any]]) -> dict[str, Any]:
    """Returns the mean of each accuracy over the passes, and all of them."""
    names = [name for name, value in passes[0].items() if isinstance(value, float)]
    each = {name: [one[name] for one in passes] for name in names}
    return {name: fmean(values) for name, values in each.items()} | {f"{name}_each": each[name] for name in names}


def store(name: str, model: Model, folder: Path) -> None:
    """Writes one of real2gen's classifiers where `load_stored` reads it."""
    if isinstance(model, Mlp):
        model.save(folder / f"{name}.npz")
    else:
        nets.save(model, folder / f"{name}.safetensors")


def load_stored(folder: Path) -> dict[str, Model]:
    """Reads real2gen's classifiers from the folder of `evaluation.classifiers`."""
    return {"mlp": Mlp.load(folder / "mlp.npz"), "cnn": nets.load(folder / "cnn.safetensors")}


def _directions(text: str) -> list[str]:
    chosen = text.split(",")
    for name in chosen:
        if name not in DIRECTIONS:
            raise unknown("direction", name, DIRECTIONS, "separate several by a comma")
    if len(set(chosen)) < len(chosen):
        raise UserError(f"--directions names one twice: {text!r}; remove one")
    return chosen


def evaluate(arguments: argparse.Namespace, directions: Iterable[str]) -> dict[str, Any]:
    """Returns the content of utility.json for parsed command-line arguments."""
    protocol = Protocol.parse(arguments.protocol)
    most = protocol.real_images if arguments.real else protocol.num_samples
    samples = capped(load_images(arguments.samples), most, "samples")
    held = samples if arguments.r2g_samples is None else load_images(arguments.r2g_samples)
    test = load_images(arguments.test)
    # A small test split may lack the last class; stored classifiers know it, and `check_fit` asks them.
    check_alike(samples, test, (str(arguments.samples), str(arguments.test)), same_classes="r2g" not in directions)
    stored = None
    if "r2g" in directions:
        if arguments.classifiers is None:
            raise UserError("direction r2g needs --classifiers, the folder `python -m evaluation.classifiers` wrote")
        stored = load_stored(arguments.classifiers)
        check_fit(held, stored["cnn"], arguments.classifiers)
    result: dict[str, Any] = {"num_samples": len(samples), "seed": arguments.seed}
    for direction in directions:
        scored = held if direction == "r2g" else samples
        result |= score(direction, scored, test, protocol, arguments.seed, stored, arguments.threads)
    return result


@command
def main(argv: list[str] | None = None) -> int:
    """Runs `python -m evaluation.utility`."""
    parser = Parser(prog="python -m evaluation.utility", description=__doc__)
    parser.add_argument("--samples", type=Path, required=True, help="npz of synthetic (or real) images and labels")
    parser.add_argument(
        "--r2g-samples", type=Path, help="what real2gen tests on instead: the real test split gives its ceiling"
    )
    real = "--samples are real train images: as many as the protocol's real_images count, not num_samples"
    parser.add_argument("--real", action="store_true", help=real)
    parser.add_argument("--test", type=Path, required=True, help="npz of the real test split")
    parser.add_argument("--classifiers", type=Path, help="folder of evaluation.classifiers; only r2g needs it")
    parser.add_argument("--protocol", help="settings, as JSON text or a JSON file")
    parser.add_argument("--directions", default=",".join(DIRECTIONS), help="g2r, r2g or both (default)")
    parser.add_argument("--seed", type=whole("--seed", 0, MOST_SEED), default=0)
    parser.add_argument("--threads", type=whole("--threads"), default=1, help="CPU threads (default 1)")
    parser.add_argument("--out", type=Path, required=True, help="utility.json to write")
    arguments = parser.parse_args(argv)
    keep_freed()
    refuse_folder(arguments.out)
    write_json(arguments.out, evaluate(arguments, _directions(arguments.directions)))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
