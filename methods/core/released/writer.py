"""Writes the folder that may be given away: what it holds follows from the plan, the images and the generator alone."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save

from methods.core.release import PublicSpec
from methods.core.released import image_files, parquet_file
from methods.core.released.datasheet import datasheet
from methods.core.released.privacy_facts import privacy_facts
from methods.core.runs.plan import Plan
from workflow.common.class_names import check_distinct
from workflow.common.errors import UserError
from workflow.common.files import write_json, write_npz, write_text

# Noon of 1980-01-01 UTC: ZIP archives hold no earlier day, in whatever time zone they are packed.
_TIME = 315576000


def write(
    folder: Path,
    plan: Plan,
    class_names: Sequence[str],
    images: np.ndarray,
    labels: np.ndarray,
    state: Mapping[str, torch.Tensor],
    parquet: bool,
    deduced: Sequence[str] = (),
) -> None:
    """Writes a release into `folder`, which is empty or not there yet; equal arguments give equal bytes.

    What it writes: `images/<class>/00000.png` and so on, `contact_sheet.png`, `samples.npz` (images, labels),
    `generator.safetensors`, `privacy.json`, `DATASHEET.md` and, with `parquet`, `data/train-00000-of-00001.parquet`.
    All modes are 0644 and 0755 and all times one constant. A failure leaves what was written by then.

    Args:
        plan: of a run with a sound budget; its seed is written nowhere.
        class_names: the name of each label, public.
        images: uint8 [N, C, H, W], C 1 or 3, of the plan's shape.
        labels: int64 [N] in 0 .. num_classes - 1.
        state: the tensors of the method's `public_state`.
        deduced: what of the images' form was taken from the pictures ("size", "mode"), which the release then says.

    Raises:
        UserError: the folder holds something, the plan's budget is not sound, or names or arrays do not fit the plan.
    """
    folder = Path(folder)
    _check(folder, plan, class_names, images, labels)
    names = image_files.paths(class_names, labels)
    folder.mkdir(parents=True, exist_ok=True)
    image_files.write_images(folder / "images", names, images)
    image_files.write_contact_sheet(folder / "contact_sheet.png", class_names, images, labels)
    write_npz(folder / "samples.npz", images=images, labels=labels)
    tensors = {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}
    (folder / "generator.safetensors").write_bytes(save(tensors))
    if parquet:
        parquet_file.write_parquet(folder / parquet_file.FILE, folder / "images", names, labels, class_names)
    write_json(folder / "privacy.json", privacy_facts(plan, class_names, deduced))
    write_text(folder / "DATASHEET.md", datasheet(plan, parquet, deduced))
    _level(folder)


def check_names(public: PublicSpec, class_names: object, where: object) -> None:
    """Raises UserError, naming `where`, for class names or channels of which no release can be made."""
    if not isinstance(class_names, Sequence) or isinstance(class_names, str):
        raise UserError(f"{where} has no list of class_names, got {class_names!r}; make the data again")
    if len(class_names) != public.num_classes or not all(isinstance(name, str) for name in class_names):
        raise UserError(
            f"{where} has {public.num_classes} classes and needs as many class names, each a text;"
            f" got {list(class_names)!r}"
        )
    check_distinct(class_names, str(where))
    if public.image_shape[0] not in (1, 3):
        raise UserError(f"a release takes grey or RGB images, 1 or 3 channels; {where} has {public.image_shape[0]}")


def _check(folder: Path, plan: Plan, class_names: Sequence[str], images: np.ndarray, labels: np.ndarray) -> None:
    public = plan.public
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder} is not an empty folder; name another for the release")
    if plan.budget.accounting != "sound" or "sound" not in plan.costs:
        raise UserError(
            f"a release needs a finite epsilon of the sound count, the plan's accounting is {plan.budget.accounting!r};"
            " use accounting sound"
        )
    check_names(public, class_names, "the plan")
    if images.dtype != np.uint8 or images.shape[1:] != public.image_shape or not len(images):
        raise UserError(
            f"a release needs images uint8 [N, {', '.join(map(str, public.image_shape))}], at least one;"
            f" got {images.dtype} {list(images.shape)}"
        )
    if labels.dtype != np.int64 or labels.shape != images.shape[:1]:
        raise UserError(f"a release needs labels int64 [{len(images)}], got {labels.dtype} {list(labels.shape)}")
    if labels.min() < 0 or labels.max() >= public.num_classes:
        raise UserError(
            f"labels must lie in 0 .. {public.num_classes - 1}, got {labels.min()} .. {labels.max()}"
        )  # fmt: skip


def _level(folder: Path) -> None:
    """Gives all that a release holds the same modes and time, so that they tell nothing of who wrote it and when."""
    # Deepest first: a folder's own time changes with what is done in it.
    for path in (*sorted(folder.rglob("*"), reverse=True), folder):
        path.chmod(0o755 if path.is_dir() else 0o644)
        os.utime(path, (_TIME, _TIME))
