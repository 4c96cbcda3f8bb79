"""What a replay of the answers on other records must find besides numbers in the log: choices that follow from records.

In the generator, in who reads which of them, and in the ledger, which names internal reads and counts them. A choice
between a few is often the same one on other records, so these turn darker, and then brighter, with each read.
"""

from __future__ import annotations

import pytest
import torch
from recorded_runs import differences, replayed, run

from methods.core import registry


def with_the_best_by_records(cls: type) -> type:
    """Returns a method that keeps the generator with the least private score, as one that a validation set chooses."""

    class Mutant(cls):
        least, kept = float("inf"), None

        def step(self, t, data, ledger):
            logs = super().step(t, data, ledger)
            with ledger.internal("validation") as grant:
                images, labels = data.read(grant, torch.arange(16))
            made = self.sample(labels, torch.Generator().manual_seed(t))
            score = float((images.float() - made.float()).square().mean())
            if score < self.least:
                self.least, self.kept = score, {name: value.clone() for name, value in super().public_state().items()}
            return logs

        def public_state(self):
            return self.kept or super().public_state()

    return Mutant


@pytest.mark.parametrize("name", ["dp_cgan", "dp_sinkhorn", "gs_wgan", "dp_merf"])
def test_a_generator_that_records_choose_is_found(name, tmp_path, monkeypatch) -> None:
    mutant = with_the_best_by_records(registry.load(name))
    monkeypatch.setattr(registry, "load", lambda _: mutant)
    recorded = run((name, {}), tmp_path / "one")
    found = [differences(recorded, replayed(recorded, (name, {}), tmp_path / way, way)) for way in ("dark", "bright")]
    assert any(found)


@pytest.mark.parametrize("name", ["pate_gan", "datalens"])
def test_teachers_that_have_records_by_class_are_found(name, tmp_path, monkeypatch) -> None:
    class Mutant(registry.load(name)):
        def prepare(self, data, ledger, warm_start=None):
            with ledger.internal("labels") as grant:
                labels = data.read(grant, torch.arange(len(data)))[1]
            self._teachers._parts = labels.argsort(stable=True).view(self.hp.num_teachers, -1)
            super().prepare(data, ledger, warm_start)

    monkeypatch.setattr(registry, "load", lambda _: Mutant)
    recorded = run((name, {}), tmp_path / "one")
    assert replayed(recorded, (name, {}), tmp_path / "two").tape.batches != recorded.tape.batches


def with_shards_in_the_ledger(cls: type) -> type:
    class Mutant(cls):
        def train_critics(self, step):
            with self.ledger.internal(f"critic of shard {step.shards}"):
                return super().train_critics(step)

        def step(self, t, data, ledger):
            self.ledger = ledger
            return super().step(t, data, ledger)

    return Mutant


def until_they_fit(cls: type) -> type:
    class Mutant(cls):
        def step(self, t, data, ledger):
            fit = False
            while not fit:
                with ledger.internal("critic training") as grant:
                    fit = float(data.read(grant, torch.arange(len(data)))[0].float().mean()) > 100
            return super().step(t, data, ledger)

    return Mutant


@pytest.mark.parametrize("mutate", [with_shards_in_the_ledger, until_they_fit])
def test_internal_reads_that_tell_of_records_or_draws_are_found(mutate, tmp_path, monkeypatch) -> None:
    mutant, case = mutate(registry.load("gs_wgan")), ("gs_wgan", {"warm_start_steps": 0})
    monkeypatch.setattr(registry, "load", lambda _: mutant)
    recorded = run(case, tmp_path / "one")
    other = replayed(recorded, case, tmp_path / "two", "bright")
    assert any("ledger" in found for found in differences(recorded, other))
