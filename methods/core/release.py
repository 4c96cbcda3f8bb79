"""What a method declares about privacy before it runs: public facts, a budget, and the kinds of its noisy answers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from workflow.common.contracts import ACCOUNTINGS
from workflow.common.errors import UserError, misfit, shown, unknown

_CHOICES = {
    "kind": ("gaussian", "laplace", "none"),
    "bounded": ("sum", "votes", "moments", "function"),
    "sampling": ("poisson", "one_shard_of_k", "all"),
    "draws": ("per_step", "per_row"),
    "state": ("public", "hidden"),
    "adjacency": ("replace_one", "add_or_remove"),
}

# Fields that are numbers, and of what kind.
_NUMBERS = {
    "rows": int, "max_uses": int, "answers": int, "clip": (int, float), "noise": (int, float), "rate": (int, float),
}  # fmt: skip

# No promise is left beyond it, however many records there are.
MOST_DELTA = 0.1
# Beyond what any network here can hold: channels, pixels of a side, classes; and records that can be dealt to shards.
_MOST = (16, 1024, 1024, 10_000, 10**8)


@dataclass(frozen=True)
class PublicSpec:
    """What is public by assumption: image_shape is (C, H, W), num_train the number of training records."""

    dataset: str
    image_shape: tuple[int, int, int]
    num_classes: int
    num_train: int

    def __post_init__(self) -> None:
        numbers = (*self.image_shape, self.num_classes, self.num_train)
        if not isinstance(self.dataset, str) or not self.dataset or not self.dataset.isprintable():
            raise UserError(f"a data set's name must be a printable text, got {self.dataset!r}; make its card again")
        if len(numbers) != 5 or not all(type(number) is int and number > 0 for number in numbers):
            raise UserError(
                f"data set {self.dataset} needs image_shape [C, H, W], num_classes and a count of training records, all"
                f" whole numbers above 0; got {list(self.image_shape)}, {self.num_classes!r} and {self.num_train!r}"
            )
        if any(number > most for number, most in zip(numbers, _MOST, strict=True)):
            raise UserError(
                f"data set {self.dataset} is too large: at most {_MOST[0]} channels, {_MOST[1]}x{_MOST[2]} pixels,"
                f" {_MOST[3]} classes and {_MOST[4]} training records; got {list(self.image_shape)}, {self.num_classes}"
                f" and {self.num_train}"
            )

    @classmethod
    def from_card(cls, card: Mapping[str, Any]) -> PublicSpec:
        """Returns the public facts of a data set card. Raises UserError naming the missing field."""
        try:
            shape, count = tuple(card["image_shape"]), card["splits"]["train"]["count"]
            public = cls(card["dataset"], shape, card["num_classes"], count)
        except KeyError as error:
            raise UserError(f"the data set card lacks {error}; make it again by python -m workflow.datasets") from None
        except TypeError as error:
            raise UserError(f"not a data set card ({error}); make it again by python -m workflow.datasets") from None
        if shape[0] not in (1, 3):
            raise UserError(f"images are grey (1 channel) or colour (3), those of {public.dataset} have {shape[0]}")
        return public


@dataclass(frozen=True)
class Budget:
    """A target (epsilon, delta) and the accountant that holds a run to it.

    `accounting` is "published" (the method's authors' count), "sound", or "none", which is for epsilon infinity and
    for that alone. `over_budget` lets a plan cost more than epsilon, which then names the run's setting and not what
    it spends. Raises UserError for epsilon <= 0, delta outside (0, 1) or, of a finite epsilon, above 0.1, an accounting
    that does not go with epsilon, or over_budget without a finite epsilon.
    """

    epsilon: float
    delta: float
    accounting: str
    over_budget: bool = False

    def __post_init__(self) -> None:
        if self.accounting not in ACCOUNTINGS:
            raise unknown("accounting", self.accounting, ACCOUNTINGS)
        if not self.epsilon > 0:
            raise UserError(f"epsilon must be positive, got {self.epsilon}; use inf for a non-private run")
        if not 0 < self.delta < 1:
            raise UserError(f"delta must lie strictly between 0 and 1, got {self.delta}")
        if self.accounting != "none" and self.delta > MOST_DELTA:
            raise UserError(
                f"delta must be at most {MOST_DELTA:g}, got {self.delta}: it is the share of records that may be given"
                " away whole; take one well below 1 / records"
            )
        if math.isinf(self.epsilon) != (self.accounting == "none"):
            raise UserError(
                f"epsilon {self.epsilon} does not go with accounting {self.accounting!r}; "
                "epsilon inf takes accounting none, a finite epsilon takes published or sound"
            )
        if self.over_budget and self.accounting == "none":
            raise UserError("over_budget needs a finite epsilon: with accounting none there is no budget to exceed")


# Chances of a guess: nobody is one of more people than there are, and what benchmarks use is to pass.
_UNLIKELY, _LIKELY = 1e-10, 1e-5


def emptiness(epsilon: float, delta: float) -> str:
    """Returns in words why a finite epsilon promises next to nothing, "" where it promises something.

    A guess that had chance p has one of e^epsilon * p + delta at most: where e^epsilon is 1 / delta or more, that is no
    limit for any p from delta on. A delta outside 1e-10 to 1e-5 is taken for the nearer of the two (docs/privacy.md,
    "Budgets that promise next to nothing").
    """
    likely = min(max(delta, _UNLIKELY), _LIKELY)
    if epsilon < -math.log(likely):
        return ""
    chance = f"{round(1 / likely):,}"
    return (
        f"e^epsilon is at least {chance}, so nothing is promised of any guess about one record that had a chance of"
        f" 1 in {chance} before: it may become certain"
    )


# Of work that releases nothing, or that keeps no promise: any charge is allowed, so delta plays no part.
NO_BUDGET = Budget(math.inf, 0.5, "none")


@dataclass(frozen=True, kw_only=True)
class Release:
    """One kind of noisy answer that leaves the private side: the claim that every accountant reads.

    Each use of it answers once. Its fields are what privacy depends on, so they are given by name alone.

    Attributes:
        name: unique in a plan.
        kind: "gaussian", "laplace", or "none": no clip and no noise, allowed only without a budget.
        clip: bound on the norm of each row, L2 for gaussian, L1 for laplace.
        noise: noise multiplier relative to `sensitivity`; the noise scale is `noise * sensitivity`.
        bounded: "sum", the answer is the sum of rows, each clipped and each owned by one record (or by a disjoint part
            of the records, as a teacher is); "votes", each row names one of several bins and the answer is the counts;
            "moments", each row has a class and the answer is every class's sum of u u^T, u being the row clipped to
            norm 1 (see privacy.moments); or "function", each row is an arbitrary function of private data, clipped and
            noised on its own.
        rows: most rows of one use. It costs privacy for "function" only; for a "sum" num_train is a safe value.
        rate: probability that one record is drawn: 1 / K for one_shard_of_k, q for poisson, 1.0 for all.
        sampling: "poisson", each record (or fixed shard, if a "sum" has one row per shard) is drawn independently;
            "one_shard_of_k", one of K fixed disjoint shards is drawn uniformly; "all", no draw.
        max_uses: most uses in a whole run.
        draws: "per_step", the rows of a use share one draw; "per_row", each row has its own.
        state: "hidden" where an answer may depend on private state that remembers which records earlier hidden draws
            chose, as when only the drawn critic trains; amplification by the draw is then not claimed, except for a
            poisson "sum" whose units remember only their own draws. State that has read every record (one critic
            trained on all data) lets each record into each answer: declare sampling "all".
        adjacency: the relation the claim is made for. "replace_one" with fixed shards and public num_train.
        answers: separate sums (or ballots) of all rows that one use answers: a row is that many blocks, each clipped on
            its own, and each answer costs as much as a use.
    """

    name: str
    kind: str
    clip: float
    noise: float
    bounded: str
    rows: int
    rate: float
    sampling: str
    max_uses: int
    draws: str = "per_step"
    state: str = "public"
    adjacency: str = "replace_one"
    answers: int = 1

    def __post_init__(self) -> None:
        for field, choices in _CHOICES.items():
            if getattr(self, field) not in choices:
                raise misfit(f"{field} of release {self.name}", getattr(self, field), choices)
        # A count that is no whole number, such as steps / 3, would be spent otherwise than it is counted.
        for field, kind in _NUMBERS.items():
            value = getattr(self, field)
            if not isinstance(value, kind) or isinstance(value, bool):
                what = "a whole number" if kind is int else "a number"
                raise UserError(f"{field} of release {self.name} must be {what}, got {shown(value)}")
        if self.kind != "none" and not (0 < self.clip < math.inf and 0 <= self.noise < math.inf):
            raise UserError(
                f"release {self.name} needs a positive clip and a noise >= 0, got {self.clip} and {self.noise}"
            )
        if self.rows < 1 or self.max_uses < 0:
            raise UserError(f"release {self.name} needs rows >= 1 and max_uses >= 0, got {self.rows}, {self.max_uses}")
        if not 0 < self.rate <= 1 or (self.sampling == "all" and self.rate != 1):
            raise UserError(f"release {self.name} needs 0 < rate <= 1, and rate 1 for sampling all; got {self.rate}")
        self._check_shape()

    def _check_shape(self) -> None:
        if self.sampling == "one_shard_of_k" and abs(round(1 / self.rate) * self.rate - 1) > 1e-9:
            raise UserError(f"release {self.name}: one shard of K has rate 1 / K for a whole K, got {self.rate}")
        if self.bounded != "function" and self.draws == "per_row":
            raise UserError(f"release {self.name}: the rows of a {self.bounded} share one draw, use draws per_step")
        separate = self.bounded in ("sum", "votes") and self.sampling == "all"
        if self.answers < 1 or (self.answers > 1 and not separate):
            raise UserError(
                f"release {self.name} needs answers >= 1, and 1 unless it sums or counts all records; got"
                f" {self.answers} of a {self.bounded} with sampling {self.sampling}"
            )
        plain = self.kind != "laplace" and self.clip == 1 and self.sampling == "all"
        if self.bounded in ("votes", "moments") and not plain:
            raise UserError(
                f"release {self.name}: {self.bounded} take kind gaussian, clip 1 and sampling all, got {self.kind},"
                f" {self.clip} and {self.sampling}"
            )

    @property
    def sensitivity(self) -> float:
        """How far one row (function) or one answer (all others) moves between neighbours, in the norm of `kind`."""
        if self.bounded == "votes":
            # Whatever the record does to its voter, at most one count falls and one rises.
            return math.sqrt(2)
        if self.bounded == "moments":
            # Two contributions of norm 1 that never point away from each other: the proof is in privacy.moments.
            return 1.0 if self.adjacency == "add_or_remove" else math.sqrt(2)
        if self.bounded == "sum" and self.adjacency == "add_or_remove":
            return self.clip
        return 2 * self.clip

    @property
    def scale(self) -> float:
        """Scale of the noise: standard deviation for gaussian, b for laplace, in the units of the rows."""
        return 0.0 if self.kind == "none" else self.noise * self.sensitivity

    @property
    def grid(self) -> float:
        """What all answers are multiples of: the largest power of two that is at most 2^-10 of `scale`; public."""
        if not self.scale:
            raise ValueError(f"release {self.name} adds no noise, so its answers lie on no grid")
        return 2.0 ** (math.floor(math.log2(self.scale)) - 10)

    def used(self, uses: int) -> Release:
        """Returns the same release with `uses` uses."""
        return dataclasses.replace(self, max_uses=uses)

    def without_noise(self) -> Release:
        """Returns the same release without clip and noise, for epsilon infinity."""
        return dataclasses.replace(self, kind="none", noise=0.0)

    def to_dict(self) -> dict[str, Any]:
        """Returns the fields as JSON values."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Release:
        """Returns the release that `to_dict` described. Raises UserError for missing or unknown fields."""
        try:
            return cls(**fields)
        except TypeError as error:
            raise UserError(f"not a release: {error}") from None
