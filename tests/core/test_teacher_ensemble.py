"""Stacked teachers: each is a function of its own records, trains as it would alone, and in chunks of any size."""

from __future__ import annotations

import copy
import math
import threading
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from methods.core.accounting import data_dependent
from methods.core.partition import partition
from methods.core.privacy.ledger import Ledger
from methods.core.privacy.private_data import PrivateData
from methods.core.release import Budget
from methods.core.rng import named_rng, seeded
from methods.core.speed.choices import CHOICES
from methods.core.teachers import ensemble
from methods.core.teachers.ensemble import Teachers
from methods.core.teachers.kept_weights import rounding_noise, stochastically_rounded
from methods.core.teachers.nets import DISCRIMINATORS, ConvDiscriminator, Generator

SHAPE, CLASSES, RECORDS, TEACHERS, BATCH = (1, 28, 28), 10, 20, 5, 3
PARTS = partition(RECORDS, TEACHERS, 0)
STACKS = ("weights", "first", "second")
# Six teachers of two slots.
SLOTS, SHARED_PARTS = 2, partition(RECORDS, 6, 0)


def raw(changed: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    rng = named_rng(0, "records")
    images = torch.randint(256, (RECORDS, *SHAPE), generator=rng).to(torch.uint8)
    labels = torch.randint(CLASSES, (RECORDS,), generator=rng)
    if changed is not None:
        images[changed], labels[changed] = 255 - images[changed], (labels[changed] + 1) % CLASSES
    return images, labels


def records(changed: int | None = None) -> PrivateData:
    return PrivateData(*raw(changed))


def network(kind: str) -> torch.nn.Module:
    return DISCRIMINATORS[kind](SHAPE, CLASSES, hidden=6, channels=4)


def teachers(kind: str, chunk: int | None = None, parts: torch.Tensor = PARTS, **options) -> Teachers:
    return Teachers(lambda: network(kind), parts, CLASSES, 1e-2, 0, torch.device("cpu"), chunk=chunk, **options)


def public_batch(number: int) -> tuple[torch.Tensor, torch.Tensor]:
    rng = named_rng(number, "fakes")
    labels = torch.randint(CLASSES, (4,), generator=rng)
    return torch.rand(4, *SHAPE, generator=rng), F.one_hot(labels, CLASSES).float()


def train(made: Teachers, data: PrivateData, folder: Path, steps: int = 3) -> Teachers:
    path = folder / f"{len(list(folder.iterdir()))}.jsonl"
    with Ledger.open(path, (), Budget(math.inf, 1e-5, "none")) as ledger:
        for i in range(steps):
            with ledger.internal("teacher training") as grant:
                made.train(data, [grant], [public_batch(i)], BATCH)
    return made


@pytest.mark.parametrize("kept", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", sorted(DISCRIMINATORS))
def test_a_record_moves_its_own_teacher_and_no_other(kind: str, kept: str, tmp_path: Path) -> None:
    record = 7
    ((owner,),) = [(record == PARTS).any(dim=1).nonzero().flatten().tolist()]
    others = [i for i in range(TEACHERS) if i != owner]
    one, other = (train(teachers(kind, kept=kept), records(changed), tmp_path).state() for changed in (None, record))
    for part in ("weights", "first", "second"):
        pairs = [(one[part][name], other[part][name]) for name in one[part]]
        assert all(torch.equal(a[others], b[others]) for a, b in pairs)
        assert any(not torch.equal(a[owner], b[owner]) for a, b in pairs)


def test_each_record_has_at_most_one_teacher_and_each_is_read(tmp_path: Path) -> None:
    seen: list[int] = []

    class Recorder:
        def read(self, grant, index):
            seen.extend(index.flatten().tolist())
            return records().read(grant, index)

    train(teachers("mlp"), Recorder(), tmp_path, steps=4)
    # Four steps of three go three times round a part of four.
    assert sorted(seen) == sorted(PARTS.flatten().tolist() * 3)
    assert len(set(PARTS.flatten().tolist())) == PARTS.numel()


# Of batch norm's gradients too many are near zero, of which Adam makes whole steps: see the gradients below.
@pytest.mark.parametrize("kind", sorted(set(DISCRIMINATORS) - {"conv_norm"}))
@pytest.mark.parametrize("chunk", [1, 2, 5, None])
def test_stacked_training_equals_one_by_one(kind: str, chunk: int | None, tmp_path: Path) -> None:
    stacked = teachers(kind, chunk)
    start = copy.deepcopy(stacked.state()["weights"])
    train(stacked, records(), tmp_path)
    for teacher in range(TEACHERS):
        alone = trained_alone(kind, {name: value[teacher] for name, value in start.items()}, teacher)
        for name, value in alone.items():
            torch.testing.assert_close(stacked.state()["weights"][name][teacher], value, atol=2e-4, rtol=1e-3)


def trained_alone(kind: str, start: dict, teacher: int) -> dict[str, torch.Tensor]:
    net = network(kind)
    net.load_state_dict(start)
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-2, betas=(0.5, 0.999))
    for i in range(3):
        descend(net, optimizer, PARTS[teacher], i)
    return net.state_dict()


def descend(net: torch.nn.Module, optimizer: torch.optim.Adam, part: torch.Tensor, step: int) -> None:
    """One step of one network alone, on the next records of its part and public batch number `step`."""
    images, labels = (values[part[(torch.arange(BATCH) + step * BATCH) % len(part)]] for values in raw())
    real, fake = net(images.float() / 255, F.one_hot(labels, CLASSES).float()), net(*public_batch(step))
    optimizer.zero_grad()
    (F.softplus(-real).mean() + F.softplus(fake).mean()).backward()
    optimizer.step()


@pytest.mark.parametrize("kind", sorted(DISCRIMINATORS))
@pytest.mark.parametrize("chunk", [1, 2, None])
def test_image_gradients_are_each_teachers_own(kind: str, chunk: int | None) -> None:
    stacked, (images, labels) = teachers(kind, chunk), public_batch(0)
    lent = torch.cat(list(stacked.gradients(images, labels)))
    assert stacked.logits(images, labels).shape == (TEACHERS, len(images))
    for teacher in range(TEACHERS):
        net = network(kind)
        net.load_state_dict({name: value[teacher] for name, value in stacked.state()["weights"].items()})
        own = images.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(F.softplus(-net(own, labels)).mean(), own)
        torch.testing.assert_close(lent[teacher], -gradient.flatten(1), atol=1e-6, rtol=1e-4)
        torch.testing.assert_close(stacked.logits(images, labels)[teacher], net(images, labels), atol=1e-5, rtol=1e-4)


def test_teachers_start_apart_and_from_the_seed() -> None:
    one, again = teachers("mlp").state()["weights"], teachers("mlp").state()["weights"]
    assert all(torch.equal(one[name], again[name]) for name in one)
    weight = one["hidden.weight"]
    assert not torch.equal(weight[0], weight[1])
    assert float(weight.std()) == pytest.approx(0.02, rel=0.05)


def test_the_generator_makes_each_image_from_its_own_inputs() -> None:
    for shape, classes in ((SHAPE, CLASSES), ((3, 32, 32), 2)):
        with seeded(0, "generator"):
            generator = Generator(shape, classes, width=4, latent=3)
        latents, labels = torch.rand(6, 3), F.one_hot(torch.arange(6) % classes, classes).float()
        assert generator(latents, labels).shape == (6, *shape)
        generator.eval()
        whole = generator(latents, labels)
        torch.testing.assert_close(whole[:2], generator(latents[:2], labels[:2]))
        assert whole.min() >= 0 and whole.max() <= 1


@pytest.mark.parametrize("kind", sorted(DISCRIMINATORS))
@pytest.mark.parametrize("batched", [True, False])
def test_gradients_of_weights_are_those_of_each_network_alone(kind: str, batched: bool) -> None:
    made, rng = teachers(kind), named_rng(4, "batch")
    # Far from zero, where all units work; the two halves of a step are of different sizes.
    weights = {name: torch.randn(value.shape, generator=rng) / 5 for name, value in made.state()["weights"].items()}
    reals = torch.rand(TEACHERS, BATCH, *SHAPE, generator=rng)
    classes = F.one_hot(torch.randint(CLASSES, (TEACHERS, BATCH), generator=rng), CLASSES).float()
    fakes = public_batch(0)
    with CHOICES.changed(batched_teachers=batched):
        batches = made._prepared((reals, classes)), made._prepared(fakes)
        found = dict(zip(weights, made._descent(weights, *batches), strict=True))
    for teacher in range(TEACHERS):
        net = network(kind)
        net.load_state_dict({name: value[teacher] for name, value in weights.items()})
        loss = F.softplus(-net(reals[teacher], classes[teacher])).mean() + F.softplus(net(*fakes)).mean()
        loss.backward()
        for name, parameter in net.named_parameters():
            assert (found[name][teacher] - parameter.grad).norm() <= 1e-4 * parameter.grad.norm()


@pytest.mark.parametrize("kind", sorted(DISCRIMINATORS))
@pytest.mark.parametrize("batched", [True, False])
def test_products_in_sixteen_bits_change_gradients_by_their_rounding_alone(kind: str, batched: bool) -> None:
    made, half = (teachers(kind, precision=precision) for precision in ("fp32", "bf16"))
    rng, fakes = named_rng(5, "batch"), public_batch(0)
    weights = {name: torch.randn(value.shape, generator=rng) / 5 for name, value in made.state()["weights"].items()}
    reals = torch.rand(TEACHERS, BATCH, *SHAPE, generator=rng)
    classes = F.one_hot(torch.randint(CLASSES, (TEACHERS, BATCH), generator=rng), CLASSES).float()
    with CHOICES.changed(batched_teachers=batched):
        pairs = [one._descent(weights, one._prepared((reals, classes)), one._prepared(fakes)) for one in (made, half)]
        for one in (made, half):
            one.load(one.state() | {"weights": weights})
        votes = [torch.cat(list(one.gradients(*fakes))) for one in (made, half)]
    for whole, rounded in [*zip(*pairs, strict=True), votes]:
        assert rounded.dtype == torch.float32
        # Eight bits of a number remain, and units near zero may change their slope; norms of three images add to it.
        assert 0 < (rounded - whole).norm() <= 0.15 * whole.norm()


def test_weights_keep_what_products_in_sixteen_bits_would_lose(tmp_path: Path) -> None:
    made = train(teachers("conv_norm", precision="bf16"), records(), tmp_path, steps=1)
    weights = made.state()["weights"]["third.weight"]
    assert weights.dtype == torch.float32 and (weights != weights.bfloat16()).any()


def test_two_threads_never_call_one_module_which_would_mix_their_teachers(monkeypatch: pytest.MonkeyPatch) -> None:
    made, used = teachers("mlp"), []
    call = ensemble.functional_call
    monkeypatch.setattr(ensemble, "functional_call", lambda net, *rest: used.append(net) or call(net, *rest))
    for _ in range(2):
        thread = threading.Thread(target=made.logits, args=public_batch(0))
        thread.start()
        thread.join()
    made.logits(*public_batch(0))
    made.logits(*public_batch(0))
    first, second, *here = used
    assert first is not second and first is not here[0] is not second and here[0] is here[-1]


@pytest.mark.parametrize("slots", [None, SLOTS])
@pytest.mark.parametrize("kept", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", ["conv_norm", "mlp"])
def test_stacks_side_by_side_on_threads_are_stacks_in_turn(
    kind: str, kept: str, slots: int | None, tmp_path: Path
) -> None:
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            made = teachers(kind, 1, SHARED_PARTS, kept=kept, slots=slots)
            with CHOICES.changed(threads=threads > 1):
                train(made, records(), tmp_path, steps=2)
                found.append((made.state(), torch.cat(list(made.gradients(*public_batch(9))))))
    finally:
        torch.set_num_threads(before)
    (one, votes), (other, same) = found
    assert torch.equal(votes, same) and one["steps"] == other["steps"]
    for part in STACKS:
        assert all(torch.equal(value, other[part][name]) for name, value in one[part].items())


def test_a_choice_decides_whether_products_are_batched(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, whole = [], ConvDiscriminator.stacked.__func__
    monkeypatch.setattr(ConvDiscriminator, "stacked", classmethod(lambda *given: calls.append(1) or whole(*given)))
    for kind, batched, expected in (("conv_norm", True, 1), ("conv_norm", False, 0), ("mlp", True, 0)):
        calls.clear()
        with CHOICES.changed(batched_teachers=batched):
            teachers(kind).logits(*public_batch(0))
        assert len(calls) == expected


def test_batch_norm_is_of_the_batch_at_hand_and_keeps_nothing() -> None:
    net, (images, labels) = network("conv_norm"), public_batch(0)
    assert not list(net.buffers())
    seen = []
    net.fourth.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    with torch.no_grad():
        net.third_factor.fill_(1.0), net.third_offset.fill_(-3.0)
        net(images, labels)
    # Before the leaky unit: mean -3 and deviation 2 over the four images, of each unit.
    units = torch.where(seen[0] < 0, seen[0] / 0.2, seen[0])[:, :6]
    torch.testing.assert_close(units.mean(0), torch.full((6,), -3.0), atol=1e-4, rtol=0)
    assert (units.std(0, correction=0) - 2).abs().max() < 0.1


@pytest.mark.parametrize("kept", ["fp32", "bf16"])
def test_steps_of_one_call_are_steps_of_several_but_for_rounding(kept: str, tmp_path: Path) -> None:
    together, apart = (teachers("mlp", kept=kept) for _ in range(2))
    with Ledger.open(tmp_path / "ledger.jsonl", (), Budget(math.inf, 1e-5, "none")) as ledger:
        with ledger.internal("teacher training") as one, ledger.internal("teacher training") as other:
            together.train(records(), [one, other], [public_batch(0), public_batch(1)], BATCH)
        for i in range(2):
            with ledger.internal("teacher training") as grant:
                apart.train(records(), [grant], [public_batch(i)], BATCH)
    for name, value in together.state()["weights"].items():
        near = {"atol": 0, "rtol": 0} if kept == "fp32" else {"atol": 2e-3, "rtol": 2**-6}
        torch.testing.assert_close(value, apart.state()["weights"][name], **near)
    assert together.state()["steps"] == apart.state()["steps"] == 2


# ---------------------------------------------------------------- half of the memory


def test_sixteen_bits_hold_what_thirty_two_would_but_for_one_rounding(tmp_path: Path) -> None:
    half = teachers("conv_norm", kept="bf16")
    start = half.state()
    whole = teachers(
        "conv_norm",
        state={
            **{part: {name: value.float() for name, value in start[part].items()} for part in STACKS}, "steps": 0,
        },
    )  # fmt: skip
    assert whole.nbytes == 2 * half.nbytes
    train(half, records(), tmp_path, steps=1), train(whole, records(), tmp_path, steps=1)
    for part in STACKS:
        for name, value in whole.state()[part].items():
            kept = half.state()[part][name]
            assert kept.dtype == torch.bfloat16
            assert ((kept.float() - value).abs() <= 2**-7 * value.abs()).all()
        # Weights and second moments go to either neighbour, the first ones to the nearer.
        pairs = [(half.state()[part][name], value.bfloat16()) for name, value in whole.state()[part].items()]
        assert all(torch.equal(*pair) for pair in pairs) == (part == "first")


def test_rounding_is_unbiased_and_off_by_less_than_one_unit() -> None:
    rng = named_rng(0, "values")
    values = torch.cat([torch.randn(60, generator=rng), torch.tensor([0.0, -2.0, 1e-30, 3e38, -1e-6])])
    noise = torch.randint(2**16, (40_000, 1), generator=rng, dtype=torch.int32)
    rounded = stochastically_rounded(values.expand(len(noise), -1), noise.expand(-1, len(values))).double()
    units = (values.double().abs() * 2**-7).clamp_min(1e-38)
    assert ((rounded - values.double()).abs() < units).all()
    # Five standard errors of 40,000 draws between two neighbours.
    assert ((rounded.mean(0) - values.double()).abs() <= units * 5 * 0.5 / 200).all()
    assert (rounded[:, -5:-3] == values[-5:-3].double()).all()


def test_small_updates_are_not_lost_as_they_are_to_the_nearest() -> None:
    stochastic = nearest = torch.ones(1000, dtype=torch.bfloat16)
    for step in range(200):
        noise = rounding_noise({"w": torch.Size([1000])}, range(1), torch.device("cpu"), 0, step)["w"][0]
        stochastic = stochastically_rounded(stochastic.float() + 1e-3, noise)
        nearest = (nearest.float() + 1e-3).bfloat16()
    assert (nearest == 1).all()
    assert float(stochastic.float().mean()) == pytest.approx(1.2, abs=0.01)


def test_rounding_noise_is_even_and_each_teachers_own_whoever_else_is_in_work() -> None:
    shapes = {"a": torch.Size([50, 3]), "b": torch.Size([7])}
    noise = rounding_noise(shapes, range(6), torch.device("cpu"), 0, "weights", 2)
    assert noise["a"].shape == (6, 50, 3) and noise["b"].shape == (6, 7)
    every = torch.cat([value.flatten() for value in noise.values()]).double()
    assert every.min() >= 0 and every.max() < 2**16
    assert float(every.mean()) / 2**16 == pytest.approx(0.5, abs=0.04)
    assert torch.equal(rounding_noise(shapes, range(2, 4), torch.device("cpu"), 0, "weights", 2)["a"], noise["a"][2:4])
    assert len(noise["b"].unique(dim=0)) == 6
    other = rounding_noise(shapes, range(6), torch.device("cpu"), 0, "weights", 3)
    assert not torch.equal(other["a"], noise["a"])


def test_teachers_round_anew_each_round_weights_and_moments_apart_and_in_chunks_as_all_at_once(tmp_path: Path) -> None:
    def noise(made: Teachers, part: slice, kind: str) -> torch.Tensor:
        return made._noise(made._weights, part, kind)["hidden.weight"]

    made = teachers("mlp", kept="bf16")
    weights, moments = (noise(made, slice(0, len(made)), kind) for kind in ("weights", "second"))
    assert not torch.equal(weights, moments)
    train(made, records(), tmp_path, steps=1)
    assert not torch.equal(weights, noise(made, slice(0, len(made)), "weights"))
    one_by_one = train(teachers("mlp", 1, kept="bf16"), records(), tmp_path, steps=1)
    # Products of another number of teachers differ in their last bits, and few values lie that near to the edge.
    pairs = zip(made.state()["weights"].values(), one_by_one.state()["weights"].values(), strict=True)
    assert min(float((a == b).float().mean()) for a, b in pairs) > 0.98


def test_sixteen_bits_continue_as_if_nothing_had_happened(tmp_path: Path) -> None:
    straight = train(teachers("mlp", kept="bf16"), records(), tmp_path, steps=2)
    stored = copy.deepcopy(straight.state())
    train(straight, records(), tmp_path, steps=2)
    continued = train(teachers("mlp", kept="bf16", state=stored), records(), tmp_path, steps=2)
    assert continued.state()["steps"] == 4
    for part in STACKS:
        assert all(torch.equal(value, continued.state()[part][name]) for name, value in straight.state()[part].items())


# ---------------------------------------------------------------- shared moments

def test_with_slots_a_record_moves_the_teachers_of_its_slot_and_no_other(tmp_path: Path) -> None:
    record = int(SHARED_PARTS[2, 1])
    one, other = (
        train(teachers("mlp", parts=SHARED_PARTS, slots=SLOTS), records(changed), tmp_path).state()
        for changed in (None, record)
    )
    moved = (one["weights"]["hidden.weight"] != other["weights"]["hidden.weight"]).flatten(1).any(1)
    # Not its own teacher alone, whose row is what the authors count: that is what is wrong with it.
    assert moved.tolist() == [True, False, True, False, True, False]
    assert len(one["first"]["hidden.weight"]) == len(one["second"]["hidden.weight"]) == SLOTS


@pytest.mark.parametrize("chunk", [1, 2, None])
def test_with_slots_teachers_pass_one_optimiser_on(chunk: int | None, tmp_path: Path) -> None:
    made = teachers("mlp", parts=SHARED_PARTS, slots=SLOTS, chunk=chunk)
    start = copy.deepcopy(made.state()["weights"])
    assert all(torch.equal(value[:SLOTS], value[2 * SLOTS :]) for value in start.values())
    assert not torch.equal(start["hidden.weight"][0], start["hidden.weight"][1])
    rounds = [(0, 1), (2, 3)]
    with Ledger.open(tmp_path / "ledger.jsonl", (), Budget(math.inf, 1e-5, "none")) as ledger:
        for steps in rounds:
            with ledger.internal("x") as one, ledger.internal("x") as other:
                made.train(records(), [one, other], [public_batch(step) for step in steps], BATCH)
    for slot in range(SLOTS):
        # One network of a graph, with one optimiser: all that is put back for the next teacher are its weights.
        net, kept = network("mlp"), {i: {k: v[i] for k, v in start.items()} for i in range(slot, 6, SLOTS)}
        optimizer = torch.optim.Adam(net.parameters(), lr=1e-2, betas=(0.5, 0.999))
        for steps in rounds:
            for teacher, weights in kept.items():
                net.load_state_dict(weights)
                for step in steps:
                    descend(net, optimizer, SHARED_PARTS[teacher], step)
                kept[teacher] = copy.deepcopy(net.state_dict())
        for teacher, weights in kept.items():
            for name, value in weights.items():
                torch.testing.assert_close(made.state()["weights"][name][teacher], value, atol=2e-4, rtol=1e-3)


# ---------------------------------------------------------------- the data-dependent bound


def test_the_bound_is_never_negative_and_never_above_the_worst_case() -> None:
    for noise in (0.3, 2.0, 20.0, 500.0):
        for log_q in [-math.inf, -1e5, -300.0, -20.0, -5.0, -2.0, -0.7, -1e-9, 0.0, 1.0]:
            for cost, worst in (
                (data_dependent.laplace_cost, data_dependent.laplace_rdp),
                (data_dependent.gaussian_cost, data_dependent.gaussian_rdp),
            ):
                each = cost(torch.tensor([log_q]), noise)
                assert torch.isfinite(each).all()
                assert (each >= 0).all() and (each <= worst(noise)).all()
                torch.testing.assert_close(cost(torch.full((3,), log_q), noise), 3 * each)


def test_a_sure_vote_is_cheap_and_a_close_one_costs_the_worst_case() -> None:
    sure, close = torch.tensor([-200.0]), torch.tensor([math.log(0.5)])
    some = data_dependent.ORDERS.sub(8).abs().argmin()
    for cost, worst in (
        (data_dependent.laplace_cost, data_dependent.laplace_rdp),
        (data_dependent.gaussian_cost, data_dependent.gaussian_rdp),
    ):
        assert cost(sure, 5.0)[some] < 1e-3 * worst(5.0)[some]
        assert torch.equal(cost(close, 5.0), worst(5.0))


def test_the_bounds_agree_with_a_calculation_by_hand() -> None:
    order = int((data_dependent.ORDERS == 4).nonzero())
    # Laplace, eps0 = 1/4, q = 1e-3: log((1 - q) ((1 - q) / (1 - e^eps0 q))^3 + q e^(3 eps0)) / 3.
    q, eps0 = 1e-3, 0.25
    by_hand = math.log((1 - q) * ((1 - q) / (1 - math.exp(eps0) * q)) ** 3 + q * math.exp(3 * eps0)) / 3
    assert float(data_dependent.laplace_cost(torch.tensor([math.log(q)]), 4.0)[order]) == pytest.approx(by_hand)
    # Gaussian counts, sigma = 40 (multiplier 40 / sqrt 2), q = 1e-12.
    q, sigma = 1e-12, 40.0
    mu2 = sigma * math.sqrt(-math.log(q))
    mu1 = mu2 + 1
    eps1, eps2 = mu1 / sigma**2, mu2 / sigma**2
    a = (1 - q) / (1 - (q * math.exp(eps2)) ** ((mu2 - 1) / mu2))
    b = math.exp(eps1) / q ** (1 / (mu1 - 1))
    by_hand = math.log((1 - q) * a**3 + q * b**3) / 3
    cost = data_dependent.gaussian_cost(torch.tensor([math.log(q)]), sigma / math.sqrt(2))
    assert float(cost[order]) == pytest.approx(by_hand, rel=1e-4, abs=1e-15)


def test_doubt_bounds_the_chance_of_another_answer() -> None:
    rng = torch.Generator().manual_seed(0)
    cases = (
        ([60.0, 30.0, 10.0], 50.0),
        ([60.0, 30.0, 10.0], -90.0),
        ([40.0, 35.0, 25.0], 90.0),
        ([55.0, 45.0, 0.0], 50.0),
    )
    for counts, threshold in cases:
        noisy = torch.tensor(counts) + 12 * torch.randn(100_000, 3, generator=rng)
        top, winner = noisy.max(dim=1)
        answers = torch.where(top >= threshold, winner, 3)
        chance = 1 - float(answers.bincount(minlength=4).max()) / len(answers)
        doubt = math.exp(float(data_dependent.log_doubt_of_winner(torch.tensor([counts]), 12.0, threshold)))
        assert chance <= doubt * 1.02 + 0.002
        assert doubt <= 2.5 * chance + 0.01
    noisy = 3 + 4 * torch.distributions.Laplace(0.0, 1.0).sample((100_000,))
    doubt = math.exp(float(data_dependent.log_doubt_of_sign(torch.tensor([3.0]), 4.0)))
    assert float((noisy < 0).float().mean()) == pytest.approx(doubt, abs=0.01)


def test_the_data_dependent_epsilon_of_the_worst_case_is_that_of_its_accountant() -> None:
    # 1,600 Gaussian answers at multiplier 20: the exact curve (mu = 2) gives 9.997, Renyi DP a little more.
    total = 1600 * data_dependent.gaussian_rdp(20.0)
    assert 8 < data_dependent.epsilon(total, 1e-5) < 12
