"""The interface of a method: one file under `methods/`, one class, found by its file name."""

from __future__ import annotations

import functools
import math
import traceback
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from methods.core.accounting.calibration import calibrate
from methods.core.privacy.ledger import Ledger
from methods.core.privacy.private_data import PrivateData
from methods.core.release import Budget, PublicSpec, Release
from workflow.common.errors import UserError, at, shown
from workflow.common.search_space import Space

# A number of the device is fetched where the log has a row of its step: to fetch each would wait for the device.
StepLog = dict[str, float | torch.Tensor]
# The file in a warm start's folder that says from what it is made; it is there before `make_warm_start` begins.
WARM_START_SOURCE = "source.json"


@dataclass(frozen=True)
class Context:
    """What a method is built from besides its hyper-parameters: all of it public.

    Attributes:
        public: image shape, classes and training records, public by assumption.
        releases: the plan, as `Method.plan` returned it; noise scales are read from here alone.
        seed: root seed of the run's named generators (see workflow.common.seeds).
        device: where networks live.
    """

    public: PublicSpec
    releases: tuple[Release, ...]
    seed: int
    device: torch.device


def check_records(what: str, value: int, public: PublicSpec, example: str) -> None:
    """Raises UserError, with what would do, for a setting of more records or parts than there are records.

    `what` names the setting as "dpgan.batch_size"; `example` is one that follows the data, as "{one_per: 4}".
    """
    if value > public.num_train:
        raise UserError(
            f"{what} must be at most {public.num_train}, the training records of {public.dataset}; got {value}: give a"
            f" smaller one, or one that follows the data, such as {example}"
        )


def check_steps(what: str, value: int, steps: int) -> None:
    """Raises UserError for a generator that would never be trained: `what` is how many steps it waits for each."""
    if value > steps:
        raise UserError(
            f"{what} must be at most steps, {steps}, or the generator is never trained; got {value}: give a"
            " smaller one, or more steps"
        )


def check_size(what: str, sizes: tuple[int, ...], public: PublicSpec) -> None:
    """Raises UserError unless images are square with a side among `sizes`; `what` begins it, as "dpgan makes"."""
    _, height, width = public.image_shape
    if height != width or height not in sizes:
        raise UserError(
            f"{what} images of {', '.join(f'{size}x{size}' for size in sizes)}, {public.dataset} has {height}x{width};"
            " resize them, or choose dp_cgan, which takes any size"
        )


def check_quarters(name: str, public: PublicSpec) -> None:
    """Raises UserError unless both sides of an image can be halved twice; `name` is the method's."""
    _, height, width = public.image_shape
    if height % 4 or width % 4:
        raise UserError(
            f"{name} needs image sides that are multiples of 4, {public.dataset} has {height}x{width}; resize them, or"
            " choose dp_cgan, which takes any size"
        )


class Method(ABC):
    """A generative model trained under a privacy ledger.

    A subclass is the only public class of its file. The file imports torch, numpy, opacus, `methods.core` and, for its
    settings and errors, `workflow.common`; no other method. The trainer calls `prepare`, then `step(t)` for
    t = 0 .. num_steps - 1, until done or until the ledger raises BudgetExhausted. It stores `public_state` (released)
    and `private_state` (never released) in checkpoints, the first one after `prepare`, so both have their keys from
    `__init__` on. What is released once is best released in `prepare`, and fitted in `step`.

    Where to look: `methods.core.release.Release` (what is claimed), `methods.core.privacy.private_data` (`read`, and
    `len`, the public number of records), `methods.core.privacy.grant` (`rows`, `sum`, `votes`,
    `moments`), `workflow.common.settings.setting` (a field of `Hyper`).

    Class attributes:
        Hyper: a frozen dataclass of hyper-parameters, each a `setting` with its default, meaning, unit and range.
        PAPER: published settings, as overrides of Hyper, by (dataset, epsilon).
        SOURCES: paper section, repository files, and each departure from them.
        SEARCH: where `python -m workflow.tune` looks for settings (see workflow.common.search_space); a method without
            one is not tuned.
    """

    Hyper: ClassVar[type]
    PAPER: ClassVar[Mapping[tuple[str, float], Mapping[str, Any]]] = {}
    SOURCES: ClassVar[tuple[str, ...]] = ()
    SEARCH: ClassVar[Space] = {}

    def __init__(self, hp: Any, context: Context) -> None:
        self.hp = hp
        self.context = context
        self.public = context.public
        self.device = context.device

    @classmethod  # noqa: B027
    def check(cls, hp: Any, public: PublicSpec) -> None:
        """Raises UserError for hyper-parameters that do not go together, or with the data; reads no data.

        Each one's own range is checked before, by its `setting`.
        """

    @classmethod
    @abstractmethod
    def releases(cls, hp: Any, public: PublicSpec, noise: float) -> tuple[Release, ...]:
        """Returns every kind of release of a whole run at the noise multiplier `noise`, 0 or more; reads no data."""

    @classmethod
    def counted(cls, hp: Any, public: PublicSpec, noise: float) -> tuple[Release, ...]:
        """Returns what the search for the noise counts: `releases`, unless the authors count something else."""
        return cls.releases(hp, public, noise)

    @classmethod
    def plan(cls, hp: Any, public: PublicSpec, budget: Budget) -> tuple[Release, ...]:
        """Returns the releases at the smallest noise that fits `budget`; reads no data.

        At epsilon infinity every method does the same: it neither clips nor adds noise. Raises UserError for settings
        that `check` refuses, where no noise fits, or for a method that declares no releases.
        """
        cls.check(hp, public)
        if math.isinf(budget.epsilon):
            return tuple(release.without_noise() for release in _declared(cls, "releases", hp, public, 0.0))
        # Where a method has no `counted` of its own, it is `releases` that is asked, and to be mended.
        asked = "releases" if getattr(cls.counted, "__func__", None) is Method.counted.__func__ else "counted"
        noise = calibrate(functools.partial(_declared, cls, asked, hp, public), budget)
        return _declared(cls, "releases", hp, public, noise)

    @classmethod
    def search_space(cls, hp: Any) -> Space:
        """Returns where settings are looked for, of a row whose settings before the search are `hp`: `SEARCH`."""
        return cls.SEARCH

    @classmethod
    def warm_start(cls, hp: Any) -> dict[str, Any] | None:
        """Returns the settings that alone determine a shared private artifact made before training, or None.

        Runs whose settings are equal share one artifact per dataset and seed.
        """
        return None

    @classmethod
    def check_warm_start(cls, settings: Mapping[str, Any], public: PublicSpec) -> None:
        """Raises UserError for settings that `make_warm_start` cannot do; called before anything is made or removed."""
        raise UserError(f"method {cls.__module__.removeprefix('methods.')} has no warm start")

    @classmethod
    def make_warm_start(
        cls, settings: Mapping[str, Any], context: Context, data: PrivateData, ledger: Ledger, out: Path
    ) -> None:
        """Writes the artifact of `warm_start` into the folder `out`, reading data as `ledger.internal` only."""
        raise UserError(f"method {cls.__module__.removeprefix('methods.')} has no warm start")

    @classmethod
    def rehearsal(cls, hp: Any) -> Any:
        """Returns hyper-parameters of the same sizes whose first two steps are of every kind that the run has.

        They are tried on random images before anything is charged, so work that repeats itself is best left out. A warm
        start is not there. The default is `hp` itself.
        """
        return hp

    @property
    @abstractmethod
    def num_steps(self) -> int:
        """Training steps of a whole run."""

    def prepare(self, data: PrivateData, ledger: Ledger, warm_start: Path | None = None) -> None:  # noqa: B027
        """Work before step 0; not called again on resume. `warm_start` is the artifact's folder."""

    def resume(self, data: PrivateData, ledger: Ledger, warm_start: Path | None = None) -> None:  # noqa: B027
        """Work before `load` of a checkpoint, in place of `prepare`: rebuilds what a checkpoint need not hold.

        It charges nothing; the default does nothing.
        """

    @abstractmethod
    def step(self, t: int, data: PrivateData, ledger: Ledger) -> StepLog:
        """Runs training step t and returns scalars for the log that are safe to publish."""

    @abstractmethod
    def sample(self, labels: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        """Returns uint8 images [N, C, H, W] for labels int64 [N], drawing only from `rng` (a CPU generator)."""

    @abstractmethod
    def public_state(self) -> dict[str, torch.Tensor]:
        """Returns the released tensors: all that `sample` needs, and a function of ledgered releases alone."""

    def private_state(self) -> dict[str, Any]:
        """Returns what else a checkpoint needs to continue exactly, as nested dicts, lists, numbers and tensors."""
        return {}

    @property
    def checkpoint_growth(self) -> float:
        """How many times as large as its first a run's checkpoint may become.

        The default is for optimisers that have made nothing yet: Adam has two moments for each number that it trains,
        from its first step on. A method whose large state is whole from the start may say less.
        """
        return 3.0

    def private_report(self, delta: float) -> dict[str, float]:
        """Returns figures that are themselves computed from private data, such as a data-dependent epsilon at `delta`.

        They are written to the run's `private/` folder and never released.
        """
        return {}

    def load(self, public: Mapping[str, torch.Tensor], private: Mapping[str, Any] | None) -> None:
        """Restores both states; `private` is None when the method is loaded only to sample."""
        raise TypeError(f"{type(self).__name__} cannot be loaded")


def _declared(cls: type[Method], name: str, hp: Any, public: PublicSpec, noise: float) -> tuple[Release, ...]:
    """Returns what a method's `releases` or `counted` declares. Raises UserError where it fails or is no such tuple."""
    what = f"{cls.__module__.replace('.', '/')}.py: `{name}`"
    try:
        found = getattr(cls, name)(hp, public, noise)
    except UserError:
        raise
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        raise UserError(f"{what} ended with {at(error, place)}; mend it") from error
    if not isinstance(found, tuple) or not all(isinstance(one, Release) for one in found):
        raise UserError(f"{what} must return a tuple of Release, (Release(...),) for one; got {shown(found)}")
    return found
