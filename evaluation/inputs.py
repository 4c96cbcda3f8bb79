"""What the evaluation commands ask of image sets: a size, one dataset, and classes that a classifier knows."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from evaluation.nets import Classifier
from workflow.common.contracts import LabelledImages
from workflow.common.errors import UserError
from workflow.common.seeds import numpy_stream


def drawn(available: int, count: int, *names: object) -> np.ndarray:
    """Returns the sorted positions int64 of at most `count` of `available` records.

    They are drawn without replacement by a fixed stream that `names` identify.
    """
    if available <= count:
        return np.arange(available)
    return np.sort(numpy_stream(0, *names).choice(available, count, replace=False))


def capped(data: LabelledImages, count: int, *names: object) -> LabelledImages:
    """Returns the records of `data` that `drawn` chooses: all of them where they are no more than `count`."""
    return data if len(data) <= count else data.take(drawn(len(data), count, *names))


def check_alike(
    data: LabelledImages, reference: LabelledImages, names: tuple[str, str], same_classes: bool = True
) -> None:
    """Raises UserError unless `data` has the image shape of `reference`, and neither is empty.

    With `same_classes` every label of `data` must be at most the largest of `reference`.
    """
    for each, name in zip((data, reference), names, strict=True):
        if len(each) == 0:
            raise UserError(f"{name} holds no images")
        if each.labels.min() < 0:
            raise UserError(f"{name} has the label {each.labels.min()}; labels are 0 .. classes - 1")
    if data.image_shape != reference.image_shape:
        shapes = [list(each.image_shape) for each in (data, reference)]
        raise UserError(f"{names[0]} has images {shapes[0]} but {names[1]} has {shapes[1]}: not of one dataset")
    if same_classes and data.labels.max() > reference.labels.max():
        raise UserError(
            f"{names[0]} has labels up to {data.labels.max()} but {names[1]} only up to {reference.labels.max()}"
        )


def check_fit(samples: LabelledImages, cnn: Classifier, folder: Path) -> None:
    """Raises UserError unless the stored classifier `cnn` of `folder` takes the images and classes of `samples`."""
    if samples.image_shape != cnn.image_shape or samples.labels.max() >= cnn.num_classes:
        raise UserError(
            f"samples {list(samples.image_shape)} with labels up to {samples.labels.max()} do not fit the classifiers "
            f"in {folder}, made for {list(cnn.image_shape)} and {cnn.num_classes} classes"
        )
