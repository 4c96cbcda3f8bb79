"""The Frechet wavelet distance: values worked by hand, the same everywhere, and what it sees and does not."""

from __future__ import annotations

import math

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from evaluation import wavelets
from evaluation.wavelets import SIDE, PacketMoments, log_scaled, packet_moments, packet_width, packets, wavelet_distance


def made(count: int, *shape: int, turn: int = 37) -> np.ndarray:
    """Returns uint8 images [count, *shape] by a formula in whole numbers: no generator's version matters."""
    n, c, y, x = np.ogrid[:count, : shape[0], : shape[1], : shape[2]]
    return ((turn * n + n * n + y * y * x + 13 * x * (n % 7) + 5 * c * y) % 256).astype(np.uint8)


def flat(*greys: int, side: int = SIDE) -> np.ndarray:
    """Returns one image of each grey level."""
    return np.repeat(np.array(greys, np.uint8), side * side).reshape(-1, 1, side, side)


def distance(one: np.ndarray, other: np.ndarray, **how) -> float:
    return wavelet_distance(packet_moments(one, **how), packet_moments(other, **how))


def split(images: np.ndarray) -> list[np.ndarray]:
    """Returns the four packets of one level, by the Haar filters' sums and differences over pairs."""
    rows = [images[..., 0::2, :] + images[..., 1::2, :], images[..., 0::2, :] - images[..., 1::2, :]]
    pairs = [(half[..., 0::2], half[..., 1::2]) for half in rows]
    return [(a + b) / 2 for a, b in pairs] + [(a - b) / 2 for a, b in pairs]


@pytest.mark.parametrize("shape", [(1, 32, 32), (3, 16, 24)])
def test_packets_are_three_levels_of_haar_filters(shape):
    images = made(5, *shape)
    level = [images / 255]
    for _ in range(3):
        level = [packet for parent in level for packet in split(parent)]
    expected = {packet.reshape(5, -1).round(9).tobytes() for packet in np.abs(level)}
    found = {packet.round(9).tobytes() for packet in np.abs(packets(images))}
    assert packets(images).shape == (64, 5, packet_width(shape)) and len(found) > 60
    assert found == expected
    assert (packets(images) ** 2).sum() == pytest.approx(((images / 255) ** 2).sum(), rel=1e-12)


def test_a_white_image_is_in_one_packet_and_sides_of_28_are_mirrored_to_32():
    white = packets(flat(255, side=28))
    assert white[0] == pytest.approx(8, abs=1e-12) and white[1:] == pytest.approx(0, abs=1e-12)
    images = made(3, 1, 28, 28)
    mirrored = np.concatenate([images[..., 1::-1], images, images[..., :-3:-1]], axis=3)
    mirrored = np.concatenate([mirrored[:, :, 1::-1], mirrored, mirrored[:, :, :-3:-1]], axis=2)
    assert np.array_equal(packets(images), packets(mirrored))


def test_the_distance_of_flat_images_is_worked_by_hand():
    # One coefficient of one packet varies: with two images its mean is halfway, its standard deviation gap / sqrt 2.
    def feature(grey: int) -> float:
        return math.log(1 + 20 * 8 * grey / 255)

    (a, b), (c, d) = (sorted(map(feature, greys)) for greys in ((10, 90), (40, 250)))
    by_hand = ((a + b - c - d) / 2) ** 2 + ((b - a - d + c) / math.sqrt(2)) ** 2
    assert distance(flat(10, 90), flat(40, 250)) == pytest.approx(by_hand / 64, rel=1e-10)


def test_a_set_has_no_distance_from_itself_in_any_order_and_as_much_one_way_as_the_other():
    one, other = made(60, 1, 28, 28), made(80, 1, 28, 28, turn=11)
    assert distance(one, one[::-1]) == pytest.approx(0, abs=1e-9)
    assert distance(one, other) == pytest.approx(distance(other, one), rel=1e-10) and distance(one, other) > 0.01


@pytest.mark.parametrize(
    ("shape", "value"), [((1, 28, 28), 0.242283207), ((3, 32, 32), 2.00255003), ((1, 64, 64), 3.41086759)]
)
def test_two_machines_agree_to_six_digits(shape, value):
    assert distance(made(300, *shape), made(200, *shape, turn=11)) == pytest.approx(value, rel=5e-7)


@pytest.mark.parametrize(("batch", "threads"), [(1000, 1), (1000, 2), (7, 1), (113, 2)])
def test_threads_and_batches_do_not_matter(monkeypatch, batch, threads):
    one, other = made(300, 1, 28, 28), made(200, 1, 28, 28, turn=11)
    expected = distance(one, other)
    monkeypatch.setattr(wavelets, "_BATCH", batch)
    with threadpool_limits(threads):
        assert distance(one, other) == pytest.approx(expected, rel=1e-10)


def test_a_border_that_is_always_black_costs_no_precision():
    inner = made(100, 1, 16, 16), made(100, 1, 16, 16, turn=11)
    framed = [np.pad(images, [(0, 0), (0, 0), (8, 8), (8, 8)]) for images in inner]
    assert distance(*framed) == pytest.approx(distance(*inner), rel=1e-9)


def test_without_logarithms_only_mean_and_covariance_of_pixels_would_count():
    # 5, 5 and 7, 1 have equal sums of squares.
    one, other = flat(20, 20, 120, 120), flat(0, 60, 80, 140)
    assert distance(one, other, scaled=lambda c: c) == pytest.approx(0, abs=1e-12)
    assert distance(one, other) > 0.001
    assert distance(one, flat(70, 70, 70, 70), scaled=lambda c: c) > 0.01


def test_what_is_too_faint_to_be_seen_counts_little():
    digits = np.where(made(200, 1, 28, 28) > 180, 255, 0).astype(np.uint8)
    faint, dropped = digits + (digits == 0) * (made(200, 1, 28, 28, turn=5) % 2), digits[:20]
    visible = np.where(digits == 0, made(200, 1, 28, 28, turn=5) % 64, digits)
    assert 20 * distance(digits, faint) < min(distance(digits, dropped), distance(digits, visible))
    assert log_scaled(np.array([0.0, -0.05, 0.95])) == pytest.approx([0, math.log(2), math.log(20)])


def test_fewer_images_than_coefficients_are_further_apart_for_their_number_alone():
    """Why docs/distances.md wants equally many images, and several times as many as a packet has coefficients."""
    draws = np.random.default_rng(0)
    sets = [draws.integers(0, 256, (600, 3, 32, 32), dtype=np.uint8) for _ in range(2)]
    of_all, of_half, of_few = (distance(*(images[:count] for images in sets)) for count in (600, 300, 30))
    assert 1.7 * of_all < of_half and 10 * of_all < of_few
    assert packet_width((3, 64, 64)) == 192 and packet_width((1, 28, 28)) == 16


def test_moments_that_do_not_fit_or_are_not_finite_are_refused():
    good = packet_moments(made(9, 1, 28, 28))
    good.check(packet_width((1, 28, 28)))
    packet_moments(made(1, 1, 28, 28)).check(16, single=True)
    single = packet_moments(made(1, 1, 28, 28))
    for bad, says in (
        (PacketMoments(good.mean[:5], good.covariance[:5]), "shapes"),
        (PacketMoments(good.mean, good.covariance[:, :3]), "shapes"),
        (PacketMoments(good.mean.astype(np.float32), good.covariance), "float64"),
        (single, "no finite number"),
    ):
        with pytest.raises(ValueError, match=says):
            bad.check(16)
