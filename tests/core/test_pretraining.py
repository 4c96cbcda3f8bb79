"""The stacked warm start trains each critic as a plain loop over single networks would."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from toys import CPU, TINY_GAN, TOY, toy_records

from methods.core import registry
from methods.core.method import Context
from methods.core.optimisers import adam
from methods.core.partition import partition
from methods.core.privacy.ledger import Ledger
from methods.core.release import NO_BUDGET
from methods.core.rng import named_rng
from methods.core.sharded import pretraining, stacks
from methods.core.sharded.losses import critic_loss, image_gradients
from methods.core.sharded.nets import build_critic, build_generator, draw_latents
from methods.core.speed.threads import Stopped

CONTEXT = Context(TOY, (), 0, CPU)
SETTINGS = TINY_GAN | {"warm_start_steps": 3, "critic_steps": 2, "critic_learning_rate": 0.01}


def open_ledger(folder: Path) -> Ledger:
    folder.mkdir(parents=True, exist_ok=True)
    return Ledger.open(folder / "ledger.jsonl", (), NO_BUDGET)


def one_by_one(hp, shards: torch.Tensor, ledger: Ledger) -> dict[int, dict[str, torch.Tensor]]:
    """Returns each critic of the block `shards` after a loop of modules and torch's own optimisers."""
    rng, data, (count, size) = named_rng(0, "warm start", 0), toy_records(), (len(shards), hp.critic_batch)
    pairs = [(build_critic(hp, CONTEXT), _generator(hp, shard)) for shard in range(count)]
    adams = [tuple(adam(network.parameters(), hp.critic_learning_rate) for network in pair) for pair in pairs]
    for _ in range(hp.warm_start_steps):
        orders = torch.rand(count, hp.critic_steps, shards.shape[1], generator=rng).argsort(2)[..., :size]
        latents = draw_latents(count * hp.critic_steps * size, rng).view(count, hp.critic_steps, size, -1)
        shares = torch.rand(count, hp.critic_steps, size, 1, 1, 1, generator=rng)
        inputs_of = [[] for _ in range(count)]
        for place, (_, generator) in enumerate(pairs):
            with ledger.internal("test") as grant, torch.no_grad():
                batches = [data.read(grant, index) for index in shards[place][orders[place]]]
                labels = torch.cat([labels for _, labels in batches])
                fakes = generator(latents[place].flatten(0, 1), labels).split(size)
            images = [images / 255 for images, _ in batches]
            inputs_of[place] = list(zip(images, fakes, [labels for _, labels in batches], strict=True))
        for update in range(hp.critic_steps):
            for place, (critic, _) in enumerate(pairs):
                real, fake, labels = inputs_of[place][update]
                share = shares[place, update]
                loss = critic_loss(critic, real, fake, labels, share, hp.gradient_penalty, hp.drift, "fp32")
                adams[place][0].zero_grad()
                loss.backward()
                adams[place][0].step()
        classes = torch.randint(10, (count, size), generator=rng)
        latents = draw_latents(count * size, rng).view(count, size, -1)
        for place, (critic, generator) in enumerate(pairs):
            fakes = generator(latents[place], classes[place])
            adams[place][1].zero_grad()
            fakes.backward(image_gradients(critic, fakes, classes[place], "fp32") / size)
            adams[place][1].step()
    return {place: critic.state_dict() for place, (critic, _) in enumerate(pairs)}


def _generator(hp, shard: int) -> torch.nn.Module:
    return build_generator(hp, CONTEXT, hp.warm_start_width, "warm start generator", shard)


@pytest.mark.parametrize("spectral_norm", [False, True])
@pytest.mark.parametrize("generator", ["dcgan", "resnet"])
def test_a_stack_does_what_single_networks_do_one_by_one(tmp_path, generator, spectral_norm):
    hp = registry.hyper("gs_wgan", SETTINGS | {"generator": generator, "spectral_norm": spectral_norm})
    shards = partition(60, 6, 0)
    ledger = open_ledger(tmp_path)
    stacked = pretraining.train(hp, CONTEXT, shards, [range(6)], toy_records(), ledger)
    start = build_critic(hp, CONTEXT).state_dict()
    apart = []
    for shard, state in one_by_one(hp, shards, ledger).items():
        assert stacked.keys() == state.keys()
        ours, straight = (torch.cat([part[name].flatten() for name in start]) for part in (_of(stacked, shard), state))
        moved = (straight - torch.cat([start[name].flatten() for name in start])).norm()
        assert moved > 0.1
        apart.append((ours - straight).norm() / moved)
    # Adam's first steps turn the rounding of a gradient near zero into a whole step: that happens to some shards.
    assert max(apart) < 0.1 and torch.stack(apart).median() < 1e-3


def _of(stacked: dict[str, torch.Tensor], shard: int) -> dict[str, torch.Tensor]:
    return {name: value[shard] for name, value in stacked.items()}


def test_the_size_of_a_stack_changes_no_critic(tmp_path):
    hp = registry.hyper("gs_wgan", SETTINGS | {"spectral_norm": False})
    shards, ledger = partition(60, 6, 0), open_ledger(tmp_path)
    blocks = [range(0, 2), range(2, 3), range(3, 6)]
    together = pretraining.train(hp, CONTEXT, shards, blocks, toy_records(), ledger)
    apart = [pretraining.train(hp, CONTEXT, shards, [block], toy_records(), ledger) for block in blocks]
    for name, value in together.items():
        torch.testing.assert_close(value, torch.cat([part[name] for part in apart]), rtol=1e-3, atol=1e-5)


def test_generators_in_groups_as_a_gpu_takes_them_change_no_critic(tmp_path, monkeypatch):
    hp = registry.hyper("gs_wgan", SETTINGS | {"spectral_norm": False})
    shards, ledger, trained = partition(60, 6, 0), open_ledger(tmp_path), []
    for grouped in (False, True):
        monkeypatch.setitem(stacks._GROUPED, "cpu", grouped)
        trained.append(pretraining.train(hp, CONTEXT, shards, [range(6)], toy_records(), ledger))
    for name, value in trained[0].items():
        torch.testing.assert_close(value, trained[1][name], rtol=1e-3, atol=1e-4)


def test_each_critic_sees_its_own_shard_alone(tmp_path):
    hp = registry.hyper("gs_wgan", SETTINGS | {"spectral_norm": False})
    shards, ledger = partition(60, 6, 0), open_ledger(tmp_path)
    before, after = (
        pretraining.train(hp, CONTEXT, shards, [range(6)], toy_records(changed), ledger)
        for changed in (None, int(shards[4, 0]))
    )
    name = "trunk.4.weight"
    assert [shard for shard in range(6) if not torch.equal(before[name][shard], after[name][shard])] == [4]


def test_the_number_of_threads_changes_no_critic(tmp_path):
    hp = registry.hyper("gs_wgan", SETTINGS | {"num_shards": 20, "critic_batch": 2, "precision": "bf16"})
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            folder = tmp_path / str(threads)
            pretraining.pretrain(hp, CONTEXT, toy_records(), open_ledger(folder), folder)
    finally:
        torch.set_num_threads(before)
    files = sorted(path.name for path in (tmp_path / "1").glob("*.safetensors"))
    assert len(files) > 2
    assert all((tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes() for name in files)


def test_a_stack_that_is_told_to_stop_ends_before_its_next_step(tmp_path):
    hp = registry.hyper("gs_wgan", SETTINGS)
    calls = []

    def go_on() -> None:
        calls.append(None)
        if len(calls) == 2:
            raise Stopped

    with pytest.raises(Stopped):
        pretraining.train(hp, CONTEXT, partition(60, 6, 0), [range(6)], toy_records(), open_ledger(tmp_path), go_on)
