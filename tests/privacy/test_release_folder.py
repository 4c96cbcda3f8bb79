"""An adversary holds a run's whole folder and all records but one: the reproducible run tells it which, a secret no."""

from __future__ import annotations

import base64
import shutil
from pathlib import Path

import pytest
from toys import CPU, TINY_DPAC, TINY_GAN, TOY, Killed, killed_at, toy_records, unrehearsed

from methods.core import registry
from methods.core.privacy.ledger import Ledger
from methods.core.privacy.noise import NoiseSource
from methods.core.privacy.private_data import PrivateData
from methods.core.release import Budget
from methods.core.runs.plan import Plan
from methods.core.runs.train import train
from workflow.common.errors import UserError

TEACHERS = {
    "steps": 2, "batch_size": 24, "num_teachers": 4, "teacher_network": "mlp", "hidden": 4, "width": 4, "latent": 3,
    "pretrain_steps": 1, "teacher_batch": 3,
}  # fmt: skip
# A method for each kind of answer.
METHODS = {
    "dp_merf": {"features": 32, "steps": 2, "batch_size": 10, "hidden": 8, "channels": 4},
    "dp_cgan": {"steps": 2, "batch_size": 20, "hidden": 4},
    "gs_wgan": TINY_GAN | {"steps": 2},
    "dpac": TINY_DPAC | {"steps": 2, "shards_per_step": 3.0, "spectral_norm": False},
    "pate_gan": TEACHERS,
    "g_pate": TEACHERS,
}
CHANGED = 7


def a_plan(method: str) -> Plan:
    return Plan.make(method, method, METHODS[method], TOY, Budget(0.05, 1e-5, "sound"), seed=0)


def worlds() -> dict[str, PrivateData]:
    """The two sets of records that the adversary cannot tell apart beforehand."""
    return {"as they were": toy_records(), "one changed": toy_records(changed=CHANGED)}


def named_by_the_folder(folder: Path, plan: Plan, scratch: Path) -> list[str]:
    """The adversary: trains each world as the folder's plan says, and names those that give the folder's generator."""
    released = (folder / "generator.safetensors").read_bytes()
    matches = []
    for name, data in worlds().items():
        train(plan, data, scratch / name, CPU)
        if (scratch / name / "generator.safetensors").read_bytes() == released:
            matches.append(name)
    return matches


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("world", worlds())
def test_the_folder_of_a_reproducible_run_names_the_world_and_of_a_secret_run_none(method, world, tmp_path):
    plan = a_plan(method)
    open_run = train(plan, worlds()[world], tmp_path / "open", CPU)
    secret_run = train(plan, worlds()[world], tmp_path / "secret", CPU, secret_noise=True)
    assert named_by_the_folder(tmp_path / "open", plan, tmp_path / "scratch") == [world]
    assert "protects nobody" in open_run["noise"] and secret_run["noise"].startswith("secret")
    released = (tmp_path / "secret" / "generator.safetensors").read_bytes()
    ours = [(tmp_path / "scratch" / name / "generator.safetensors").read_bytes() for name in worlds()]
    assert released not in ours


def test_two_secret_runs_of_one_plan_differ(tmp_path):
    for name in ("a", "b"):
        train(a_plan("dp_merf"), toy_records(), tmp_path / name, CPU, secret_noise=True)
    one, other = ((tmp_path / name / "generator.safetensors").read_bytes() for name in "ab")
    assert one != other


def forms(key: bytes) -> list[bytes]:
    """The key as it might be written."""
    return [key, key.hex().encode(), base64.b64encode(key), str(int.from_bytes(key, "big")).encode()]


def contents(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in folder.rglob("*") if path.is_file()]


def keys_of(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """Returns a list that gets the key of each ledger from now on."""
    keys, whole = [], Ledger.open

    def watched(path, releases, budget, resume, key, **run):
        keys.append(key)
        return whole(path, releases, budget, resume, key, **run)

    monkeypatch.setattr(Ledger, "open", watched)
    return keys


def test_a_secret_key_is_never_written_nor_shown(tmp_path, monkeypatch, capfd):
    """Neither while the run lasts, nor after a kill, nor by the process that continues it."""
    keys = keys_of(monkeypatch)
    plan, texts = a_plan("gs_wgan"), []
    with monkeypatch.context() as patch, pytest.raises(Killed):
        killed_at(patch, "gs_wgan", 1)
        train(plan, toy_records(), tmp_path, CPU, checkpoint_seconds=0, secret_noise=True)
    assert (tmp_path / "private" / "checkpoint.pt").exists()
    texts += contents(tmp_path)
    train(plan, toy_records(), tmp_path, CPU, secret_noise=True)
    texts += contents(tmp_path)
    shown = capfd.readouterr()
    texts.append((shown.out + shown.err).encode())
    assert len(set(keys)) == 2 and len(texts) > 6
    assert not [form for key in keys for form in forms(key) for content in texts if form in content]
    assert [path.name for path in (tmp_path / "private").iterdir()] == ["end"]


def test_a_secret_run_that_continues_answers_no_use_again(tmp_path, monkeypatch):
    """Or its fresh key would give one use a second noise, and the two answers average."""
    answered, draw = [], NoiseSource.draw

    def watched(source, kind, shape, scale, name, use):
        answered.append((name, use))
        return draw(source, kind, shape, scale, name, use)

    monkeypatch.setattr(NoiseSource, "draw", watched)
    plan, step = a_plan("gs_wgan"), registry.load("gs_wgan").step

    def killed_after(method, t, *rest):
        values = step(method, t, *rest)
        if t == 1:
            raise Killed
        return values

    with monkeypatch.context() as patch, pytest.raises(Killed):
        # No checkpoint after the second step: its answer is on disk, and is used once more.
        unrehearsed(patch)
        patch.setattr(registry.load("gs_wgan"), "step", killed_after)
        train(plan, toy_records(), tmp_path, CPU, checkpoint_seconds=1e9, secret_noise=True)
    record = train(plan, toy_records(), tmp_path, CPU, secret_noise=True)
    assert len(answered) == len(set(answered)) == 2 and record["steps_done"] == 2


def test_a_copy_of_a_secret_run_does_not_continue_on_changed_records(tmp_path, monkeypatch):
    plan = a_plan("gs_wgan")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        killed_at(patch, "gs_wgan", 1)
        train(plan, toy_records(), tmp_path / "a", CPU, checkpoint_seconds=0, secret_noise=True)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    with pytest.raises(UserError, match="other training records"):
        train(plan, toy_records(changed=CHANGED), tmp_path / "b", CPU, secret_noise=True)


@pytest.mark.parametrize("secret", [True, False])
def test_a_run_is_not_continued_with_the_other_kind_of_noise(tmp_path, monkeypatch, secret):
    plan = a_plan("gs_wgan")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        killed_at(patch, "gs_wgan", 1)
        train(plan, toy_records(), tmp_path, CPU, secret_noise=secret)
    with pytest.raises(UserError, match=r"was begun with (secret|reproducible) noise"):
        train(plan, toy_records(), tmp_path, CPU, secret_noise=not secret)
