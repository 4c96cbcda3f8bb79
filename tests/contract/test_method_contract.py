"""What every method under `methods/` promises the trainer, the ledger and the sampler."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import harness
import pytest
import torch

from methods.core import registry
from methods.core.accounting.calibration import epsilon
from methods.core.release import Budget, PublicSpec
from methods.core.rng import named_rng
from methods.core.runs import generator
from workflow.common.errors import UserError

PRIVATE_WORDS = ("critic", "discriminator", "teacher", "classifier", "optimizer", "embedding", "target", "shard")


def test_hyper_is_frozen_and_says_what_each_field_means(name: str) -> None:
    hp = registry.hyper(name, {})
    fields = dataclasses.fields(hp)
    assert fields
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(hp, fields[0].name, getattr(hp, fields[0].name))
    assert [field.name for field in fields if not field.metadata.get("help")] == []


def test_every_setting_states_its_range(name: str) -> None:
    for field in dataclasses.fields(registry.load(name).Hyper):
        stated = {"str": "choices", "bool": None}.get(str(field.type), "low")
        assert stated is None or field.metadata[stated] is not None, field.name


def test_a_setting_outside_its_range_is_refused_by_name(name: str) -> None:
    for field in dataclasses.fields(registry.load(name).Hyper):
        low, high = field.metadata["low"], field.metadata["high"]
        outside = [low - 1] if low is not None else []
        outside += [high + 1] if high is not None else []
        outside += [math.nan, math.inf] if str(field.type) == "float" else []
        outside += ["no such choice"] if str(field.type) == "str" else []
        for value in outside:
            with pytest.raises(UserError, match=f"{name}.{field.name}"):
                registry.hyper(name, {field.name: value})


def test_sources_are_named(name: str) -> None:
    sources = registry.load(name).SOURCES
    assert isinstance(sources, tuple) and sources
    # One line of text each, which a reader takes in at once.
    assert [source for source in sources if not 0 < len(source.strip()) <= 330 or "\n" in source] == []
    assert len(set(sources)) == len(sources)


def test_paper_settings_are_valid_overrides(name: str) -> None:
    for (dataset, eps), overrides in registry.load(name).PAPER.items():
        assert isinstance(dataset, str) and eps > 0
        registry.hyper(name, overrides)


def test_plan_is_a_function_of_its_arguments(name: str, spec: PublicSpec) -> None:
    hp = harness.tiny(name)
    assert harness.plan(name, spec, hp) == harness.plan(name, spec, hp)


@pytest.mark.parametrize("accounting", ["published", "sound"])
def test_plan_fits_its_budget(name: str, spec: PublicSpec, accounting: str) -> None:
    cls, hp = registry.load(name), harness.tiny(name)
    for eps in (1.0, 10.0):
        budget = Budget(eps, 1e-5, accounting)
        try:
            releases = cls.plan(hp, spec, budget)
        except UserError:
            # A method without noise must refuse every finite budget, and take an infinite one.
            free = cls.plan(hp, spec, Budget(math.inf, 1e-5, "none"))
            assert all(release.kind == "none" for release in free)
            continue
        assert 0.5 * eps < epsilon(releases, budget.delta, accounting) <= eps * (1 + 1e-9)


def test_at_epsilon_infinity_nothing_is_clipped_and_no_noise_is_added(name: str, spec: PublicSpec) -> None:
    free = Budget(math.inf, 1e-5, "none")
    releases = registry.load(name).plan(harness.tiny(name), spec, free)
    assert releases and all((release.kind, release.noise, release.scale) == ("none", 0.0, 0.0) for release in releases)


def test_a_run_spends_no_more_than_its_plan(trained: harness.Run) -> None:
    assert all(trained.spent[release.name] <= release.max_uses for release in trained.releases)
    if trained.budget.accounting != "none":
        assert 0 < trained.epsilon <= trained.budget.epsilon * (1 + 1e-9)


def test_training_moves_the_generator(trained: harness.Run) -> None:
    before, after = trained.new().public_state(), trained.method.public_state()
    assert before.keys() == after.keys()
    assert any(not torch.equal(before[key], after[key]) for key in before)
    assert all(torch.isfinite(value).all() for value in after.values())


def test_samples_are_uint8_images_of_the_data_shape(trained: harness.Run) -> None:
    for labels in (torch.zeros(1, dtype=torch.int64), torch.arange(trained.spec.num_classes).repeat(3)):
        images = trained.method.sample(labels, named_rng(0, "samples"))
        assert images.dtype == torch.uint8
        assert images.shape == (len(labels), *trained.spec.image_shape)
        assert images.device.type == "cpu"


def test_samples_depend_on_the_stream_alone(trained: harness.Run) -> None:
    labels = torch.arange(trained.spec.num_classes).repeat(8)
    torch.manual_seed(1)
    first = trained.method.sample(labels, named_rng(0, "samples"))
    torch.manual_seed(2)
    assert torch.equal(first, trained.method.sample(labels, named_rng(0, "samples")))
    assert not torch.equal(first, trained.method.sample(labels, named_rng(1, "samples")))


def test_samples_depend_on_the_labels(trained: harness.Run) -> None:
    labels = torch.arange(trained.spec.num_classes)
    images = trained.method.sample(labels, named_rng(0, "samples"))
    assert not torch.equal(images, trained.method.sample(labels.flip(0), named_rng(0, "samples")))


def test_the_stored_generator_is_all_that_sampling_needs(trained: harness.Run, tmp_path: Path) -> None:
    generator.save(tmp_path, trained.method)
    loaded = trained.new()
    loaded.load(generator.load(tmp_path), None)
    assert torch.equal(trained.samples(), trained.samples(loaded))


def test_public_state_holds_no_private_tensor(trained: harness.Run) -> None:
    state = trained.method.public_state()
    assert state and all(isinstance(value, torch.Tensor) for value in state.values())
    assert [key for key in state if any(word in key.lower() for word in PRIVATE_WORDS)] == []


def test_a_seed_determines_a_run(trained: harness.Run, tmp_path: Path) -> None:
    again = harness.Run(trained.name, trained.spec, tmp_path / "again").train()
    assert _same(trained.method.public_state(), again.method.public_state())
    other = harness.Run(trained.name, trained.spec, tmp_path / "other", seed=1).train()
    assert not _same(trained.method.public_state(), other.method.public_state())


def test_a_resumed_run_equals_a_straight_one(trained: harness.Run, tmp_path: Path) -> None:
    resumed = harness.Run(trained.name, trained.spec, tmp_path).interrupted(at=harness.STEPS // 2)
    assert resumed.spent == trained.spent
    assert _same(trained.method.public_state(), resumed.method.public_state())


def _same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)
