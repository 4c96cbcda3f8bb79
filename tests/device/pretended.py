"""A pretended GPU: tensors that say they are on `cuda` while their values are the processor's; crossings are counted.

It stands in for a card where there is none. Code takes the paths of a GPU, the results are the processor's, what a card
would refuse (operands on two devices) fails here too, and whatever makes the host wait for the card is counted.
"""

from __future__ import annotations

import contextlib
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only

from methods.core import registry

CUDA = torch.device("cuda", 0)
_CPU = torch.device("cpu")
_ATEN = torch.ops.aten
# Of an operation on a card, the host waits for its result: a size or a value that depends on data.
_WAITING = {
    "_local_scalar_dense", "nonzero", "masked_select", "unique_dim", "_unique2", "unique_consecutive", "equal",
    "bincount", "repeat_interleave", "multinomial", "histc", "_linalg_eigh", "_linalg_svd",
}  # fmt: skip
# A card's kernels take a scalar of the processor as an argument, but those that walk through lists of tensors do not.
_LISTS = ("_fused_", "_foreach_")


class OnCard(torch.Tensor):
    """A tensor whose values are in `held`, on the processor."""

    held: torch.Tensor

    @staticmethod
    def __new__(cls, held: torch.Tensor) -> OnCard:
        # To torch's own code it is on "meta", whose backward passes need no card.
        made = torch.Tensor._make_wrapper_subclass(
            cls, held.shape, strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype,
            device="meta", requires_grad=held.requires_grad,
        )  # fmt: skip
        made.held = held.detach()
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @property
    def device(self) -> torch.device:
        return CUDA

    @property
    def is_cuda(self) -> bool:
        return True

    @property
    def is_meta(self) -> bool:
        return False

    def tolist(self) -> Any:
        return self.to("cpu").tolist()

    def __repr__(self) -> str:
        return f"OnCard({self.held!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _CARD.call(func, args, kwargs or {})


class Card(TorchDispatchMode):
    """Where operations with the pretended tensors are computed; `waits` counts (operation, place in methods/).

    `copies` counts those from the processor that the host waits for, likewise.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[tuple[str, str]] = Counter()
        self.copies: Counter[tuple[str, str]] = Counter()
        self.pinned: set[int] = set()
        self._kept: list[torch.Tensor] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.call(func, args, kwargs or {})

    def call(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Returns what an operation returns, on the device on which a card would have it."""
        name = func.overloadpacket.__name__
        if name in ("is_pinned", "_pin_memory"):
            return self._pin(name, args[0])
        flat, _ = tree_flatten((args, kwargs))
        tensors = [value for value in flat if isinstance(value, torch.Tensor)]
        here = [value for value in tensors if isinstance(value, OnCard)]
        asked = kwargs.get("device")
        on_card = bool(here) if asked is None else torch.device(asked).type in ("cuda", "meta")
        self._check(name, here, [value for value in tensors if not isinstance(value, OnCard)], args, kwargs)
        self._count(name, here, on_card, args, kwargs)
        plain_args, plain_kwargs = tree_map_only(OnCard, lambda value: value.held, (args, kwargs))
        if asked is not None:
            plain_kwargs["device"] = _CPU
        plain_kwargs.pop("pin_memory", None)
        if name == "_to_copy":
            plain_kwargs.pop("non_blocking", None)
        with torch.utils._python_dispatch._disable_current_modes():
            made = func(*plain_args, **plain_kwargs)
        return self._returned(func, name, args, made, on_card)

    def _returned(self, func: Any, name: str, args: Any, made: Any, on_card: bool) -> Any:
        if not on_card:
            return made
        if name.endswith("_") and not name.endswith("__") and isinstance(args[0], torch.Tensor):
            # In place: what was given is what is returned.
            return args[0]
        if func._schema.is_mutable and isinstance(made, torch.Tensor):
            for given in tree_flatten(args)[0]:
                if isinstance(given, OnCard) and given.held is made:
                    return given
        return tree_map_only(torch.Tensor, OnCard, made)

    def _pin(self, name: str, value: torch.Tensor) -> Any:
        if name == "is_pinned":
            return id(value) in self.pinned
        if isinstance(value, OnCard):
            raise RuntimeError("cannot pin a tensor of the device")
        made = value.clone()
        self._kept.append(made)
        self.pinned.add(id(made))
        return made

    def _check(self, name: str, here: list, there: list, args: Any, kwargs: dict[str, Any]) -> None:
        if not here or not there or name == "copy_":
            return
        lists = name.startswith(_LISTS)
        outside = [value for value in there if value.ndim or lists]
        if name in ("index", "index_put_", "_index_put_impl_", "index_put") and isinstance(args[0], OnCard):
            # A card's tensor may be indexed by the processor's, which are sent to it, and waited for.
            self.copies[name, _place()] += 1
            return
        if outside:
            shape = list(outside[0].shape)
            raise RuntimeError(f"{name}: expected all tensors to be on the same device, {shape} is on the cpu")

    def _count(self, name: str, here: list, on_card: bool, args: Any, kwargs: dict[str, Any]) -> None:
        if name == "_to_copy" and on_card and not here:
            self._sent(name, args[0], kwargs.get("non_blocking", False))
        elif name == "_to_copy" and here and not on_card:
            self.waits["to the processor", _place()] += 1
        elif name == "copy_":
            target, source = args[:2]
            if isinstance(target, OnCard) and not isinstance(source, OnCard):
                self._sent(name, source, kwargs.get("non_blocking", len(args) > 2 and args[2]))
            elif isinstance(source, OnCard) and not isinstance(target, OnCard):
                self.waits["to the processor", _place()] += 1
        elif here and (name in _WAITING and not _sized(name, args, kwargs)):
            self.waits[name, _place()] += 1
        elif here and name in ("index", "index_put", "index_put_") and any(
            index is not None and index.dtype in (torch.bool, torch.uint8) for index in args[1]
        ):
            self.waits["mask", _place()] += 1

    def _sent(self, name: str, source: torch.Tensor, non_blocking: bool) -> None:
        if not (non_blocking and id(source) in self.pinned):
            self.copies[name, _place()] += 1


def _sized(name: str, args: Any, kwargs: dict[str, Any]) -> bool:
    return name == "repeat_interleave" and kwargs.get("output_size") is not None


def _place() -> str:
    """Returns the function of methods/ at work, as its file and name."""
    frame = sys._getframe()
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(registry.FOLDER):
            return f"{path.relative_to(registry.FOLDER).as_posix()}:{frame.f_code.co_name}"
        frame = frame.f_back
    return "elsewhere"


def _made_here(make: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """Returns `make`, which builds a tensor of Python's numbers, in the two steps that it takes: here, and sent."""

    def made(data: Any, *, device: Any = None, **others: Any) -> torch.Tensor:
        if device is None or isinstance(data, OnCard):
            return make(data, **others)
        return make(data, **others).to(device)

    return made


class _Generator(torch.Generator):
    """Refuses to draw on a card, which would begin otherwise. A class, as torch's annotations name it as one."""

    def __new__(cls, device: Any = "cpu") -> Any:
        assert torch.device(device).type == "cpu", f"draws are the processor's on every device, not those of {device}"
        return super().__new__(cls, "cpu")


_CARD = Card()


@contextlib.contextmanager
def pretended_card(patch: Any) -> Iterator[Card]:
    """Yields the card; `patch` is pytest's, which undoes what torch's own start of CUDA is replaced by."""
    global _CARD
    torch._C._ensureCUDADeviceGuardSet()
    patch.setattr(torch.cuda, "_lazy_init", lambda: None)
    patch.setattr(torch, "Generator", _Generator)
    for name in ("tensor", "as_tensor"):
        patch.setattr(torch, name, _made_here(getattr(torch, name)))
    _CARD = Card()
    with _CARD:
        yield _CARD
