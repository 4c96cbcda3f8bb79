"""What the commands of this package share: inline or stored JSON, data set cards, threads and devices."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from methods.core.method import Context
from methods.core.privacy import PublicSpec, Release
from methods.core.private_data import PrivateData
from workflow.common.contracts import load_images
from workflow.common.errors import UserError
from workflow.common.files import read_json
from workflow.common.memory import keep_freed


def json_argument(text: str) -> dict[str, Any]:
    """Returns a JSON object given as text or as the path of a file. Raises UserError for anything else."""
    if not text.lstrip().startswith("{"):
        value = read_json(text)
    else:
        try:
            value = json.loads(text)
        except json.JSONDecodeError as error:
            raise UserError(f"not valid JSON ({error}): {text}") from None
    if not isinstance(value, dict):
        raise UserError(f"expected a JSON object, got {text}")
    return value


def public_spec(card: dict[str, Any]) -> PublicSpec:
    """Returns the public facts of a data set card. Raises UserError naming the missing field."""
    try:
        return PublicSpec(
            card["dataset"], tuple(card["image_shape"]), card["num_classes"], card["splits"]["train"]["count"]
        )
    except KeyError as error:
        raise UserError(f"the data set card lacks {error}; make it anew with python -m workflow.datasets") from None


def private_data(path: str | Path, public: PublicSpec) -> PrivateData:
    """Returns the training records behind their door. Raises UserError if they do not match the public facts."""
    stored = load_images(path)
    if stored.image_shape != public.image_shape or len(stored) != public.num_train:
        raise UserError(
            f"{path} holds {len(stored)} images of {list(stored.image_shape)}, the plan was made for"
            f" {public.num_train} of {list(public.image_shape)}; make the plan anew"
        )
    return PrivateData(torch.from_numpy(stored.images), torch.from_numpy(stored.labels))


def add_machine(parser: argparse.ArgumentParser) -> None:
    """Adds --threads and --device."""
    parser.add_argument("--threads", type=int, default=1, help="CPU threads (default 1)")
    parser.add_argument("--device", default="auto", help="auto (a GPU if there is one), cpu, cuda, cuda:N")


def use_machine(arguments: argparse.Namespace) -> torch.device:
    """Applies --threads and returns the device. Raises UserError for a device that is not there."""
    if arguments.threads < 1:
        raise UserError(f"--threads must be at least 1, got {arguments.threads}")
    torch.set_num_threads(arguments.threads)
    keep_freed()
    # A record is clipped by its norm in full precision; its gradient must not be summed in less.
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    if arguments.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(arguments.device)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError):
        raise UserError(f"device {arguments.device!r} is not available here; valid: auto, cpu, cuda, cuda:N") from None
    return device


def context(plan: dict[str, Any], device: torch.device) -> Context:
    """Returns what a method is built from, as plan.json records it."""
    try:
        public = PublicSpec(**{**plan["public"], "image_shape": tuple(plan["public"]["image_shape"])})
        releases = tuple(Release.from_dict(fields) for fields in plan["releases"])
        return Context(public=public, releases=releases, seed=plan["seed"], device=device)
    except (KeyError, TypeError) as error:
        raise UserError(f"not a plan ({error}); make one with python -m methods.core.plan") from None
