"""Options that several commands share, and what they stand for: settings, budgets, records, threads and devices."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from methods.core import registry
from methods.core.privacy.private_data import PrivateData
from methods.core.release import MOST_DELTA, Budget, PublicSpec, emptiness
from methods.core.runs.plan import MOST_SEED, Plan
from methods.core.speed.choices import CHOICES
from methods.core.speed.compiled import choose
from workflow.common.allocator import keep_freed
from workflow.common.contracts import ACCOUNTINGS, LabelledImages, format_epsilon, load_images, parse_epsilon
from workflow.common.errors import UserError
from workflow.common.files import json_or_path, read_object
from workflow.common.options import number, whole
from workflow.common.readers.json_text import parse_json
from workflow.common.run_name import check_run_name
from workflow.common.torch_threads import use_threads

# Their pixels are held in memory at once.
MOST_IMAGES = 10_000_000


def read_plan(text: str | Path) -> Plan:
    """Returns the plan of a JSON text or of a plan.json. Raises UserError if it is none."""
    return Plan.from_dict(json_or_path(text, "a plan"))


def read_public(card: str | Path) -> PublicSpec:
    """Returns the public facts of a data set card. Raises UserError naming the missing field."""
    return PublicSpec.from_card(json_or_path(card, "a data set card"))


def read_private(path: str | Path, public: PublicSpec) -> PrivateData:
    """Returns the training records behind their door.

    Raises UserError if they do not match the public facts, or a card.json beside them that says what they hash to.
    """
    return _behind_door([_described(path, public)])


def read_private_parts(counts: Mapping[Path, int], public: PublicSpec) -> PrivateData:
    """Returns the records of several files, one after the other, of which each holds so many; raises as above."""
    return _behind_door([_described(path, replace(public, num_train=count)) for path, count in counts.items()])


def _behind_door(parts: Sequence[LabelledImages]) -> PrivateData:
    # One file's are not copied: they may be most of the memory.
    columns = [[getattr(part, name) for part in parts] for name in ("images", "labels")]
    return PrivateData(*(torch.from_numpy(one[0] if len(one) == 1 else np.concatenate(one)) for one in columns))


def _described(path: str | Path, public: PublicSpec) -> LabelledImages:
    stored = load_images(path)
    if stored.image_shape != public.image_shape or len(stored) != public.num_train:
        raise UserError(
            f"{path} holds {len(stored)} images of {list(stored.image_shape)}, the plan was made for"
            f" {public.num_train} of {list(public.image_shape)}; make the plan again"
        )
    if stored.labels.min() < 0 or stored.labels.max() >= public.num_classes:
        raise UserError(
            f"{path} has labels {stored.labels.min()} .. {stored.labels.max()}, the card's {public.num_classes} classes"
            f" are 0 .. {public.num_classes - 1}; make the data again"
        )
    stated = _stated_digest(Path(path))
    if stated is not None and stored.digest() != stated:
        raise UserError(
            f"{path} is not what the card.json beside it describes: changed since, or of other data; make both again by"
            " python -m workflow.datasets"
        )
    return stored


def _stated_digest(path: Path) -> str | None:
    """Returns LabelledImages.digest as the card beside the records states it, None where no card does."""
    card = path.parent / "card.json"
    if not card.exists():
        return None
    splits = read_object(card, "a data set card").get("splits")
    split = splits.get(path.stem) if isinstance(splits, dict) else None
    return split.get("sha256") if isinstance(split, dict) else None


def add_budget(parser: Any, epsilon: str | None = "10") -> None:
    """Adds --epsilon (required where it has no default), --delta, --accounting and --over-budget."""
    default = f" (default {epsilon})" if epsilon else ""
    parser.add_argument(
        "--epsilon", default=epsilon, required=epsilon is None, help=f"a number above 0, or inf{default}"
    )
    add_delta(parser)
    parser.add_argument("--accounting", default="sound", help=f"{', '.join(ACCOUNTINGS)} (default sound)")
    parser.add_argument("--over-budget", action="store_true", help="allow a plan that costs more than epsilon")


def add_delta(parser: Any, default: float | None = 1e-5, help: str = "default 1e-5") -> None:
    """Adds --delta."""
    parser.add_argument("--delta", type=number("--delta", 0, MOST_DELTA, open_low=True), default=default, help=help)


def add_seed(parser: Any, option: str = "--seed", help: str = "root seed (default 0)") -> None:
    """Adds --seed, or another option that takes a seed."""
    parser.add_argument(option, type=whole(option, 0, MOST_SEED), default=0, help=help)


def add_run(parser: Any) -> None:
    """Adds --run, which names a folder as a row of a grid does; another name raises UserError."""
    parser.add_argument(
        "--run", type=lambda name: check_run_name(name, "--run"), help="name of the run (default: the method)"
    )


def add_num(parser: Any, help: str, default: int | None = None, required: bool = False) -> None:
    """Adds --num."""
    count = whole("--num", 1, MOST_IMAGES)
    parser.add_argument("--num", type=count, default=default, required=required, help=help)


def largest_delta(records: int) -> float:
    """Returns the largest power of ten below 1 / records."""
    return 10.0 ** (math.ceil(-math.log10(records)) - 1)


def warn_of_budget(epsilon: float, delta: float, records: int) -> None:
    """Says on stderr why an epsilon promises next to nothing, and why a delta not below 1 / records is too large."""
    if why := emptiness(epsilon, delta):
        told = f"epsilon {format_epsilon(epsilon)} promises next to nothing: {why}"
        print(f"warning: {told}; use 10, or less", file=sys.stderr)
    if delta * records >= 1:
        print(
            f"warning: delta {delta:g} is not below 1 / records = {1 / records:g}: it allows giving one record away"
            f" whole; use {largest_delta(records):g}, or less",
            file=sys.stderr,
        )


def budget_of(arguments: argparse.Namespace) -> Budget:
    """Returns the budget that the options of `add_budget` describe. Raises UserError for an impossible one."""
    epsilon = parse_epsilon(arguments.epsilon)
    return Budget(epsilon, arguments.delta, arguments.accounting, arguments.over_budget)


def add_settings(parser: Any) -> None:
    """Adds --paper and --set."""
    parser.add_argument("--paper", action="store_true", help="start from the published settings for the data set")
    parser.add_argument(
        "--set", action="append", default=[], metavar="KEY=VALUE", help="a hyper-parameter that differs; repeatable"
    )


def overrides(arguments: argparse.Namespace, method: str, dataset: str, epsilon: float) -> dict[str, Any]:
    """Returns the hyper-parameters of --paper and --set. Raises UserError where the authors published no setting."""
    published = registry.paper_settings(method, dataset, epsilon) if arguments.paper else {}
    return published | assignments(arguments.set)


def assignments(texts: Sequence[str]) -> dict[str, Any]:
    """Returns the hyper-parameters given as KEY=VALUE: values in JSON, or a mapping as a preset writes it.

    Raises UserError for another form, or a key given twice.
    """
    values = {}
    for text in texts:
        key, separator, value = text.partition("=")
        if not separator:
            raise UserError(f"--set takes KEY=VALUE, got {text!r}")
        if key in values:
            raise UserError(f"--set gives {key} twice, the second time as {text!r}; remove one")
        try:
            values[key] = parse_json(value)
        except ValueError:
            values[key] = _mapping(value) if value.startswith("{") else value
    return values


def _mapping(text: str) -> Any:
    """Returns a mapping written as in a preset; any other text as it is."""
    # On first use: a machine that only trains may lack it.
    from workflow.common.readers.yaml_text import parse_yaml

    try:
        return parse_yaml(text)
    except ValueError:
        return text


def add_secret_noise(parser: argparse.ArgumentParser) -> None:
    """Adds --secret-noise."""
    parser.add_argument(
        "--secret-noise", action="store_true",
        help="noise from a key of the operating system, written nowhere: for records that need protection; without"
        " it a run can be repeated from its plan, which protects nobody",
    )  # fmt: skip


def add_machine(parser: argparse.ArgumentParser) -> None:
    """Adds --threads, --device and --speed."""
    parser.add_argument("--threads", type=whole("--threads", 1, 1024), default=1, help="CPU threads (default 1)")
    parser.add_argument("--device", default="auto", help="auto (a GPU if there is one), cpu, cuda, cuda:N")
    parser.add_argument(
        "--speed", action="append", default=[], metavar="NAME=on|off",
        help="a choice of methods/core/speed/choices.py that differs, such as compiled=on; repeatable",
    )  # fmt: skip


def use_machine(arguments: argparse.Namespace) -> torch.device:
    """Applies --threads and --speed and returns the device.

    Raises UserError for a device that is not there, or a choice that it cannot do.
    """
    use_threads(arguments.threads)
    device = _device(arguments)
    choose(getattr(arguments, "speed", []), device)
    if CHOICES.keep_freed:
        keep_freed()
    # A record is clipped by its norm in full precision; its gradient must not be summed in less.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    return device


def _device(arguments: argparse.Namespace) -> torch.device:
    if arguments.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(arguments.device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise UserError(f"device {arguments.device!r} is not available here; valid: auto, cpu, cuda, cuda:N")
    return device
