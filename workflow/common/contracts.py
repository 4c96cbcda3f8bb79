"""The files and columns the stages exchange, and the checks each reader makes."""

from __future__ import annotations

import math
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from workflow.common.errors import UserError

SCORE_COLUMNS = ("preset", "dataset", "method", "epsilon", "accounting", "seed", "metric", "value", "source")
METRICS = (
    "is", "fid_inception", "fid_classifier", "precision", "recall",
    "g2r_mlp", "g2r_cnn", "r2g_mlp", "r2g_cnn",
    "distinct_fraction", "eps_published", "eps_sound", "train_seconds",
)  # fmt: skip
ACCOUNTINGS = ("published", "sound", "none")
SOURCES = ("measured", "published")


def format_epsilon(epsilon: float) -> str:
    """Returns the shortest name of an epsilon for paths and tables: 10.0 -> "10", inf -> "inf"."""
    return "inf" if math.isinf(epsilon) else f"{epsilon:g}"


def parse_epsilon(text: str | float) -> float:
    """Returns epsilon as a float. Raises UserError unless it is a number above 0 or "inf"."""
    try:
        value = float(text)
    except (TypeError, ValueError):
        value = math.nan
    if not value > 0:
        raise UserError(f"epsilon must be a number above 0, or inf for no privacy; got {text!r}")
    return value


def run_folder(root: str | Path, dataset: str, run: str, epsilon: float | str, seed: int | str) -> Path:
    """Returns `<root>/runs/<dataset>/<run>/eps<e>/seed<s>`; root is `results/<preset>`."""
    name = epsilon if isinstance(epsilon, str) else format_epsilon(epsilon)
    return Path(root) / "runs" / dataset / run / f"eps{name}" / f"seed{seed}"


@dataclass(frozen=True)
class LabelledImages:
    """Images uint8 [N, C, H, W] in 0..255 and labels int64 [N]."""

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def image_shape(self) -> tuple[int, int, int]:
        return tuple(self.images.shape[1:])

    def take(self, index: np.ndarray) -> LabelledImages:
        """Returns the records at `index`, in that order."""
        return LabelledImages(self.images[index], self.labels[index])


def load_images(path: str | Path) -> LabelledImages:
    """Reads `images` and `labels` from an npz of the data or the samples stage.

    Raises:
        UserError: the file is missing, truncated, or its arrays have another dtype or shape.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            images, labels = stored["images"], stored["labels"]
    except FileNotFoundError:
        raise UserError(f"no such file: {path}") from None
    except (KeyError, ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is not an npz of `images` and `labels`: {error}") from None
    if images.dtype != np.uint8 or images.ndim != 4:
        raise UserError(f"{path}: images must be uint8 [N, C, H, W], got {images.dtype} {list(images.shape)}")
    if labels.dtype != np.int64 or labels.shape != images.shape[:1]:
        raise UserError(f"{path}: labels must be int64 [{len(images)}], got {labels.dtype} {list(labels.shape)}")
    return LabelledImages(images, labels)
