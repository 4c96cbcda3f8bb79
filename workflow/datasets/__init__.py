"""The data stage: raw files of a data set -> uint8 images and int64 labels in npz, with a card.

Importing this package is cheap: what needs torchvision, PIL or scikit-learn is imported by the loader that uses it.
"""

from collections.abc import Iterable
from pathlib import Path

from workflow.common.errors import UserError
from workflow.datasets.sources import CELEBA_SIZES, NAMES, available, celeba_defect, celeba_folders, subfolders

__all__ = ["NAMES", "available", "check"]


def check(name: str, sources: Iterable[str | Path] = ()) -> None:
    """Raises UserError if a folder to search holds damaged or incomplete files of `name`; at most 0.1 s a file.

    A folder that holds none of them is fine: the next source may.
    """
    sources = list(sources)
    if name in CELEBA_SIZES:
        defects = [defect for folder in celeba_folders(name, sources) if (defect := celeba_defect(folder))]
        if defects:
            raise UserError(f"{name}: {'; '.join(defects)}")
        return
    from workflow.datasets.mnist import FAMILIES, VALIDATION_SUFFIX, read_files

    family = FAMILIES.get(name.removesuffix(VALIDATION_SUFFIX))
    if family is not None:
        for folder in subfolders(sources, family.folder_names):
            read_files(family, folder)
