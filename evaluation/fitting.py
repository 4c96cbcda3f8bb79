"""Fits and scores the two utility classifiers and the feature network; the same code for real and synthetic images."""

from __future__ import annotations

import copy
import itertools
import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from threadpoolctl import threadpool_limits
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from evaluation.nets import Classifier
from workflow.common.contracts import LabelledImages
from workflow.common.files import write_npz
from workflow.common.readers.guard import reading
from workflow.common.readers.npz_file import npz_names, read_npz
from workflow.common.seeds import derive
from workflow.common.torch_threads import use_threads

EVALUATION_BATCH = 512
MLP_BATCH = 200  # MLPClassifier's own choice


@dataclass(frozen=True)
class CnnSettings:
    """How one CNN is trained: SGD, momentum 0.9, weight decay 1e-4.

    Attributes:
        epochs: passes over the training images.
        lr: peak learning rate.
        batch_size: images per step.
        schedule: "onecycle" (peak after 20% of the steps, then down to 0) or "step" (x0.1 after 80% of the epochs).
        holdout: fraction of the images kept out of training to choose the epoch; 0 keeps the last epoch, and so do
            images too few to hold some of each class out.
        crop: pixels of zero padding for random crops; 0 for none.
        min_steps: fewest optimiser steps; a small data set gets more epochs for it.
    """

    epochs: int
    lr: float
    batch_size: int
    schedule: str = "onecycle"
    holdout: float = 0.0
    crop: int = 0
    min_steps: int = 0


def enough_epochs(epochs: int, count: int, batch_size: int, min_steps: int) -> int:
    """Returns the epochs of `count` images that make at least `min_steps` steps, and at least `epochs`."""
    return max(epochs, math.ceil(min_steps / _steps(count, batch_size)))


def fit_cnn(
    network: str,
    data: LabelledImages,
    num_classes: int,
    settings: CnnSettings,
    seed: int,
    threads: int = 1,
    each_epoch: Callable[[Classifier], None] | None = None,
) -> tuple[Classifier, Classifier, dict[str, Any]]:
    """Trains a CNN; the epoch is chosen on held-out images of `data` itself, never on the images it is scored on.

    `each_epoch` is called with the network after each epoch, and may look at it; it changes nothing.

    Returns:
        The network of the chosen epoch, that of the last epoch, and details: `epochs`, and with a holdout `best_epoch`
        (1-based, the later of equals) and `validation` (its accuracy on the held-out images); `held_out` 0 where a
        holdout was asked for and there is no room for one.
    """
    use_threads(threads)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    room = settings.holdout and can_hold_out(data, settings.holdout)
    train, held_out = split(data, settings.holdout, seed) if room else (data, None)
    settings = replace(
        settings, epochs=enough_epochs(settings.epochs, len(train), settings.batch_size, settings.min_steps)
    )
    images, labels = torch.from_numpy(train.images).to(device), torch.from_numpy(train.labels).to(device)
    with torch.random.fork_rng():
        torch.manual_seed(derive(seed, network, "fit"))
        model = Classifier(network, data.image_shape, num_classes).to(device)
        best, validation, best_epoch = model, -1.0, settings.epochs
        optimizer = torch.optim.SGD(
            model.parameters(), lr=settings.lr, momentum=0.9, weight_decay=1e-4, fused=True
        )
        scheduler = _scheduler(optimizer, settings, len(train))
        for epoch in tqdm(range(1, settings.epochs + 1), desc=network, unit="epoch", disable=None):
            _epoch(model, images, labels, settings, optimizer, scheduler)
            if each_epoch is not None:
                each_epoch(model)
            if held_out is not None and (score := accuracy(model, held_out)) >= validation:
                best, validation, best_epoch = copy.deepcopy(model), score, epoch
    details = {"network": network, "epochs": settings.epochs}
    if held_out is not None:
        details |= {"best_epoch": best_epoch, "validation": validation}
    elif settings.holdout:
        details["held_out"] = 0
    return best.eval(), model.eval(), details


def _scheduler(optimizer: torch.optim.Optimizer, settings: CnnSettings, count: int) -> Any:
    steps = settings.epochs * _steps(count, settings.batch_size)
    if settings.schedule == "step":
        return torch.optim.lr_scheduler.StepLR(optimizer, step_size=max(1, int(0.8 * steps)), gamma=0.1)
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=settings.lr, total_steps=max(2, steps), pct_start=0.2, cycle_momentum=False
    )


def _steps(count: int, batch_size: int) -> int:
    return max(1, count // batch_size)


def _epoch(
    model: Classifier, images: Tensor, labels: Tensor, settings: CnnSettings, optimizer: Any, scheduler: Any
) -> None:
    model.train()
    order = torch.randperm(len(labels)).to(images.device)
    for index in order.tensor_split(_steps(len(labels), settings.batch_size)):
        batch = random_crop(images[index], settings.crop) if settings.crop else images[index]
        loss = functional.cross_entropy(model(batch), labels[index])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()


def random_crop(images: Tensor, padding: int) -> Tensor:
    """Shifts each image [N, C, H, W] by its own draw of up to `padding` pixels each way, filling with zeros."""
    count, _, height, width = images.shape
    padded = functional.pad(images, (padding,) * 4)
    top, left = torch.randint(0, 2 * padding + 1, (2, count, 1), device=images.device)
    rows = top + torch.arange(height, device=images.device)
    columns = left + torch.arange(width, device=images.device)
    picked = padded[torch.arange(count, device=images.device)[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return picked.permute(0, 3, 1, 2)


@torch.no_grad()
def predict(model: Classifier, images: np.ndarray) -> np.ndarray:
    """Returns the likeliest class int64 [N] of uint8 images [N, C, H, W]."""
    model.eval()
    device = next(model.parameters()).device
    batches = torch.from_numpy(images).split(EVALUATION_BATCH)
    return np.concatenate([model(batch.to(device)).argmax(1).cpu().numpy() for batch in batches])


def split(data: LabelledImages, fraction: float, seed: int) -> tuple[LabelledImages, LabelledImages]:
    """Splits off a held-out fraction with the same class balance; returns (train, held out). See `can_hold_out`."""
    kept, out = train_test_split(
        np.arange(len(data)), test_size=fraction, stratify=data.labels, random_state=derive(seed, "holdout") % 2**32
    )
    return data.take(kept), data.take(out)


def can_hold_out(data: LabelledImages, fraction: float) -> bool:
    """Returns whether a stratified holdout of `fraction` has room for every class present, on both sides."""
    classes, counts = np.unique(data.labels, return_counts=True)
    return int(fraction * len(data)) >= len(classes) and counts.min() >= 2


@dataclass(frozen=True)
class Mlp:
    """A trained perceptron: `weights[i]` [inputs, outputs], `biases[i]` [outputs]; ReLU between layers.

    `classes` int64 [K]; one output means two classes by its sign, and no layer means one class for every image.
    """

    weights: tuple[np.ndarray, ...]
    biases: tuple[np.ndarray, ...]
    classes: np.ndarray

    def predict(self, images: np.ndarray) -> np.ndarray:
        """Returns the likeliest class int64 [N] of uint8 images [N, C, H, W]."""
        if not self.weights:
            return np.full(len(images), self.classes[0])
        hidden = _flat(images)
        for weight, bias in zip(self.weights[:-1], self.biases[:-1], strict=True):
            hidden = np.maximum(hidden @ weight + bias, 0)
        logits = hidden @ self.weights[-1] + self.biases[-1]
        return self.classes[(logits[:, 0] > 0).astype(int) if logits.shape[1] == 1 else logits.argmax(1)]

    def save(self, path: Path) -> None:
        """Writes an npz of plain arrays, atomically."""
        layers = {f"weight{i}": value for i, value in enumerate(self.weights)}
        layers |= {f"bias{i}": value for i, value in enumerate(self.biases)}
        write_npz(path, classes=self.classes, **layers)

    @classmethod
    def load(cls, path: Path) -> Mlp:
        """Reads what `save` wrote. Raises UserError if the file is missing, malformed, or of layers that do not fit."""
        problem, maker = "is not a stored MLP", "make it with `python -m evaluation.classifiers`"
        names = npz_names(path, problem, maker=maker)
        depth = (len(names) - 1) // 2
        stored = read_npz(path, names, problem, maker=maker)
        with reading(path, problem, maker=maker):
            weights, biases = (tuple(stored[f"{kind}{i}"] for i in range(depth)) for kind in ("weight", "bias"))
            model = cls(weights, biases, stored["classes"])
            model.check()
        return model

    def check(self) -> None:
        """Raises ValueError unless the layers are finite numbers that fit together and give a score for each class."""
        if self.classes.dtype.kind not in "iu" or self.classes.ndim != 1 or not len(self.classes):
            raise ValueError("classes must be whole numbers [K]")
        for weight, bias in zip(self.weights, self.biases, strict=True):
            if weight.dtype.kind != "f" or bias.dtype.kind != "f" or weight.ndim != 2 or bias.shape != weight.shape[1:]:
                raise ValueError("weights must be floats [inputs, outputs] and biases floats [outputs]")
            if not (np.isfinite(weight).all() and np.isfinite(bias).all()):
                raise ValueError("a weight is no finite number")
        sizes = [weight.shape for weight in self.weights]
        if any(one[1] != other[0] for one, other in itertools.pairwise(sizes)):
            raise ValueError(f"layers {sizes} do not follow one another")
        if sizes and sizes[-1][1] not in {len(self.classes), *([1] if len(self.classes) == 2 else [])}:
            raise ValueError(f"{sizes[-1][1]} outputs do not fit {len(self.classes)} classes")


def fit_mlp(
    data: LabelledImages, iterations: int, holdout: float, seed: int, threads: int = 1, min_steps: int = 0
) -> tuple[Mlp, dict[str, Any]]:
    """Trains scikit-learn's MLPClassifier as GS-WGAN's and DPAC's code does for MNIST: one hidden layer, alpha 0.01.

    It holds `holdout` of `data` out, stops after 10 epochs without a better accuracy there, or after `iterations`
    epochs (more where these make fewer than `min_steps` steps of 200 images), and restores its best epoch. Without
    room for a holdout, it stops after 10 epochs without a loss better by 1e-4, and keeps its last epoch.

    Ctrl-C ends it, where the library alone would go on with the perceptron as it is.

    Returns:
        The perceptron, and details: `epochs`, `stopped` ("early" or "cap"), and with a holdout `best_epoch` (1-based)
        and `validation` (held-out accuracy); without one `held_out` 0.
    """
    classes = np.unique(data.labels)
    if len(classes) == 1:
        return Mlp((), (), classes), {"epochs": 0, "stopped": "one class"}
    room = can_hold_out(data, holdout)
    iterations = enough_epochs(iterations, len(data), MLP_BATCH, min_steps)
    model = MLPClassifier(
        hidden_layer_sizes=(100,), alpha=0.01, early_stopping=room, validation_fraction=holdout,
        max_iter=iterations, random_state=derive(seed, "mlp", "fit") % 2**32,
    )  # fmt: skip
    with warnings.catch_warnings(), threadpool_limits(threads):
        # The cap on epochs is ours and is reported in the details.
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.filterwarnings("error", "Training interrupted")
        try:
            model.fit(_flat(data.images), data.labels)
        except UserWarning as warning:
            if "interrupted" not in str(warning):
                raise
            raise KeyboardInterrupt from None
    details = {"epochs": model.n_iter_, "stopped": "early" if model.n_iter_ < iterations else "cap"}
    if room:
        best = int(np.argmax(model.validation_scores_)) + 1
        details |= {"best_epoch": best, "validation": float(model.best_validation_score_)}
    else:
        details["held_out"] = 0
    return Mlp(tuple(model.coefs_), tuple(model.intercepts_), model.classes_.astype(np.int64)), details


def _flat(images: np.ndarray) -> np.ndarray:
    return images.reshape(len(images), -1).astype(np.float32) / 255


def accuracy(model: Classifier | Mlp, data: LabelledImages) -> float:
    """Returns the fraction of `data` whose label the model predicts."""
    predicted = model.predict(data.images) if isinstance(model, Mlp) else predict(model, data.images)
    return float((predicted == data.labels).mean())
