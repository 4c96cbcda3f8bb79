"""The folders and files the stages exchange, and the checks each reader makes."""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from workflow.common.errors import UserError, short, shown
from workflow.common.readers.npz_file import read_npz
from workflow.common.readers.numbers import parse_number
from workflow.common.seeds import MOST_SEED

ACCOUNTINGS = ("published", "sound", "none")
# Of an external run: stated by whoever made its samples, and counted by nobody here. No plan may have it.
CLAIMED = "claimed"
REAL = "real"  # the run name of the reference rows measured on real data
RUN_PATTERN = "runs/{dataset}/{run}/eps{epsilon}/seed{seed}"  # under results/<preset>; names as Snakemake's wildcards


def format_epsilon(epsilon: float) -> str:
    """Returns the shortest name of an epsilon for paths and tables: 10.0 -> "10", inf -> "inf".

    Two epsilons never have one name: `float` of it is the epsilon again.
    """
    short = f"{epsilon:g}"
    return short if float(short) == epsilon else repr(float(epsilon)).removesuffix(".0")


def parse_epsilon(text: str | float, endless: bool = True) -> float:
    """Returns epsilon as a float. Raises UserError unless it is a number above 0 or, if `endless`, "inf"."""
    try:
        value = math.nan if isinstance(text, bool) else parse_number(str(text).strip(), endless=endless)
    except ValueError:
        value = math.nan
    if not value > 0:
        valid = "a number above 0, or inf for no privacy"
        if not endless:
            valid = "a finite number above 0, such as 10 or 1 (inf protects nobody)"
        raise UserError(f"epsilon must be {valid}; got {shown(text)}")
    return value


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run, `<root>/runs/<dataset>/<run>/eps<e>/seed<s>`; root is `results/<preset>`."""

    root: Path
    dataset: str
    run: str
    epsilon: float
    seed: int

    @property
    def path(self) -> Path:
        """The folder."""
        epsilon = format_epsilon(self.epsilon)
        return Path(self.root) / RUN_PATTERN.format(dataset=self.dataset, run=self.run, epsilon=epsilon, seed=self.seed)

    @classmethod
    def parse(cls, path: str | Path) -> RunFolder:
        """Reads the five from a path. Raises UserError if it has another shape or an epsilon not in its shortest form.

        A path with fewer than five parts, such as `.`, is read from its absolute form.
        """
        path = Path(path)
        whole = path if len(path.parts) >= 5 else Path(os.path.realpath(path))
        runs, dataset, run, epsilon, seed = whole.parts[-5:] if len(whole.parts) >= 5 else [""] * 5
        if runs != "runs" or not epsilon.startswith("eps") or not seed.startswith("seed"):
            raise UserError(f"not a run folder: {path}; expected .../runs/<dataset>/<run>/eps<e>/seed<s>")
        value = parse_epsilon(epsilon.removeprefix("eps"))
        if epsilon != f"eps{format_epsilon(value)}":
            raise UserError(f"{epsilon} in a path must be written eps{format_epsilon(value)}; got {path}")
        if re.fullmatch(r"seed0+[0-9]{1,20}", seed, re.ASCII):
            raise UserError(f"{seed} in a path must be written seed{int(seed.removeprefix('seed'))}; got {path}")
        if not re.fullmatch(r"seed(0|[1-9][0-9]*)", seed, re.ASCII):
            raise UserError(f"seed in a path must be an integer from 0, such as seed0; got {seed!r} in {path}")
        # Compared by length first: Python refuses to read thousands of digits.
        if len(seed) > 24 or int(seed.removeprefix("seed")) > MOST_SEED:
            raise UserError(f"{short(seed)} in a path is too large: a seed is at most {MOST_SEED} (2^63 - 1)")
        return cls(whole.parents[4], dataset, run, value, int(seed.removeprefix("seed")))


def run_folders(root: str | Path, paths: Sequence[str | Path] | None = None) -> list[RunFolder]:
    """Returns the run folders at `paths`; without any, all under `root`, sorted by path.

    Raises UserError for a path that is no run folder.
    """
    anything = RUN_PATTERN.format(dataset="*", run="*", epsilon="*", seed="*")
    return [RunFolder.parse(path) for path in paths or sorted(Path(root).glob(anything))]


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

    def digest(self) -> str:
        """Returns SHA-256 of the image bytes followed by the little-endian int64 labels: the same on every machine."""
        content = hashlib.sha256(np.ascontiguousarray(self.images))
        content.update(self.labels.astype("<i8").tobytes())
        return content.hexdigest()

    def take(self, index: np.ndarray) -> LabelledImages:
        """Returns the records at `index`, in that order."""
        return LabelledImages(self.images[index], self.labels[index])


def load_images(path: str | Path) -> LabelledImages:
    """Reads `images` and `labels` from an npz of the data or the samples stage.

    Raises:
        UserError: the file is missing or damaged, its arrays have another dtype or shape or are larger than memory, or
            a label is negative.
    """
    problem, mend = "is not an npz of `images` and `labels`", "make it again"
    arrays = read_npz(path, ("images", "labels"), problem, mend)
    images, labels = arrays["images"], arrays["labels"]
    if images.dtype != np.uint8 or images.ndim != 4:
        raise UserError(f"{path}: images must be uint8 [N, C, H, W], got {images.dtype} {list(images.shape)}")
    if labels.dtype != np.int64 or labels.shape != images.shape[:1]:
        raise UserError(f"{path}: labels must be int64 [{len(images)}], got {labels.dtype} {list(labels.shape)}")
    if len(labels) and labels.min() < 0:
        raise UserError(f"{path} has the label {labels.min()}; labels are 0 .. classes - 1: make it again")
    return LabelledImages(images, labels)
