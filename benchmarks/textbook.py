"""GS-WGAN and DP-GAN-DPAC as one would write them from the papers: a plain fp32 loop with standard torch alone.

The yardstick of the speed measurements, so it is the same algorithm at the same sizes as methods/core/sharded/gan.py
with one shard a step, and it is not slowed on purpose: no ledger, no files, data on the device, draws on the device,
the optimiser as torch chooses it. What it leaves out is every arrangement for speed: each critic update makes its own
fakes, real, fake and interpolated images pass the critic one after the other, warm-started critics train one after the
other. tests/unit/test_benchmarks.py holds it to the engine's losses, gradients and steps.

Sources: GS-WGAN, NeurIPS 2020, Algorithm 1 and source/main.py, pretrain.py; DP-GAN-DPAC, CVPR 2023, section 4.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from benchmarks.textbook_nets import LATENTS, Classifier, Critic, DCGANGenerator, ResNetGenerator

Scorer = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def adam(network: nn.Module, learning_rate: float) -> torch.optim.Adam:
    """Returns torch's Adam with betas (0.5, 0.9), both papers' choice."""
    return torch.optim.Adam(network.parameters(), lr=learning_rate, betas=(0.5, 0.9))


def gradient_penalty(score: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """Returns the mean of (norm of the score's gradient at the image - 1)^2, for scores [N] of images [N, C, H, W]."""
    (gradient,) = torch.autograd.grad(score.sum(), images, create_graph=True)
    return torch.mean((gradient.flatten(1).norm(dim=1) - 1) ** 2)


def critic_loss(
    critic: Scorer, real: torch.Tensor, fake: torch.Tensor, labels: torch.Tensor, share: torch.Tensor, hp: Any
) -> torch.Tensor:
    """Returns the critic's loss for real and fake images [N, C, H, W] with labels int64 [N], in three passes.

    The penalty is taken between each pair, at the point that `share` [N, 1, 1, 1] in [0, 1] of the real one gives.
    """
    on_real = critic(real, labels)
    on_fake = critic(fake, labels)
    between = (share * real + (1 - share) * fake).requires_grad_()
    penalty = gradient_penalty(critic(between, labels), between)
    drift = torch.mean(on_real**2)
    return on_fake.mean() - on_real.mean() + hp.gradient_penalty * penalty + hp.drift * drift


def classifier_loss(classifier: Scorer, images: torch.Tensor, labels: torch.Tensor, hp: Any) -> torch.Tensor:
    """Returns the auxiliary classifier's loss for images [N, C, H, W] with labels int64 [N], in one pass."""
    images = images.clone().requires_grad_()
    score = classifier(images, labels)
    return -score.mean() + hp.gradient_penalty * gradient_penalty(score, images) + hp.drift * torch.mean(score**2)


def image_gradients(scorer: nn.Module, fake: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Returns the gradient [N, C, H, W] of each fake's loss, minus its score, with respect to that fake."""
    fake = fake.detach().requires_grad_()
    scorer.eval()  # spectral norm's power iteration stands still where nothing trains
    (gradient,) = torch.autograd.grad(-scorer(fake, labels).sum(), fake)
    scorer.train()
    return gradient


def descend(optimizer: torch.optim.Optimizer, loss: torch.Tensor) -> None:
    """Takes one optimiser step down a scalar loss."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def sanitise(gradients: torch.Tensor, clip: float, noise: float) -> torch.Tensor:
    """Clips each image's gradient [N, C, H, W] to L2 norm `clip` and adds N(0, noise^2) to every entry."""
    norms = gradients.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
    clipped = gradients * torch.clamp(clip / (norms + 1e-12), max=1.0)
    return clipped + noise * torch.randn_like(clipped)


@torch.no_grad()
def move_average(average: nn.Module, network: nn.Module, step: int, decay: float) -> None:
    """Moves the average's parameters with decay min(1 - 1 / (step + 1), decay), step from 1, and copies buffers."""
    decay = min(1 - 1 / (step + 1), decay)
    for mean, value in zip(average.parameters(), network.parameters(), strict=True):
        mean.mul_(decay).add_(value, alpha=1 - decay)
    for kept, value in zip(average.buffers(), network.buffers(), strict=True):
        kept.copy_(value)


class Problem:
    """Sizes, records and shards that the loops below share.

    Args:
        hp: the method's hyper-parameters, the engine's own object.
        images: uint8 [N, C, H, W]; labels: int64 [N]. Shards are N // num_shards random records each.
        num_classes: classes of the labels.
        device: where records and networks live.
    """

    def __init__(
        self, hp: Any, images: torch.Tensor, labels: torch.Tensor, num_classes: int, device: torch.device
    ) -> None:
        self.hp, self.num_classes, self.device = hp, num_classes, device
        self.images, self.labels = images.to(device), labels.to(device)
        self.image_shape = tuple(images.shape[1:])
        size = len(images) // hp.num_shards
        self.shards = torch.randperm(len(images), device=device)[: size * hp.num_shards].view(hp.num_shards, size)

    def generator(self, width: int) -> nn.Module:
        """Returns a new generator of the kind that the hyper-parameters name."""
        if self.hp.generator == "dcgan":
            return DCGANGenerator(self.image_shape, self.num_classes, width).to(self.device)
        return ResNetGenerator(self.image_shape, self.num_classes, width, self.hp.spectral_norm).to(self.device)

    def scorer(self, kind: type[nn.Module]) -> nn.Module:
        """Returns a new Critic or Classifier."""
        hp = self.hp
        return kind(self.image_shape, self.num_classes, hp.critic_width, hp.spectral_norm).to(self.device)

    def read(self, shard: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns critic_batch distinct random records of a shard: images [B, C, H, W] in [0, 1], labels [B]."""
        records = self.shards[shard]
        chosen = records[torch.randperm(len(records), device=self.device)[: self.hp.critic_batch]]
        return self.images[chosen].float() / 255, self.labels[chosen]

    def latents(self, count: int) -> torch.Tensor:
        """Returns random bits [N, 10] as floats."""
        return torch.randint(0, 2, (count, LATENTS), device=self.device).float()

    def train_critic(
        self, critic: nn.Module, optimizer: torch.optim.Optimizer, generator: nn.Module, shard: int
    ) -> None:
        """Takes one step of a critic on records of its shard and on fakes of their labels, made for this update."""
        real, labels = self.read(shard)
        with torch.no_grad():
            fake = generator(self.latents(len(labels)), labels)
        share = torch.rand(len(labels), 1, 1, 1, device=self.device)
        descend(optimizer, critic_loss(critic, real, fake, labels, share, self.hp))

    def fakes(self, generator: nn.Module, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns fakes [count, C, H, W] with their graph, and their labels, uniform over classes."""
        labels = torch.randint(self.num_classes, (count,), device=self.device)
        return generator(self.latents(count), labels), labels


class GSWGAN:
    """Algorithm 1 of GS-WGAN; `noise` is the standard deviation of each entry of a sanitised gradient."""

    def __init__(self, problem: Problem, noise: float) -> None:
        self.problem, self.hp, self.noise = problem, problem.hp, noise
        self.generator = problem.generator(self.hp.generator_width)
        self.average = copy.deepcopy(self.generator)
        self.optimizer = adam(self.generator, self.hp.generator_learning_rate)
        self.first_critic = problem.scorer(Critic)
        self.critics: dict[int, tuple[nn.Module, torch.optim.Optimizer]] = {}

    def critic(self, shard: int) -> tuple[nn.Module, torch.optim.Optimizer]:
        """Returns a shard's critic and its optimiser; all critics start alike."""
        if shard not in self.critics:
            critic = copy.deepcopy(self.first_critic)
            self.critics[shard] = critic, adam(critic, self.hp.critic_learning_rate)
        return self.critics[shard]

    def step(self, t: int) -> None:
        """Runs iteration t, counted from 0."""
        hp, problem = self.hp, self.problem
        shard = int(torch.randint(hp.num_shards, ()))
        critic, optimizer = self.critic(shard)
        for _ in range(hp.critic_steps):
            problem.train_critic(critic, optimizer, self.generator, shard)
        fakes, labels = problem.fakes(self.generator, hp.batch_size)
        noisy = sanitise(self.gradients(critic, fakes, labels, shard), hp.clip, self.noise)
        self.optimizer.zero_grad()
        fakes.backward(noisy / hp.batch_size)
        self.optimizer.step()
        move_average(self.average, self.generator, t + 1, hp.average_decay)

    def gradients(self, critic: nn.Module, fakes: torch.Tensor, labels: torch.Tensor, shard: int) -> torch.Tensor:
        """Returns one gradient for each fake, [B, C, H, W], not yet private."""
        return image_gradients(critic, fakes, labels)


class DPAC(GSWGAN):
    """GS-WGAN with a new auxiliary classifier each step, taught on fakes, then on records of the step's shard."""

    def gradients(self, critic: nn.Module, fakes: torch.Tensor, labels: torch.Tensor, shard: int) -> torch.Tensor:
        hp = self.hp
        classifier = self.problem.scorer(Classifier)
        optimizer = adam(classifier, hp.critic_learning_rate)
        for images, classes in self.lessons(shard):
            descend(optimizer, classifier_loss(classifier, images, classes, hp))
        of_critic = image_gradients(critic, fakes, labels)
        of_classifier = image_gradients(classifier, fakes, labels)
        total = hp.critic_weight + hp.classifier_weight
        return (hp.critic_weight * of_critic + hp.classifier_weight * of_classifier) / total

    def lessons(self, shard: int) -> Iterable[tuple[torch.Tensor, torch.Tensor]]:
        """Yields the classifier's batches: one set of fakes of every class again and again, then fresh records."""
        hp, problem = self.hp, self.problem
        labels = torch.arange(problem.num_classes, device=problem.device).repeat(hp.fakes_per_class)
        with torch.no_grad():
            images = self.generator(problem.latents(len(labels)), labels)
        for _ in range(hp.classifier_fake_steps):
            yield images, labels
        for _ in range(hp.classifier_real_steps):
            yield problem.read(shard)


LOOPS = {"gs_wgan": GSWGAN, "dpac": DPAC}


def warm_start(problem: Problem) -> list[dict[str, torch.Tensor]]:
    """Returns every shard's warm-started critic as a state dict: each trains against its own throw-away generator."""
    first = problem.scorer(Critic)
    return [_warm_critic(problem, copy.deepcopy(first), shard) for shard in range(problem.hp.num_shards)]


def _warm_critic(problem: Problem, critic: nn.Module, shard: int) -> dict[str, torch.Tensor]:
    hp = problem.hp
    generator = problem.generator(hp.warm_start_width)
    critic_adam, generator_adam = adam(critic, hp.critic_learning_rate), adam(generator, hp.critic_learning_rate)
    for _ in range(hp.warm_start_steps):
        for _ in range(hp.critic_steps):
            problem.train_critic(critic, critic_adam, generator, shard)
        fakes, labels = problem.fakes(generator, hp.critic_batch)
        generator_adam.zero_grad()
        fakes.backward(image_gradients(critic, fakes, labels) / hp.critic_batch)
        generator_adam.step()
    return critic.state_dict()
