"""A synthetic set with balanced labels, drawn from a trained run."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from methods.core.rng import named_rng
from methods.core.runs.plan import Plan
from workflow.common.errors import UserError
from workflow.common.readers.guard import reason


def balanced_labels(count: int, num_classes: int) -> torch.Tensor:
    """Returns labels int64 [N], cycling through the classes: class counts differ by at most one."""
    return torch.arange(count) % num_classes


def draw(
    plan: Plan, state: Mapping[str, torch.Tensor], count: int, device: torch.device, rng: torch.Generator | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns images uint8 [N, C, H, W] and labels int64 [N] of the generator `state` that a plan's run released.

    `rng` is by default the run's own. Raises UserError where `state` has other tensors than the plan's generator.
    """
    method = plan.build(device)
    try:
        method.load({name: value.to(device) for name, value in state.items()}, None)
    except (RuntimeError, KeyError, TypeError) as error:
        raise UserError(
            f"the generator is none of run {plan.run}'s plan ({reason(error)}); train the run again"
        ) from None
    labels = balanced_labels(count, plan.public.num_classes)
    rng = rng or named_rng(plan.seed, plan.public.dataset, plan.run, "samples")
    return method.sample(labels, rng).numpy(), labels.numpy()
