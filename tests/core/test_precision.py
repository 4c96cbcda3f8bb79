"""What `precision: bf16` means on a processor with instructions for it, and on one without."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from toys import CPU, TINY_GAN, TOY, Killed, killed_at, toy_records

from methods.commands import warm_start
from methods.core import registry
from methods.core.release import Budget
from methods.core.runs import checkpoint, train
from methods.core.runs import warm_start as made_before
from methods.core.runs.plan import Plan
from methods.core.sharded import pretraining
from methods.core.speed import precision
from workflow.common.errors import UserError
from workflow.common.files import read_json, write_json

# Before a fixture puts another in its place.
HAS_BFLOAT16 = precision.processor_has_bfloat16
SMALL = {
    "dpgan": {"steps": 1, "batch_size": 8, "dim": 4, "latent": 4},
    "g_pate": {
        "steps": 1, "batch_size": 4, "num_teachers": 5, "teacher_network": "conv_norm", "teacher_steps": 1, "width": 4,
        "latent": 4, "projected": 5,
    },
    "gs_wgan": TINY_GAN | {"steps": 1},
}  # fmt: skip


@pytest.fixture(params=[True, False], ids=["with", "without"])
def processor(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether this processor has the instructions."""
    monkeypatch.setattr(precision, "processor_has_bfloat16", lambda: request.param)
    return request.param


class Kinds(TorchDispatchMode):
    """Notes the types of all tensors that operations take."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[torch.dtype] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.seen |= {value.dtype for value in tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)}
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("found", "there"),
    [
        ({"avx512_f": True, "avx512_bf16": True}, True),
        ({"avx512_f": True, "avx512_bf16": False, "amx_bf16": True}, True),
        ({"architecture": "aarch64", "bf16": True}, True),
        ({"avx512_f": True, "avx512_bf16": False, "amx_bf16": False, "l2_cache_size": 2**21}, False),
        ({"architecture": "aarch64", "neon": True}, False),
    ],
)
def test_the_instructions_are_told_by_what_torch_finds(monkeypatch, found, there):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: found)
    assert HAS_BFLOAT16.__wrapped__() is there


def test_a_gpu_computes_in_what_is_asked_for(processor):
    assert precision.computed_in(torch.device("cuda"), "bf16") == torch.bfloat16
    assert precision.computed_in(torch.device("cuda"), "fp32") == torch.float32


@pytest.mark.parametrize("method", sorted(SMALL))
def test_a_run_computes_in_single_precision_where_there_are_none_and_says_so(processor, tmp_path, capsys, method):
    plan = Plan.make(method, method, SMALL[method] | {"precision": "bf16"}, TOY, Budget(10.0, 1e-5, "published"), 0)
    with Kinds() as kinds:
        record = train.train(plan, toy_records(), tmp_path, CPU)
    assert (torch.bfloat16 in kinds.seen) is processor
    assert record["hyper"]["precision"] == "bf16" and record["computed_in"] == ("bf16" if processor else "fp32")
    assert ("computing in single precision" in capsys.readouterr().err) is not processor
    # Nothing is computed then.
    with pytest.raises(UserError, match="is a finished run"):
        train.train(plan, toy_records(), tmp_path, CPU)
    assert "precision" not in capsys.readouterr().err


@pytest.mark.parametrize("instructions", [(True, False), (False, True), (True, True)])
def test_a_run_that_went_on_on_another_processor_says_what_both_computed_in(tmp_path, monkeypatch, instructions):
    settings = SMALL["dpgan"] | {"steps": 3, "precision": "bf16"}
    plan = Plan.make("dpgan", "dpgan", settings, TOY, Budget(10.0, 1e-5, "published"), 0)
    for there, dies_at in zip((*instructions, instructions[1]), (1, 2, None), strict=True):
        with monkeypatch.context() as patch:
            patch.setattr(precision, "processor_has_bfloat16", lambda there=there: there)
            if dies_at is None:
                record = train.train(plan, toy_records(), tmp_path, CPU)
                continue
            killed_at(patch, "dpgan", dies_at)
            with pytest.raises(Killed):
                train.train(plan, toy_records(), tmp_path, CPU, checkpoint_seconds=0.0)
    names = {"bf16" if there else "fp32" for there in instructions}
    assert record["computed_in"] == " and ".join(sorted(names))


def test_a_process_that_only_ended_a_run_computed_none_of_it(tmp_path, monkeypatch):
    plan = Plan.make("dpgan", "dpgan", SMALL["dpgan"] | {"precision": "bf16"}, TOY, Budget(10.0, 1e-5, "sound"), 0)

    def stop(*_):
        raise Killed

    monkeypatch.setattr(precision, "processor_has_bfloat16", lambda: True)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(train, "_finish", stop)
        train.train(plan, toy_records(), tmp_path, CPU)
    monkeypatch.setattr(precision, "processor_has_bfloat16", lambda: False)
    assert train.train(plan, toy_records(), tmp_path, CPU)["computed_in"] == "bf16"


@pytest.mark.parametrize("stored", [{}, {"computed_in": "fp8"}], ids=["older", "damaged"])
def test_a_checkpoint_of_an_older_version_goes_on_and_a_damaged_one_does_not(tmp_path, monkeypatch, stored):
    plan = Plan.make("dpgan", "dpgan", SMALL["dpgan"] | {"steps": 2}, TOY, Budget(10.0, 1e-5, "published"), 0)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        killed_at(patch, "dpgan", 1)
        train.train(plan, toy_records(), tmp_path, CPU, checkpoint_seconds=0.0)
    content = torch.load(checkpoint.checkpoint_path(tmp_path), weights_only=True)
    assert content["about"].pop("computed_in") == "fp32"
    content["about"] |= stored
    torch.save(content, checkpoint.checkpoint_path(tmp_path))
    if stored:
        with pytest.raises(UserError, match=r"does not fit its run: 'computed_in' is 'fp8'"):
            train.train(plan, toy_records(), tmp_path, CPU)
    else:
        assert train.train(plan, toy_records(), tmp_path, CPU)["computed_in"] == "fp32"


def test_the_command_that_makes_a_warm_start_says_so_too(processor, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(warm_start, "use_machine", lambda arguments: CPU)
    monkeypatch.setattr(warm_start, "read_private", lambda *_: toy_records())
    monkeypatch.setattr(warm_start, "PublicSpec", SimpleNamespace(from_card=lambda card: TOY))
    settings = registry.load("gs_wgan").warm_start(registry.hyper("gs_wgan", TINY_GAN | {"warm_start_steps": 1}))
    for kind in ("bf16", "fp32"):
        warm_start.run(SimpleNamespace(
            method="gs_wgan", settings=json.dumps(settings | {"precision": kind}), card='{"splits": {"train": {}}}',
            data="", seed=0, out=tmp_path / kind,
        ))  # fmt: skip
        told = "computing in single precision" in capsys.readouterr().err
        assert told is (kind == "bf16" and not processor) and (tmp_path / kind / "done.json").exists()


def test_a_run_in_single_precision_says_nothing(processor, tmp_path, capsys):
    plan = Plan.make("dpgan", "dpgan", SMALL["dpgan"], TOY, Budget(10.0, 1e-5, "sound"), 0)
    assert train.train(plan, toy_records(), tmp_path, CPU)["computed_in"] == "fp32"
    assert "precision" not in capsys.readouterr().err


def test_a_method_without_the_setting_has_no_word_of_it(processor, tmp_path):
    plan = Plan.make("dp_gauss", "dp_gauss", {}, TOY, Budget(10.0, 1e-5, "sound"), 0)
    assert "computed_in" not in train.train(plan, toy_records(), tmp_path, CPU)


GAN = SMALL["gs_wgan"] | {"precision": "bf16", "warm_start_steps": 2}
WARM = Plan.make("gs_wgan", "gs_wgan", GAN, TOY, Budget(10.0, 1e-5, "published"), 0)


def critics(folder, monkeypatch, there):
    """Makes the warm start, or goes on with it, with instructions for bfloat16 or without; returns done.json."""
    with monkeypatch.context() as patch:
        patch.setattr(precision, "processor_has_bfloat16", lambda: there)
        made_before.make("gs_wgan", made_before.wanted(WARM), TOY, toy_records(), 0, CPU, folder)
    return read_json(folder / "done.json")


def test_a_run_says_what_the_warm_start_was_computed_in_that_it_begins_from(tmp_path, monkeypatch):
    assert critics(tmp_path / "critics", monkeypatch, there=False)["computed_in"] == "fp32"
    monkeypatch.setattr(precision, "processor_has_bfloat16", lambda: True)
    record = train.train(WARM, toy_records(), tmp_path / "run", CPU, tmp_path / "critics")
    assert record["computed_in"] == "bf16 and fp32"


def test_a_warm_start_that_went_on_on_another_processor_says_what_both_computed_in(tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(pretraining, "_train_generators", killed)
        critics(tmp_path, patch, there=True)
    assert critics(tmp_path, monkeypatch, there=False)["computed_in"] == "bf16 and fp32"


def killed(*_):
    raise Killed


def test_a_process_that_found_all_critics_made_computed_none_of_them(tmp_path, monkeypatch):
    critics(tmp_path, monkeypatch, there=True)
    # As a forced step of the graph does.
    (tmp_path / "done.json").unlink()
    assert critics(tmp_path, monkeypatch, there=False)["computed_in"] == "bf16"


def test_what_an_earlier_version_began_says_nothing_of_what_it_was_computed_in(tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(pretraining, "_train_generators", killed)
        critics(tmp_path, patch, there=True)
    (tmp_path / "computed_in.json").unlink()
    assert "computed_in" not in critics(tmp_path, monkeypatch, there=False)


@pytest.mark.parametrize("stated", [None, "fp8"], ids=["older", "damaged"])
def test_a_warm_start_of_an_older_version_begins_a_run_and_a_damaged_record_does_not(tmp_path, monkeypatch, stated):
    done = critics(tmp_path / "critics", monkeypatch, there=True)
    done.pop("computed_in")
    write_json(tmp_path / "critics" / "done.json", done | ({"computed_in": stated} if stated else {}))
    monkeypatch.setattr(precision, "processor_has_bfloat16", lambda: False)
    if stated:
        with pytest.raises(UserError, match="does not say what it was computed in: 'computed_in' is 'fp8'"):
            train.train(WARM, toy_records(), tmp_path / "run", CPU, tmp_path / "critics")
        assert not (tmp_path / "run").exists()
    else:
        assert train.train(WARM, toy_records(), tmp_path / "run", CPU, tmp_path / "critics")["computed_in"] == "fp32"
