"""The two contestants on the same synthetic records: the project's method under its ledger, and the textbook loop."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from benchmarks import textbook
from benchmarks.sizes import EPSILON, Case
from methods.core import registry
from methods.core.method import Context
from methods.core.privacy.ledger import Ledger
from methods.core.privacy.private_data import PrivateData
from methods.core.release import NO_BUDGET, Budget, PublicSpec

CLASSES, SEED = 10, 0
RUNS = Path(__file__).resolve().parents[1] / "results"
# Any budget would do: the noise's size does not change the time it takes.
BUDGET = Budget(EPSILON, 1e-5, "published")


def records(count: int, image_size: int = 28) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns random images uint8 [N, 1, size, size] and labels int64 [N]: dense arithmetic does not see content."""
    rng = torch.Generator().manual_seed(SEED)
    images = torch.randint(0, 256, (count, 1, image_size, image_size), generator=rng, dtype=torch.uint8)
    return images, torch.arange(count) % CLASSES


def public_of(images: torch.Tensor) -> PublicSpec:
    """Returns the public facts of `records`."""
    return PublicSpec("synthetic", tuple(images.shape[1:]), CLASSES, len(images))


@contextmanager
def our_steps(
    case: Case, images: torch.Tensor, labels: torch.Tensor, device: torch.device
) -> Iterator[Callable[[], object]]:
    """Yields a call that runs the next iteration of the real method: its ledger is on disk, each charge synced."""
    method, public, hp = registry.load(case.method), public_of(images), case.hp
    releases = method.plan(hp, public, BUDGET)
    gan = method(hp, Context(public, releases, SEED, device))
    data, turn = PrivateData(images, labels), itertools.count(first_step(hp))
    with _folder() as folder, Ledger.open(folder / "ledger.jsonl", releases, BUDGET, noise_key=b"benchmark") as ledger:
        gan.prepare(data, ledger)
        yield lambda: gan.step(next(turn), data, ledger)


def textbook_steps(
    case: Case, images: torch.Tensor, labels: torch.Tensor, device: torch.device
) -> Callable[[], object]:
    """Returns a call that runs the next iteration of the textbook loop, at the same noise."""
    (release,) = registry.load(case.method).plan(case.hp, public_of(images), BUDGET)
    problem = textbook.Problem(case.hp, images, labels, CLASSES, device)
    loop, turn = textbook.LOOPS[case.method](problem, release.scale), itertools.count(first_step(case.hp))
    return lambda: loop.step(next(turn))


def our_warm_start(case: Case, images: torch.Tensor, labels: torch.Tensor, device: torch.device) -> None:
    """Trains and stores the critics of all shards as the workflow's warm-start job does."""
    method = registry.load(case.method)
    context = Context(public_of(images), (), SEED, device)
    with _folder() as folder, Ledger.open(folder / "ledger.jsonl", (), NO_BUDGET) as ledger:
        method.make_warm_start(method.warm_start(case.hp), context, PrivateData(images, labels), ledger, folder)


def textbook_warm_start(case: Case, images: torch.Tensor, labels: torch.Tensor, device: torch.device) -> None:
    """Trains the critics of all shards, one after the other, and keeps them in memory."""
    textbook.warm_start(textbook.Problem(case.hp, images, labels, CLASSES, device))


@contextmanager
def _folder() -> Iterator[Path]:
    # Where runs keep their ledgers: a synced write costs what that disk takes, and may cost nothing in /tmp.
    with tempfile.TemporaryDirectory(dir=RUNS, prefix="benchmark-") as name:
        yield Path(name)


def first_step(hp: Any) -> int:
    """Returns the first step in which every network of the method takes part."""
    return getattr(hp, "classifier_start", 0)
