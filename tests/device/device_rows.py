"""The runs that a GPU would train, at toy size, and what a step of each waits for."""

from __future__ import annotations

import dataclasses
from typing import Any

import torch
from harness import CLASSIFIER, SOUND, START, Run

CONV = {"teacher_network": "conv_norm"}
# Method, settings, and per step what the host waits for: (operation, place) and how often.
ROWS: dict[str, tuple[str, dict[str, Any], dict[tuple[str, str], int]]] = {
    "gs_wgan": ("gs_wgan", {}, {}),
    "gs_wgan_sound": ("gs_wgan", SOUND, {}),
    "dpac": ("dpac", CLASSIFIER, {}),
    "dpac_sound": ("dpac", SOUND | CLASSIFIER, {}),
    "dpac_sound with a start": ("dpac", SOUND | CLASSIFIER | START | {"generator": "dcgan"}, {}),
    "dpac_as_released": ("dpac", CLASSIFIER | {"as_released": True, "released_batch": 3}, {}),
    "nonprivate": ("nonprivate", {}, {}),
    "dpac_scatter": ("dpac_scatter", {}, {}),
    "dp_cgan": ("dp_cgan", {}, {}),
    # How accurate the discriminator is decides when the generator steps next.
    "dpgan": ("dpgan", {}, {("_local_scalar_dense", "dpgan.py:_generator_step"): 1}),
    "datalens_paper": ("datalens", CONV | {"teacher_memory": "bf16"}, {}),
    # Votes are checked before they are counted, and the data-dependent bound is computed on the processor; a round
    # trains thousands of teachers meanwhile.
    "g_pate_paper": (
        "g_pate", CONV | {"teacher_memory": "bf16"},
        {("bincount", "core/privacy/noise.py:count_votes"): 2,
         ("_local_scalar_dense", "core/privacy/grant.py:votes"): 1,
         ("to the processor", "core/accounting/data_dependent.py:gaussian_cost"): 1},
    ),
}  # fmt: skip


def on(device: torch.device, run: Run) -> Run:
    """Returns the run itself, untrained, on a device."""
    run.context = dataclasses.replace(run.context, device=device)
    run.method = run.new()
    return run
