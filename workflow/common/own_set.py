"""How a data set of the user's own is described: where its pictures lie, and what they are made into."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from workflow.common.errors import UserError
from workflow.common.settings import parse, setting

SIZES = (28, 32, 64)
NAME = re.compile(r"[a-z][a-z0-9_]*")
# No file or folder on Windows can have these names, and results are copied there.
RESERVED = frozenset({"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(10))})
_COLOUR = re.compile(r"#[0-9a-fA-F]{6}|[a-zA-Z]+")


def check_own_name(name: str, taken: Iterable[str]) -> str:
    """Returns `name`. Raises UserError if it is one of `taken`, or holds more than a-z, 0-9 and _ after a letter."""
    if name in taken or name in RESERVED:
        whose = "a data set of the suite's own" if name in taken else "reserved on some systems"
        raise UserError(f"{name!r} is {whose}; give yours another name, such as my_{name}")
    if not NAME.fullmatch(name):
        raise UserError(f"data set name {name!r} must begin with a-z and hold only a-z, 0-9 and _, such as lesions_2")
    return name


@dataclass(frozen=True)
class OwnSet:
    """One entry under `datasets:` of a configuration, or the options of `python -m workflow.datasets`."""

    folder: str = setting("", "a sub-folder per class, or the pictures in `labels`; or a MedMNIST .npz")
    labels: str = setting("", "CSV with columns file,label for `folder`; empty: a sub-folder is a class")
    test: str = setting("", "folder of the test pictures; empty: an .npz's own, else `test_fraction`")
    test_labels: str = setting("", "CSV with columns file,label for the pictures in `test`")
    test_split: str = setting("test", "of an .npz: test, or val to choose settings on without the test images",
                              choices=("test", "val"))  # fmt: skip
    test_fraction: float = setting(0.2, "share of each class drawn as test split; a release trains on it too",
                                   low=0.01, high=0.9)  # fmt: skip
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
        for name in ("folder", "labels", "test", "test_labels"):
            if "\0" in getattr(self, name):
                raise UserError(f"{name} {getattr(self, name)!r} is no path: it holds a null character")
        if not _COLOUR.fullmatch(self.background):
            raise UserError(f"background must be a colour's name or #rrggbb, got {self.background!r}")
        self.window_values  # noqa: B018 - a malformed window is refused here, not after an hour of reading
        self._check_layout()

    def _check_layout(self) -> None:
        if self.is_npz:
            given = [name for name in ("labels", "test", "test_labels") if getattr(self, name)]
            if given:
                raise UserError(f"{self.folder} brings its own labels and splits; leave out {', '.join(given)}")
        elif self.test_split != "test":
            raise UserError(f"test_split: {self.test_split} is of an .npz with val_images; folder is {self.folder!r}")
        elif self.test_labels and not self.labels:
            raise UserError("test_labels needs labels too: both splits are described in the same way")
        elif self.test_labels and not self.test:
            raise UserError(f"test_labels needs test, the folder of its pictures; it may be {self.folder!r} again")

    @property
    def is_npz(self) -> bool:
        """Whether `folder` is the path of an .npz file."""
        return self.folder.lower().endswith(".npz")

    @property
    def window_values(self) -> tuple[float, float] | None:
        """The values that become black and white, or None. Raises UserError unless they are two rising numbers."""
        if not self.window:
            return None
        try:
            low, high = (float(part) for part in self.window.split(","))
        except ValueError:
            low = high = math.nan
        if not (math.isfinite(high - low) and low < high):
            raise UserError(f"window must be LOW,HIGH with LOW below HIGH, such as 0,4095; got {self.window!r}")
        return low, high

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
