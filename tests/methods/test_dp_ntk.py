"""DP-NTK: the gradients that it embeds, the one release of their sum, and the generator that learns from it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from methods import dp_ntk
from methods.core import registry
from methods.core.accounting.calibration import epsilon
from methods.core.method import Context
from methods.core.privacy.grant import Grant
from methods.core.privacy.ledger import BudgetExhausted, Ledger
from methods.core.privacy.noise import NoiseSource
from methods.core.privacy.private_data import PrivateData
from methods.core.release import Budget, PublicSpec
from methods.core.rng import named_rng
from methods.dp_ntk import DPNTK
from workflow.common.errors import UserError

FREE = Budget(math.inf, 1e-5, "none")
CPU = torch.device("cpu")
SMALL = (1, 12, 8)
# The output bias's gradient, the same for all images, against what the layers' gradients have together.
COUNT, LAYERS = math.sqrt(0.05), math.sqrt(0.95)


def spec(count: int, shape: tuple[int, int, int] = SMALL, classes: int = 3) -> PublicSpec:
    return PublicSpec("toy", shape, classes, count)


def records(count: int, shape: tuple[int, int, int] = SMALL, classes: int = 3) -> tuple[torch.Tensor, torch.Tensor]:
    rng = named_rng(0, "records")
    images = torch.randint(256, (count, *shape), generator=rng).to(torch.uint8)
    return images, torch.randint(classes, (count,), generator=rng)


def build(public: PublicSpec, budget: Budget = FREE, seed: int = 0, **overrides: object) -> DPNTK:
    hp = registry.hyper("dp_ntk", {"width": 16, "channels": 4, "hidden": 8, **overrides})
    return DPNTK(hp, Context(public, DPNTK.plan(hp, public, budget), seed, CPU))


def target(public: PublicSpec, data: tuple[torch.Tensor, ...], folder: Path, budget: Budget = FREE) -> torch.Tensor:
    """The released embedding [classes, numbers of a feature] of a run on `data`."""
    method = build(public, budget)
    with Ledger.open(folder / "ledger.jsonl", method.context.releases, budget, noise_key=b"5") as ledger:
        method.prepare(PrivateData(*data), ledger)
    return method.private_state()["target"]


def by_autograd(network: dp_ntk._Network, flat: torch.Tensor) -> torch.Tensor:
    """Returns each image's gradient of the network's output by PyTorch's layers, scaled to norm 1; [B, numbers - 1]."""
    first = nn.Linear(flat.shape[1] + 1, network._first.shape[1], bias=False)
    norm, second = nn.LayerNorm(network._first.shape[1], elementwise_affine=False), nn.Linear(len(network._second), 1)
    with torch.no_grad():
        first.weight.copy_(network._first.T)
        second.weight.copy_(network._second[None])
    rows = []
    for image in flat:
        output = second(norm(first(torch.cat([image, torch.tensor([network._bias])])).relu()))
        one, other = torch.autograd.grad(output, (first.weight, second.weight))
        rows.append(torch.cat([one.T.flatten(), other.flatten()]))
    return nn.functional.normalize(torch.stack(rows))


def written_out(network: dp_ntk._Network, flat: torch.Tensor) -> torch.Tensor:
    """Returns the method's features as rows [B, numbers]."""
    features, rows = network.features(flat), torch.zeros(len(flat), network.numbers)
    for index, row in enumerate(rows):
        features.of(torch.arange(len(flat)) == index).add_to(row)
    return rows


def adversarial() -> torch.Tensor:
    """Returns images in [0, 1], [B, 96], at which a norm might be lost: black, white, one pixel, halves, noise."""
    black, pixel, half = torch.zeros(96), torch.zeros(96), torch.zeros(96)
    pixel[0], half[:48] = 1, 1
    noise = torch.rand(20, 96, generator=named_rng(3, "noise"))
    return torch.cat([torch.stack([black, black + 1, black + 1 / 255, pixel, 1 - pixel, half, 1 - half]), noise])


def test_features_are_the_records_gradients_of_the_network() -> None:
    network = dp_ntk._Network(96, 40, named_rng(1, "network"), CPU)
    rows, wanted = written_out(network, adversarial()), by_autograd(network, adversarial())
    assert network.numbers == 97 * 40 + 40 + 1
    torch.testing.assert_close(rows[:, :-1], LAYERS * wanted, rtol=1e-3, atol=5e-5)
    torch.testing.assert_close(rows[:, -1], torch.full((len(rows),), COUNT), rtol=1e-4, atol=0)


@pytest.mark.parametrize("width", [1, 2, 7, 40, 200])
def test_no_feature_is_longer_than_one_and_none_shorter_but_where_all_units_rest(width: int) -> None:
    network = dp_ntk._Network(96, width, named_rng(1, "network"), CPU)
    lengths = written_out(network, adversarial()).double().norm(dim=1)
    assert float(lengths.max()) <= 1
    assert width < 40 or float(lengths.min()) > 1 - 1e-4


def test_products_of_features_need_none_written_out() -> None:
    network = dp_ntk._Network(96, 30, named_rng(1, "network"), CPU)
    flat = torch.rand(6, 96, generator=named_rng(2, "flat"))
    rows = written_out(network, flat).view(2, 3, -1)
    aims = torch.randn(2, network.numbers, generator=named_rng(2, "aims"))
    features = network.features(flat).by_class(2)
    torch.testing.assert_close(features.products(), rows @ rows.mT, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(features.along(aims), (rows @ aims[:, :, None])[..., 0], rtol=1e-4, atol=1e-4)


def test_gradients_reach_the_images_through_the_whole_feature() -> None:
    network = dp_ntk._Network(20, 9, named_rng(1, "network"), CPU)
    network._first, network._second = network._first.double(), network._second.double()
    images = torch.rand(4, 20, dtype=torch.float64, generator=named_rng(2, "flat")).requires_grad_()
    aims = torch.randn(2, network.numbers, dtype=torch.float64, generator=named_rng(2, "aims"))
    assert torch.autograd.gradcheck(lambda flat: network.features(flat).by_class(2).along(aims), images)
    assert torch.autograd.gradcheck(lambda flat: network.features(flat).by_class(2).products(), images)


def test_the_embedding_is_the_mean_of_features_by_class_over_all_records(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(dp_ntk, "_RECORDS", 30)
    images, labels = records(100)
    rows = written_out(build(spec(100))._network, images.flatten(1).float() / 255)
    wanted = torch.stack([rows[labels == label].sum(0) / 100 for label in range(3)])
    torch.testing.assert_close(target(spec(100), (images, labels), tmp_path), wanted, rtol=1e-4, atol=1e-6)


def test_no_replaced_record_moves_the_sum_by_more_than_the_sensitivity(tmp_path: Path) -> None:
    (release,) = DPNTK.plan(registry.hyper("dp_ntk", {}), spec(40), Budget(1.0, 1e-5, "sound"))
    images, labels = records(40)
    worst, others = 0.0, (255 * adversarial()[:8]).round().to(torch.uint8).view(-1, *SMALL)
    before = target(spec(40), (images, labels), tmp_path / "before")
    for number, other in enumerate([*others, images[0]]):
        changed, relabelled = images.clone(), labels.clone()
        changed[0], relabelled[0] = other, (labels[0] + number % 2) % 3
        after = target(spec(40), (changed, relabelled), tmp_path / str(number))
        worst = max(worst, float((after - before).norm()) * 40)
    # Two features of two classes are a right angle apart.
    assert worst == pytest.approx(math.sqrt(2), rel=1e-3)
    assert worst <= release.sensitivity == 2


def test_a_millionth_record_moves_the_sum_by_what_it_is_and_no_rounding_more(monkeypatch) -> None:
    monkeypatch.setattr(dp_ntk, "_RECORDS", 50_000)
    public, image = spec(1_000_000, (1, 4, 4), 2), (255 * torch.arange(16) // 15).view(1, 1, 4, 4).to(torch.uint8)
    method, labels, sums = build(public), torch.zeros(1_000_000, dtype=torch.int64), []
    for other in (image, 255 - image):
        images = image.repeat(1_000_000, 1, 1, 1)
        images[:1] = other
        data = PrivateData(images, labels)
        sums.append(method._embedding(data, Grant(None, NoiseSource(b"1"), 1)).double())
    one, other = written_out(method._network, torch.cat([image, 255 - image]).flatten(1) / 255).double()
    assert float((sums[1] - sums[0]).norm()) == pytest.approx(float((other - one).norm()), abs=2e-5)


def test_noise_is_the_plans_scale_over_the_records(tmp_path: Path) -> None:
    data, budget = records(200), Budget(1.0, 1e-5, "sound")
    noise = target(spec(200), data, tmp_path / "a", budget) - target(spec(200), data, tmp_path / "b")
    # 3.7306: the exact Gaussian multiplier of epsilon 1 at delta 1e-5.
    assert float(noise.std()) == pytest.approx(2 * 3.7306 / 200, rel=0.08)


@pytest.mark.parametrize(("eps", "sigma"), [(10.0, 0.49989), (1.0, 3.73063)])
def test_plan_is_one_release_at_the_exact_gaussian_noise(eps: float, sigma: float) -> None:
    (release,) = DPNTK.plan(registry.hyper("dp_ntk", {}), spec(60000), Budget(eps, 1e-5, "sound"))
    assert (release.max_uses, release.sampling, release.rate, release.clip) == (1, "all", 1.0, 1.0)
    assert (release.kind, release.bounded, release.rows) == ("gaussian", "sum", 60000)
    assert release.noise == pytest.approx(sigma, rel=2e-3)
    assert epsilon((release,), 1e-5, "sound") <= eps


def test_the_data_are_read_once(tmp_path: Path) -> None:
    method, data = build(spec(20)), PrivateData(*records(20))
    with Ledger.open(tmp_path / "ledger.jsonl", method.context.releases, FREE) as ledger:
        method.prepare(data, ledger)
        method.step(0, data, ledger)
        with pytest.raises(BudgetExhausted):
            method.prepare(data, ledger)


def test_the_network_is_a_function_of_the_seed_alone() -> None:
    one, same, other = (build(spec(count), seed=seed)._network for count, seed in ((20, 0), (30, 0), (20, 1)))
    assert torch.equal(one._first, same._first) and torch.equal(one._second, same._second)
    assert not torch.equal(one._first, other._first)


def test_the_loss_is_the_squared_distance_of_the_means_weighted_by_the_classes_masses(tmp_path: Path) -> None:
    """Up to what images do not change: |released mean|^2, and each image's product with itself."""
    images, labels = records(60)
    labels[:40] = 0
    public = spec(60)
    method = build(public)
    method._target = target(public, (images, labels), tmp_path)
    mass = torch.bincount(labels, minlength=3) / 60
    for classes in (torch.arange(3), torch.tensor([0, 2])):
        fakes = torch.rand(len(classes) * 4, *SMALL, generator=named_rng(1, "fakes"))
        rows = written_out(method._network, fakes.flatten(1)).view(len(classes), 4, -1)
        among = rows @ rows.mT * (1 - torch.eye(4))
        loss = mass[classes] * among.sum((1, 2)) / 12 - 2 * (rows.mean(1) * method._target[classes]).sum(1)
        torch.testing.assert_close(method._distance(fakes, classes), loss.sum(), rtol=1e-3, atol=1e-4)


def test_the_generator_learns_classes_from_the_embedding(tmp_path: Path) -> None:
    labels = torch.arange(400) % 2
    images = torch.zeros(400, 1, 28, 28, dtype=torch.uint8)
    images[labels == 0, :, :14], images[labels == 1, :, 14:] = 255, 255
    public, budget = spec(400, (1, 28, 28), 2), Budget(10.0, 1e-5, "sound")
    method = build(public, budget, width=64, steps=120, batch_size=40, hidden=32)
    data = PrivateData(images, labels)
    with Ledger.open(tmp_path / "ledger.jsonl", method.context.releases, budget) as ledger:
        method.prepare(data, ledger)
        for t in range(method.num_steps):
            method.step(t, data, ledger)
    upper, lower = method.sample(torch.tensor([0] * 20 + [1] * 20), named_rng(0, "s")).float().mean((1, 3)).split(20)
    for bright, dark in ((upper[:, :14], upper[:, 14:]), (lower[:, 14:], lower[:, :14])):
        assert float(bright.mean()) > 3 * float(dark.mean())


def test_the_learning_rate_falls_geometrically_to_its_end() -> None:
    method = build(spec(20), steps=4, learning_rate=0.04, learning_rate_end=0.01)
    method._target, rates = torch.zeros(3, method._network.numbers), []
    for t in (0, 2, 4):
        method.step(t, None, None)
        rates.append(method._optimizer.param_groups[0]["lr"])
    assert rates == pytest.approx([0.04, 0.02, 0.01])


@pytest.mark.parametrize(("classes", "batch", "shown", "each"), [(10, 100, 10, 10), (100, 40, 10, 4), (10, 3, 1, 3)])
def test_a_step_shows_as_many_images_of_each_class_it_shows(
    classes: int, batch: int, shown: int, each: int, tmp_path: Path
) -> None:
    method, seen = build(spec(20, classes=classes), batch_size=batch), []
    method._target = torch.zeros(classes, method._network.numbers)
    method._generator.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1].argmax(1)))
    method.step(0, None, None)
    found, counts = seen[0].unique(return_counts=True)
    assert len(found) == shown and counts.tolist() == [each] * shown


@pytest.mark.parametrize(
    ("shape", "classes", "width"), [((1, 28, 28), 10, 800), ((3, 32, 32), 10, 800), ((3, 64, 64), 100, 27)]
)
def test_the_embedding_of_many_classes_of_large_images_stays_within_memory(shape, classes: int, width: int) -> None:
    network = build(spec(10, shape, classes), width=800)._network
    assert network._first.shape[1] == width
    assert classes * network.numbers <= 2**25 + classes


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"width": 0}, "width must be 1 to 16384, got 0"),
        ({"batch_size": 1}, "batch_size must be 2 to 16384, got 1"),
        ({"learning_rate_end": 0.0}, "learning_rate_end must be 1e-09 to 10, got 0"),
    ],
)
def test_a_setting_out_of_range_is_refused(overrides: dict[str, float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(spec(10), **overrides)


def test_an_image_size_that_no_doubling_reaches_is_refused_before_any_charge() -> None:
    with pytest.raises(UserError, match="multiples of 4"):
        build(spec(10, (1, 10, 16)))
