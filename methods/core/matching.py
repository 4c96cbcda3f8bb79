"""What methods share whose generator is trained to match one noisy mean of the records, and never sees them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from methods.core.method import Context, Method
from methods.core.speed.transfers import sent

_BLOCK = 500


class MeanMatching(Method):
    """A conditional generator, its optimiser and the released `_target` it nears: states and samples of all three.

    A subclass makes `_generator`, which maps latents [N, hp.latent] and one-hot labels [N, classes] to images in
    [0, 1], and `_optimizer`; takes the target in `prepare`; and trains in `step`, for `hp.steps` steps.
    """

    _generator: nn.Module
    _optimizer: torch.optim.Optimizer

    def __init__(self, hp: Any, context: Context) -> None:
        super().__init__(hp, context)
        self._target: torch.Tensor | None = None

    @property
    def num_steps(self) -> int:
        return self.hp.steps

    @torch.no_grad()
    def sample(self, labels: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        self._generator.eval()
        images = [self._generated(part, rng).cpu() for part in labels.split(_BLOCK)]
        return (torch.cat(images) * 255).round().to(torch.uint8)

    def public_state(self) -> dict[str, torch.Tensor]:
        return {name: value.detach() for name, value in self._generator.state_dict().items()}

    def private_state(self) -> dict[str, Any]:
        return {"target": self._target, "optimizer": self._optimizer.state_dict()}

    def load(self, public: Mapping[str, torch.Tensor], private: Mapping[str, Any] | None) -> None:
        self._generator.load_state_dict(dict(public))
        if private is not None:
            self._target = private["target"].to(self.device)
            self._optimizer.load_state_dict(private["optimizer"])

    def _generated(self, labels: torch.Tensor, rng: torch.Generator) -> torch.Tensor:
        """Returns images [N, C, H, W] in [0, 1] for labels int64 [N], of latents drawn from `rng`, on the device."""
        latent = torch.randn(len(labels), self.hp.latent, generator=rng)
        return self._generator(sent(latent, self.device), self._one_hot(labels))

    def _one_hot(self, labels: torch.Tensor) -> torch.Tensor:
        return functional.one_hot(sent(labels, self.device), self.public.num_classes).float()
