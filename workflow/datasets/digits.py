"""scikit-learn's bundled 8x8 digits (UCI), at MNIST's size: real images without a network."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from workflow.common.files import sha256
from workflow.datasets.store import Dataset, labelled, stratified


def load() -> Dataset:
    """Returns 1,797 digits, 1x28x28, ten classes, one in five of each class in test.

    Grey levels 0..16 become 0..255. Each pixel becomes 3x3, then a frame of 2 makes 28x28: the digit fills the
    frame as MNIST's does, which 8x8 in the middle of 28x28 would not, and stacks of convolutions see strokes.
    """
    import sklearn.datasets

    bundle = sklearn.datasets.load_digits()
    grey = np.rint(bundle.images * (255 / 16)).astype(np.uint8)
    enlarged = np.pad(grey.repeat(3, axis=1).repeat(3, axis=2), ((0, 0), (2, 2), (2, 2)))
    train, test = stratified(labelled(enlarged, bundle.target), "digits")
    raw = Path(sklearn.datasets.__file__).parent / "data" / "digits.csv.gz"
    files, source = {raw.name: sha256(raw)}, "scikit-learn's bundled digits"
    return Dataset("digits", train, test, tuple("0123456789"), source, files, {"test_drawn": True})
