"""GS-WGAN: gradient-sanitised Wasserstein GAN (Chen, Orekondy, Fritz, NeurIPS 2020)."""

from __future__ import annotations

from methods.core.sharded.head_start import StartingGAN, StartingHyper


class GSWGAN(StartingGAN):
    """Only the gradient with respect to each generated image is clipped and noised on its way to the generator."""

    Hyper = StartingHyper
    # The repository's run for both data sets; the CelebA row is DP-GAN-DPAC's set-up without its classifier.
    PAPER = {
        ("mnist", 10.0): {},
        ("fashion_mnist", 10.0): {},
        ("celeba", 10.0): {"num_shards": 2543, "critic_steps": 10, "warm_start_steps": 12000},
    }
    SOURCES = (
        "Chen, Orekondy, Fritz, GS-WGAN, NeurIPS 2020, sections 4 and 5; source/{main,pretrain,models,ops,config}.py "
        "and evaluation/privacy_analysis.py of the authors' repository",
        "kept: a warm-started critic begins with a fresh optimiser",
        "departure: the noise is calibrated to the budget (the authors' 1.07 and 0.61135 are what it finds at eps 10)",
        "departure: every generator batch has batch_size images; the repository's is as long as the last batch of its "
        "shard, 32 or 28 on MNIST",
        "departure: the CelebA setting is DP-GAN-DPAC's without its classifier; the repository has none",
        *StartingGAN.SHARED,
        "option shards_per_step, ours: each shard is drawn on its own, every drawn critic trains and answers, and the "
        "sum of their rows is sanitised, a row being all gradients of the step clipped jointly at clip * "
        "sqrt(batch_size)",
        "option shards_per_step is sound with critics that remember their draws; they start untrained and update on "
        "fakes picked from 16 of each class that a step makes",
        *StartingGAN.OF_THE_START,
    )
