"""DPGAN, revisited: a conditional DCGAN by plain DP-SGD, many discriminator steps per generator step (Bie, 2023)."""

from __future__ import annotations

import copy
import functools
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from methods.core.gaussians import start
from methods.core.method import Context, Method, StepLog, check_records, check_size, check_steps
from methods.core.optimisers import adam, blend, descend, restore, states
from methods.core.privacy import dp_sgd
from methods.core.privacy.ledger import Ledger
from methods.core.privacy.private_data import PrivateData
from methods.core.release import PublicSpec, Release
from methods.core.rng import named_rng, seeded
from methods.core.speed.layout import laid_out, maps_laid_out
from methods.core.speed.precision import PRECISIONS, mixed_precision
from methods.core.speed.rows_at_once import rows_at_once
from methods.core.speed.transfers import sent
from methods.core.speed.upsampling import Transposed
from workflow.common.search_space import choice, linear, times
from workflow.common.settings import setting

_RELEASE = "discriminator_gradient"
# Discriminator steps per generator step that the adaptive rule goes through, and the decay of the accuracy it watches.
_RATES = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
_MEMORY = 0.99
_LEAK = 0.2
_SIZES = (28, 32, 64)
_BLOCK = 500


class DPGAN(start.Started, Method):
    """The authors' DCGAN without normalisation layers. The generator sees only the discriminator.

    PAPER holds the adaptive settings, the better ones. The constant ones are batch 128, and generator_every 50 (MNIST)
    or 100 (Fashion-MNIST) in 450 000 steps for epsilon 10, 200 in 325 000 steps for epsilon 1.
    """

    SOURCES = (
        "Bie, Kamath, Zhang, Private GANs, Revisited, TMLR 2023, sections 3-4; train_dpgan.py, dpgan/models/dcgan.py, "
        "dpgan/{sched,loss}.py and exp_configs/*.yaml of the authors' repository",
        "kept: fakes are clipped as records are; with fakes left whole the discriminator leans to calling everything "
        "generated (it was right about 99.99 % of the fakes at small scale) and the generator learns little",
        "kept: no normalisation layer; the adaptive number of discriminator steps sees the scores of fakes alone",
        "departure: the noise is calibrated to the budget and the number of steps, not typed; a batch rate is "
        "batch_size / num_train, not 1 / ceil(num_train / batch_size)",
        "departure: celeba is its training split at the preset's delta; the authors add the validation split and have "
        "delta 1e-6",
        "departure: the adaptive rule judges the very fakes of the generator step, scored before it moves, not a batch "
        "of its own; no discriminator score of test images is computed",
        "departure: for 64x64 each network has a layer more; the authors gave none",
        "departure: the discriminator's label maps are convolved at 6x6 and stretched, the same function and gradient",
        "departure: options the authors lack, off by default and set by presets for few steps: learning rates of their "
        "own for each network that fall linearly, fewer fakes than records at a larger weight, a larger label input, "
        "initial weights that keep the signal's size (torch's shrink it in every layer) and an averaged generator",
        *start.SOURCES,
    )

    @dataclass(frozen=True)
    class Hyper(start.StartSettings):
        """Hyper-parameters; defaults are the authors' for MNIST at epsilon 10, adaptive."""

        steps: int = setting(174000, "discriminator steps, each one release", low=1, high=10_000_000)
        batch_size: int = setting(512, "expected private records per step", low=1, high=65_536)
        fakes: int = setting(
            0, "generated examples per step, which count batch_size in all; 0: batch_size", low=0, high=65_536
        )
        clip: float = setting(1.0, "L2 bound of a per-example gradient, all tensors at once", low=1e-9, high=1e6)
        generator_every: int = setting(
            0, "discriminator steps per generator step; 0: adaptive, 1, 2, 5, 10, 20 ...", low=0, high=100_000
        )
        threshold: float = setting(
            0.6, "discriminator's accuracy on fakes at which the adaptive number is raised", low=0, high=1
        )
        patience: int = setting(200, "generator steps at least between two raises", low=1, high=10_000_000)
        learning_rate: float = setting(2e-4, "discriminator learning rate (Adam)", low=0, high=10)
        generator_rate: float = setting(2e-4, "generator learning rate (Adam)", low=0, high=10)
        rate_end: float = setting(1.0, "part of both learning rates left at the last step, after a linear fall", 0, 1)
        beta1: float = setting(0.5, "first Adam decay rate, of both networks", low=0, high=0.999)
        latent: int = setting(128, "size of the Gaussian latent", low=1, high=4096)
        dim: int = setting(128, "width of the networks: channels of the first maps", low=2, high=512)
        label_scale: float = setting(1.0, "hot entry of both networks' label inputs", low=0, high=1e6)
        unit_gain: bool = setting(False, "initial weights that keep the signal's size; false: torch's")
        ema: float = setting(0.0, "decay of the sampled generator's average; 0: the last one", low=0, high=0.9999)
        precision: str = setting(
            "fp32", "fp32, or bf16 for the networks' passes; clipped rows, noise and optimisers stay fp32",
            choices=PRECISIONS,
        )  # fmt: skip

    PAPER: Mapping[tuple[str, float], Mapping[str, Any]] = {
        **{(name, 10.0): {"steps": 174000, "batch_size": 512, "threshold": 0.6} for name in ("mnist", "fashion_mnist")},
        **{(name, 1.0): {"steps": 165000, "batch_size": 512, "threshold": 0.7} for name in ("mnist", "fashion_mnist")},
        ("celeba", 10.0): {"steps": 385000, "batch_size": 2048, "threshold": 0.6},
    }

    SEARCH = {
        "steps": times(0.3, 1.3), "batch_size": times(0.5, 2), "clip": times(0.2, 3), "learning_rate": times(0.3, 3),
        "generator_rate": times(0.3, 3), "rate_end": linear(0.05, 1), "ema": choice(0.97, 0.99, 0.997),
    }  # fmt: skip

    def __init__(self, hp: Hyper, context: Context) -> None:
        super().__init__(hp, context)
        self.start = start.Start(hp, self.public, context.releases, self.device)
        shape, classes = self.public.image_shape, self.public.num_classes
        with seeded(context.seed, "dpgan", "networks"):
            self._generator = _Generator(hp.latent, classes, hp.dim, shape)
            self._discriminator = _Discriminator(classes, hp.dim, shape)
            if hp.unit_gain:
                _keep_gain(self._generator)
                _keep_gain(self._discriminator)
        for network in (self._generator, self._discriminator):
            laid_out(network.to(self.device))
        self._sampled = copy.deepcopy(self._generator) if hp.ema else self._generator
        betas = (hp.beta1, 0.999)
        self._g_optimizer = adam(self._generator.parameters(), hp.generator_rate, betas)
        self._d_optimizer = adam(self._discriminator.parameters(), hp.learning_rate, betas)
        self.optimizers = self._g_optimizer, self._d_optimizer
        self._private = dp_sgd.PrivateOptimizer(
            self._discriminator, self._d_optimizer, self.start.main, 2 * hp.batch_size,
            # The largest tensor: the second layer's patches of 4x4 at a quarter of the sides.
            chunk=rows_at_once(4 * hp.dim * shape[1] * shape[2], self.device),
        )  # fmt: skip
        self._balance = _Balance(hp.generator_every, hp.threshold, hp.patience)
        self._trained = {
            "generator": self._generator, "discriminator": self._discriminator,
            "generator_optimizer": self._g_optimizer, "discriminator_optimizer": self._d_optimizer,
        }  # fmt: skip

    @classmethod
    def check(cls, hp: Hyper, public: PublicSpec) -> None:
        super().check(hp, public)
        check_records("dpgan.batch_size", hp.batch_size, public, "{one_per: 4, at_most: 512}")
        check_steps("dpgan.generator_every", hp.generator_every, hp.steps)
        check_size("dpgan makes", _SIZES, public)

    @classmethod
    def rehearsal(cls, hp: Hyper) -> Hyper:
        return replace(hp, generator_every=1, start_steps=1)

    @classmethod
    def releases(cls, hp: Hyper, public: PublicSpec, noise: float) -> tuple[Release, ...]:
        """Returns one noisy gradient sum per step over a Poisson batch; add-or-remove, num_train public."""
        return hp.started(dp_sgd.release(_RELEASE, hp, public, noise), public)

    def public_step(self, t: int) -> StepLog:
        """One discriminator step and one generator step."""
        rng = named_rng(self.context.seed, "dpgan", "start", t)
        with torch.no_grad():
            fakes = self._fakes(rng)
        reals = functional.pad(self._joined(*self.start.batch(len(fakes), rng)), (0, 1), value=1.0)
        rows = torch.cat([reals, functional.pad(fakes, (0, 1))])
        descend(self._losses(self._discriminator, rows).mean(), self._discriminator, self._d_optimizer)
        return {"generator_loss": self._descend_generator(self._score(self._discriminator, self._fakes(rng)))}

    def private_step(self, t: int, data: PrivateData, ledger: Ledger) -> StepLog:
        """One noisy discriminator step, then a generator step if it is time for one."""
        left = 1 - (1 - self.hp.rate_end) * t / self.hp.steps
        self._d_optimizer.param_groups[0]["lr"] = self.hp.learning_rate * left
        self._g_optimizer.param_groups[0]["lr"] = self.hp.generator_rate * left
        rng = named_rng(self.context.seed, "dpgan", "step", t)
        with torch.no_grad():
            fakes = self._fakes(rng)
        with ledger.charge(_RELEASE) as grant:
            reals = self._examples(*data.read(grant, grant.poisson_batch(len(data))))
            reals, fakes = (functional.pad(rows, (0, 1), value=real) for rows, real in ((reals, 1.0), (fakes, 0.0)))
            self._private.step(grant, self._losses, reals, fakes, self.hp.batch_size / len(fakes))
        return self._generator_step(rng) if self._balance.generator_is_due() else {}

    @torch.no_grad()
    def sample(self, labels: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        images = [self._generate(self._sampled, part, rng).cpu() for part in labels.split(_BLOCK)]
        return (torch.cat(images) * 255).round().to(torch.uint8)

    def public_state(self) -> dict[str, torch.Tensor]:
        return {name: value.detach().contiguous() for name, value in self._sampled.state_dict().items()}

    def private_state(self) -> dict[str, Any]:
        return {**states(self._trained), "balance": asdict(self._balance), **self.start.state()}

    def load(self, public: Mapping[str, torch.Tensor], private: Mapping[str, Any] | None) -> None:
        self._sampled.load_state_dict(dict(public))
        if private is not None:
            restore(self._trained, private)
            self._balance = _Balance(**private["balance"])
            self.start.load(private)

    def _generator_step(self, rng: torch.Generator) -> StepLog:
        scores = self._score(self._discriminator, self._fakes(rng))
        self._balance.judge((scores < 0).float().mean().item())
        return {
            "generator_loss": self._descend_generator(scores),
            "accuracy_on_fakes": self._balance.accuracy,
            "discriminator_steps": float(self._balance.rate),
        }

    def _descend_generator(self, scores: torch.Tensor) -> torch.Tensor:
        loss = functional.softplus(-scores).mean()
        descend(loss, self._generator, self._g_optimizer)
        if self.hp.ema:
            blend(self._sampled, self._generator, self.hp.ema)
        return loss.detach()

    def _fakes(self, rng: torch.Generator) -> torch.Tensor:
        """Returns generated examples [B, pixels + classes], their labels independent of any private batch."""
        labels = torch.randint(self.public.num_classes, (self.hp.fakes or self.hp.batch_size,), generator=rng)
        with mixed_precision(self.device, self.hp.precision):
            images = self._generate(self._generator, labels, rng)
        return self._joined(images, labels)

    def _generate(self, generator: nn.Module, labels: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        latent = sent(torch.randn(len(labels), self.hp.latent, generator=rng), self.device)
        return generator(latent, self._one_hot(labels))

    def _examples(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return self._joined(sent(images, self.device).float() / 255, labels)

    def _joined(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return torch.cat([images.flatten(1), self._one_hot(labels)], dim=1)

    def _one_hot(self, labels: torch.Tensor) -> torch.Tensor:
        return self.hp.label_scale * functional.one_hot(sent(labels, self.device), self.public.num_classes).float()

    def _score(self, discriminator: nn.Module, examples: torch.Tensor) -> torch.Tensor:
        classes = self.public.num_classes
        images = examples[:, :-classes].unflatten(1, self.public.image_shape)
        with mixed_precision(self.device, self.hp.precision):
            return discriminator(images, examples[:, -classes:]).float()

    def _losses(self, discriminator: nn.Module, rows: torch.Tensor) -> torch.Tensor:
        """Returns one cross-entropy per row [B]; a row is an example followed by 1 if it is real, 0 if generated."""
        scores = self._score(discriminator, rows[:, :-1])
        return functional.binary_cross_entropy_with_logits(scores, rows[:, -1], reduction="none")


@dataclass
class _Balance:
    """Decides when the generator steps: after `fixed` discriminator steps, or, at 0, by the paper's adaptive rule.

    The rule keeps a running mean of the discriminator's accuracy on fakes. Once `patience` generator steps have passed
    since the last raise and it is at most `threshold`, the discriminator gets the next number of steps.
    """

    fixed: int
    threshold: float
    patience: int
    raises: int = 0
    discriminator_steps: int = 0
    generator_steps: int = 0
    accuracy: float = 0.0

    @property
    def rate(self) -> int:
        """Discriminator steps per generator step."""
        return self.fixed or _RATES[self.raises]

    def generator_is_due(self) -> bool:
        """Counts a discriminator step."""
        self.discriminator_steps += 1
        return self.discriminator_steps >= self.rate

    def judge(self, accuracy: float) -> None:
        """Counts a generator step, at whose fakes the discriminator was right in `accuracy` of the cases."""
        first = self.generator_steps == 0 and self.raises == 0
        self.accuracy = accuracy if first else _MEMORY * self.accuracy + (1 - _MEMORY) * accuracy
        self.discriminator_steps = 0
        self.generator_steps += 1
        if self.generator_steps >= self.patience and self.accuracy <= self.threshold and self.raises < len(_RATES) - 1:
            self.raises += 1
            self.generator_steps = 0


class _Generator(nn.Module):
    """Latent and one-hot label through a layer each to 4x4 maps, then doublings; output in [0, 1]."""

    def __init__(self, latent: int, classes: int, dim: int, shape: tuple[int, int, int]) -> None:
        super().__init__()
        first = 3 if shape[1] == 28 else 4
        # Of 64x64 images, one doubling more.
        last = dim if shape[1] < 64 else dim // 2
        more = [] if shape[1] < 64 else [Transposed(dim, last, 4, 2, 1), nn.LeakyReLU(_LEAK)]
        self.latent = Transposed(latent, 2 * dim, 4)
        self.label = Transposed(classes, 2 * dim, 4)
        self.layers = nn.Sequential(
            nn.LeakyReLU(_LEAK), Transposed(4 * dim, 2 * dim, first, 2, 1), nn.LeakyReLU(_LEAK),
            Transposed(2 * dim, dim, 4, 2, 1), nn.LeakyReLU(_LEAK), *more,
            Transposed(last, shape[0], 4, 2, 1),
        )  # fmt: skip

    def forward(self, latent: torch.Tensor, one_hot: torch.Tensor) -> torch.Tensor:
        start = [self.latent(latent[:, :, None, None]), self.label(one_hot[:, :, None, None])]
        # Half precision would leave too few grey levels near white.
        return (self.layers(torch.cat(start, dim=1)).float().tanh() + 1) / 2


class _Discriminator(nn.Module):
    """Image and constant label maps through a layer each, then halvings to one logit."""

    def __init__(self, classes: int, dim: int, shape: tuple[int, int, int]) -> None:
        super().__init__()
        last = 3 if shape[1] == 28 else 4
        more = [] if shape[1] < 64 else [nn.Conv2d(4 * dim, 4 * dim, 4, 2, 1), nn.LeakyReLU(_LEAK)]
        self.image = nn.Conv2d(shape[0], dim - dim // 2, 4, 2, 1)
        self.label = nn.Conv2d(classes, dim // 2, 4, 2, 1)
        self.layers = nn.Sequential(
            nn.LeakyReLU(_LEAK),
            nn.Conv2d(dim, 2 * dim, 4, 2, 1), nn.LeakyReLU(_LEAK),
            nn.Conv2d(2 * dim, 4 * dim, last, 2, 1), nn.LeakyReLU(_LEAK),
            *more,
            nn.Conv2d(4 * dim, 1, 4), nn.Flatten(0),
        )  # fmt: skip

    def forward(self, images: torch.Tensor, one_hot: torch.Tensor) -> torch.Tensor:
        seen = self.image(images)
        # On constant maps a convolution differs at the borders alone: 3x3 outputs tell all, at a twentieth of the cost.
        label = self.label(one_hot[:, :, None, None].expand(-1, -1, 6, 6))
        label = _stretching(*seen.shape[2:], seen.device).mT @ label.permute(0, 2, 3, 1).flatten(1, 2)
        label = label.unflatten(1, seen.shape[2:]).permute(0, 3, 1, 2)
        return self.layers(maps_laid_out(torch.cat([seen, label], dim=1)))


@functools.cache
def _stretching(height: int, width: int, device: torch.device) -> torch.Tensor:
    """Returns the matrix [9, height * width] that repeats the middle rows and columns of 3x3 maps to that size."""
    rows, columns = (
        torch.eye(3).repeat_interleave(torch.tensor([1, size - 2, 1]), dim=1) for size in (height, width)
    )
    return torch.kron(rows, columns).to(device)


def _keep_gain(network: nn.Module) -> None:
    """Draws weights of He et al. (2015) by the inputs that reach one output; of a stride above 1, few do."""
    for layer in network.modules():
        if isinstance(layer, nn.ConvTranspose2d):
            # A first layer's single place reaches each output once.
            places = 1 if layer.stride == (1, 1) else layer.kernel_size[0] ** 2 / layer.stride[0] ** 2
        elif isinstance(layer, nn.Conv2d):
            places = layer.kernel_size[0] ** 2
        else:
            continue
        nn.init.normal_(layer.weight, std=(2 / (1 + _LEAK**2) / (layer.in_channels * places)) ** 0.5)
        nn.init.zeros_(layer.bias)
