"""GS-WGAN: gradient-sanitised Wasserstein GAN (Chen, Orekondy, Fritz, NeurIPS 2020)."""

from __future__ import annotations

from methods.core.sharded.gan import ShardedGAN, ShardedHyper


class GSWGAN(ShardedGAN):
    """Only the gradient with respect to each generated image is clipped and noised on its way to the generator."""

    Hyper = ShardedHyper
    # The repository's run for both data sets; the CelebA row is DP-GAN-DPAC's set-up without its classifier.
    PAPER = {
        ("mnist", 10.0): {},
        ("fashion_mnist", 10.0): {},
        ("celeba", 10.0): {"num_shards": 2543, "critic_steps": 10, "warm_start_steps": 12000},
    }
    SOURCES = (
        "Paper: Chen, Orekondy, Fritz, NeurIPS 2020, sections 4 and 5; repository files source/main.py, pretrain.py,"
        " models.py, ops.py, config.py, privacy_analysis.py.",
        "Departure: the noise is calibrated to the budget (the authors' 1.07 and 0.61135 are what it finds at eps 10).",
        "Departure: every generator batch has batch_size images; the repository's alternates between 28 and 32.",
        "Departure: exactly `steps` generator steps; the repository runs one more.",
        "Departure: critic batches are fresh random subsets of the shard; the repository walks through epochs.",
        "Departure: spectral norm's vectors are buffers: never trained, never averaged, still while sampling.",
        "Departure: the DCGAN generator for 32x32 is ours, the repository defines 28x28 alone.",
        "A warm-started critic begins with a fresh optimiser, as in the repository.",
        "Departure: all critics start from one initialisation; each warm-start generator from its own.",
        "Departure: the warm start takes critic_steps per generator step; the repository's takes 5 for CelebA too.",
        "Departure: the running average starts at decay 1/2, the repository's at 0.",
        "Option shards_per_step, ours: each shard is drawn on its own, every drawn critic trains and answers, and the"
        " sum of their rows is sanitised, a row being all gradients of the step clipped jointly at clip * sqrt(batch"
        "_size). Sound with critics that remember their draws. Its critics start untrained and update on fakes picked"
        " from 16 of each class that a step makes.",
    )
