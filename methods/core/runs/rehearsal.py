"""A rehearsal: the first steps of a run on random images, before anything is charged for it.

What cannot work, such as a network that does not fit the images, then ends in one line and not in a spent budget.
"""

from __future__ import annotations

import contextlib
import gc
import math
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from methods.core import registry
from methods.core.method import Context, Method
from methods.core.privacy.grant import Grant
from methods.core.privacy.ledger import BudgetExhausted
from methods.core.privacy.noise import NoiseSource
from methods.core.privacy.private_data import Index, PrivateData
from methods.core.release import PublicSpec, Release
from methods.core.rng import named_rng
from methods.core.runs.plan import Plan
from workflow.common.errors import UserError, at, unknown

_STEPS = 2
# Different random images; more records than these are the same again.
_IMAGES = 64
# What a checkpoint may hold besides tensors and nested mappings and sequences of these.
_PLAIN = (type(None), bool, int, float, str)


def rehearse(plan: Plan, device: torch.device) -> None:
    """Goes through building, preparing, the first steps, storing and sampling of a plan's run, on random images.

    No private data is read, nothing is charged or written, and torch's random streams stay as they were. Steps have
    their real sizes, and are those of `Method.rehearsal`.

    Raises UserError with the method, the shape, the library's words and the place for whatever goes wrong.
    """
    cuda = [device] if device.type == "cuda" else []
    # So that the collection at the end looks at what is new, and takes milliseconds.
    gc.freeze()
    try:
        with torch.random.fork_rng(devices=cuda):
            _go_through(plan, device)
    except UserError:
        raise
    except Exception as error:
        raise UserError(_told(plan, error)) from error
    finally:
        # Networks refer to themselves; their memory is wanted again at once.
        gc.collect()
        gc.unfreeze()


class RandomRecords:
    """The door of PrivateData to random records of a data set's shape; every class occurs if there are enough.

    A method that reads all records gets only a few, as its use of one is all that can fail; else there are as many as
    in the data set, so that batches have their real sizes.
    """

    def __init__(self, plan: Plan) -> None:
        public: PublicSpec = plan.public
        count = min(_IMAGES, public.num_train)
        rng = named_rng(plan.seed, "rehearsal")
        images = torch.randint(256, (count, *public.image_shape), generator=rng, dtype=torch.uint8)
        labels = public.num_classes - 1 - torch.arange(count) % public.num_classes
        self._few, self._total = PrivateData(images, labels), public.num_train
        whole = all(release.sampling == "all" for release in plan.releases)
        self._count = count if whole else public.num_train

    def __len__(self) -> int:
        return self._count

    def read(self, grant: Grant | None, index: Index) -> tuple[torch.Tensor, torch.Tensor]:
        """Reads as PrivateData does, and raises as it does."""
        where = torch.as_tensor(index, dtype=torch.int64).reshape(-1)
        if where.numel() and (int(where.min()) < 0 or int(where.max()) >= self._total):
            raise IndexError(f"record index outside 0 .. {self._total - 1}")
        return self._few.read(grant, where % len(self._few))


class FreeLedger:
    """Stands in for the Ledger: it grants the same uses, in memory, for records that are nobody's."""

    def __init__(self, releases: Sequence[Release]) -> None:
        self._releases = {release.name: release for release in releases}
        self._noise, self._uses = NoiseSource(b"rehearsal"), Counter()

    @contextlib.contextmanager
    def charge(self, name: str) -> Iterator[Grant]:
        """Yields the grant of the next use of a release, and raises as the Ledger does."""
        if name not in self._releases:
            raise unknown("release", name, self._releases)
        if self._uses[name] >= self._releases[name].max_uses:
            raise BudgetExhausted(f"all uses of release {name} are spent")
        with self._lend(name, self._releases[name]) as grant:
            yield grant

    @contextlib.contextmanager
    def internal(self, reason: str) -> Iterator[Grant]:
        """Yields a grant that reads but releases nothing."""
        with self._lend(f"internal {reason}", None) as grant:
            yield grant

    def uses(self, name: str) -> int:
        """Returns how many uses of a release are spent."""
        return self._uses[name]

    @contextlib.contextmanager
    def _lend(self, name: str, release: Release | None) -> Iterator[Grant]:
        self._uses[name] += 1
        grant = Grant(release, self._noise, self._uses[name])
        try:
            yield grant
        finally:
            grant.close()


def _go_through(plan: Plan, device: torch.device) -> None:
    hyper = plan.method_class.rehearsal(plan.hyper)
    context = Context(plan.public, _releases(plan, hyper), plan.seed, device)
    method = plan.method_class(hyper, context)
    _train(method, RandomRecords(plan), FreeLedger(context.releases))
    _check_private(method.private_state(), "private_state")
    stored = save({name: value.detach().cpu().contiguous() for name, value in method.public_state().items()})
    # Two at once would take more memory than the run itself.
    del method
    _sample(plan.method_class(hyper, context), plan, load(stored))


def _releases(plan: Plan, hyper: Any) -> tuple[Release, ...]:
    """Returns what other hyper-parameters release at the plan's noise."""
    if hyper == plan.hyper:
        return plan.releases
    free = plan.budget.accounting == "none"
    releases = plan.method_class.releases(hyper, plan.public, 0.0 if free else plan.releases[0].noise)
    return tuple(release.without_noise() for release in releases) if free else releases


def _train(method: Method, data: RandomRecords, ledger: FreeLedger) -> None:
    done = 0
    try:
        method.prepare(data, ledger)
        for t in range(min(_STEPS, method.num_steps)):
            _check_log(method.step(t, data, ledger))
            done = t + 1
    except BudgetExhausted as spent:
        # Which ends a run in good order, but for one that has not come to its first step: it would fail, all spent.
        if not done:
            told = f"{spent} before the first step has ended: charge less, or declare more max_uses"
            raise ValueError(told) from None


def _check_log(values: Any) -> None:
    """Raises TypeError for what is no row of log.csv."""
    if not isinstance(values, Mapping):
        raise TypeError(f"`step` must return a dict of numbers for the log, got {type(values).__name__}")
    for name, value in values.items():
        # One of torch or numpy has a shape, and is taken where it is a single number.
        shape = getattr(value, "shape", ())
        if math.prod(shape) != 1 or not isinstance(value.item() if hasattr(value, "item") else value, (int, float)):
            made = f"{type(value).__name__} {list(shape)}" if shape else type(value).__name__
            raise TypeError(f"`step` must return a dict of numbers for the log; {name!r} is of type {made}")


def _sample(method: Method, plan: Plan, state: Mapping[str, torch.Tensor]) -> None:
    method.load({name: value.to(method.device) for name, value in state.items()}, None)
    labels = torch.tensor([0, plan.public.num_classes - 1])
    images = method.sample(labels, named_rng(plan.seed, "rehearsal", "samples"))
    wanted = (len(labels), *plan.public.image_shape)
    if not isinstance(images, torch.Tensor) or images.dtype != torch.uint8 or images.shape != wanted:
        made = f"{images.dtype} {list(images.shape)}" if isinstance(images, torch.Tensor) else type(images).__name__
        raise TypeError(f"`sample` must return uint8 {list(wanted)}, got {made}")


def _check_private(value: Any, where: str) -> None:
    """Raises TypeError for what a checkpoint could not be read back with."""
    for name, part in _parts(value):
        _check_private(part, f"{where}[{name!r}]")
    if not isinstance(value, (Mapping, list, tuple, torch.Tensor)) and type(value) not in _PLAIN:
        raise TypeError(f"a checkpoint holds nested dicts, lists, numbers and tensors; {where} is {type(value)}")


def _parts(value: Any) -> Iterator[tuple[Any, Any]]:
    if isinstance(value, Mapping):
        yield from value.items()
    elif isinstance(value, (list, tuple)):
        yield from enumerate(value)


def _told(plan: Plan, error: Exception) -> str:
    shape = "x".join(map(str, plan.public.image_shape))
    place = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_ours(frame.filename)][-1]
    return (
        f"{plan.method} cannot train on {plan.public.dataset}, {plan.public.num_train} images {shape} in"
        f" {plan.public.num_classes} classes, with these settings; a rehearsal on random images ended with"
        f" {at(error, place)}; nothing was charged"
    )


def _is_ours(file: str) -> bool:
    return Path(file).is_relative_to(registry.FOLDER)
