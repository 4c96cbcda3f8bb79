"""Runs any method at toy size, straight through its interface: no command, no data file."""

from __future__ import annotations

import dataclasses
import math
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tape import Tape

from methods.core import registry
from methods.core.method import Context, Method
from methods.core.privacy.ledger import Ledger
from methods.core.privacy.private_data import PrivateData
from methods.core.release import NO_BUDGET, Budget, PublicSpec, Release
from methods.core.rng import named_rng
from methods.core.runs import checkpoint
from workflow.common.errors import UserError

SHAPES = {"grey": ((1, 28, 28), 10, 80), "colour": ((3, 32, 32), 2, 48)}
BUDGETS = (Budget(10.0, 1e-5, "sound"), Budget(10.0, 1e-5, "published"), Budget(math.inf, 1e-5, "none"))
STEPS = 4
# Sizes that suit a test, for whichever fields a method has: a new method needs no entry of its own.
TINY: dict[str, Any] = {
    "steps": STEPS, "batch_size": 4, "num_shards": 2, "warm_start_steps": 1, "critic_steps": 1,
    "critic_batch": 4, "width": 4, "critic_width": 4, "generator_width": 4, "classifier_width": 4,
    "warm_start_width": 4, "hidden": 8, "channels": 8, "features": 32, "num_teachers": 4, "dim": 4,
    "teacher_steps": 1, "pretrain_steps": 1, "teacher_rate": 0.02,
    "classifier_steps": 2, "candidates": 2, "classes_shown": 2,
    # So small that gradients meet it, as they do in a run that learns.
    "clip": 0.01,
}  # fmt: skip

# What else is worth a run, besides every method as it is: other mechanisms, other players, other uses of an answer.
SOUND = {"shards_per_step": 3.0, "num_shards": 8, "warm_start_steps": 0, "spectral_norm": False}
CLASSIFIER = {"classifier_start": 1, "classifier_fake_steps": 1, "classifier_real_steps": 1, "fakes_per_class": 1}
START = {"start": "dp_gauss", "start_steps": 2}
VARIANTS: dict[str, list[dict[str, Any]]] = {
    "gs_wgan": [SOUND, SOUND | START],
    "dpac": [
        SOUND | CLASSIFIER, SOUND | CLASSIFIER | START, CLASSIFIER | {"mix_phases": True},
        CLASSIFIER | {"fresh_classifier": False}, CLASSIFIER | {"as_released": True, "released_batch": 3},
    ],
    "dp_cgan": [{"generator_every": 2, "ema": 0.5, "optimizer": "adam"}, START],
    "dpgan": [{"generator_every": 2, "fakes": 3}, START],
    # So few records that no rule would split their classes.
    "dp_gauss": [{"least_signal": 0.0}, {"first_share": 1.0, "splits": 0}],
    "dp_sinkhorn": [{"match_classes": True, "alternates": 0.0}],
    "dpac_scatter": [
        {"adjacency": "replace_one", "first_share": 1.0, "splits": 0, "least_probability": 0.2, "candidates": 2},
        {"critic_weight": 0.0},
    ],
    # Four teachers take two networks in turn.
    "datalens": [
        {"teacher_network": "conv_norm", "teacher_memory": "bf16", "precision": "bf16"},
        {"as_released": True, "released_slots": 2, "teacher_network": "mlp"},
    ],
    "g_pate": [{"as_released": True, "released_slots": 2, "teacher_network": "mlp"}],
    "pate_gan": [{"labels": "share", "generator_steps": 2, "ema": 0.5}],
    # It has no privacy that a setting could break.
    "nonprivate": [],
}  # fmt: skip


def variants(name: str) -> list[dict[str, Any]]:
    """Returns what else a method is run with: VARIANTS, or of one that is not there each switch and choice, turned."""
    if name in VARIANTS:
        return VARIANTS[name]
    try:
        fields = dataclasses.fields(registry.load(name).Hyper)
        turned = [{field.name: other} for field in fields for other in _others(field)]
        return [overrides for overrides in turned if _takes(name, overrides)]
    except Exception:
        # Its own tests say what is wrong with it; those of other methods are to run all the same.
        return []


def _others(field: dataclasses.Field) -> list[Any]:
    choices = (True, False) if isinstance(field.default, bool) else field.metadata.get("choices") or ()
    return [choice for choice in choices if choice != field.default]


def _takes(name: str, overrides: dict[str, Any]) -> bool:
    try:
        plan(name, public("grey"), tiny(name, **overrides))
    except (AssertionError, UserError):
        return False
    return True


def tiny(name: str, **overrides: Any) -> Any:
    """Returns the method's Hyper with every field named in TINY shrunk."""
    return registry.hyper(name, sizes(name) | overrides)


def sizes(name: str, wanted: dict[str, Any] = TINY) -> dict[str, Any]:
    """Returns those of the sizes `wanted` that a method has, but no more than it takes."""
    most = {field.name: field.metadata["high"] for field in dataclasses.fields(registry.load(name).Hyper)}
    return {
        key: value if isinstance(value, str) or most[key] is None else min(value, most[key])
        for key, value in wanted.items() if key in most
    }  # fmt: skip


def public(shape: str) -> PublicSpec:
    """Returns the public facts of the toy data set "grey" or "colour"."""
    image_shape, classes, count = SHAPES[shape]
    return PublicSpec(shape, image_shape, classes, count)


class Door:
    """Private data of random pixels that can be read, counted, and nothing else: an attribute would be a leak."""

    __slots__ = ("__data", "__reads", "__turns", "__without")

    def __init__(
        self, spec: PublicSpec, seed: int = 0, changed: int | list[int] | None = None, without: int | None = None,
        turns: str | None = None,
    ) -> None:  # fmt: skip
        """Record `changed`, or each of them, is another one; record `without` is missing from whatever is read.

        With `turns` "dark" or "bright" all records are others at each read: darker and of fewer classes, or brighter
        and of more.
        """
        rng = named_rng(seed, "toy data")
        images = torch.randint(256, (spec.num_train, *spec.image_shape), generator=rng).to(torch.uint8)
        # Uneven, so that counts of classes differ between data sets.
        labels = torch.randint(spec.num_classes, (spec.num_train,), generator=rng)
        if changed is not None:
            # Several move far from their own class: were records dealt to shards by class, they would change shards.
            further = 1 if isinstance(changed, int) else max(1, spec.num_classes // 2)
            images[changed] = 255 * (images[changed] < 128).to(torch.uint8)
            labels[changed] = (labels[changed] + further) % spec.num_classes
        self.__data, self.__without = PrivateData(images, labels), without
        self.__turns, self.__reads = turns and (turns == "bright", spec.num_classes), 0

    def __len__(self) -> int:
        return len(self.__data)

    def read(self, grant: Any, index: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Reads as PrivateData does."""
        index = torch.as_tensor(index, dtype=torch.int64).reshape(-1)
        images, labels = self.__data.read(grant, index if self.__without is None else index[index != self.__without])
        if self.__turns is None:
            return images, labels
        bright, classes = self.__turns
        self.__reads += 1
        left = 0.9**self.__reads
        share = 1 - left if bright else left
        return (images * share).to(torch.uint8), labels % max(1, round(classes * share))


def plan(name: str, spec: PublicSpec, hp: Any) -> tuple[Budget, tuple[Release, ...]]:
    """Returns the first budget of BUDGETS that the method takes, and its plan for it."""
    for budget in BUDGETS:
        try:
            return budget, registry.load(name).plan(hp, spec, budget)
        except UserError:
            continue
    raise AssertionError(f"{name} has no plan for any of {BUDGETS}")


@dataclass
class Run:
    """One training run at toy size, in a folder of its own.

    `noise` names the key of noise and secret draws; `data` are other records than the usual ones, `tape` sees all
    grants of the training.
    """

    name: str
    spec: PublicSpec
    folder: Path
    seed: int = 0
    overrides: dict[str, Any] = dataclasses.field(default_factory=dict)
    noise: str = ""
    data: Door | None = None
    tape: Tape | None = None

    def __post_init__(self) -> None:
        self.hp = tiny(self.name, **self.overrides)
        self.budget, self.releases = plan(self.name, self.spec, self.hp)
        if self.overrides.get("as_released"):
            self.budget = dataclasses.replace(self.budget, over_budget=True)
        self.context = Context(self.spec, self.releases, self.seed, torch.device("cpu"))
        self.data = self.data or Door(self.spec)
        self.logs: list[dict[str, float]] = []
        self.method = self.new()

    def new(self) -> Method:
        """Returns an untrained instance of the method."""
        return registry.load(self.name)(self.hp, self.context)

    def ledger(self, resume: bool = False) -> Ledger:
        """Opens the run's ledger with the run's noise."""
        key = f"{self.seed} noise {self.noise}".encode()
        return Ledger.open(self.folder / "ledger.jsonl", self.releases, self.budget, resume, key)

    def warm_start(self) -> Path | None:
        """Makes the method's warm start, if it has one, and returns its folder."""
        cls = registry.load(self.name)
        settings = cls.warm_start(self.hp)
        if settings is None:
            return None
        out = self.folder / "warm"
        if out.exists():
            return out
        out.mkdir(parents=True, exist_ok=True)
        context = Context(self.spec, (), self.seed, torch.device("cpu"))
        with Ledger.open(self.folder / "warm.jsonl", (), NO_BUDGET) as ledger:
            cls.make_warm_start(settings, context, self.data, ledger, out)
        return out

    def train(self, first: int = 0, last: int | None = None, resume: bool = False) -> Run:
        """Runs steps first .. last - 1 of `method`, from its stored checkpoint with `resume`."""
        warm = self.warm_start()
        with self.tape.running() if self.tape else nullcontext(), self.ledger(resume) as ledger:
            if resume:
                stored = checkpoint.load(self.folder, self.context.device)
                self.method.resume(self.data, ledger, warm)
                self.method.load(stored["public"], stored["private"])
            else:
                self.method.prepare(self.data, ledger, warm)
            for t in range(first, self.method.num_steps if last is None else last):
                self.logs.append(self.method.step(t, self.data, ledger))
            self.spent = {release.name: ledger.uses(release.name) for release in self.releases}
            if self.budget.accounting != "none":
                self.epsilon = ledger.epsilon(self.budget.accounting)
        return self

    def interrupted(self, at: int) -> Run:
        """Trains to step `at` (half way of fewer steps), stores a checkpoint, and trains a new instance to the end."""
        at = min(at, self.method.num_steps // 2)
        self.train(last=at)
        checkpoint.save(self.folder, self.method, at, 0.0, [], {})
        self.method = self.new()
        return self.train(first=at, resume=True)

    def samples(self, method: Method | None = None, per_class: int = 2) -> torch.Tensor:
        """Returns per_class images of each class, drawn from a fixed stream."""
        labels = torch.arange(self.spec.num_classes).repeat(per_class)
        return (method or self.method).sample(labels, named_rng(7, "samples"))
