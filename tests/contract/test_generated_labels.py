"""Labels of generated images: uniform for every method, since what classes records have would be told by them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import harness
import pytest
import torch
from scipy import stats

from methods.core import registry

SPEC = harness.public("grey")
# The chance that honest code fails; another seed is not needed, as the draws are fixed.
DOUBT = 1e-4


class Labels:
    """Collects the labels that networks make images of: a vector int64, or one-hot columns, next to an image out."""

    def __init__(self) -> None:
        self.seen: list[torch.Tensor] = []

    def __call__(self, module: torch.nn.Module, inputs: tuple, output: object) -> None:
        pixels = int(torch.Size(SPEC.image_shape).numel())
        if not torch.is_grad_enabled() or not isinstance(output, torch.Tensor) or not output.requires_grad:
            return
        if output.shape[1:].numel() != pixels:
            return
        for value in inputs:
            if isinstance(value, torch.Tensor) and value.dtype == torch.int64 and value.ndim == 1:
                self.seen.append(value.cpu())
            elif isinstance(value, torch.Tensor) and value.ndim == 2 and value.shape[1] >= SPEC.num_classes:
                last = value[:, -SPEC.num_classes :].detach()
                if ((last != 0).sum(1) == 1).all():
                    self.seen.append(last.argmax(1).cpu())


# Of these the labels are seen; dp_gauss has no network, and a method added later may have labels in another form.
LABELLED = {
    "datalens", "dp_cgan", "dp_merf", "dp_ntk", "dp_sinkhorn", "dpac", "dpac_scatter", "dpgan", "g_pate", "gs_wgan",
    "nonprivate", "pate_gan",
}  # fmt: skip


@pytest.mark.parametrize(("name", "overrides"), [*((name, {}) for name in registry.names()), ("dpac", harness.SOUND)])
def test_generated_images_have_uniform_labels(name: str, overrides: dict, tmp_path: Path) -> None:
    fields = {field.name for field in dataclasses.fields(registry.load(name).Hyper)}
    wanted = {"batch_size": 64, "generated": 64, "fakes": 64, "classes_shown": 10, "steps": 2}
    larger = {key: value for key, value in wanted.items() if key in fields}
    labels = Labels()
    handle = torch.nn.modules.module.register_module_forward_hook(labels)
    try:
        harness.Run(name, SPEC, tmp_path, overrides=overrides | larger).train()
    finally:
        handle.remove()
    if not labels.seen:
        assert name not in LABELLED
        pytest.skip("no network of this method is given labels in a form known here")
    counts = torch.bincount(torch.cat(labels.seen), minlength=SPEC.num_classes)
    assert counts.sum() >= 100
    assert stats.chisquare(counts.numpy()).pvalue > DOUBT
