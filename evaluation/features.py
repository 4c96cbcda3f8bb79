"""Features of images by a dataset's feature network, and those of its real images, which every sample set meets."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from evaluation.inputs import capped, drawn
from evaluation.nets import Classifier
from evaluation.protocol import Protocol
from evaluation.wavelets import PacketMoments, packet_moments, packet_width
from workflow.common.contracts import LabelledImages
from workflow.common.files import write_npz
from workflow.common.readers.guard import reading
from workflow.common.readers.npz_file import read_npz

REAL = "real_features.npz"
BATCH = 256
_STORED = ("mu", "sigma", "near", "packet_mean", "packet_covariance", "count")


@torch.no_grad()
def extract(network: Classifier, images: np.ndarray) -> tuple[Tensor, Tensor]:
    """Returns features float32 [N, D], the input of the last layer, and logits [N, classes] of uint8 [N, C, H, W]."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = network.to(device).eval()
    features = [network.features(batch.to(device)) for batch in torch.from_numpy(images).split(BATCH)]
    return torch.cat([part.cpu() for part in features]), torch.cat([network.head(part).cpu() for part in features])


def moments(features: Tensor) -> dict[str, np.ndarray]:
    """Returns mean `mu` float32 [D] and covariance `sigma` float64 [D, D] of features [N, D], as torch-fidelity has."""
    values = features.numpy()
    return {"mu": values.mean(axis=0), "sigma": np.cov(values, rowvar=False)}


@dataclass(frozen=True)
class RealFeatures:
    """What the metrics need of the real images.

    Attributes:
        mu, sigma: `moments` of `count` images, at most the protocol's `fid_real_images`.
        near: features float32 [M, D] of at most `prc_images` images.
        packets: moments of the wavelet packets of the `count` images; no network takes part in them.
        count: images behind the moments.
        key: digest of all that these were computed from.
    """

    mu: np.ndarray
    sigma: np.ndarray
    near: np.ndarray
    packets: PacketMoments
    count: int
    key: str

    @classmethod
    def of(cls, network: Classifier, real: LabelledImages, protocol: Protocol) -> RealFeatures:
        """Computes them for real images; one image alone has no covariance, and gets NaN."""
        wide = capped(real, protocol.fid_real_images, "fid")
        features = extract(network, wide.images)[0]
        if len(wide) == len(real):
            near = features[drawn(len(real), protocol.prc_images, "prc")]
        else:
            near = extract(network, capped(real, protocol.prc_images, "prc").images)[0]
        statistics = moments(features) if len(wide) > 1 else _undefined(features.shape[1])
        return cls(
            **statistics, near=near.numpy(), packets=packet_moments(wide.images), count=len(wide),
            key=_key(network, real, protocol),
        )  # fmt: skip

    @classmethod
    def find(cls, folder: Path, network: Classifier, real: LabelledImages, protocol: Protocol) -> RealFeatures:
        """Returns what `folder` stores if it was computed from just these arguments, else computes it.

        Raises:
            UserError: the stored file is none that `save` wrote.
        """
        path = folder / REAL
        if not path.exists():
            return cls.of(network, real, protocol)
        problem, maker = "holds no features", "make it with `python -m evaluation.classifiers`"
        key = _key(network, real, protocol)
        with reading(path, problem, maker=maker):
            if str(read_npz(path, ["key"], problem, maker=maker)["key"]) == key:
                stored = read_npz(path, _STORED, problem, maker=maker)
                packets = PacketMoments(stored["packet_mean"], stored["packet_covariance"])
                found = cls(stored["mu"], stored["sigma"], stored["near"], packets, int(stored["count"]), key)
                found.check(packet_width(real.image_shape))
                return found
        return cls.of(network, real, protocol)

    def check(self, packet_width: int) -> None:
        """Raises ValueError for arrays that `of` does not make: of other types or shapes, or with NaN.

        Args:
            packet_width: coefficients that a wavelet packet has of an image.
        """
        width = self.near.shape[-1:]
        shapes = self.near.ndim == 2 and self.mu.shape == width and self.sigma.shape == width * 2
        if not shapes or any(array.dtype.kind != "f" for array in (self.mu, self.sigma, self.near)):
            raise ValueError("mu must be floats [D], sigma [D, D] and near [M, D]")
        self.packets.check(packet_width, single=self.count == 1)
        # One image alone has no covariance.
        checked = (self.near,) if self.count == 1 else (self.near, self.mu, self.sigma)
        if self.count < 1 or not all(np.isfinite(array).all() for array in checked):
            raise ValueError("a feature is no finite number")

    def save(self, folder: Path) -> None:
        """Writes `real_features.npz` into `folder`, atomically."""
        write_npz(
            folder / REAL, mu=self.mu, sigma=self.sigma, near=self.near, packet_mean=self.packets.mean,
            packet_covariance=self.packets.covariance, count=np.array(self.count), key=np.array(self.key),
        )  # fmt: skip


def _undefined(width: int) -> dict[str, np.ndarray]:
    return {"mu": np.full(width, np.nan, np.float32), "sigma": np.full((width, width), np.nan)}


def _key(network: Classifier, real: LabelledImages, protocol: Protocol) -> str:
    # What is stored takes part, so that a file of an earlier version is not read.
    asked = (_STORED, real.images.shape, protocol.fid_real_images, protocol.prc_images)
    digest = hashlib.sha256(repr(asked).encode())
    digest.update(np.ascontiguousarray(real.images))
    for name, value in network.state_dict().items():
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().numpy())
    return digest.hexdigest()
