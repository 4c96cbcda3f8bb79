"""Settings of the evaluation commands, the same for every method of a preset.

`python -m evaluation.protocol` prints what the evaluation follows and each departure from it.
"""

from __future__ import annotations

from dataclasses import dataclass

from workflow.common.departures import EVALUATION
from workflow.common.errors import command
from workflow.common.files import json_or_path
from workflow.common.settings import parse, setting

SOURCES = EVALUATION


@dataclass(frozen=True)
class Protocol:
    """Every evaluation setting. Defaults are close to preset `quick`: about a minute on one core for a sample set.

    Networks, optimisers and splits follow the released code of GS-WGAN and DP-GAN-DPAC but for SOURCES. DPAC's README
    has other values, which preset `paper` takes: schedule `step`, 50 epochs for gen2real's CNN at 0.05; for real2gen's
    100 at 0.01 on MNIST and Fashion-MNIST, 50 at 0.02 on CelebA; 1000 `mlp_*_iterations`.
    """

    num_samples: int = setting(10_000, "images of a sample set that are scored; more are left out by a fixed draw", 1)
    real_images: int = setting(60_000, "most real train images that gen2real learns for the row of real data, which is"
                               " what more and better samples could reach", 1)  # fmt: skip
    batch_size: int = setting(128, "images per optimiser step of each CNN", 2)
    min_steps: int = setting(1000, "optimiser steps that small data sets get by more epochs than asked for below", 0)
    schedule: str = setting("onecycle", "learning rate over the steps: one cycle, or x0.1 after 80% of the epochs",
                            choices=("onecycle", "step"))  # fmt: skip
    feature_network: str = setting("small", "network behind IS, FID, precision and recall",
                                   choices=("small", "vgg11_bn"))  # fmt: skip
    feature_epochs: int = setting(3, "epochs of the feature network on the real train split", 1)
    feature_lr: float = setting(0.1, "peak learning rate of the feature network", 1e-6, 10)
    feature_crop: int = setting(0, "pixels of padding for random crops while training the feature network", 0, 16)
    cnn_r2g_epochs: int = setting(4, "epochs of real2gen's CNN on the real train split", 1)
    cnn_r2g_lr: float = setting(0.05, "peak learning rate of real2gen's CNN", 1e-6, 10)
    cnn_g2r_epochs: int = setting(15, "epochs of gen2real's CNN on the samples", 1)
    cnn_g2r_lr: float = setting(0.05, "peak learning rate of gen2real's CNN", 1e-6, 10)
    mlp_r2g_iterations: int = setting(15, "most epochs of real2gen's MLP", 1)
    mlp_g2r_iterations: int = setting(60, "most epochs of gen2real's MLP", 1)
    g2r_classifiers: int = setting(1, "MLPs and CNNs of gen2real, of a seed each, whose mean accuracy counts", 1, 100)
    holdout: float = setting(0.1, "fraction of a classifier's own training images that chooses its epoch", 0.01, 0.5)
    best_on_test: bool = setting(
        False, "also report gen2real's CNN at its best epoch on the test split, which picks on what it is scored on"
    )
    is_splits: int = setting(10, "splits of the inception score", 1)
    fid_real_images: int = setting(60_000, "most real train images behind the FID's real statistics", 2)
    prc_images: int = setting(5_000, "most images on each side of precision and recall (cost is quadratic)", 5)
    inception_images: int = setting(10_000, "most images on each side of the Inception FID; 0 leaves it out", 0)
    inception_weights: str = setting("", "file of torch-fidelity's Inception weights; empty: torch hub's cache")

    @classmethod
    def parse(cls, text: str | None) -> Protocol:
        """Returns the protocol of inline JSON text or of a JSON file; None gives the defaults.

        Raises:
            UserError: malformed JSON, an unknown key (the valid ones are named), or a value that its setting refuses.
        """
        return parse(cls, json_or_path(text, "--protocol") if text else {}, "protocol setting")


@command
def main(argv: list[str] | None = None) -> None:
    """Prints where the protocol comes from."""
    print("\n".join(SOURCES))


if __name__ == "__main__":
    raise SystemExit(main())
