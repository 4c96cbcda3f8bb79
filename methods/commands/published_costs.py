"""`python -m methods published-costs`: what each published setting spends, by both counts."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from methods.commands.account import DATASETS
from methods.core import registry
from methods.core.accounting.calibration import calibrate, epsilon
from methods.core.accounting.published import classic
from methods.core.release import Budget, Release
from workflow.common.contracts import format_epsilon
from workflow.common.errors import UserError, misfit, shown, unknown
from workflow.common.files import csv_text, write_text

_COUNTS = ("published", "classic")
AS_DESCRIBED, UNKNOWN, UNPROVED = "as_described", "unknown", "unproved"
# What a sound value is: tight up to rounding, an upper bound and no more, valid only under the premise that `behaviour`
# names, absent because none is known for the code, or absent because none is proved for the mechanism itself.
TIGHT, BOUND, CONDITIONAL, NONE_KNOWN, NONE_PROVED = "tight", "bound", "conditional", "none known", "no epsilon proved"


@dataclass(frozen=True)
class Setting:
    """One entry of settings.yaml, whose head says what each field means. Raises UserError for an unknown `count`."""

    method: str
    dataset: str
    epsilon: float
    setting: str
    released: str | list[dict[str, Any]]
    behaviour: str
    source: str
    printed: float | None = None
    delta: float = 1e-5
    noise: float | None = None
    scale: float | None = None
    count: str = "published"
    orders: list[float] = field(default_factory=list)
    counted: list[dict[str, Any]] = field(default_factory=list)
    released_counted: list[dict[str, Any]] = field(default_factory=list)
    conditional: bool = False

    def __post_init__(self) -> None:
        if self.count not in _COUNTS:
            raise misfit(f"count of {self.name}", self.count, _COUNTS)
        words = (AS_DESCRIBED, UNKNOWN, UNPROVED)
        if isinstance(self.released, str) and self.released not in words:
            raise misfit(f"released of {self.name}", self.released, (*words, "a list of releases"))

    def check(self) -> None:
        """Raises ValueError for a value of another type, or a number that cannot be."""
        for key in ("method", "dataset", "setting", "behaviour", "source"):
            if not isinstance(getattr(self, key), str):
                raise ValueError(f"{key} must be a text, got {shown(getattr(self, key))}")
        for key, most in (("epsilon", math.inf), ("delta", 1.0), ("printed", math.inf), ("noise", 1e9), ("scale", 1e9)):
            value = getattr(self, key)
            optional = key in ("printed", "noise", "scale") and value is None
            if not optional and not (_is_number(value) and 0 <= value < most and (value > 0 or key == "noise")):
                raise ValueError(f"{key} must be a number above 0 and below {most:g}, got {shown(value)}")
        for key in ("counted", "released_counted", "orders", "released"):
            value = getattr(self, key)
            if not isinstance(value, list) and not (key == "released" and isinstance(value, str)):
                raise ValueError(f"{key} must be a list, got {shown(value)}")
            fits = _is_number if key == "orders" else lambda item: isinstance(item, dict)
            if isinstance(value, list) and not all(map(fits, value)):
                raise ValueError(f"{key} holds {shown(value)}, which it cannot")
        if not isinstance(self.conditional, bool):
            raise ValueError(f"conditional must be true or false, got {shown(self.conditional)}")

    @property
    def name(self) -> str:
        return f"{self.method} on {self.dataset} at epsilon {format_epsilon(self.epsilon)}"

    @property
    def has_noise(self) -> bool:
        """Whether the authors state a noise: without one there is a setting and nothing to count."""
        return self.noise is not None or self.scale is not None

    @property
    def is_proved(self) -> bool:
        """Whether the mechanism has a proof at all; without one it is no method of this suite."""
        return self.released != UNPROVED


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.add_argument("--settings", default="results/published/settings.yaml", help="default %(default)s")
    parser.add_argument("--method", help="settings of this method alone, in seconds for most")
    parser.add_argument("--out", type=Path, help="csv to write; without it, the csv goes to stdout")


def run(arguments: argparse.Namespace) -> None:
    """Counts the settings of the file and writes one csv line for each. Raises UserError for a bad file or method."""
    budgets, settings = read_settings(arguments.settings)
    if arguments.method is not None:
        named = {setting.method for setting in settings}
        if arguments.method not in named:
            raise unknown("method with a published setting", arguments.method, named)
        settings = [setting for setting in settings if setting.method == arguments.method]
    lines = []
    for number, setting in enumerate(settings, start=1):
        print(f"{number}/{len(settings)}: {setting.name}", file=sys.stderr, flush=True)
        lines.append(costs_of(setting, budgets))
    text = csv_text(list(lines[0]), lines)
    if arguments.out is None:
        sys.stdout.write(text)
    else:
        write_text(arguments.out, text)


def read_settings(path: str | Path) -> tuple[list[float], list[Setting]]:
    """Returns the budgets and the settings of a file. Raises UserError naming the entry that is wrong, and why."""
    # Here, so that a machine that only trains does without.
    from workflow.common.readers.yaml_text import read_yaml

    content = read_yaml(path)
    if not isinstance(content, dict) or set(content) != {"budgets", "settings"} or not content["settings"]:
        raise UserError(f"{path} must hold `budgets` and a list of `settings`")
    fields = {item.name for item in dataclasses.fields(Setting)}
    settings = []
    _check_entries(path, content["settings"], fields)
    for number, entry in enumerate(content["settings"], start=1):
        try:
            settings.append(Setting(**entry))
            settings[-1].check()
        except (TypeError, ValueError) as error:
            raise UserError(f"setting {number} in {path}: {error}; mend it as the file's head says") from None
    budgets = content["budgets"]
    if not isinstance(budgets, list) or not all(_is_number(budget) and budget > 0 for budget in budgets):
        raise UserError(f"{path}: budgets must be a list of numbers above 0, got {shown(budgets)}")
    return [float(budget) for budget in budgets], settings


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check_entries(path: str | Path, entries: Any, fields: set[str]) -> None:
    """Raises UserError unless the settings are a list of mappings with known keys."""
    if not isinstance(entries, list):
        raise UserError(f"{path}: settings must be a list, got {shown(entries)}")
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, dict):
            raise UserError(f"setting {number} in {path} must be a mapping of keys, got {shown(entry)}")
        for key in entry:
            if key not in fields:
                raise unknown(f"key of setting {number} in {path}", key, fields)


def costs_of(setting: Setting, budgets: Sequence[float]) -> dict[str, str]:
    """Returns the csv line of a setting: texts, and numbers of at most eight digits; what is not known is empty.

    eps_counted is the authors' count of what their accountant is given; eps_released_counted the same count of what
    their code releases; eps_released_sound and eps_described_sound are sound, each with what it is ("tight", "bound",
    "conditional", "none known", "no epsilon proved"); noise_for_E is the noise multiplier at which the setting as
    described has sound epsilon E.
    """
    described = described_releases(setting) if setting.is_proved else ()
    bare = tuple(dataclasses.replace(release, noise=0.0) for release in described)
    released = described if setting.released == AS_DESCRIBED else _releases(setting, setting.released)
    noisy = setting.has_noise and setting.is_proved
    queries = _releases(setting, setting.released_counted) or released
    sound = _sound("eps_released_sound", released if noisy else (), setting.delta)
    if setting.conditional:
        sound["eps_released_sound_is"] = CONDITIONAL
    sound |= _sound("eps_described_sound", described if noisy else (), setting.delta)
    if not setting.is_proved:
        sound |= dict.fromkeys(("eps_released_sound_is", "eps_described_sound_is"), NONE_PROVED)
    return {
        "method": setting.method,
        "dataset": setting.dataset,
        "epsilon": format_epsilon(setting.epsilon),
        "delta": f"{setting.delta:g}",
        "setting": setting.setting,
        "noise": _number(described[0].noise if noisy else None),
        "eps_printed": _number(setting.printed),
        "eps_counted": _number(authors_count(setting) if noisy else None),
        "behaviour": setting.behaviour,
        "eps_released_counted": _number(_count(setting, queries) if released and noisy else None),
        **sound,
        **{f"noise_for_{format_epsilon(budget)}": _noise_for(bare, budget, setting.delta) for budget in budgets},
        "source": setting.source,
    }


def authors_count(setting: Setting) -> float:
    """Returns epsilon as the authors count what their accountant is given."""
    releases = _releases(setting, setting.counted) or described_releases(setting)
    return _count(setting, releases)


def _count(setting: Setting, releases: Sequence[Release]) -> float:
    if setting.count == "classic":
        return classic(releases, setting.delta, setting.orders)
    return epsilon(releases, setting.delta, "published")


def described_releases(setting: Setting) -> tuple[Release, ...]:
    """Returns what this suite's method releases at the published setting, with the authors' noise where they state one.

    Raises UserError for a method or data set that does not exist.
    """
    if setting.dataset not in DATASETS:
        raise unknown("data set of a published setting", setting.dataset, DATASETS)
    cls = registry.load(setting.method)
    published = registry.has_paper_settings(setting.method, setting.dataset, setting.epsilon)
    key = setting.method, setting.dataset, setting.epsilon
    hp = registry.hyper(setting.method, registry.paper_settings(*key) if published else {})
    releases = cls.releases(hp, DATASETS[setting.dataset], 0.0)
    return tuple(_noisy(release, setting.noise, setting.scale) for release in releases)


def _noisy(release: Release, noise: float | None, scale: float | None) -> Release:
    multiplier = scale / release.sensitivity if scale is not None else noise or 0.0
    return dataclasses.replace(release, noise=float(multiplier))


def _releases(setting: Setting, entries: str | Sequence[Mapping[str, Any]]) -> tuple[Release, ...]:
    if entries in (UNKNOWN, UNPROVED):
        return ()
    releases = []
    for entry in entries:
        fields = {"kind": "gaussian", "clip": 1.0, "noise": None, **entry}
        noise, scale, parts = fields.pop("noise"), fields.pop("scale", None), fields.pop("one_in", 1)
        if (noise is None) == (scale is None):
            raise UserError(f"a release of {setting.name} needs one of noise and scale, got {noise} and {scale}")
        releases.append(_noisy(Release.from_dict({"rate": 1 / parts, "noise": 0.0, **fields}), noise, scale))
    return tuple(releases)


def _sound(name: str, releases: Sequence[Release], delta: float) -> dict[str, str]:
    if not releases:
        return {name: "", f"{name}_is": NONE_KNOWN}
    remembered = any(release.state == "hidden" and release.sampling == "one_shard_of_k" for release in releases)
    return {name: _number(epsilon(releases, delta, "sound")), f"{name}_is": BOUND if remembered else TIGHT}


# Many settings differ in their data set or their noise alone, and a search takes a second.
@functools.cache
def _noise_for(releases: tuple[Release, ...], budget: float, delta: float) -> str:
    if not releases:
        return ""

    def at(noise: float) -> tuple[Release, ...]:
        return tuple(dataclasses.replace(release, noise=noise) for release in releases)

    return _number(calibrate(at, Budget(budget, delta, "sound")))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.8g}"
