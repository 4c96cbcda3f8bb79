"""The interface of a method: one file under `methods/`, one class, found by its file name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from methods.core.privacy import Budget, Ledger, PublicSpec, Release
from methods.core.private_data import PrivateData
from workflow.common.errors import UserError

StepLog = dict[str, float]


@dataclass(frozen=True)
class Context:
    """What a method is built from besides its hyper-parameters: all of it public.

    Attributes:
        public: image shape, classes and training records, public by assumption.
        releases: the plan, as `Method.plan` returned it; noise scales are read from here alone.
        seed: root seed of the run's named streams (see workflow.common.seeds).
        device: where networks live.
    """

    public: PublicSpec
    releases: tuple[Release, ...]
    seed: int
    device: torch.device


class Method(ABC):
    """A generative model trained under a privacy ledger.

    A subclass is the only public class of its file, and that file imports nothing but torch, numpy, opacus and
    `methods.core`. The trainer calls `prepare`, then `step(t)` for t = 0 .. num_steps - 1, until done or until the
    ledger raises BudgetExhausted, then stores `public_state` (released) and checkpoints `private_state` (never
    released).

    Class attributes:
        Hyper: a frozen dataclass of hyper-parameters with defaults; each field's `metadata["help"]` gives its meaning
            and unit.
        PAPER: published settings, as overrides of Hyper, by (dataset, epsilon).
        SOURCES: paper section, repository files, and each departure from them.
    """

    Hyper: ClassVar[type]
    PAPER: ClassVar[Mapping[tuple[str, float], Mapping[str, Any]]] = {}
    SOURCES: ClassVar[tuple[str, ...]] = ()

    def __init__(self, hp: Any, context: Context) -> None:
        self.hp = hp
        self.context = context
        self.public = context.public
        self.device = context.device

    @classmethod
    @abstractmethod
    def plan(cls, hp: Any, public: PublicSpec, budget: Budget) -> tuple[Release, ...]:
        """Returns every kind of release of a whole run, its noise found for `budget`; reads no data.

        Raises UserError where no plan fits the budget.
        """

    @classmethod
    def warm_start(cls, hp: Any) -> dict[str, Any] | None:
        """Returns the settings that alone determine a shared private artifact made before training, or None.

        Runs whose settings are equal share one artifact per dataset and seed.
        """
        return None

    @classmethod
    def make_warm_start(
        cls, settings: Mapping[str, Any], context: Context, data: PrivateData, ledger: Ledger, out: Path
    ) -> None:
        """Writes the artifact of `warm_start` into the folder `out`, reading data as `ledger.internal` only."""
        raise UserError(f"method {cls.__module__.removeprefix('methods.')} has no warm start")

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
    def sample(self, labels: torch.Tensor, stream: torch.Generator) -> torch.Tensor:
        """Returns uint8 images [N, C, H, W] for labels int64 [N], drawing only from `stream` (a CPU generator)."""

    @abstractmethod
    def public_state(self) -> dict[str, torch.Tensor]:
        """Returns the released tensors: all that `sample` needs, and a function of ledgered releases alone."""

    def private_state(self) -> dict[str, Any]:
        """Returns what else a checkpoint needs to continue exactly, as nested dicts, lists, numbers and tensors."""
        return {}

    def private_report(self, delta: float) -> dict[str, float]:
        """Returns figures that are themselves computed from private data, such as a data-dependent epsilon at `delta`.

        They are written to the run's `private/` folder and never released.
        """
        return {}

    def load(self, public: Mapping[str, torch.Tensor], private: Mapping[str, Any] | None) -> None:
        """Restores both states; `private` is None when the method is loaded only to sample."""
        raise TypeError(f"{type(self).__name__} cannot be loaded")
