"""Gaussians from noisy moments: the public basis, what a record's row is, what is read from moments, and the fit."""

from __future__ import annotations

import math

import pytest
import torch

from methods.core.gaussians.basis import CosineBasis
from methods.core.gaussians.fitting import fit, noise_edge
from methods.core.gaussians.mixture import ClassMixtures, Parts
from methods.core.gaussians.release import MOST_NUMBERS, Question, default_cutoff, moments_release, released_size
from methods.core.gaussians.rows import MomentRows, NoisyMoments
from methods.core.privacy.moments import packed, second_moments
from methods.core.release import PublicSpec


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# The basis.


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 20, 30), (1, 1, 1)])
def test_without_a_cutoff_the_basis_holds_every_image_and_keeps_its_norm(shape: tuple[int, int, int]) -> None:
    basis, images = CosineBasis(shape, 256.0), torch.rand(4, *shape, generator=rng())
    coefficients = basis.coefficients(images)
    assert len(basis) == math.prod(shape)
    torch.testing.assert_close(coefficients.norm(dim=1), images.flatten(1).norm(dim=1))
    torch.testing.assert_close(basis.images(coefficients), images, rtol=0, atol=1e-5)


def test_a_cutoff_keeps_waves_within_a_circle_and_leaves_out_all_others() -> None:
    basis = CosineBasis((1, 16, 16), 5.0)
    places = torch.arange(16) + 0.5
    for u, v, kept in [(0, 0, True), (4, 2, True), (0, 4, True), (3, 4, False), (5, 0, False), (9, 1, False)]:
        wave = torch.cos(math.pi * u * places / 16)[:, None] * torch.cos(math.pi * v * places / 16)
        left = basis.images(basis.coefficients(wave[None, None]))[0, 0]
        torch.testing.assert_close(left, wave if kept else torch.zeros(16, 16), rtol=0, atol=1e-5)


def test_colour_is_kept_more_coarsely_than_brightness() -> None:
    grey, colour = CosineBasis((1, 32, 32), 12.0), CosineBasis((3, 32, 32), 12.0)
    assert len(colour) == len(grey) + 2 * len(CosineBasis((1, 32, 32), 6.0))
    stripes = (torch.arange(32) // 2 % 2).float().expand(1, 1, 32, 32)
    bright, red = stripes.expand(1, 3, 32, 32), torch.cat([stripes, torch.zeros(1, 2, 32, 32)], dim=1)

    def lost(images: torch.Tensor) -> float:
        kept = basis.images(basis.coefficients(images))
        return float((images - kept).square().sum() / (images - images.mean((2, 3), keepdim=True)).square().sum())

    basis = CosineBasis((3, 32, 32), 20.0)
    assert lost(bright) < 0.3 < 0.6 < lost(red)


# Rows.


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_rows_lie_in_the_unit_ball_and_longer_vectors_on_its_border(share: float) -> None:
    rows = MomentRows(3.0, share).of(torch.tensor([[0.0, 0.0], [0.0, 1.5], [2.4, 1.8], [400.0, -300.0]]))
    expected = [math.sqrt(share), math.sqrt(share + (1 - share) / 4), 1.0, 1.0]
    assert rows.norm(dim=1).tolist() == pytest.approx(expected)
    assert rows[3, :2].tolist() == pytest.approx([0.8 * math.sqrt(1 - share), -0.6 * math.sqrt(1 - share)])


def test_counts_means_and_second_moments_are_read_from_the_same_matrices() -> None:
    vectors, labels = torch.randn(60, 3, generator=rng()).double(), torch.arange(60) % 4 % 3
    rows = MomentRows(20.0, 0.3)
    found = rows.read(packed(second_moments(rows.of(vectors), labels, 3)), 0.0)
    assert found.counts.tolist() == pytest.approx([30, 15, 15])
    for label in range(3):
        own = vectors[labels == label]
        torch.testing.assert_close(found.means[label], own.mean(0))
        torch.testing.assert_close(found.seconds[label], own.T @ own / len(own))


def test_the_stated_noise_is_that_of_means_and_second_moments() -> None:
    rows, scale = MomentRows(5.0, 0.2), 0.4
    exact = packed(second_moments(rows.of(torch.randn(3000, 6, generator=rng()).double()), torch.zeros(3000).long(), 1))
    truth, draws = rows.read(exact, 0.0), rng(1)
    noise = scale * torch.randn(2000, *exact.shape, generator=draws, dtype=torch.float64)
    found = rows.read((exact + noise)[:, 0], scale)
    # In units of what is stated; counts differ by noise too, which is little here.
    means = (found.means - truth.means) / found.mean_noise[:, None]
    seconds = (found.seconds - truth.seconds) / found.second_noise[:, None, None]
    assert float(means.std()) == pytest.approx(1, abs=0.03)
    assert float(seconds[:, 0, 1].std()) == pytest.approx(1, abs=0.06)
    assert float(seconds[:, 2, 2].std()) == pytest.approx(math.sqrt(2), abs=0.09)


def test_a_class_without_records_is_read_as_the_mean_of_all() -> None:
    vectors = torch.randn(60, 3, generator=rng()).double() + 2.0
    rows = MomentRows(20.0, 0.3)
    found = rows.read(packed(second_moments(rows.of(vectors), torch.arange(60) % 3, 4)), 0.0)
    assert found.counts[3] == 1
    torch.testing.assert_close(found.means[3], vectors.mean(0))
    torch.testing.assert_close(found.seconds[3], vectors.T @ vectors / 60)


# The fit.


def moments_of(vectors: torch.Tensor, labels: torch.Tensor, parts: int, scale: float, seed: int = 0) -> NoisyMoments:
    """Returns moments of parts with noise of a standard deviation per packed entry; no vector is cut."""
    rows = MomentRows(float(vectors.norm(dim=1).max()), 0.2)
    exact = packed(second_moments(rows.of(vectors.double()), labels, parts))
    return rows.read(exact + scale * torch.randn(exact.shape, generator=rng(seed), dtype=torch.float64), scale)


def covariances(laws: ClassMixtures) -> torch.Tensor:
    """Returns [C, K, d, d]."""
    spread = laws.basis @ laws.factors
    return spread @ spread.transpose(2, 3)


def test_without_noise_laws_have_the_records_means_covariances_and_shares() -> None:
    labels = torch.arange(400) % 5 % 4
    vectors = torch.randn(400, 3, generator=rng()) * torch.tensor([1.0, 2.0, 0.5]) * (1 + labels[:, None])
    vectors += labels[:, None]
    laws = fit(moments_of(vectors, labels, 4, 0.0), 2, 1)
    assert laws.means.shape == (2, 2, 3) and laws.weights.flatten().tolist() == pytest.approx([0.4, 0.2, 0.2, 0.2])
    for part in range(4):
        own = vectors[labels == part].double()
        torch.testing.assert_close(laws.means[part // 2, part % 2], own.mean(0))
        torch.testing.assert_close(covariances(laws)[part // 2, part % 2], torch.cov(own.T, correction=0))


def test_where_noise_is_all_there_is_classes_share_one_law() -> None:
    """Two classes whose means and covariances differ by less than the noise, beside a direction that both have."""
    labels = torch.arange(2000) % 2
    vectors = torch.randn(2000, 8, generator=rng())
    vectors[:, 0] *= 5
    found = [(moments := moments_of(vectors, labels, 2, 6.0, seed), fit(moments, 2, 1)) for seed in range(10)]
    raw = sum(float((moments.means[0] - moments.means[1]).square().sum()) for moments, _ in found)
    assert sum(float((laws.means[0] - laws.means[1]).square().sum()) for _, laws in found) < 0.4 * raw
    for _, laws in found:
        one, two = (part / part.trace() for part in covariances(laws)[:, 0])
        assert float((one - two).norm()) < 0.05


def test_eigenvalues_lose_what_noise_adds_to_them_and_pure_noise_is_left_out() -> None:
    labels, found = torch.zeros(4000).long(), []
    vectors = torch.randn(4000, 40, generator=rng()) * 1e-3
    vectors[:, 3] *= 3000
    # So that noise adds much, and the direction still stands out of it.
    scale = 20.0
    for seed in range(20):
        moments = moments_of(vectors, labels, 1, scale, seed)
        laws = fit(moments, 1, 1)
        assert laws.basis.shape[1] <= 2
        found.append(float(covariances(laws)[0, 0].trace()))
        edge = noise_edge(float(moments.second_noise[0]), 40)
    # Seen at 9 + edge^2 / 36 on average.
    assert 9 > edge > 4
    assert sum(found) / 20 == pytest.approx(float(vectors[:, 3].var()), rel=0.04)


def test_the_edge_is_where_a_noise_matrix_ends() -> None:
    noise = torch.randn(300, 300, generator=rng(), dtype=torch.float64)
    largest = float(torch.linalg.eigvalsh((noise + noise.T) / math.sqrt(2))[-1])
    assert largest == pytest.approx(noise_edge(1, 300), rel=0.05)


def test_a_class_without_records_gets_the_law_of_all() -> None:
    labels = torch.arange(900) % 3
    vectors = torch.randn(900, 4, generator=rng()) + 2.0
    laws = fit(moments_of(vectors, labels, 4, 2.0, seed=4), 4, 2)
    assert all(value.isfinite().all() for value in laws.tensors().values())
    assert float((laws.means[3, 0] - 2.0).norm()) < 1.5


# Samples, and parts.


def test_samples_have_the_laws_means_covariances_and_shares() -> None:
    laws = ClassMixtures(
        torch.tensor([[[0.0, 10.0]] * 2, [[-5.0, 0.0], [5.0, 0.0]]]), torch.eye(2),
        torch.tensor([[[[1.0, 0.0], [1.0, 0.5]]] * 2, [[[0.0, 0.0], [0.0, 0.0]]] * 2]),
        torch.tensor([[1.0, 1.0], [1.0, 3.0]]),
    )  # fmt: skip
    drawn = laws.draw(torch.tensor([0, 1]).repeat(8000), rng())
    first, second = drawn[::2], drawn[1::2]
    torch.testing.assert_close(first.mean(0), torch.tensor([0.0, 10.0]), rtol=0, atol=0.05)
    torch.testing.assert_close(torch.cov(first.T), torch.tensor([[1.0, 1.0], [1.0, 1.25]]), rtol=0, atol=0.06)
    assert set(second[:, 0].tolist()) == {-5.0, 5.0}
    assert float((second[:, 0] > 0).float().mean()) == pytest.approx(0.75, abs=0.02)


def test_classes_are_split_about_their_means_along_their_longest_axes() -> None:
    factors = torch.stack([torch.diag(torch.tensor(scales)) for scales in ([3.0, 2.0, 0.1], [0.1, 2.0, 3.0])])[:, None]
    means = torch.tensor([[[1.0, 1.0, 1.0]], [[0.0, 0.0, -2.0]]])
    parts = Parts.along(ClassMixtures(means, torch.eye(3), factors, torch.ones(2, 1)), 2)
    first = [[4.0, 2.0, 0.0], [4.0, 0.0, 0.0], [-4.0, 2.0, 0.0], [-4.0, 0.0, 0.0]]
    second = [[9.0, 1.0, 0.0], [9.0, -1.0, 0.0], [9.0, 1.0, -5.0], [9.0, -1.0, -5.0]]
    vectors, labels = torch.tensor(first + second), torch.tensor([0] * 4 + [1] * 4)
    apart, part = parts.place(vectors, labels)
    torch.testing.assert_close(apart, vectors - means[labels, 0])
    assert parts.count == 4
    # Every corner is a part of its own, those of class 0 before those of class 1; the longest axis counts most.
    assert sorted(part[:4].tolist()) == [0, 1, 2, 3] and sorted(part[4:].tolist()) == [4, 5, 6, 7]
    halves = (part // 2).tolist()
    assert halves[0] == halves[1] != halves[2] == halves[3] and halves[4] == halves[5] != halves[6] == halves[7]


def test_no_split_is_one_part_a_class() -> None:
    parts = Parts.along(ClassMixtures.blank(3, 5), 0)
    labels = torch.tensor([2, 0, 1])
    assert parts.count == 1 and torch.equal(parts.place(torch.ones(3, 5), labels)[1], labels)


# The cutoff.


def test_the_cutoff_grows_with_records_and_shrinks_with_noise_and_classes() -> None:
    def cutoff(records: int, classes: int, scale: float) -> float:
        return default_cutoff(PublicSpec("toy", (1, 28, 28), classes, records), scale)

    assert cutoff(60_000, 10, 5.3) < cutoff(60_000, 10, 0.7) < cutoff(1_000_000, 10, 0.7) <= cutoff(60_000, 10, 0.0)
    assert cutoff(60_000, 100, 0.7) < cutoff(60_000, 10, 0.7)
    assert cutoff(1, 1, 1e6) == 4.0


@pytest.mark.parametrize("parts", [1, 8])
def test_the_cutoff_is_one_that_memory_allows(parts: int) -> None:
    public = PublicSpec("toy", (3, 64, 64), 1000, 60_000)
    assert released_size(public, default_cutoff(public, 0.0, parts), parts) <= MOST_NUMBERS
    assert released_size(public, 20.0, parts) > MOST_NUMBERS


def test_the_fit_knows_the_noise_that_its_release_had() -> None:
    question = Question(CosineBasis((1, 6, 6), 3.0), MomentRows(9.0, 0.2), 2)
    release = moments_release("moments", PublicSpec("toy", (1, 6, 6), 2, 400), 0.02)
    rows = question.rows.of(torch.randn(400, len(question.basis), generator=rng()).double())
    moments = packed(second_moments(rows, torch.arange(400) % 2, 2))
    found = question.read(moments, release, 1).tensors()
    expected = fit(question.rows.read(moments, 0.02 * math.sqrt(2)), 2, 1).tensors()
    assert all(torch.equal(found[name], expected[name]) for name in expected)
