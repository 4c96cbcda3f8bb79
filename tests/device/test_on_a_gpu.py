"""What needs a card: `python -m pytest -m gpu tests/device`."""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import pytest
import torch
from device_rows import ROWS, on
from harness import CLASSIFIER, SOUND, Run, public

from methods.commands.arguments import use_machine
from methods.core.privacy.grant import Grant
from methods.core.privacy.noise import NoiseSource, clip_rows
from methods.core.release import Release
from methods.core.speed import compiled
from methods.core.speed.choices import CHOICES
from methods.core.speed.transfers import sent

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device here"),
]
# Of a parameter in [-1, 1]: a card sums in another order, and Adam makes of it a step of up to its whole rate.
TOLERANCE = 5e-3
RELEASE = Release(
    name="r", kind="gaussian", clip=1.0, noise=1.5, bounded="sum", rows=4096, rate=1.0, sampling="all", max_uses=3
)


@pytest.fixture
def card() -> torch.device:
    """The device, set up as every command does."""
    arguments = argparse.Namespace(threads=1, device="cuda", speed=[])
    return use_machine(arguments)


def state(run: Run) -> dict[str, torch.Tensor]:
    return {name: value.detach().cpu() for name, value in run.method.public_state().items()}


def close(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=0, atol=TOLERANCE, msg=lambda text, name=name: name + text)


@pytest.mark.parametrize("row", ROWS)
def test_a_few_steps_end_as_on_the_processor(row: str, card: torch.device, tmp_path: Path) -> None:
    name, settings, _ = ROWS[row]
    for place in ("card", "here"):
        (tmp_path / place).mkdir()
    here = Run(name, public("grey"), tmp_path / "here", overrides=settings).train()
    there = on(card, Run(name, public("grey"), tmp_path / "card", overrides=settings)).train()
    close(state(there), state(here))
    assert there.spent == here.spent
    samples = (run.samples().int() for run in (there, here))
    assert torch.stack(list(samples)).diff(dim=0).abs().float().mean() < 2


@pytest.mark.parametrize("row", ROWS)
def test_a_run_that_was_stopped_goes_on_as_if_it_had_not_been(row: str, card: torch.device, tmp_path: Path) -> None:
    name, settings, _ = ROWS[row]
    for place in ("straight", "stopped"):
        (tmp_path / place).mkdir()
    straight = on(card, Run(name, public("grey"), tmp_path / "straight", overrides=settings)).train()
    stopped = on(card, Run(name, public("grey"), tmp_path / "stopped", overrides=settings)).interrupted(2)
    close(state(stopped), state(straight))
    assert stopped.spent == straight.spent


@pytest.mark.parametrize("row", ROWS)
def test_a_step_waits_for_the_card_as_often_as_is_listed(row: str, card: torch.device, tmp_path: Path) -> None:
    """Where the last step waits as torch itself sees it; `float(tensor)`, masks and plain copies all do."""
    name, settings, listed = ROWS[row]
    run = on(card, Run(name, public("grey"), tmp_path, overrides=settings))
    warm, last = run.warm_start(), run.method.num_steps - 1
    with run.ledger() as ledger:
        run.method.prepare(run.data, ledger, warm)
        for t in range(last):
            run.method.step(t, run.data, ledger)
        torch.cuda.set_sync_debug_mode("warn")
        try:
            with warnings.catch_warnings(record=True) as seen:
                warnings.simplefilter("always")
                run.method.step(last, run.data, ledger)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    waits = [str(each.message) for each in seen if "synchroniz" in str(each.message)]
    # A card waits twice in one bincount: for the smallest value and for the largest.
    most = sum(count * (1 + (operation == "bincount")) for (operation, _), count in listed.items())
    assert len(waits) <= most, waits


def test_the_noise_is_the_processor_s_to_the_last_bit(card: torch.device) -> None:
    """Keyed by use on every device: a card's own generator, which repeats after 64 bits of a seed, plays no part."""
    answers = [
        Grant(RELEASE, NoiseSource(b"key"), use).noise(torch.zeros(1000, device=device)).cpu()
        for use, device in ((1, card), (1, "cpu"), (2, card))
    ]
    torch.testing.assert_close(answers[0], answers[1], rtol=0, atol=0)
    assert (answers[0] != answers[2]).float().mean() > 0.9


def test_what_bounds_a_record_is_computed_in_full_precision(card: torch.device) -> None:
    """TF32 keeps 10 bits of a product: a norm would be a thousandth off, and a clipped row above its bound."""
    assert not (torch.backends.cuda.matmul.allow_tf32 or torch.backends.cudnn.allow_tf32)
    rows = torch.randn(4096, 700, generator=torch.Generator().manual_seed(0)) * 3
    clipped = clip_rows(rows.to(card), 1.0, "gaussian")
    assert clipped.double().norm(dim=1).max() <= 1.0
    factors = torch.rand(4096, generator=torch.Generator().manual_seed(1))
    exact = factors.double() @ rows.double()
    torch.testing.assert_close((factors.to(card) @ rows.to(card)).cpu().double(), exact, rtol=0, atol=1e-2)
    images, kernel = torch.randn(8, 64, 28, 28), torch.randn(64, 64, 5, 5)
    made = torch.nn.functional.conv2d(images.to(card), kernel.to(card)).cpu().double()
    wanted = torch.nn.functional.conv2d(images.double(), kernel.double())
    assert (made - wanted).norm() / wanted.norm() < 1e-5


def test_a_value_that_is_sent_is_the_one_that_was_given(card: torch.device) -> None:
    """Though the card gets it later, and the given one has changed or gone by then."""
    busy = torch.ones(2048, 2048, device=card)
    for number in range(20):
        busy = busy @ busy / 2048
        values = torch.full((1000, 1000), float(number))
        there = sent(values, card)
        values.zero_()
        del values
        assert there.mean().item() == number


@pytest.mark.parametrize("choice", ["compiled=on", "cuda_graphs=on"])
@pytest.mark.parametrize("row", [("gs_wgan", SOUND), ("dpac", CLASSIFIER | {"generator": "dcgan"})], ids=["sum", "one"])
def test_compiled_generators_train_to_the_same_end(choice, row, card: torch.device, tmp_path: Path) -> None:
    (name, settings), ends = row, []
    with CHOICES.changed():
        for place in ("plain", "compiled"):
            if place == "compiled":
                compiled.choose([choice], card)
            (tmp_path / place).mkdir()
            ends.append(state(on(card, Run(name, public("grey"), tmp_path / place, overrides=settings)).train()))
    close(*ends)
