"""Short recorded runs that several tests of the contract look at, and the same runs on other records."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import harness
import torch
from tape import Tape, Use

from methods.core import registry
from methods.core.release import Release
from methods.core.runs.live_log import plain_numbers

SPEC = harness.public("grey")
CASES = [(name, overrides) for name in registry.names() for overrides in [{}, *harness.variants(name)]]
NAMES = [name + "".join(f" {key}={value}" for key, value in overrides.items()) for name, overrides in CASES]


def run(case: tuple[str, dict], folder: Path, **settings) -> harness.Run:
    """Returns a run of the case whose tape is at `tape`, trained."""
    name, overrides = case
    one = harness.Run(name, SPEC, folder, overrides=overrides, **({"tape": Tape()} | settings))
    return one.train()


def replayed(recorded: harness.Run, case: tuple[str, dict], folder: Path, turns: str = "dark") -> harness.Run:
    """Returns a run that gets the recorded answers, on other records and with other secret draws.

    The records turn darker, or brighter, with each read. A choice that follows from them, as of the best of several
    generators, cannot be that of the recorded run both times.
    """
    data = harness.Door(SPEC, seed=1, turns=turns)
    return run(case, folder, data=data, noise="other", tape=Tape(recorded.tape.answers))


def charges(folder: Path) -> list[dict]:
    """Returns the lines of a run's ledger, without the digests of those before."""
    lines = map(json.loads, (folder / "ledger.jsonl").read_text().splitlines())
    return [{key: value for key, value in line.items() if key != "chain"} for line in lines]


def differences(recorded: harness.Run, other: harness.Run) -> list[str]:
    """Returns what of the release differs between two runs that got the same answers."""
    one, two = recorded.method.public_state(), other.method.public_state()
    found = [key for key in one.keys() | two.keys() if not torch.equal(one[key], two[key])]
    # Which is released too, with the reasons for internal reads and their numbers.
    lines = itertools.zip_longest(charges(recorded.folder), charges(other.folder))
    found += [f"the ledger, {line} and not {unlike}" for line, unlike in lines if line != unlike][:1]
    # As text, in which a number that is none yet is itself.
    logs = [[str(plain_numbers(row)) for row in run.logs] for run in (recorded, other)]
    return found + [f"log of step {t}" for t, pair in enumerate(zip(*logs, strict=True)) if pair[0] != pair[1]]


def read_by(use: Use) -> set[int]:
    """Returns the records that were read under a use."""
    return set(torch.cat(use.read).tolist() if use.read else [])


def neighbour(
    recorded: harness.Run, case: tuple[str, dict], folder: Path, release: Release, attempt: int = 0
) -> tuple[Use, torch.Tensor]:
    """Returns a use of a release, and its exact answer where one record that it read is another, or is missing.

    The first attempt takes the record that is read most often: one in two parts, or in another's place, would be it.
    """
    places = [number for number, use in enumerate(recorded.tape.uses) if use.release == release]
    reading = [number for number in places if read_by(recorded.tape.uses[number])] or places
    place = reading[attempt % len(reading)]
    among = read_by(recorded.tape.uses[place]) or set(recorded.tape.reads)
    record = sorted(among, key=lambda one: (-recorded.tape.reads[one], one))[attempt % len(among)]
    without = release.adjacency == "add_or_remove"
    door = harness.Door(SPEC, **{"without" if without else "changed": record})
    # Out of the draw too: what a method has for each drawn record, such as its random numbers, has its length.
    tape = Tape(recorded.tape.answers, place + 1, without=(len(door), record) if without else None)
    return recorded.tape.uses[place], run(case, folder, data=door, tape=tape).tape.uses[place].exact
