"""One command makes a folder that may be given away: nothing in it undoes the noise, and what it spent is recorded."""

from __future__ import annotations

import getpass
import io
import json
import platform
import re
import socket
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from toys import Killed, killed_at

from methods.__main__ import main
from methods.commands import release
from methods.core.privacy.grant import Grant
from methods.core.privacy.ledger import Ledger
from workflow.common.contracts import load_images
from workflow.common.files import read_json, write_json, write_npz

CLASSES = ["Hält", "bricht nicht", "n/a"]
COUNTS = [23, 19, 18]
SETTINGS = {"features": 32, "steps": 3, "batch_size": 10, "hidden": 8, "channels": 4}
MINE = {
    "extends": "smoke",
    "runs": {"rows": {"method": "dp_merf", **SETTINGS}, "loose": {"method": "dp_merf", "accounting": "published"}},
}


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "lesions"
    draws = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), COUNTS)
    write_npz(folder / "train.npz", images=draws.integers(0, 256, (60, 1, 28, 28), dtype=np.uint8), labels=labels)
    splits = {"train": {"count": 60, "per_class": COUNTS, "sha256": "5e" * 32}}
    public = {"dataset": "lesions", "image_shape": [1, 28, 28], "num_classes": 3, "class_names": CLASSES}
    write_json(folder / "card.json", public | {"splits": splits})
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(MINE | {"datasets": {"lesions": {"folder": "pictures"}}}))
    return folder


def call(data: Path, name: str, *more: str, run: str = "rows") -> int:
    root = data.parents[1]
    common = ["--data", str(data), "--configfile", str(root / "mine.yaml"), "--device", "cpu"]
    return main(["release", run, *common, "--out", str(root / name), *more])


def error(capsys: pytest.CaptureFixture) -> str:
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ")
    return lines[0]


def spent(data: Path) -> list[dict]:
    path = data / "spent.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def charges(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Returns a list that gets the name of each use charged from now on."""
    names, whole = [], Ledger.charge

    def charged(self, name):
        names.append(name)
        return whole(self, name)

    monkeypatch.setattr(Ledger, "charge", charged)
    return names


def texts(folder: Path) -> dict[str, bytes]:
    """Returns what every file of a folder holds, and what is packed in it; each name is the path in the folder."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name, content = path.relative_to(folder).as_posix(), path.read_bytes()
        found[name] = name.encode() + content
        if path.suffix == ".npz":
            with zipfile.ZipFile(io.BytesIO(content)) as packed:
                found |= {f"{name}/{part}": packed.read(part) for part in packed.namelist()}
    return found


def test_the_folder_holds_the_set_and_its_promise_and_nothing_else(tmp_path, data, capsys):
    assert call(data, "out", "--num", "6") == 0
    names = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    pictures = {name for name in names if name.startswith("images/")}
    rest = {"samples.npz", "contact_sheet.png", "generator.safetensors", "privacy.json", "DATASHEET.md"}
    assert names - pictures == rest and len(pictures) == 6
    assert len({Path(name).parent for name in pictures}) == 3
    samples = load_images(tmp_path / "out" / "samples.npz")
    assert samples.images.shape == (6, 1, 28, 28) and samples.labels.tolist() == [0, 1, 2, 0, 1, 2]
    assert {path.name for path in tmp_path.iterdir()} == {"data", "mine.yaml", "out"}
    assert "may be given away" in capsys.readouterr().out


def test_without_a_number_there_are_as_many_images_as_records_and_as_many_of_each_class(tmp_path, data):
    call(data, "out")
    assert np.bincount(load_images(tmp_path / "out" / "samples.npz").labels).tolist() == [20, 20, 20]


def test_nothing_given_away_holds_a_seed_a_key_or_a_word_of_where_it_was_made(tmp_path, data, monkeypatch):
    keys, seeds, whole = [], [], Ledger.open
    plans = release.Plan.make
    for module, function in ((socket, "gethostname"), (platform, "node"), (getpass, "getuser")):
        monkeypatch.setattr(module, function, lambda: "nightshift@ward-computer")

    def opened(path, releases, budget, resume, key):
        keys.append(key)
        return whole(path, releases, budget, resume, key)

    def planned(*arguments):
        seeds.append(arguments[-1])
        return plans(*arguments)

    monkeypatch.setattr(Ledger, "open", opened)
    monkeypatch.setattr(release.Plan, "make", planned)
    call(data, "out", "--parquet")
    (key,), (seed,) = keys, seeds
    assert seed > 2**32, "a short number would be found by chance"
    written = [form for number in (seed,) for form in (str(number), f"{number:x}")] + [key.hex(), "5e5e5e5e"]
    packed = [key, seed.to_bytes(8, "little"), seed.to_bytes(8, "big")]
    places = [str(tmp_path), str(data), "ward-computer", "nightshift"]
    forbidden = [form.encode() for form in written + places] + packed
    found = texts(tmp_path / "out")
    assert len(found) > 60
    assert [(name, form) for name, content in found.items() for form in forbidden if form in content] == []


def test_nothing_given_away_says_how_many_records_each_class_has(tmp_path, data):
    """The whole number of records is public, and so are equal counts of samples."""
    call(data, "out")
    said = (tmp_path / "out" / "DATASHEET.md").read_text() + (tmp_path / "out" / "privacy.json").read_text()
    assert [count for count in COUNTS if re.search(rf"\b{count}\b", said)] == []


def test_times_and_modes_of_files_say_nothing(tmp_path, data):
    call(data, "out")
    stats = [path.stat() for path in (tmp_path / "out").rglob("*")]
    assert len({stat.st_mtime for stat in stats}) == 1 and max(stat.st_mtime for stat in stats) < 1e9
    assert {stat.st_mode & 0o777 for stat in stats} == {0o644, 0o755}


def test_two_releases_of_the_same_pictures_differ(tmp_path, data):
    for name in ("a", "b"):
        call(data, name)
    first, second = (texts(tmp_path / name) for name in "ab")
    assert first["generator.safetensors"] != second["generator.safetensors"]
    assert first["samples.npz"] != second["samples.npz"] and first["privacy.json"] == second["privacy.json"]


def test_what_releases_spent_adds_up_beside_the_data(tmp_path, data, capsys):
    call(data, "a")
    capsys.readouterr()
    call(data, "b", "--epsilon", "1")
    said = capsys.readouterr().out
    lines = spent(data)
    assert [round(line["epsilon"], 2) for line in lines] == [10.0, 1.0] and lines[0]["out"].endswith("a")
    assert "release 2 of these pictures" in said and "epsilon 11 at delta 2e-05 against replacing one picture" in said


@pytest.mark.parametrize("when", ["before a step", "before the folder is written", "while it is written"])
def test_a_release_that_was_killed_goes_on_and_is_charged_and_recorded_once(tmp_path, data, monkeypatch, when):
    used, write = charges(monkeypatch), release.write

    def killed(folder, *arguments, **options):
        if when == "while it is written":
            write(folder, *arguments, **options)
            (folder / "privacy.json").unlink()
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        if when == "before a step":
            killed_at(patch, "dp_merf", 2)
        else:
            patch.setattr(release, "write", killed)
        call(data, "out")
    assert not (tmp_path / "out").exists() and (tmp_path / "out.private").stat().st_mode & 0o777 == 0o700
    assert call(data, "out") == 0
    assert len(used) == 1 and len(spent(data)) == 1
    assert (tmp_path / "out" / "privacy.json").exists() and not (tmp_path / "out.private").exists()


def test_a_kill_after_the_folder_has_its_name_leaves_a_whole_release(tmp_path, data, monkeypatch, capsys):
    def killed(work):
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(release, "_remove", killed)
        call(data, "out")
    capsys.readouterr()
    assert call(data, "out") == 2 and "exists" in error(capsys)
    assert not (tmp_path / "out.private").exists() and (tmp_path / "out" / "DATASHEET.md").exists()


@pytest.mark.parametrize("change", ["settings", "budget", "pictures"])
def test_a_begun_release_continues_as_it_was_begun_or_not_at_all(tmp_path, data, monkeypatch, capsys, change):
    with monkeypatch.context() as patch, pytest.raises(Killed):
        killed_at(patch, "dp_merf", 2)
        call(data, "out")
    more = {"settings": ["--set", "steps=4"], "budget": ["--epsilon", "1"], "pictures": []}[change]
    if change == "pictures":
        card = read_json(data / "card.json")
        card["splits"]["train"]["sha256"] = "00" * 32
        write_json(data / "card.json", card)
    used = charges(monkeypatch)
    capsys.readouterr()
    assert call(data, "out", *more) == 2 and "begun" in error(capsys)
    assert used == [] and len(spent(data)) == 1


@pytest.mark.parametrize(
    ("more", "run", "words"),
    [
        (["--epsilon", "inf"], "rows", "protects nobody"),
        (["--epsilon", "0"], "rows", "above 0"),
        (["--delta", "0.02"], "rows", "not below 1 / records"),
        (["--set", "stesp=3"], "rows", "did you mean 'steps'"),
        (["--set", "features=0"], "rows", "at least 2"),
        (["--num", "0"], "rows", "--num"),
        ([], "roes", "did you mean 'rows'"),
        ([], "loose", "not held to a sound epsilon"),
    ],
)
def test_what_cannot_be_released_is_refused_before_anything_is_charged(data, monkeypatch, capsys, more, run, words):
    used = charges(monkeypatch)
    try:
        assert call(data, "out", *more, run=run) == 2
    except SystemExit as refusal:
        assert refusal.code == 2
    assert words in capsys.readouterr().err
    assert used == spent(data) == [] and not (data.parents[1] / "out.private").exists()


def test_a_folder_that_exists_is_not_written_over_and_one_of_others_not_removed(tmp_path, data, monkeypatch, capsys):
    used = charges(monkeypatch)
    (tmp_path / "out").mkdir()
    assert call(data, "out") == 2 and "exists" in error(capsys)
    (tmp_path / "new.private").mkdir()
    (tmp_path / "new.private" / "thesis.tex").write_text("years")
    assert call(data, "new") == 2 and "thesis.tex" in error(capsys)
    assert used == [] and (tmp_path / "new.private" / "thesis.tex").read_text() == "years"


def test_delta_stays_below_one_in_the_number_of_records(data):
    for records, delta in ((60, 1e-5), (99_999, 1e-5), (100_000, 1e-6), (1_000_000, 1e-7), (999_999, 1e-6)):
        options = release.argparse.Namespace(epsilon="10", delta=None)
        assert release._budget(options, records).delta == pytest.approx(delta)


def test_the_noise_of_a_release_is_that_of_its_plan(tmp_path, data, monkeypatch):
    """Nobody hands over a release whose noise was left out."""
    scales, noisy = [], Grant._noisy

    def watched(self, answer):
        scales.append(self._release.scale)
        return noisy(self, answer)

    monkeypatch.setattr(Grant, "_noisy", watched)
    call(data, "out")
    stated = json.loads((tmp_path / "out" / "privacy.json").read_text())
    (scale,) = scales
    assert scale > 0 and stated["epsilon"] == pytest.approx(10, rel=1e-3)
