"""How often the audit's lower bound lies above an epsilon that is known: at 95 % confidence, in at most 5 % of audits.

Every shape of canary is audited by every attack, on mechanisms that cost next to nothing, with a new seed each time.
Where the known epsilon is exact and the attack is the best one, the share comes close to 5 %; elsewhere it lies below.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from scipy import special

from methods.core.accounting.calibration import epsilon
from methods.core.audit import bounds, mechanism, whole_run
from methods.core.privacy.ledger import Ledger
from methods.core.privacy.private_data import PrivateData
from methods.core.release import NO_BUDGET, PublicSpec, Release
from workflow.common.seeds import numpy_stream

DELTA = 1e-5
ATTACKS = ("mechanism", "non_finite", "training", "bound")


@dataclasses.dataclass(frozen=True)
class Coverage:
    """Of `audits` of one mechanism of known `epsilon`, in `above` the lower bound was higher.

    `limit` is the most that 95 of 100 such series stay within if each bound is wrong with probability 1 - confidence.
    """

    mechanism: str
    attack: str
    canaries: int
    epsilon: float
    audits: int
    above: int
    limit: int
    median_lower: float


@dataclasses.dataclass(frozen=True)
class Case:
    """A mechanism of known `epsilon`; `lower` returns the bound that one seed finds of it by `canaries` coins."""

    mechanism: str
    attack: str
    canaries: int
    epsilon: float
    lower: Callable[[int], float]

    def covered(self, audits: int) -> Coverage:
        """Audits with seeds 0 .. audits - 1."""
        found = np.array([self.lower(seed) for seed in range(audits)])
        return Coverage(
            self.mechanism, self.attack, self.canaries, self.epsilon, audits, int((found > self.epsilon).sum()),
            limit(audits), float(np.median(found)),
        )  # fmt: skip


def limit(audits: int, confidence: float = bounds.CONFIDENCE, within: float = 0.95) -> int:
    """Returns the smallest k so that a binomial (audits, 1 - confidence) is at most k with probability `within`."""
    return math.ceil(special.bdtrik(within, audits, 1 - confidence))


def _release(**changes) -> Release:
    fields = dict(
        name="answer", kind="gaussian", clip=0.7, noise=6.0, bounded="sum", rows=10_000, rate=1.0, sampling="all",
        max_uses=1,
    )  # fmt: skip
    return Release(**(fields | changes))


# Half of the coins choose a test, and fewer would never dare to choose one: then no fault could show.
_FEWEST = 24
# With how many coins: few, and epsilons so small that these few can exceed them. A clip of 5 is where the last bits of
# a float32 sum once said most of a Laplace canary's coin.
_MECHANISMS: dict[str, tuple[tuple[Release, ...], int]] = {
    "Laplace sum": ((_release(kind="laplace", clip=5.0, noise=1.0),), 2000),
    "Laplace sums, three": ((_release(kind="laplace", clip=0.5, noise=3.0, answers=3),), 250),
    "Laplace row": ((_release(kind="laplace", noise=4.0, bounded="function", rows=1),), _FEWEST),
    "Gaussian sum": ((_release(),), 290),
    "Gaussian rows": ((_release(noise=20.0, bounded="function", rows=2),), _FEWEST),
    "votes": ((_release(bounded="votes", clip=1.0, answers=2),), 290),
    "second moments": ((_release(bounded="moments", clip=1.0),), 290),
    "Poisson sum of shards": ((_release(sampling="poisson", rate=0.25, noise=1.5, state="hidden"),), 290),
    "DP-SGD": ((_release(sampling="poisson", rate=0.25, noise=3.0, adjacency="add_or_remove"),), 290),
    "one shard of K": (
        (_release(bounded="function", rows=2, sampling="one_shard_of_k", rate=1 / 10, state="hidden"),), 80,
    ),
}  # fmt: skip
# A value that is not finite is alone in its answer, so that each coin costs a use. An honest release tells far less by
# it than its epsilon allows; with more noise, a score that gives the coin away exceeds it even with the fewest coins.
_MORE_NOISE = 10.0
# Votes are whole numbers; the Laplace rows and sums of one canary are alike.
_FINITE = ("votes", "Laplace sums, three", "Laplace row")
_RESPONSES = 1000
_RECORDS = PublicSpec("blocks", (1, 20, 20), 2, 100)


def cases(attacks: Sequence[str] = ATTACKS) -> Iterator[Case]:
    """Yields the cases of `attacks`: grants by both attacks on them, a whole run's images, and the bounds alone."""
    made = {"mechanism": _of_grants, "non_finite": _of_lone_grants, "training": _of_images, "bound": _of_bounds}
    for attack in attacks:
        yield from made[attack]()


def _of_grants() -> Iterator[Case]:
    for name, (releases, coins) in _MECHANISMS.items():
        lower = functools.partial(_answers, releases, coins, False)
        yield Case(name, "mechanism", coins, epsilon(releases, DELTA, "sound"), lower)


def _of_lone_grants() -> Iterator[Case]:
    for name, (releases, _) in _MECHANISMS.items():
        if name not in _FINITE:
            quiet = tuple(dataclasses.replace(release, noise=_MORE_NOISE * release.noise) for release in releases)
            lower = functools.partial(_answers, quiet, _FEWEST, True)
            yield Case(name, "non_finite", _FEWEST, epsilon(quiet, DELTA, "sound"), lower)


def _of_images() -> Iterator[Case]:
    for leaves, sides in ((False, "exchanged"), (True, "present or absent")):
        name = f"randomized response: images {sides}"
        yield Case(name, "training", _RECORDS.num_train, 1.0, functools.partial(_images, leaves))


def _of_bounds() -> Iterator[Case]:
    for bound in (bounds.from_independent_trials, bounds.from_one_run):
        name = f"randomized response: {bound.__name__.replace('_', ' ')}"
        yield Case(name, "bound", _RESPONSES, 1.0, functools.partial(_responses, bound))


def _answers(releases: tuple[Release, ...], canaries: int, non_finite: bool, seed: int) -> float:
    found = mechanism.audit(releases, DELTA, seed=seed, canaries=canaries, non_finite=non_finite)
    return found.epsilon_lower


def _truthful(draws: np.random.Generator, bits: np.ndarray) -> np.ndarray:
    """Returns bits [m], each kept with probability e / (1 + e): randomized response of epsilon 1."""
    return bits ^ (draws.random(len(bits)) > special.expit(1.0))


def _responses(bound: Callable[..., float], seed: int) -> float:
    draws = numpy_stream(seed, "coverage of a bound")
    coins = draws.random(_RESPONSES) < 0.5
    return bound(_truthful(draws, coins).astype(float), coins, 0.0)


def _images(leaves: bool, seed: int) -> float:
    """What the training attack finds of a generator that shows by randomized response which canaries it read."""
    blank = torch.zeros(_RECORDS.num_train, *_RECORDS.image_shape, dtype=torch.uint8)
    data = PrivateData(blank, torch.zeros(len(blank), dtype=torch.int64))
    planted = whole_run.plant(_RECORDS, data, seed, len(blank), leaves)
    with (
        mechanism.folder_in_memory() as folder,
        Ledger.open(folder / "ledger.jsonl", (), NO_BUDGET) as ledger,
        ledger.internal("canaries") as grant,
    ):
        read, _ = planted.door.read(grant, planted.positions)
    seen = whole_run.nearest(planted.pairs[0], read) == 0
    said = torch.from_numpy(_truthful(numpy_stream(seed, "coverage of images"), seen))
    generated = torch.where(said[:, None, None, None], planted.pairs[0], planted.pairs[1])
    return bounds.from_one_run(whole_run.scores(planted, generated), planted.coins, DELTA)
