"""Scattering features, and the players that are made of them: the classifier, the critic and the refining network."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from methods.core.accounting.calibration import epsilon
from methods.core.privacy.grant import Grant
from methods.core.privacy.ledger import Ledger
from methods.core.release import NO_BUDGET, PublicSpec, Release
from methods.core.rng import named_rng, seeded
from methods.core.scattering import witness
from methods.core.scattering.features import Scattering, unit
from methods.core.scattering.judge import Judge, gradient_release
from methods.core.scattering.refiner import Refiner
from methods.core.speed import remembered
from methods.core.speed.choices import CHOICES
from methods.core.speed.remembered import Remembered

SPEC = PublicSpec("toy", (1, 12, 8), 3, 40)
CPU = torch.device("cpu")


def draws(*shape: int, name: str = "draws") -> torch.Tensor:
    return torch.rand(*shape, generator=named_rng(0, name))


def opened(folder: Path, release: Release) -> Ledger:
    return Ledger.open(folder / "ledger.jsonl", (release,), NO_BUDGET, noise_key=b"7")


# Features.


@pytest.mark.parametrize(
    ("shape", "size"),
    [((1, 28, 28), 81 * 49), ((3, 32, 32), 243 * 64), ((1, 64, 64), 81 * 64), ((3, 16, 48), 243 * 24), ((1, 4, 4), 81)],
)
def test_features_have_their_stated_size_and_length(shape: tuple[int, int, int], size: int) -> None:
    features = Scattering(shape)
    found = features(draws(3, *shape))
    assert found.shape == (3, size) and features.size == size
    assert 0.3 * size**0.5 < float(found.norm(dim=1).min()) <= float(found.norm(dim=1).max()) <= size**0.5
    assert features(draws(0, *shape)).shape == (0, size)


def test_features_of_an_image_do_not_depend_on_others_beside_it() -> None:
    features, images = Scattering((1, 28, 28)), draws(70, 1, 28, 28)
    assert torch.equal(features(images)[60:], features(images[60:]))


def test_a_wave_is_seen_by_the_wavelets_of_its_direction_and_an_even_surface_by_none() -> None:
    features = Scattering((1, 32, 32))
    places = torch.arange(32.0)
    for direction, wave in ((0, places[None, :]), (4, places[:, None])):
        image = 0.5 + 0.5 * torch.cos(0.75 * math.pi * wave).expand(1, 1, 32, 32)
        fine = features._maps(image)[0, 1:9, 2:6, 2:6].mean((1, 2))
        assert int(fine.argmax()) == direction and float(fine.max()) > 10 * float(fine[4 - direction])
    even = features._maps(torch.full((1, 1, 32, 32), 0.7))[0, :, 2:6, 2:6]
    torch.testing.assert_close(even[0], torch.full((4, 4), 0.7), rtol=1e-4, atol=0)
    assert float(even[1:].max()) < 0.01


def test_a_black_image_has_features_and_gradients_that_are_finite() -> None:
    images = torch.zeros(2, 3, 16, 16, requires_grad=True)
    rows = unit(Scattering((3, 16, 16))(images))
    rows.sum().backward()
    assert rows.isfinite().all() and images.grad.isfinite().all() and float(rows.detach().norm(dim=1).max()) < 1.00001


# Features that are remembered.


@pytest.fixture
def counting() -> tuple[list[int], Remembered]:
    """How many images a function has seen in each of its calls; and the function, remembered for five images."""
    seen: list[int] = []

    def function(images: torch.Tensor) -> torch.Tensor:
        seen.append(len(images))
        return torch.stack([images.sum((1, 2, 3)), images.amax((1, 2, 3))], dim=1)

    return seen, Remembered(function, 2, 5, CPU)


def test_what_came_before_is_not_computed_again_and_has_the_same_value(counting) -> None:
    seen, remember = counting
    images = torch.arange(8 * 4, dtype=torch.uint8).view(8, 1, 2, 2) * 3
    first = remember(images[:4])
    again = remember(images[[3, 4, 0, 3]])
    assert seen == [4, 1] and torch.equal(again[[0, 2, 3]], first[[3, 0, 3]])
    torch.testing.assert_close(again[1], torch.stack([images[4].sum() / 255, images[4].max() / 255]), rtol=1e-3, atol=0)
    # The sixth image finds no room, and is made each time.
    assert torch.equal(remember(images[5:7]), remember(images[5:7])) and seen == [4, 1, 2, 2]
    assert remember(images[:0]).shape == (0, 2)


def test_remembering_changes_nothing(monkeypatch) -> None:
    monkeypatch.setattr(remembered, "_AT_ONCE", 3)
    images = torch.randint(256, (20, 1, 12, 8), generator=named_rng(0, "x")).to(torch.uint8)
    # All begin alike, as images on a black ground do.
    images[:, :, :-1] = 0
    found = []
    for keeps in (True, False):
        with CHOICES.changed(remembered_features=keeps):
            features = Scattering(SPEC.image_shape)
            remember = Remembered(features, features.size, 20, CPU)
        found.append(torch.cat([remember(images[:7]), remember(images[3:]), remember(images[5:9])]))
    assert torch.equal(*found)


# The classifier.


def gradients(weights: torch.Tensor, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Each record's gradient of the cross-entropy by autograd, [B, classes, size + 1]."""
    rows = []
    for row, label in zip(functional.pad(features, (0, 1), value=1.0), labels, strict=True):
        free = weights.clone().requires_grad_()
        rows.append(torch.autograd.grad(functional.cross_entropy(free @ row, label), free)[0])
    return torch.stack(rows)


def lesson(clip: float, steps: int = 9, noise: float = 1e-5, rate: float = 0.5) -> Release:
    named = {"share": 0.3, "steps": steps, "rate": rate, "clip": clip, "adjacency": "add_or_remove"}
    release = gradient_release("lesson", SPEC, 1.0, **named)
    return release.without_noise() if noise == 0 else Release(**{**release.to_dict(), "noise": noise})


@pytest.mark.parametrize(("clip", "noise"), [(0.5, 1e-5), (2.0, 1e-5), (1e-3, 0.0)])
def test_a_step_is_the_clipped_sum_of_autograds_gradients_with_momentum(clip, noise, tmp_path) -> None:
    judge, features = Judge(5, 3, CPU), 3 * draws(6, 5) - 1
    labels, weights, velocity = torch.tensor([0, 1, 2, 0, 1, 1]), torch.zeros(3, 6), torch.zeros(3, 6)
    with opened(tmp_path, lesson(clip, noise=noise)) as ledger:
        for _ in range(3):
            rows = gradients(weights, features, labels)
            lengths = rows.flatten(1).norm(dim=1)[:, None, None]
            rows = rows * (clip / lengths).clamp(max=1) if noise else rows
            velocity = 0.9 * velocity + rows.sum(0) / 4
            weights = weights - 0.7 * velocity
            with ledger.charge("lesson") as grant:
                judge.step(grant, [(features[:4], labels[:4]), (features[4:], labels[4:])], 0.7, 4)
    torch.testing.assert_close(judge.weights, weights, rtol=1e-3, atol=2e-4)
    torch.testing.assert_close(judge.scores(features), functional.pad(features, (0, 1), value=1.0) @ judge.weights.T)


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e4])
def test_no_record_moves_a_sum_by_more_than_the_clip(size: float, tmp_path, monkeypatch) -> None:
    sums = []
    monkeypatch.setattr("methods.core.privacy.grant.Grant.noise", lambda grant, total: sums.append(total) or 0 * total)
    judge = Judge(50, 3, CPU)
    judge.weights = 5 * draws(3, 51, name="weights") - 2.5
    with opened(tmp_path, lesson(0.7, steps=1000)) as ledger:
        for index in range(20):
            features = size * (draws(1, 50, name=f"record {index}") - 0.5)
            with ledger.charge("lesson") as grant:
                judge.step(grant, [(features, torch.tensor([index % 3]))], 0.0, 1)
    lengths = torch.stack(sums).double().flatten(1).norm(dim=1)
    assert float(lengths.max()) <= 0.7 and float(lengths.max()) > 0.69


def test_one_of_ten_thousand_records_moves_a_sum_by_its_clip_and_no_rounding_more(tmp_path, monkeypatch) -> None:
    sums = []
    monkeypatch.setattr("methods.core.privacy.grant.Grant.noise", lambda grant, total: sums.append(total) or 0 * total)
    features, labels = 100 * draws(500, 50), torch.zeros(500, dtype=torch.int64)
    with opened(tmp_path, lesson(1.0)) as ledger:
        for first in (features, features.flip(0)[:0]):
            batches = [(first[:1], labels[: len(first[:1])]), *[(features, labels)] * 20]
            with ledger.charge("lesson") as grant:
                Judge(50, 3, CPU).step(grant, batches, 0.0, 1)
    assert float((sums[0].double() - sums[1].double()).norm()) == pytest.approx(1, abs=2e-5)


@pytest.mark.parametrize("count", [600, 6000])
def test_a_batch_moves_by_no_more_than_the_clip_where_one_of_many_equal_records_is_missing(
    count: int, tmp_path, monkeypatch
) -> None:
    """All that come after it then stand beside others, and neither their gradients nor the sum may feel it."""
    sums = []
    monkeypatch.setattr("methods.core.privacy.grant.Grant.noise", lambda grant, total: sums.append(total) or 0 * total)
    judge, features = Judge(300, 3, CPU), torch.full((count, 300), 1.1).half().float()
    judge.weights = 0.1 * draws(3, 301, name="weights") - 0.05
    with opened(tmp_path, lesson(1.0)) as ledger:
        for first in (0, 1):
            records, labels = features[first:], torch.zeros(count - first, dtype=torch.int64)
            with ledger.charge("lesson") as grant:
                judge.step(grant, zip(records.split(500), labels.split(500), strict=True), 0.0, 1)
    assert 1 - 2e-5 < float((sums[0].double() - sums[1].double()).norm()) <= 1


def test_a_record_without_a_finite_gradient_counts_as_none(tmp_path, monkeypatch) -> None:
    sums = []
    monkeypatch.setattr("methods.core.privacy.grant.Grant.noise", lambda grant, total: sums.append(total) or 0 * total)
    judge = Judge(5, 3, CPU)
    judge.weights = torch.zeros(3, 6)
    judge.weights[0, :5] = math.inf
    bright, dark = torch.ones(1, 5), -torch.ones(1, 5)
    with opened(tmp_path, lesson(0.5)) as ledger:
        for features in (torch.cat([bright, dark]), dark):
            with ledger.charge("lesson") as grant:
                judge.step(grant, [(features, torch.zeros(len(features), dtype=torch.int64))], 0.0, 4)
    assert torch.equal(sums[0], sums[1]) and float(sums[1].norm()) > 0.49


def test_a_step_without_records_is_noise_and_no_step_goes_without_a_charge(tmp_path) -> None:
    judge = Judge(5, 3, CPU)
    with opened(tmp_path, lesson(0.5, noise=2.0)) as ledger:
        with ledger.charge("lesson") as grant:
            judge.step(grant, [(draws(0, 5), torch.zeros(0, dtype=torch.int64))], 1.0, 4)
        assert 0.2 < float(judge.weights.std()) < 0.9
        with pytest.raises(Exception, match="closed, spent or internal"):
            judge.step(grant, [(draws(1, 5), torch.tensor([0]))], 1.0, 4)


@pytest.mark.parametrize("share", [0.1, 0.5])
@pytest.mark.parametrize("noise", [0.6, 4.0])
def test_steps_cost_about_what_their_share_says(share: float, noise: float) -> None:
    public = PublicSpec("toy", (1, 12, 8), 3, 6000)
    named = {"share": share, "steps": 200, "rate": 0.05, "clip": 2.0, "adjacency": "add_or_remove"}
    release = gradient_release("g", public, noise, **named)
    whole = witness.means_release("m", public, noise / share**0.5, "add_or_remove")
    assert (release.max_uses, release.rate, release.scale) == (200, 0.05, 2.0 * release.noise)
    assert epsilon([release], 1e-5, "sound") == pytest.approx(epsilon([whole], 1e-5, "sound"), rel=0.35)
    assert gradient_release("g", public, 0.0, **named).noise == 0


# The critic.


def asked(features: torch.Tensor, labels: torch.Tensor, folder: Path, noise: float = 1e-6) -> torch.Tensor:
    release = witness.means_release("means", SPEC, noise, "add_or_remove")
    with opened(folder, release) as ledger, ledger.charge("means") as grant:
        parts = zip(features.split(4), labels.split(4), strict=True)
        return witness.ask(grant, parts, 3, features.shape[1], CPU)


def test_the_release_is_the_sum_of_rows_of_norm_one_each_at_its_class(tmp_path) -> None:
    features, labels = 9 * draws(10, 7) - 3, torch.tensor([0, 0, 1, 0, 1, 1, 2, 2, 0, 1])
    answer = asked(features, labels, tmp_path)
    rows = torch.cat([0.95**0.5 * functional.normalize(features), torch.full((10, 1), 0.05**0.5)], dim=1)
    wanted = torch.stack([rows[labels == label].sum(0) for label in range(3)])
    torch.testing.assert_close(answer, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("size", [1e-2, 1.0, 1e4])
def test_no_record_is_longer_than_one_in_it(size: float, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("methods.core.privacy.grant.Grant.noise", lambda grant, total: total)
    for index in range(10):
        folder = tmp_path / str(index)
        folder.mkdir()
        features = size * (draws(1, 300, name=f"record {index}") - 0.5)
        assert float(asked(features, torch.tensor([1]), folder).double().norm()) <= 1


@pytest.mark.parametrize("excess", [0.0, 1.1e-5, 3.3e-5])
def test_a_record_whose_norm_was_rounded_down_is_cut_to_one(excess: float, tmp_path, monkeypatch) -> None:
    """A norm in single precision was found 3.3e-5 short for 243 * 64 numbers: eight 12s, and 0.1 for all others."""
    monkeypatch.setattr("methods.core.privacy.grant.Grant.noise", lambda grant, total: total)
    monkeypatch.setattr(witness, "unit", lambda features: (1 + excess) * unit(features))
    length = float(asked(draws(1, 300) - 0.5, torch.tensor([1]), tmp_path).double().norm())
    assert 1 - 2e-5 < length <= 1


def test_a_millionth_record_moves_it_by_what_it_is_and_no_rounding_more(monkeypatch) -> None:
    sums = []
    monkeypatch.setattr(Grant, "noise", lambda grant, total: sums.append(total.double()) or total)
    features, others = 0.1 + draws(1, 7), torch.zeros(1_000, dtype=torch.int64)
    for record in (features, -features):
        batches = [(record, others[:1]), *[(features.expand(1_000, 7), others)] * 1_000]
        assert witness.ask(object.__new__(Grant), batches, 2, 7, CPU).dtype == torch.float32
    # The constant is the same in both rows, so they are not quite opposite.
    assert float((sums[1] - sums[0]).norm()) == pytest.approx(2 * 0.95**0.5, rel=2e-5)


def test_the_distance_is_that_between_means_less_a_constant_and_knows_rare_classes(tmp_path) -> None:
    labels = torch.cat([torch.zeros(30), torch.ones(10)]).long()
    records = 2 * draws(40, 7) - 1
    answer = asked(records, labels, tmp_path)
    rows = functional.normalize(records)
    means = torch.stack([rows[labels == label].mean(0) for label in (0, 1)])
    # Halves that are alike, so that nothing is left of what makes it unbiased.
    half = 4 * draws(4, 7, name="fakes") - 2
    fakes = torch.cat([half[:2], half[:2], half[2:], half[2:]])
    own = functional.normalize(half).view(2, 2, 7).mean(1)
    wanted = 3 * torch.tensor([0.75, 0.25]) * ((own - means).square().sum(1) - means.square().sum(1))
    found = witness.distance(answer, 40, fakes, torch.tensor([0, 1]))
    torch.testing.assert_close(found, wanted.mean(), rtol=1e-3, atol=1e-4)
    # Images of the records themselves, drawn anew: nearer than any others, by no more than the constant on average.
    one = witness.distance(answer, 40, records[:30], torch.tensor([0]))
    other = witness.distance(answer, 40, -records[:30], torch.tensor([0]))
    assert float(one) < float(other)


def test_halves_of_a_class_are_compared_with_each_other_and_both_with_the_records(tmp_path) -> None:
    labels, records = torch.tensor([0] * 30 + [1] * 10), 2 * draws(40, 7) - 1
    # A class without records weighs as much as one record.
    share = torch.tensor([0.75, 0.25, 1 / 40])
    aims = torch.stack([unit(records)[labels == label].sum(0) / 40 for label in range(3)])
    fakes = 4 * draws(18, 7, name="fakes") - 2
    one, other = functional.normalize(fakes).view(3, 2, 3, 7).mean(2).unbind(1)
    wanted = 3 * (share * (one * other).sum(1) - ((one + other) * aims).sum(1))
    found = witness.distance(asked(records, labels, tmp_path), 40, fakes, torch.arange(3))
    torch.testing.assert_close(found, wanted.mean(), rtol=1e-3, atol=1e-4)


# The network that refines.


@pytest.mark.parametrize("shape", [(1, 12, 8), (3, 16, 16)])
def test_a_refiner_begins_as_what_it_is_given(shape: tuple[int, int, int]) -> None:
    with seeded(0, "refiner"):
        refiner = Refiner(shape, 3, 4, 2)
    images, labels, noise = draws(5, *shape), torch.tensor([0, 1, 2, 0, 1]), refiner.noise(5, named_rng(1))
    assert torch.equal(refiner(images, labels, noise), images)
    with torch.no_grad():
        refiner.last.weight.normal_(std=0.3, generator=named_rng(0, "w"))
    out = refiner(images, labels, noise)
    assert out.shape == images.shape and float(out.detach().min()) >= 0 and float(out.detach().max()) <= 1
    assert not torch.equal(out, refiner(images, labels.flip(0), noise))
    assert not torch.equal(out, refiner(images, labels, -noise))
