"""Compiled generators: off by default, refused in one line where they cannot be, equal within rounding where tried."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from toys import CPU, TINY_GAN, TOY

from methods.core import registry
from methods.core.method import Context
from methods.core.rng import named_rng
from methods.core.sharded.nets import build_generator, draw_latents
from methods.core.speed import compiled
from methods.core.speed.choices import CHOICES, Choices
from workflow.common.errors import UserError


@pytest.fixture(autouse=True)
def _as_before():
    with CHOICES.changed():
        yield


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("compild=on", "unknown speed choice 'compild'; .*compiled"),
        ("compiled", "--speed takes NAME=on or NAME=off, got 'compiled'"),
        ("compiled=yes", "NAME=on or NAME=off, got 'compiled=yes'"),
        ("cuda_graphs=on", "cuda_graphs needs a CUDA device, got cpu; leave it off"),
    ],
)
def test_a_choice_that_cannot_be_is_refused_in_one_line_and_nothing_changes(text: str, says: str) -> None:
    with pytest.raises(UserError, match=says):
        compiled.choose(["stacks=off", text], CPU)
    assert Choices() == CHOICES


def test_without_a_compiler_nothing_is_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(UserError, match=r"needs a C\+\+ compiler .* leave compiled off"):
        compiled.choose(["compiled=on"], CPU)
    monkeypatch.setattr(compiled.shutil, "which", lambda name: name)
    monkeypatch.setattr(torch, "__file__", "/a folder/torch/__init__.py")
    with pytest.raises(UserError, match="no space in its path"):
        compiled.choose(["compiled=on"], CPU)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="needs Triton"):
        compiled.choose(["cuda_graphs=on"], torch.device("cuda"))
    assert not (CHOICES.compiled or CHOICES.cuda_graphs)


def test_choices_are_turned_on_and_off_by_name() -> None:
    compiled.choose(["stacks=off", "written_pixel_norm=off"], CPU)
    assert Choices(stacks=False, written_pixel_norm=False) == CHOICES


def test_what_a_stack_calls_with_weights_of_its_own_is_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of throw-away generators of a warm start, one after the other, each a new set of weights."""
    monkeypatch.setattr(CHOICES, "compiled", True)
    seen: list[nn.Module] = []
    monkeypatch.setattr(nn.Module, "compile", lambda network, **named: seen.append(network))
    hp, context = registry.hyper("gs_wgan", TINY_GAN), Context(TOY, (), 0, CPU)
    build_generator(hp, context, 4, "warm start generator", plain=True)
    assert not seen
    build_generator(hp, context, 4, "generator")
    assert len(seen) == 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dcgan", "resnet"])
@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_a_compiled_generator_makes_the_same_images_and_is_stored_alike(backend, kind, monkeypatch) -> None:
    """As traced, without a compiler, and as compiled where that can be done."""
    if backend == "inductor" and (wanting := compiled._missing(CPU)):
        pytest.skip(f"torch compiles for a processor with {wanting}")
    monkeypatch.setattr(compiled, "_missing", lambda device: None)
    whole = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda *given, **named: whole(*given, **named | {"backend": backend}))
    hp = registry.hyper("gs_wgan", TINY_GAN | {"generator": kind})
    plain = build_generator(hp, Context(TOY, (), 0, CPU), 4, "generator")
    compiled.choose(["compiled=on"], CPU)
    made = build_generator(hp, Context(TOY, (), 0, CPU), 4, "generator")
    assert list(made.state_dict()) == list(plain.state_dict())
    for network in (plain, made):
        network.eval()
    inputs = draw_latents(6, named_rng(0, "latents")), torch.arange(6)
    expected, images = plain(*inputs), made(*inputs)
    torch.testing.assert_close(images, expected, rtol=0, atol=1e-5)
    expected.sum().backward()
    images.sum().backward()
    for one, other in zip(made.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-3)
