"""The data stage: raw files of a data set -> uint8 images and int64 labels in npz, with a card.

Importing this package is cheap: what needs torchvision, PIL or scikit-learn is imported by the loader that uses it.
"""

from workflow.datasets.sources import NAMES, available

__all__ = ["NAMES", "available"]
