"""The plan of one run: everything that training needs but the data, and everything that it will release."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from methods.core import registry
from methods.core.accounting.calibration import COUNTS, check_plan, epsilon
from methods.core.method import Context, Method
from methods.core.release import Budget, PublicSpec, Release
from workflow.common.contracts import parse_epsilon
from workflow.common.errors import UserError, shown
from workflow.common.readers.guard import reason


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

    @classmethod
    def make(
        cls, method: str, run: str, hyper: Mapping[str, Any], public: PublicSpec, budget: Budget, seed: int
    ) -> Plan:
        """Returns the plan of a method with the overrides `hyper`, its noise found for the budget.

        A number in `hyper` that follows the data (see PerRecord) is what it is for `public`'s training records.
        Raises UserError for unknown names or settings, or a plan that does not fit the budget and may not exceed it.
        """
        hp = registry.hyper(method, hyper, public.num_train)
        releases = registry.load(method).plan(hp, public, budget)
        check_plan(releases, budget)
        counts = () if math.isinf(budget.epsilon) else COUNTS
        costs = {count: epsilon(releases, budget.delta, count) for count in counts}
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
            "hyper": dataclasses.asdict(self.hyper),
        }
        # Written only where it is true: the digest keys the noise, and other runs' noise stays as it was.
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
    def from_dict(cls, content: Mapping[str, Any]) -> Plan:
        """Returns the plan that `to_dict` described. Raises UserError if it is not one."""
        try:
            public = PublicSpec(**{**content["public"], "image_shape": tuple(content["public"]["image_shape"])})
            budget = Budget(
                parse_epsilon(content["epsilon"]), content["delta"], content["accounting"],
                content.get("over_budget", False),
            )  # fmt: skip
            _check_kinds(content)
            return cls(
                run=content["run"],
                method=content["method"],
                hyper=registry.hyper(content["method"], content["hyper"], public.num_train),
                public=public,
                budget=budget,
                releases=tuple(Release.from_dict(fields) for fields in content["releases"]),
                seed=content["seed"],
                costs={count: content[f"eps_{count}"] for count in COUNTS if f"eps_{count}" in content},
            )
        except UserError:
            raise
        except KeyError as error:
            raise UserError(f"not a plan: it lacks {error}; make one with python -m methods plan") from None
        except Exception as error:
            # A value may be of any type where JSON says so.
            raise UserError(f"not a plan ({reason(error)}); make one with python -m methods plan") from None


def _check_kinds(content: Mapping[str, Any]) -> None:
    """Raises TypeError unless names are texts, seed and counts are whole numbers, and costs are numbers from 0."""
    for name in ("run", "method", "dataset"):
        if not isinstance(content[name], str) or not content[name].isprintable():
            raise TypeError(f"{name} must be a printable text, got {shown(content[name])}")
    seed = content["seed"]
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**63:
        raise TypeError(f"seed must be a whole number from 0, got {shown(seed)}")
    for release in content["releases"]:
        for name in ("rows", "max_uses", "answers"):
            if type(release.get(name, 1)) is not int:
                raise TypeError(f"{name} of a release must be a whole number, got {shown(release[name])}")
    for name in (f"eps_{count}" for count in COUNTS):
        cost = content.get(name, 0.0)
        if isinstance(cost, bool) or not isinstance(cost, int | float) or not cost >= 0:
            raise TypeError(f"{name} must be a number from 0, got {shown(cost)}")
