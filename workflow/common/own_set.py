"""How a data set of the user's own is described: where its pictures lie, and what they are made into."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from workflow.common.errors import UserError
from workflow.common.settings import parse, setting

SIZES = (28, 32, 64)
NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class OwnSet:
    """One entry under `datasets:` of a configuration, or the options of `python -m workflow.datasets`."""

    folder: str = setting("", "a sub-folder per class, or the pictures in `labels`; or a MedMNIST .npz")
    labels: str = setting("", "CSV with columns file,label for `folder`; empty: a sub-folder is a class")
    test: str = setting("", "folder of the test pictures; empty: an .npz's own, else `test_fraction`")
    test_labels: str = setting("", "CSV with columns file,label for the pictures in `test`")
    test_split: str = setting("test", "of an .npz: test, or val to choose settings on without the test images",
                              choices=("test", "val"))  # fmt: skip
    test_fraction: float = setting(0.2, "share of each class that is set apart as test split", low=0.01, high=0.9)
    split_seed: int = setting(0, "seed of that draw", low=0)
    size: int = setting(0, "side of the square images in pixels: 28, 32 or 64; 0: deduced from the pictures", low=0)
    mode: str = setting("auto", "grey, rgb, or auto: grey if every picture is", choices=("auto", "grey", "rgb"))
    fit: str = setting("crop", "how another aspect becomes square: crop the centre, or pad", choices=("crop", "pad"))
    window: str = setting("", "LOW,HIGH: the values of 16-bit, integer or float pictures that become black and white")
    background: str = setting("white", "colour under transparent pixels and of padding: a name or #rrggbb")
    public: bool = setting(False, "true for pictures that need no protection: no warning")

    def __post_init__(self) -> None:
        if self.size not in (0, *SIZES):
            raise UserError(f"size must be one of {', '.join(map(str, SIZES))}, or 0 to deduce it; got {self.size}")

    @classmethod
    def parse(cls, name: str, entry: Mapping[str, Any]) -> OwnSet:
        """Returns the description of data set `name`. Raises UserError for an unknown key or an impossible value."""
        own = parse(cls, entry, "setting", f"data set {name}")
        if not own.folder:
            raise UserError(f"data set {name} needs folder: a folder with a sub-folder per class, or an .npz file")
        return own

    def to_json(self) -> str:
        """Returns the settings that differ from their defaults, as JSON on one line."""
        given = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if getattr(self, f.name) != f.default}
        return json.dumps(given, sort_keys=True)
