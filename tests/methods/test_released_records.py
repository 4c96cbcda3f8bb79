"""Which pictures a release is made from: all that its owner did not set apart himself, so one moves no other."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from toys import Killed, unrehearsed

from methods.__main__ import main
from methods.commands import release
from methods.core.privacy.ledger import Ledger
from methods.core.release import NO_BUDGET
from workflow.common.files import read_json, write_json
from workflow.datasets.__main__ import main as make_data

ROW = {"method": "dp_merf", "features": 32, "steps": 3, "batch_size": 10, "hidden": 8, "channels": 4}


@pytest.fixture(autouse=True)
def unrehearsed_here(monkeypatch):
    unrehearsed(monkeypatch)


def pictures(root: Path, count: int) -> Path:
    """Makes flat pictures of two classes, each of a level of its own; returns the folder."""
    for number, name in enumerate("ab"):
        (root / name).mkdir(parents=True)
        for index in range(count):
            level = np.full((28, 28), 100 * number + index, np.uint8)
            Image.fromarray(level).save(root / name / f"{index:02}.png")
    return root


def made(root: Path, *options: str) -> Path:
    """Makes a data set of the pictures in root/own, and a configuration for it."""
    out = root / "data"
    assert make_data(["lesions", "--folder", str(root / "own"), "--out", str(out), "--size", "28", *options]) == 0
    content = {"extends": "smoke", "runs": {"row": ROW}, "datasets": {"lesions": {"folder": "own"}}}
    (root / "mine.yaml").write_text(yaml.safe_dump(content))
    return out


def call(root: Path) -> int:
    common = ["--data", str(root / "data"), "--configfile", str(root / "mine.yaml"), "--device", "cpu"]
    return main(["release", "row", *common, "--out", str(root / "out")])


def released(root: Path, monkeypatch: pytest.MonkeyPatch) -> Counter[tuple[int, int]]:
    """Returns level and label of each record that a release of root/data is trained on, and checks the plan's count."""
    seen: Counter[tuple[int, int]] = Counter()

    def trained(plan, data, *_, **options) -> None:
        with Ledger.open(root / "read.jsonl", (), NO_BUDGET) as ledger, ledger.internal("test") as grant:
            images, labels = data.read(grant, torch.arange(len(data)))
        assert plan.public.num_train == len(labels)
        seen.update(zip(images[:, 0, 0, 0].tolist(), labels.tolist(), strict=True))
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(release, "train", trained)
        call(root)
    return seen


@pytest.mark.parametrize("way", ["of another class", "of another name", "not there"])
def test_one_picture_moves_no_other_into_or_out_of_a_release(tmp_path, monkeypatch, way):
    """Which pictures are drawn for the test split follows from all of a class: so many are exchanged where one is."""
    found = []
    for world in ("as it was", way):
        root = tmp_path / world.replace(" ", "-")
        picture = pictures(root / "own", 20) / "a" / "07.png"
        if world == "of another class":
            picture.rename(root / "own" / "b" / "99.png")
        elif world == "of another name":
            picture.rename(root / "own" / "a" / "99.png")
        elif world == "not there":
            picture.unlink()
        made(root)
        found.append(released(root, monkeypatch))
    before, after = found
    assert before.total() == 40
    expected = {"of another class": 2, "of another name": 0, "not there": 1}
    assert ((before - after) + (after - before)).total() == expected[way]


def test_pictures_that_the_owner_set_apart_are_not_released(tmp_path, monkeypatch):
    pictures(tmp_path / "own", 6)
    made(tmp_path, "--test", str(pictures(tmp_path / "apart", 2)))
    assert released(tmp_path, monkeypatch).total() == 12


@pytest.mark.parametrize("apart", [False, True])
def test_a_sum_with_releases_of_what_a_draw_had_left_is_called_too_small(tmp_path, capsys, apart):
    """Their epsilons are none for the pictures; an entry of then does not say how many records there were."""
    pictures(tmp_path / "own", 6)
    data = made(tmp_path, *(["--test", str(pictures(tmp_path / "apart", 2))] if apart else []))
    then = {"id": "a" * 16, "epsilon": 10.0, "delta": 1e-5, "adjacency": ["replace_one"]}
    (data / "spent.jsonl").write_text(json.dumps(then) + "\n")
    assert call(tmp_path) == 0
    said = capsys.readouterr()
    assert "release 2 from" in said.out and "epsilon 20 " in said.out
    assert ("notice: 1 of these 2 releases" in said.err) == (not apart)


def test_account_tells_the_noise_of_a_release_from_its_number_of_records(tmp_path, monkeypatch, capsys):
    """Rounds and images of a vote follow the records, so the training split alone needs another noise."""
    np.savez(tmp_path / "own.npz", train_images=np.zeros((300, 28, 28), np.uint8), train_labels=np.arange(300) % 2)
    data, plans = str(tmp_path / "data"), []
    assert make_data(["lesions", "--folder", str(tmp_path / "own.npz"), "--out", data]) == 0

    def trained(plan, *_, **options) -> None:
        plans.append(plan)
        raise Killed

    def told(*records: str) -> float:
        capsys.readouterr()
        assert main(["account", "pate_gan", "--preset", "own", "--dataset", data, *records]) == 0
        return float(re.search(r"by the sound count needs noise ([\d.]+)", capsys.readouterr().out)[1])

    monkeypatch.setattr(release, "train", trained)
    with pytest.raises(Killed):
        main(["release", "pate_gan", "--data", data, "--out", str(tmp_path / "out"), "--device", "cpu"])
    noise = plans[0].releases[0].noise
    assert told("--records", "300") == pytest.approx(noise, rel=1e-3)
    assert told() < 0.95 * noise


@pytest.mark.parametrize("lacking", ["how it was drawn", "its hash"])
def test_a_card_that_does_not_say_what_was_set_apart_is_refused(tmp_path, monkeypatch, capsys, lacking):
    pictures(tmp_path / "own", 6)
    card = read_json(made(tmp_path) / "card.json")
    if lacking == "how it was drawn":
        del card["test_drawn"]
    else:
        del card["splits"]["test"]["sha256"]
    write_json(tmp_path / "data" / "card.json", card)
    capsys.readouterr()
    assert call(tmp_path) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ") and "make the data again" in line
    assert not (tmp_path / "data" / "spent.jsonl").exists()
