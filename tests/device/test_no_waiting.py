"""In a step the host sends work to a GPU and does not wait for it; tried on a pretended one.

A GPU is fast as long as the host runs ahead of it. Whatever asks for a value of it (`float(tensor)`, a mask, `nonzero`)
or sends one by a plain copy ends that once a step. What cannot be avoided is listed here, with its reason.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch
from device_rows import ROWS, on
from harness import Run, public
from pretended import CUDA, OnCard, pretended_card
from toys import TINY_GAN, TOY, toy_records

from methods.core import registry
from methods.core.method import Context
from methods.core.partition import partition
from methods.core.privacy.ledger import Ledger
from methods.core.release import NO_BUDGET
from methods.core.sharded import pretraining

pytestmark = pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here: test_on_a_gpu.py tries it")

# Those of each kind that the default suite tries; the others are slow tests.
SOON = ("dpac", "dpac_sound with a start", "dpac_scatter", "dpgan", "datalens_paper")
# Single precision, summed in another order, and what Adam makes of it in some steps.
TOLERANCE = 5e-3


def trained(row: str, folder: Path, patch: pytest.MonkeyPatch) -> tuple[Run, Counter, Counter]:
    """Trains a row on the pretended card; returns it and, of its last step, waits and copies that are waited for."""
    name, settings, _ = ROWS[row]
    run = Run(name, public("grey"), folder, overrides=settings)
    warm = run.warm_start()
    with pretended_card(patch) as card:
        on(CUDA, run)
        with run.ledger() as ledger:
            run.method.prepare(run.data, ledger, warm)
            for t in range(run.method.num_steps):
                card.waits.clear()
                card.copies.clear()
                run.method.step(t, run.data, ledger)
        return run, card.waits, card.copies


@pytest.mark.parametrize("row", [row if row in SOON else pytest.param(row, marks=pytest.mark.slow) for row in ROWS])
def test_a_step_waits_for_nothing_but_what_is_listed_and_ends_as_on_the_processor(row, tmp_path, monkeypatch) -> None:
    name, settings, listed = ROWS[row]
    run, waits, copies = trained(row, tmp_path / "card", monkeypatch)
    assert dict(waits) == listed
    assert not copies
    (tmp_path / "here").mkdir()
    here = Run(name, public("grey"), tmp_path / "here", overrides=settings).train().method.public_state()
    there = run.method.public_state()
    assert there.keys() == here.keys()
    for part, value in there.items():
        torch.testing.assert_close(getattr(value, "held", value), here[part], rtol=0, atol=TOLERANCE)


def test_a_warm_start_s_steps_wait_for_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hp = registry.hyper("gs_wgan", TINY_GAN | {"warm_start_steps": 2})
    whole, counts = pretraining._train_generators, []
    with Ledger.open(tmp_path / "ledger.jsonl", (), NO_BUDGET) as ledger, pretended_card(monkeypatch) as card:

        def step(*given) -> None:
            whole(*given)
            counts.append((sum(card.waits.values()), sum(card.copies.values())))

        monkeypatch.setattr(pretraining, "_train_generators", step)
        shards, context = partition(60, 6, 0), Context(TOY, (), 0, CUDA)
        pretraining.train(hp, context, shards, [range(6)], toy_records(), ledger)
    assert len(counts) == 2 and counts[0] == counts[1]


def test_what_a_step_asks_of_the_card_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    with pretended_card(monkeypatch) as card:
        values = torch.arange(6.0, device=CUDA)
        ask = {
            "_local_scalar_dense": lambda: float(values.sum()), "nonzero": lambda: (values > 2).nonzero(),
            "mask": lambda: values[values > 2], "to the processor": lambda: values.tolist(),
        }  # fmt: skip
        for operation, act in ask.items():
            card.waits.clear()
            act()
            assert {name for name, _ in card.waits} == {operation}
        card.waits.clear()
        if values[0] > 1:
            raise AssertionError
        assert sum(card.waits.values()) == 1


def test_a_copy_counts_unless_its_memory_stays_and_nobody_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    with pretended_card(monkeypatch) as card:
        for how, counted in (("plain", 1), ("asks not to wait", 1), ("pinned", 1), ("both", 0)):
            values = torch.ones(3).pin_memory() if how in ("pinned", "both") else torch.ones(3)
            card.copies.clear()
            there = values.to(CUDA, non_blocking=how in ("asks not to wait", "both"))
            assert isinstance(there, OnCard), how
            assert sum(card.copies.values()) == counted, how


def test_operands_on_two_devices_are_refused_as_by_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    with pretended_card(monkeypatch):
        there, where = torch.ones(3, device=CUDA), torch.arange(3, device=CUDA)
        for wrong in (lambda: there + torch.ones(3), lambda: torch.ones(3)[where], lambda: there @ torch.ones(3)):
            with pytest.raises(RuntimeError, match="same device"):
                wrong()
        assert (there + torch.tensor(1.0)).tolist() == [2.0] * 3
