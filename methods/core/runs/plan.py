"""The plan of one run: everything that training needs but the data, and everything that it will release."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from methods.core import registry
from methods.core.accounting.calibration import COUNTS, check_plan, epsilon
from methods.core.method import Context, Method
from methods.core.release import Budget, PublicSpec, Release
from workflow.common import settings
from workflow.common.contracts import parse_epsilon
from workflow.common.errors import UserError, shown, unknown
from workflow.common.readers.guard import reason

# As many as named generators tell apart.
MOST_SEED = 2**63 - 1
_AGAIN = "make it again with python -m methods plan"


@dataclass(frozen=True)
class Plan:
    """What one run does, all of it public; plan.json holds it.

    Attributes:
        run: name of the run; it names the comparison's row.
        hyper: the method's Hyper, complete.
        releases: every kind of noisy answer of the whole run, its noise fixed.
        seed: root seed of initial weights, public draws and, in a reproducible run, noise.
        costs: epsilon at the budget's delta of all releases, by "published" and "sound" count; empty without budget.
    """

    run: str
    method: str
    hyper: Any
    public: PublicSpec
    budget: Budget
    releases: tuple[Release, ...]
    seed: int
    costs: Mapping[str, float]

    def __post_init__(self) -> None:
        if type(self.seed) is not int or not 0 <= self.seed <= MOST_SEED:
            raise UserError(f"a seed must be a whole number from 0 to {MOST_SEED}, got {shown(self.seed)}")
        if not isinstance(self.run, str) or not self.run.strip():
            raise UserError(f"a run's name must be a text, got {shown(self.run)}")

    @classmethod
    def make(
        cls, method: str, run: str, hyper: Mapping[str, Any], public: PublicSpec, budget: Budget, seed: int
    ) -> Plan:
        """Returns the plan of a method with the overrides `hyper`, its noise found for the budget.

        A number in `hyper` that follows the data (see PerRecord) is what it is for `public`'s training records.
        Raises UserError for unknown names or settings, values out of range or that do not go together or with the data,
        a seed below 0, or a plan that does not fit the budget and may not exceed it.
        """
        hp = registry.hyper(method, hyper, public.num_train)
        releases = registry.load(method).plan(hp, public, budget)
        check_plan(releases, budget)
        counts = () if math.isinf(budget.epsilon) else COUNTS
        costs = {count: epsilon(releases, budget.delta, count) for count in counts}
        for count, cost in costs.items():
            if not math.isfinite(cost):
                raise UserError(f"no {count} epsilon is known of {method} at delta {budget.delta:g}; use a larger one")
        return cls(run, method, hp, public, budget, releases, seed, costs)

    @property
    def digest(self) -> str:
        """SHA-256 of the whole plan, in hexadecimal. It keys a reproducible run's noise: see `runs.noise_key`."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()

    @functools.cached_property
    def method_class(self) -> type[Method]:
        """The class of the method."""
        return registry.load(self.method)

    def context(self, device: torch.device) -> Context:
        """Returns what the method is built from besides its hyper-parameters."""
        return Context(public=self.public, releases=self.releases, seed=self.seed, device=device)

    def build(self, device: torch.device) -> Method:
        """Returns the untrained method."""
        return self.method_class(self.hyper, self.context(device))

    def setting(self) -> dict[str, Any]:
        """Returns, as JSON values, what run.json repeats: names, seed, budget and hyper-parameters."""
        budget = self.budget
        fields = {
            "run": self.run,
            "method": self.method,
            "dataset": self.public.dataset,
            "seed": self.seed,
            "epsilon": "inf" if math.isinf(budget.epsilon) else budget.epsilon,
            "delta": budget.delta,
            "accounting": budget.accounting,
            "hyper": settings.stated(self.hyper),
        }
        # Written only where it is true, as a group of settings is only where one is chosen: the digest keys the noise,
        # and other runs' noise stays as it was.
        return fields | ({"over_budget": True} if budget.over_budget else {})

    def to_dict(self) -> dict[str, Any]:
        """Returns the content of plan.json, as JSON values."""
        return {
            **self.setting(),
            "public": {**dataclasses.asdict(self.public), "image_shape": list(self.public.image_shape)},
            "releases": [release.to_dict() for release in self.releases],
            **{f"eps_{count}": cost for count, cost in self.costs.items()},
        }

    @classmethod
    def stored(cls, content: Any, path: Path) -> Plan:
        """Returns the plan that `to_dict` described and the file at `path` holds. Raises UserError, naming the file."""
        try:
            return cls.from_dict(content)
        except UserError as error:
            raise UserError(f"{path}: {error}") from None

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Plan:
        """Returns the plan that `to_dict` described.

        Raises UserError if it is not one: for what `make` refuses, a missing or unknown field, or releases and costs
        that are not those of its hyper-parameters.
        """
        try:
            _check_fields(content)
            public = PublicSpec(**{**content["public"], "image_shape": tuple(content["public"]["image_shape"])})
            budget = Budget(
                parse_epsilon(content["epsilon"]), content["delta"], content["accounting"],
                content.get("over_budget", False),
            )  # fmt: skip
            hyper = registry.hyper(content["method"], content["hyper"], public.num_train)
            stored = tuple(Release.from_dict(fields) for fields in content["releases"])
            return cls(
                run=content["run"],
                method=content["method"],
                hyper=hyper,
                public=public,
                budget=budget,
                releases=_planned(registry.load(content["method"]), hyper, public, budget, stored),
                seed=content["seed"],
                costs=_costs(content, budget),
            )
        except UserError:
            raise
        except KeyError as error:
            raise UserError(f"not a plan: it lacks {error}; make one with python -m methods plan") from None
        except Exception as error:
            # A value may be of any type where JSON says so.
            raise UserError(f"not a plan ({reason(error)}); make one with python -m methods plan") from None


def _check_fields(content: Mapping[str, Any]) -> None:
    costs = {f"eps_{count}" for count in COUNTS}
    known = {"run", "method", "dataset", "seed", "epsilon", "delta", "accounting", "hyper", "public", "releases"}
    for name in content:
        if name not in known | costs | {"over_budget"}:
            raise unknown("field of a plan", name, known | costs | {"over_budget"})
    for name in ("run", "method", "dataset"):
        if isinstance(content[name], str) and not content[name].isprintable():
            raise UserError(f"not a plan: {name} must be a printable text, got {shown(content[name])}; {_AGAIN}")
    if content["dataset"] != content["public"]["dataset"]:
        raise UserError(
            f"not a plan: its dataset is {shown(content['dataset'])} and its public facts are of"
            f" {shown(content['public']['dataset'])}; {_AGAIN}"
        )
    if type(content.get("over_budget", False)) is not bool:
        raise UserError(f"not a plan: over_budget must be true or false, got {shown(content['over_budget'])}; {_AGAIN}")


def _planned(
    method: type[Method], hyper: Any, public: PublicSpec, budget: Budget, stored: tuple[Release, ...]
) -> tuple[Release, ...]:
    """Returns the releases of the hyper-parameters at the noise of `stored`. Raises UserError if these are others."""
    method.check(hyper, public)
    free = math.isinf(budget.epsilon)
    noises = [release.noise for release in stored]
    wanted = method.releases(hyper, public, 0.0 if free else max(noises, default=0.0))
    wanted = [release.without_noise() if free else release for release in wanted]
    if len(stored) != len(wanted):
        raise UserError(f"not a plan: its settings give {len(wanted)} releases and it has {len(stored)}; {_AGAIN}")
    # The noise is the plan's own; whether it suffices for the budget is checked where the ledger is opened.
    same = [dataclasses.replace(release, noise=noise) for release, noise in zip(wanted, noises, strict=True)]
    for release, other in zip(same, stored, strict=True):
        for name, value in release.to_dict().items():
            if getattr(other, name) != value:
                raise UserError(
                    f"not a plan: {name} of release {release.name} is {value!r} by its settings and"
                    f" {shown(getattr(other, name))} in its releases; {_AGAIN}"
                )
    return tuple(same)


def _costs(content: Mapping[str, Any], budget: Budget) -> dict[str, float]:
    costs = {count: content[f"eps_{count}"] for count in COUNTS if f"eps_{count}" in content}
    # A release folder tells of one alone, as no more is needed to draw images.
    if costs and math.isinf(budget.epsilon):
        raise UserError(f"not a plan: with epsilon inf it has no cost, and it says {', '.join(costs)}; {_AGAIN}")
    for count, cost in costs.items():
        if isinstance(cost, bool) or not isinstance(cost, (int, float)) or not 0 <= cost < math.inf:
            raise UserError(f"not a plan: eps_{count} must be a number from 0, got {shown(cost)}; {_AGAIN}")
    return costs
