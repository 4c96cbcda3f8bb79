"""What the grants of a run drew, read, were asked and answered; and the same answers given to a run on other data."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch

from methods.core.privacy.dp_sgd import PrivateOptimizer
from methods.core.privacy.grant import Grant
from methods.core.privacy.private_data import PrivateData
from methods.core.release import Release
from methods.core.speed.one_backward_pass import LayerGradients, OneBackwardPass

ANSWERING = ("rows", "sum", "votes", "moments", "noise")


class Enough(Exception):
    """Ends a run whose first answers are all that a test needs."""


@dataclass
class Use:
    """One charged grant.

    Attributes:
        drawn: of each draw, the number of units (records or shards) drawn from, and the drawn units int64.
        read: of each read, the record indices.
        labels: of each read, the records' classes.
        gradients: of a sum that `PrivateOptimizer` makes, its parts: a row's gradient before it is clipped, [R, D].
        asked: of each answer, the grant's method and its arguments: `ask` repeats it on another grant.
        exact: the answer without noise, as the grant clipped and summed it.
        answer: what the method got.
    """

    release: Release
    drawn: list[tuple[int, torch.Tensor]] = field(default_factory=list)
    read: list[torch.Tensor] = field(default_factory=list)
    labels: list[torch.Tensor] = field(default_factory=list)
    gradients: list[torch.Tensor] = field(default_factory=list)
    asked: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = field(default_factory=list)
    exact: torch.Tensor | None = None
    answer: torch.Tensor | None = None

    def ask(self, grant: Grant) -> torch.Tensor:
        """Returns what another grant of the same release answers to the same question."""
        name, arguments, named = self.asked[-1]
        return getattr(grant, name)(*arguments, **named)

    @property
    def rows(self) -> torch.Tensor | None:
        """What the grant was given to clip or count, [R, D]; None where a library has clipped and summed."""
        name, (asked, *_), _ = self.asked[-1]
        if name == "noise":
            return None
        if name == "moments":
            asked = [rows for rows, _ in asked]
        if name in ("sum", "moments"):
            return torch.cat(asked) if asked else None
        return asked

    @property
    def classes(self) -> torch.Tensor:
        """The classes int64 [R] that came with the rows of a "moments" release."""
        return torch.cat([labels for _, labels in self.asked[-1][1][0]])


class Tape:
    """Records every charged grant of the runs inside `running`.

    `reads` says how often each record was read at all, `batches` how often just these records were, in this order.

    Args:
        answers: what the grants answer instead, in order; they are asked all the same.
        stop_after: number of answers after which Enough is raised.
        draw: what grants draw instead, int64 of a number of units; a shard is the only one of them.
        without: a number of units, and which one Poisson draws from so many leave out, as if it were not there.
    """

    def __init__(
        self,
        answers: Sequence[torch.Tensor] = (),
        stop_after: int | None = None,
        draw: Callable[[int], torch.Tensor] | None = None,
        without: tuple[int, int] | None = None,
    ) -> None:
        self._draw, self._without = draw, without
        self.uses: list[Use] = []
        self.reads: Counter[int] = Counter()
        self.batches: Counter[tuple[int, ...]] = Counter()
        # Of the sum that is being made: where the gradients of its rows go, and those of the part in work.
        self._sum: list[torch.Tensor] | None = None
        self._part: torch.Tensor | None = None
        self._of: dict[int, tuple[Grant, Use]] = {}
        self._answers, self._replays, self._stop_after = list(answers), bool(answers), stop_after

    @contextlib.contextmanager
    def running(self) -> Iterator[Tape]:
        """Records what happens inside the block."""
        with pytest.MonkeyPatch.context() as patch, contextlib.suppress(Enough):
            patch.setattr(Grant, "__init__", self._noting_grants(Grant.__init__))
            patch.setattr(Grant, "_noisy", self._noting_exact(Grant._noisy))
            patch.setattr(PrivateData, "read", self._noting_reads(PrivateData.read))
            patch.setattr(Grant, "poisson_batch", self._noting_batches(Grant.poisson_batch))
            patch.setattr(Grant, "shard", self._noting_shards(Grant.shard))
            patch.setattr(PrivateOptimizer, "step", self._noting_sums(PrivateOptimizer.step))
            patch.setattr(OneBackwardPass, "add_clipped", self._noting_parts(OneBackwardPass.add_clipped))
            patch.setattr(OneBackwardPass, "_gradients", self._noting_gradients(OneBackwardPass._gradients))
            for name in ANSWERING:
                patch.setattr(Grant, name, self._noting_answers(name, getattr(Grant, name)))
            yield self

    @property
    def answers(self) -> list[torch.Tensor]:
        """All answers in order."""
        return [use.answer for use in self.uses]

    def _noting_grants(self, whole: Callable) -> Callable:
        def made(grant: Grant, release: Release | None, *rest: Any, **named: Any) -> None:
            whole(grant, release, *rest, **named)
            if release is not None:
                self.uses.append(Use(release))
                # With the grant itself: another object must not get its place in memory.
                self._of[id(grant)] = grant, self.uses[-1]

        return made

    def _noting_reads(self, whole: Callable) -> Callable:
        def read(data: PrivateData, grant: Grant, index: Any) -> tuple[torch.Tensor, torch.Tensor]:
            read = torch.as_tensor(index, dtype=torch.int64).flatten().clone()
            images, labels = whole(data, grant, index)
            self.reads.update(read.tolist())
            self.batches[tuple(read.tolist())] += 1
            if id(grant) in self._of:
                use = self._of[id(grant)][1]
                use.read.append(read)
                use.labels.append(labels.clone())
            return images, labels

        return read

    def _noting_sums(self, whole: Callable) -> Callable:
        def step(optimizer: PrivateOptimizer, grant: Grant, *rest: Any, **named: Any) -> None:
            self._sum = self._of[id(grant)][1].gradients if id(grant) in self._of else None
            try:
                whole(optimizer, grant, *rest, **named)
            finally:
                self._sum = None

        return step

    def _noting_parts(self, whole: Callable) -> Callable:
        def add_clipped(made: OneBackwardPass, *rest: Any, **named: Any) -> None:
            self._part = None
            whole(made, *rest, **named)
            if self._sum is not None and self._part is not None:
                self._sum.append(self._part)

        return add_clipped

    def _noting_gradients(self, whole: Callable) -> Callable:
        def gradients(made: OneBackwardPass, *rest: Any) -> tuple[torch.Tensor, list[LayerGradients]]:
            values, layers = whole(made, *rest)
            # Those of the last pass are summed: one before it found rows that are not finite.
            self._part = torch.cat([_gradient(layer) for layer in layers], 1)
            return values, layers

        return gradients

    def _noting_batches(self, whole: Callable) -> Callable:
        def poisson_batch(grant: Grant, units: int) -> torch.Tensor:
            drawn = self._draw(units) if self._draw else whole(grant, units)
            if self._without is not None and self._without[0] == units:
                drawn = drawn[drawn != self._without[1]]
            self._of[id(grant)][1].drawn.append((units, drawn.clone()))
            return drawn

        return poisson_batch

    def _noting_shards(self, whole: Callable) -> Callable:
        def shard(grant: Grant) -> int:
            units = round(1 / grant.release.rate)
            drawn = int(self._draw(units)) if self._draw else whole(grant)
            self._of[id(grant)][1].drawn.append((units, torch.tensor([drawn])))
            return drawn

        return shard

    def _noting_exact(self, whole: Callable) -> Callable:
        def noisy(grant: Grant, answer: torch.Tensor) -> torch.Tensor:
            if id(grant) in self._of:
                self._of[id(grant)][1].exact = answer.detach().clone()
            return whole(grant, answer)

        return noisy

    def _noting_answers(self, name: str, whole: Callable) -> Callable:
        def answered(grant: Grant, asked: Any, *rest: Any, **named: Any) -> torch.Tensor:
            use = self._of[id(grant)][1]
            # Rows of a sum are made while the grant is open, one chunk after the other.
            if name == "moments":
                asked = [(rows.detach().clone(), labels.clone()) for rows, labels in asked]
            else:
                asked = [part.detach().clone() for part in asked] if name == "sum" else asked.detach().clone()
            use.asked.append((name, (asked, *rest), named))
            answer = whole(grant, asked, *rest, **named)
            if use.exact is None:
                use.exact = answer.clone()
            use.answer = (self._answers.pop(0) if self._replays else answer).clone()
            if self._stop_after is not None and len([one for one in self.uses if one.asked]) >= self._stop_after:
                raise Enough
            return use.answer.clone()

        return answered


def _gradient(layer: LayerGradients) -> torch.Tensor:
    """Returns what each row adds to a layer's weights and bias, before it is clipped, [R, D]."""
    return torch.cat([(layer._deltas.mT @ layer._patches).flatten(1).float(), layer._bias_rows], 1)
