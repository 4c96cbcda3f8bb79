"""One pass of n convolutional discriminators through their images, and the way back, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from methods.core.speed.batched_layers import Convolution, Units, seen

Weights = Mapping[str, torch.Tensor]


class StackedPass:
    """What `nets.ConvDiscriminator.forward` gives each of n networks, as batched matrix products.

    Args:
        weights: the parameters by name, [n, ...]; a network normalises after its second and third layer if it has a
            factor for them.
        parts: what is `seen` of the images, [n, B, H / 2, W / 2, 25 * C], in the precision of the products.
        labels: one-hot [n, B, classes].
        batches: sizes of the batches that the B images consist of, one after the other; batch norm keeps them apart.
        slope: of leaky units below zero.

    Attributes:
        logits: float32 [n, B].
    """

    def __init__(
        self, weights: Weights, parts: torch.Tensor, labels: torch.Tensor, batches: Sequence[int], slope: float
    ) -> None:
        self._weights, (n, batch, height, width, _) = weights, parts.shape
        labels = labels.to(parts.dtype)
        self._first = Convolution(weights["first.weight"], weights["first.bias"], parts, labels)
        self._first_units = Units(self._first.made, (), None, slope)
        maps = self._first_units.made.view(n, batch, height, width, -1).movedim(4, 2)
        self._second = Convolution(weights["second.weight"], weights.get("second.bias"), seen(maps), labels)
        places = height * width // 4
        self._second_units = self._units("second", self._second.made, [places * one for one in batches], slope)
        # Channels first, as a flattened map has them.
        self._across = n, batch, places, self._second.made.shape[2]
        flat = self._second_units.made.view(self._across).to(parts.dtype).transpose(2, 3).flatten(2)
        self._flat = torch.cat([flat, labels], dim=2)
        self._third = weights["third.weight"].to(parts.dtype)
        made = self._flat @ self._third.mT
        made = made + weights["third.bias"][:, None].to(made) if "third.bias" in weights else made
        self._third_units = self._units("third", made, batches, slope)
        self._last = torch.cat([self._third_units.made.float(), labels.float()], dim=2)
        self._fourth = weights["fourth.weight"].float()
        self.logits = (self._last @ self._fourth.mT)[:, :, 0] + weights["fourth.bias"].float()

    def _units(self, layer: str, rows: torch.Tensor, batches: Sequence[int], slope: float) -> Units:
        norm = [self._weights.get(f"{layer}_{name}") for name in ("factor", "offset")]
        return Units(rows, batches, None if norm[0] is None else tuple(norm), slope)

    def by_weights(self, signal: torch.Tensor) -> list[torch.Tensor]:
        """Returns the gradients float32 of the weights, in their order, by that of the logits [n, B]."""
        found = {"fourth.weight": signal[:, None] @ self._last, "fourth.bias": signal.sum(1, keepdim=True)}
        third = self._by_third(signal, found)
        found["third.weight"] = (third.mT @ self._flat).float()
        second = self._by_second(third, found)
        found["second.weight"] = self._second.by_weight(second)
        first, _ = self._first_units.by_rows(self._second.by_maps(second).view_as(self._first.made))
        found["first.weight"], found["first.bias"] = self._first.by_weight(first), first.sum(1, dtype=torch.float32)
        return [found[name] for name in self._weights]

    def by_images(self, signal: torch.Tensor) -> torch.Tensor:
        """Returns the gradients float32 [n, B, C, H, W] of the images, by that of the logits [n, B]."""
        second = self._by_second(self._by_third(signal, {}), {})
        first, _ = self._first_units.by_rows(self._second.by_maps(second).view_as(self._first.made))
        return self._first.by_maps(first).float().movedim(4, 2)

    def _by_third(self, signal: torch.Tensor, found: dict[str, torch.Tensor]) -> torch.Tensor:
        """Returns the gradient [n, B, hidden] of what the third layer makes; its other weights' are put in `found`."""
        units = self._third_units.made
        gradient = (signal[:, :, None] * self._fourth[:, :, : units.shape[2]]).to(units.dtype)
        return self._by_units("third", self._third_units, gradient, found)

    def _by_second(self, third: torch.Tensor, found: dict[str, torch.Tensor]) -> torch.Tensor:
        """Returns the same [n, B * P, channels] for the second layer, by that of the third."""
        n, batch, places, channels = self._across
        flat = (third @ self._third[:, :, : places * channels]).view(n, batch, channels, places)
        gradient = flat.transpose(2, 3).to(self._second_units.made.dtype).reshape(n, -1, channels)
        return self._by_units("second", self._second_units, gradient, found)

    def _by_units(
        self, layer: str, units: Units, gradient: torch.Tensor, found: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        rows, norm = units.by_rows(gradient)
        if norm is None:
            found[f"{layer}.bias"] = rows.sum(1, dtype=torch.float32)
        else:
            found[f"{layer}_factor"], found[f"{layer}_offset"] = norm
        return rows.to(self._flat.dtype)
