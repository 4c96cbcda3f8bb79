"""Frechet wavelet distance: image sets compared in a feature space that is fixed, so that no network is trained or
downloaded for it and two machines agree.

After Veeramacheneni, Wolter, Kuehne and Gall, "Fréchet Wavelet Distance: A Domain-Agnostic Metric for Image
Generation" (ICLR 2025) and its repository BonnBytes/PyTorch-FWD.

As there: the Haar wavelet packet transform of images in [0, 1], in its orthonormal scale; per packet the mean and the
covariance of its coefficients over all positions and channels; per packet the squared Frechet distance of these
Gaussians; the mean over all packets; double precision.

Different here:
    levels: 3 instead of 4, for images of 28 to 64 pixels instead of 256: 64 packets of 4x4 to 8x8 coefficients.
    sides: those that are no multiple of 8 are padded by mirroring, as evenly as possible: 28 to 32 pixels.
    coefficients: log(1 + 20 |c|) instead of c. The repository offers log(|c| + 1e-6) and leaves it off by default.
        Left off, the transform is linear, so only mean and covariance of the pixels count: a Gaussian fitted to them
        scores as real images do. At 1e-6, what counts most is whether a dark area is exactly 0. At 1/20 of the range
        of a pixel, what is too faint to be seen counts little.
    the root of a product of covariances: its trace is the sum of singular values of the product of their roots, which
        is real and exact where a covariance is singular, as it is at the black border of digits.
Values compare with each other alone, never with published ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

LEVELS = 3
SIDE = 2**LEVELS  # pixels of a block that each give one coefficient of every packet
FAINT = 1 / 20  # of the range of a pixel
_BATCH = 1000

_BUTTERFLY = np.array([[1.0, 1.0], [1.0, -1.0]])
_LINE = np.kron(np.kron(_BUTTERFLY, _BUTTERFLY), _BUTTERFLY)
# Down to single coefficients of a block, Haar packets are its Walsh-Hadamard transform.
_BLOCK = np.kron(_LINE, _LINE)


@dataclass(frozen=True)
class PacketMoments:
    """What the distance needs of a set of images: `mean` float64 [64, D] and `covariance` float64 [64, D, D].

    D is the number of coefficients that a packet has of an image: channels times the blocks of 8x8 pixels.
    """

    mean: np.ndarray
    covariance: np.ndarray

    def check(self, width: int, single: bool = False) -> None:
        """Raises ValueError unless the arrays are of D `width`, and finite; those of a `single` image need not be."""
        shapes = (SIDE * SIDE, width), (SIDE * SIDE, width, width)
        if (self.mean.shape, self.covariance.shape) != shapes:
            raise ValueError(f"moments of packets must have shapes {shapes[0]} and {shapes[1]}")
        if any(array.dtype != np.float64 for array in (self.mean, self.covariance)):
            raise ValueError("moments of packets must be float64")
        if not single and not (np.isfinite(self.mean).all() and np.isfinite(self.covariance).all()):
            raise ValueError("a moment of packets is no finite number")


def packet_width(image_shape: tuple[int, int, int]) -> int:
    """Returns D, the coefficients that a packet has of an image [C, H, W]."""
    channels, height, width = image_shape
    return channels * -(-height // SIDE) * -(-width // SIDE)


def packets(images: np.ndarray) -> np.ndarray:
    """Returns the Haar packets float64 [64, N, D] of uint8 images [N, C, H, W]; of all-white ones, one is 8."""
    count, channels, height, width = images.shape
    margins = [(missing // 2, missing - missing // 2) for missing in (-height % SIDE, -width % SIDE)]
    padded = np.pad(images, [(0, 0), (0, 0), *margins], mode="symmetric")
    rows, columns = padded.shape[2] // SIDE, padded.shape[3] // SIDE
    blocks = padded.reshape(count, channels, rows, SIDE, columns, SIDE).transpose(0, 1, 2, 4, 3, 5)
    # Whole numbers up to here, so no machine rounds otherwise.
    sums = blocks.reshape(-1, SIDE * SIDE).astype(np.float64) @ _BLOCK
    return sums.T.reshape(SIDE * SIDE, count, -1) / (255 * SIDE)


def log_scaled(coefficients: np.ndarray) -> np.ndarray:
    """Returns log(1 + |c| / FAINT): 0 for none, close to linear below FAINT and logarithmic above."""
    return np.log1p(np.abs(coefficients) / FAINT)


def packet_moments(images: np.ndarray, scaled: Callable[[np.ndarray], np.ndarray] = log_scaled) -> PacketMoments:
    """Returns the moments of uint8 images [N, C, H, W], the covariance over N - 1; NaN for fewer than two.

    Args:
        scaled: what is done to each coefficient.
    """
    count = len(images)
    if count < 2:
        width = packet_width(images.shape[1:])
        return PacketMoments(*(np.full((SIDE * SIDE, *sides), np.nan) for sides in ((width,), (width, width))))
    total, squares = 0.0, 0.0
    for start in range(0, count, _BATCH):
        values = scaled(packets(images[start : start + _BATCH]))
        total = total + values.sum(axis=1)
        squares = squares + values.transpose(0, 2, 1) @ values
    mean = total / count
    return PacketMoments(mean, (squares - count * mean[:, :, None] * mean[:, None, :]) / (count - 1))


def wavelet_distance(one: PacketMoments, other: PacketMoments) -> float:
    """Returns the mean over the packets of the squared Frechet distance of two Gaussians; at least 0 up to rounding."""
    apart = ((one.mean - other.mean) ** 2).sum()
    spread = sum(np.trace(each.covariance, axis1=1, axis2=2).sum() for each in (one, other))
    shared = np.linalg.svd(_root(one.covariance) @ _root(other.covariance), compute_uv=False).sum()
    return float(apart + spread - 2 * shared) / len(one.mean)


def _root(covariance: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(values.clip(0))[:, None, :]) @ vectors.transpose(0, 2, 1)
