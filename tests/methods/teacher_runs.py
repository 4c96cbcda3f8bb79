"""Toy runs of the teacher methods, and the checks that all three share."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import torch
from toys import without_noise

from methods.core import registry
from methods.core.method import Context
from methods.core.privacy.grant import Grant
from methods.core.privacy.ledger import Ledger
from methods.core.privacy.private_data import PrivateData
from methods.core.release import Budget, PublicSpec
from methods.core.rng import named_rng
from methods.core.teachers.gan import Round, TeacherGAN

PUBLIC = PublicSpec("toy", (1, 28, 28), 10, 24)
BUDGET = Budget(10.0, 1e-5, "sound")
TINY = {
    "steps": 3, "batch_size": 4, "num_teachers": 6, "hidden": 6, "channels": 4, "width": 4, "latent": 3,
    "teacher_steps": 2, "pretrain_steps": 1, "teacher_batch": 3, "teacher_rate": 0.02, "teacher_network": "mlp",
}  # fmt: skip
CHANGED = 5


def records(changed: int | None = None) -> PrivateData:
    """Random records; `changed` is replaced by one that is nothing like it."""
    rng = named_rng(0, "records")
    images = torch.randint(256, (24, 1, 28, 28), generator=rng).to(torch.uint8)
    labels = torch.randint(10, (24,), generator=rng)
    if changed is not None:
        images[changed], labels[changed] = 255 * (images[changed] < 128), (labels[changed] + 1) % 10
    return PrivateData(images, labels)


def build(name: str, **overrides: Any) -> TeacherGAN:
    hp = registry.hyper(name, TINY | overrides)
    return registry.load(name)(
        hp, Context(PUBLIC, registry.load(name).plan(hp, PUBLIC, BUDGET), 0, torch.device("cpu"))
    )


def trained(
    method: TeacherGAN, data: PrivateData, folder: Path, logs: list | None = None, stop: int | None = None
) -> TeacherGAN:
    """Runs the method; `logs` keeps what its steps log; before step `stop` a copy built of its states takes over."""
    path = folder / f"{len(list(folder.iterdir()))}.jsonl"
    budget = dataclasses.replace(BUDGET, over_budget=method.hp.slots is not None)
    with Ledger.open(path, method.context.releases, budget, noise_key=b"1") as ledger:
        method.prepare(data, ledger)
        for t in range(method.num_steps):
            if t == stop:
                method = resumed(method)
            log = method.step(t, data, ledger)
            if logs is not None:
                logs.append(log)
    return method


def resumed(method: TeacherGAN) -> TeacherGAN:
    copied = type(method)(method.hp, method.context)
    copied.load(copy.deepcopy(method.public_state()), copy.deepcopy(method.private_state()))
    return copied


def hold_answers(monkeypatch, seen: list | None = None) -> None:
    """Makes every grant answer with fixed random numbers of the right shape, whatever the votes; `seen` keeps them."""

    def answer(grant: Grant, votes: torch.Tensor, shape: tuple[int, ...]) -> torch.Tensor:
        if seen is not None:
            seen.append(votes)
        grant.close()
        return torch.randn(shape, generator=named_rng(3, "answer", grant._use)) * grant.release.scale

    def sums(grant: Grant, chunks, width=None, device=None) -> torch.Tensor:
        rows = torch.cat([chunk.detach() for chunk in chunks])
        return answer(grant, rows, rows.shape[1:])

    monkeypatch.setattr(Grant, "sum", sums)
    monkeypatch.setattr(
        Grant, "votes", lambda grant, choices, bins: answer(grant, choices, (choices.shape[1], bins))
    )


def check_one_record_moves_one_teacher(name: str, folder: Path, monkeypatch, **overrides: Any) -> None:
    """With the released answers held fixed: one teacher's state and votes, nothing else, and nothing public."""
    seen: list[torch.Tensor] = []
    logs: tuple[list, list] = ([], [])
    hold_answers(monkeypatch, seen)
    one, other = (
        trained(build(name, **overrides), records(changed), folder, log)
        for changed, log in zip((None, CHANGED), logs, strict=True)
    )
    owner = int((one._teachers._parts == CHANGED).any(dim=1).nonzero())
    others = [i for i in range(TINY["num_teachers"]) if i != owner]
    for part in ("weights", "first", "second"):
        for key, value in one._teachers.state()[part].items():
            assert torch.equal(value[others], other._teachers.state()[part][key][others])
    moved = one._teachers.state()["weights"]["hidden.weight"] != other._teachers.state()["weights"]["hidden.weight"]
    assert moved[owner].any()
    rounds = list(zip(seen[: TINY["steps"]], seen[TINY["steps"] :], strict=True))
    assert len(rounds) == TINY["steps"] and all(len(votes) == TINY["num_teachers"] for votes in seen)
    assert all(torch.equal(a[others], b[others]) for a, b in rounds)
    # A record that moves no vote would let any number computed from the votes pass for public.
    assert any(not torch.equal(a[owner], b[owner]) for a, b in rounds)
    # Logs are published.
    assert len(logs[0]) == TINY["steps"]
    check_same(*logs)
    check_same(one.public_state(), other.public_state())
    private = [
        {k: v for k, v in made.private_state().items() if k not in ("teachers", "spent")} for made in (one, other)
    ]
    check_same(*private)


def check_an_averaged_run_resumes(name: str, folder: Path, **overrides: Any) -> None:
    """With an average, the generator that trains is not the one that is sampled: both must survive an interruption."""
    straight, interrupted = (
        trained(build(name, ema=0.9, generator_steps=2, **overrides), records(), folder, stop=stop)
        for stop in (None, 1)
    )
    sampled, training = straight.public_state(), straight.private_state()["generator"]
    assert any(not torch.equal(sampled[key], training[key]) for key in sampled)
    check_same(straight.public_state(), interrupted.public_state())
    check_same(straight.private_state(), interrupted.private_state())


def first_round(method: TeacherGAN) -> Round:
    """What is public about a first round on uniform images."""
    rng = named_rng(0)
    inputs = method._inputs(rng)
    return Round(0, rng, *inputs, torch.rand(len(inputs[0]), *PUBLIC.image_shape, generator=rng))


def check_same(one: Any, other: Any) -> None:
    """Bit-equal nested states."""
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            check_same(one[key], other[key])
    elif isinstance(one, list | tuple):
        for a, b in zip(one, other, strict=True):
            check_same(a, b)
    else:
        assert one == other


def votes(name: str, spoil: float | None, monkeypatch, folder: Path, **overrides: Any) -> torch.Tensor:
    """The un-noised answer of one round; `spoil` fills all that the first teacher computes from with that number."""
    without_noise(monkeypatch)
    kept: list[torch.Tensor] = []
    method = build(name, steps=1, **overrides)
    learn = method._learn

    def keep(current: Any, answer: torch.Tensor) -> float:
        kept.append(answer.detach().clone())
        return learn(current, answer)

    monkeypatch.setattr(method, "_learn", keep)
    if spoil is not None:
        vote = method._vote

        def spoiled(grant: Grant, current: Any) -> torch.Tensor:
            state = copy.deepcopy(method._teachers.state())
            for value in state["weights"].values():
                value[0] = spoil
            method._teachers.load(state)
            return vote(grant, current)

        monkeypatch.setattr(method, "_vote", spoiled)
    trained(method, records(), folder)
    return kept[0].double()
