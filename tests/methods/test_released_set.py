"""One command makes a folder that may be given away: nothing in it undoes the noise, and what it spent is recorded."""

from __future__ import annotations

import contextlib
import errno
import getpass
import io
import json
import os
import platform
import re
import shutil
import socket
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from toys import Killed, killed_at, unrehearsed

from methods.__main__ import main
from methods.commands import release
from methods.core import registry
from methods.core.privacy.grant import Grant
from methods.core.privacy.ledger import Ledger
from methods.core.released import image_files, workplace
from methods.core.released.workplace import Workplace
from methods.core.runs import noise_key, warm_start
from methods.core.runs import spent as spent_record
from methods.core.runs.configured import Configured
from workflow.common.contracts import LabelledImages, load_images
from workflow.common.errors import UserError
from workflow.common.files import read_json, write_json, write_npz

CLASSES = ["Hält", "bricht nicht", "n/a"]
COUNTS = [23, 19, 18]
SETTINGS = {"features": 32, "steps": 3, "batch_size": 10, "hidden": 8, "channels": 4}
MINE = {
    "extends": "smoke",
    "runs": {"rows": {"method": "dp_merf", **SETTINGS}, "loose": {"method": "dp_merf", "accounting": "published"}},
}


def records(folder: Path, images: np.ndarray, labels: np.ndarray, **facts) -> None:
    """Writes train.npz and a card that describes it but for `facts`."""
    write_npz(folder / "train.npz", images=images, labels=labels)
    split = {"count": len(labels), "per_class": COUNTS, "sha256": LabelledImages(images, labels).digest()}
    shape = list(images.shape[1:])
    public = {"dataset": "lesions", "image_shape": shape, "num_classes": 3, "class_names": CLASSES}
    write_json(folder / "card.json", public | {"splits": {"train": split}} | facts)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data" / "lesions"
    draws = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), COUNTS)
    records(folder, draws.integers(0, 256, (60, 1, 28, 28), dtype=np.uint8), labels)
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
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [line for line in lines if "published" not in line]


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

    def opened(path, releases, budget, resume, key, **run):
        keys.append(key)
        return whole(path, releases, budget, resume, key, **run)

    def planned(*arguments):
        seeds.append(arguments[-1])
        return plans(*arguments)

    monkeypatch.setattr(Ledger, "open", opened)
    monkeypatch.setattr(release.Plan, "make", planned)
    call(data, "out", "--parquet")
    (key,), (seed,) = keys, seeds
    sha256 = read_json(data / "card.json")["splits"]["train"]["sha256"]
    assert seed > 2**32, "a short number would be found by chance"
    written = [form for number in (seed,) for form in (str(number), f"{number:x}")] + [key.hex(), sha256]
    packed = [key, seed.to_bytes(8, "little"), seed.to_bytes(8, "big")]
    places = [str(tmp_path), str(data), "ward-computer", "nightshift"]
    forbidden = [form.encode() for form in written + places] + packed
    found = texts(tmp_path / "out")
    assert len(found) > 60
    assert [(name, form) for name, content in found.items() for form in forbidden if form in content] == []


def test_the_key_of_the_noise_is_the_operating_systems_and_no_function_of_the_plan(tmp_path, data, monkeypatch):
    keys, given, whole = [], bytes(range(50, 82)), Ledger.open

    def opened(path, releases, budget, resume, key, **run):
        keys.append(key)
        return whole(path, releases, budget, resume, key, **run)

    monkeypatch.setattr(Ledger, "open", opened)
    monkeypatch.setattr(noise_key.secrets, "token_bytes", lambda count: given[:count])
    call(data, "out")
    assert keys == [given]


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


def test_two_releases_of_the_same_pictures_differ(tmp_path, data, monkeypatch):
    seeds, whole = set(), release.Plan.make
    monkeypatch.setattr(release.Plan, "make", lambda *given: seeds.add(given[-1]) or whole(*given))
    for name in ("a", "b"):
        call(data, name)
    assert len(seeds) == 2
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
    assert "release 2 from" in said
    assert "has spent in all, by basic composition, epsilon 11 at delta 2e-05 against replacing one picture (" in said


@pytest.mark.parametrize(("epsilon", "empty"), [("10", False), ("1e9", True)])
def test_a_budget_that_promises_next_to_nothing_is_told_before_anything_is_charged(
    data, monkeypatch, capsys, epsilon, empty
):
    monkeypatch.setattr(spent_record, "record", lambda *_: (_ for _ in ()).throw(UserError("nothing was charged")))
    assert call(data, "out", "--epsilon", epsilon) == 2
    *notices, _ = capsys.readouterr().err.splitlines()
    assert len(notices) == empty
    assert all(re.match(r"notice: epsilon \S+ promises next to nothing: e\^epsilon is", line) for line in notices)


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


def test_a_disk_that_is_full_while_the_folder_is_written_costs_one_line_and_no_second_charge(
    tmp_path, data, monkeypatch, capsys
):
    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    used = charges(monkeypatch)
    for function in ("write_images", "write_contact_sheet"):
        with monkeypatch.context() as patch:
            patch.setattr(image_files, function, full)
            capsys.readouterr()
            assert call(data, "out") == 2
        line = capsys.readouterr().err.splitlines()[-1]
        assert line.startswith(f"error: cannot write {tmp_path / 'out.private'}: No space left on device (")
        assert "the same command continues" in line and not (tmp_path / "out").exists()
    assert call(data, "out") == 0
    assert len(used) == 1 and len(spent(data)) == 1


@pytest.mark.parametrize("order", ["first to last", "last to first"])
@pytest.mark.parametrize("files", range(7))
def test_a_kill_in_the_clean_up_leaves_a_whole_release_and_no_second_one(
    tmp_path, data, monkeypatch, capsys, order, files
):
    """Whatever of the working folder is left: no generator is given away again, nor another under the same record."""
    unlink, rmtree, iterdir, left = Path.unlink, shutil.rmtree, Path.iterdir, [files]

    def counted(remove):
        def removed(path, *arguments, **options):
            if Path(path).parent.name == "out.private" and (tmp_path / "out").exists():
                if left[0] == 0:
                    raise Killed
                left[0] -= 1
            return remove(path, *arguments, **options)

        return removed

    with monkeypatch.context() as patch:
        patch.setattr(Path, "iterdir", lambda self: iter(sorted(iterdir(self), reverse=order == "last to first")))
        patch.setattr(Path, "unlink", counted(unlink))
        patch.setattr(shutil, "rmtree", counted(rmtree))
        with contextlib.suppress(Killed):
            call(data, "out")
    assert (tmp_path / "out" / "DATASHEET.md").exists() and left[0] == 0
    used = charges(monkeypatch)
    if files % 2:
        (tmp_path / "out").rename(tmp_path / "given")
    capsys.readouterr()
    if (tmp_path / "out.private" / "whole").exists():
        assert call(data, "out", "--epsilon", "1") == 0 and "is whole" in capsys.readouterr().out
        assert used == [] and len(spent(data)) == 1
    assert not (tmp_path / "out.private" / "begun.json").exists()
    assert not (tmp_path / "out.private" / "generator.safetensors").exists()


def on_disk_when_removed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Returns a list that gets, in order, the paths that are on disk when a release's working folder is removed."""
    fsync, remove, synced, before = os.fsync, Workplace.remove, [], []

    def noted(handle: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{handle}")))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    monkeypatch.setattr(Workplace, "remove", lambda self: (before.extend(synced), remove(self)))
    return before


def test_what_is_given_away_is_on_disk_before_what_could_make_it_again_is_removed(tmp_path, data, monkeypatch):
    before = on_disk_when_removed(monkeypatch)
    assert call(data, "out") == 0
    out, partial = tmp_path / "out", tmp_path / "out.private" / "partial"
    assert {partial / path.relative_to(out) for path in (out, *out.rglob("*"))} <= set(before)
    # The name comes last, and then the mark in the owner's record.
    assert tmp_path in before[before.index(partial) :]


def test_a_call_that_finds_a_whole_release_has_its_name_on_disk_before_it_removes_what_made_it(
    tmp_path, data, monkeypatch
):
    def killed(*_):
        raise Killed

    with monkeypatch.context() as patch, contextlib.suppress(Killed):
        patch.setattr(workplace, "sync_folder", killed)
        call(data, "out")
    assert (tmp_path / "out").exists() and (tmp_path / "out.private").exists()
    before = on_disk_when_removed(monkeypatch)
    assert call(data, "out") == 0
    assert tmp_path in before and not (tmp_path / "out.private").exists()


def test_a_name_that_is_taken_meanwhile_costs_no_second_training(tmp_path, data, monkeypatch, capsys):
    used, write = charges(monkeypatch), release.write

    def written(folder, *arguments, **options):
        write(folder, *arguments, **options)
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "notes.txt").write_text("mine")

    with monkeypatch.context() as patch:
        patch.setattr(release, "write", written)
        assert call(data, "out") == 2 and "call the same command again" in error(capsys)
    assert call(data, "out") == 2 and "exists" in error(capsys)
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"
    shutil.rmtree(tmp_path / "out")
    assert call(data, "out") == 0 and len(used) == len(spent(data)) == 1


def test_a_second_process_waits_its_turn(tmp_path, data, monkeypatch, capsys):
    """Or it would train with a plan of its own over the first one's checkpoint."""
    used, seen = charges(monkeypatch), []

    def meanwhile(*arguments, **options):
        seen.append(call(data, "out"))
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(release, "train", meanwhile)
        call(data, "out")
    assert seen == [2] and "in use by another process" in capsys.readouterr().err
    assert used == []


@pytest.mark.parametrize("change", ["settings", "budget", "pictures"])
def test_a_begun_release_continues_as_it_was_begun_or_not_at_all(tmp_path, data, monkeypatch, capsys, change):
    with monkeypatch.context() as patch, pytest.raises(Killed):
        killed_at(patch, "dp_merf", 2)
        call(data, "out")
    more = {"settings": ["--set", "steps=4"], "budget": ["--epsilon", "1"], "pictures": []}[change]
    if change == "pictures":
        stored = load_images(data / "train.npz")
        records(data, 255 - stored.images, stored.labels)
    used = charges(monkeypatch)
    capsys.readouterr()
    assert call(data, "out", *more) == 2 and "begun" in error(capsys)
    assert used == [] and len(spent(data)) == 1


@pytest.mark.parametrize("way", ["its run taken out", "a copy of it", "its record made cheaper"])
def test_what_a_begun_release_charged_is_not_refunded(tmp_path, data, monkeypatch, capsys, way):
    """The noise would be drawn anew, and the owner's record would show one charge."""
    with monkeypatch.context() as patch, pytest.raises(Killed):
        killed_at(patch, "dp_merf", 2)
        call(data, "out")
    name, words = "out", "whose run is gone, and what it charged stays spent"
    if way == "its run taken out":
        shutil.rmtree(tmp_path / "out.private" / "private")
    elif way == "a copy of it":
        shutil.copytree(tmp_path / "out.private", tmp_path / "copy.private")
        name, words = "copy", "as 'out', not 'copy'"
    else:
        (line,) = spent(data)
        (data / "spent.jsonl").write_text(json.dumps(line | {"epsilon": 0.5}) + "\n")
        words = "says epsilon 0.5 of release"
    used = charges(monkeypatch)
    capsys.readouterr()
    assert call(data, name) == 2
    assert words in capsys.readouterr().err and used == [] and len(spent(data)) == 1


@pytest.mark.parametrize("killed", [False, True])
def test_an_older_copy_put_back_once_the_release_is_given_away_is_refused(tmp_path, data, monkeypatch, capsys, killed):
    """A kill before the record says so: the whole folder's next call does."""
    place, copy = tmp_path / "out.private", tmp_path / "backup"
    with monkeypatch.context() as patch, pytest.raises(Killed):
        killed_at(patch, "dp_merf", 2)
        call(data, "out")
    shutil.copytree(place, copy)
    if killed:
        with monkeypatch.context() as patch, pytest.raises(Killed):
            patch.setattr(spent_record, "mark_published", lambda *_: (_ for _ in ()).throw(Killed))
            call(data, "out")
    assert call(data, "out") == 0
    (tmp_path / "out").rename(tmp_path / "given")
    shutil.copytree(copy, place)
    used = charges(monkeypatch)
    capsys.readouterr()
    assert call(data, "out") == 2 and "given away before" in capsys.readouterr().err
    assert used == [] and not (tmp_path / "out").exists() and len(spent(data)) == 1
    shutil.rmtree(place)
    assert call(data, "out") == 0 and len(spent(data)) == 2


@pytest.mark.parametrize("name", ["lock", "partial"])
def test_a_pipe_in_the_workplace_holds_up_nobody(tmp_path, data, monkeypatch, capsys, name):
    with monkeypatch.context() as patch, pytest.raises(Killed):
        killed_at(patch, "dp_merf", 2)
        call(data, "out")
    (tmp_path / "out.private" / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / "out.private" / name)
    capsys.readouterr()
    assert call(data, "out") == 2 and f"holds {name}" in error(capsys)


@pytest.mark.parametrize(
    ("more", "run", "words"),
    [
        (["--epsilon", "inf"], "rows", "protects nobody"),
        (["--epsilon", "0"], "rows", "must be a finite number above 0"),
        (["--epsilon", "-3"], "rows", "must be a finite number above 0"),
        (["--delta", "0.02"], "rows", "not below 1 / records"),
        (["--set", "stesp=3"], "rows", "did you mean 'steps'"),
        (["--set", "features=0"], "rows", "must be 2 to"),
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


def test_a_run_that_cannot_work_is_neither_recorded_nor_begun(data, monkeypatch, capsys):
    def broken(*_):
        raise RuntimeError("no kernel for this")

    used = charges(monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(registry.load("dp_merf"), "step", broken)
        assert call(data, "out") == 2
    assert "no kernel for this" in (line := error(capsys)) and "nothing was charged" in line
    assert used == spent(data) == [] and not (data.parents[1] / "out.private").exists()
    assert call(data, "out") == 0 and len(spent(data)) == 1


def test_a_warm_start_that_cannot_be_made_is_neither_recorded_nor_begun(data, monkeypatch, capsys):
    def refused(_):
        raise UserError("these critics cannot be")

    monkeypatch.setattr(warm_start, "check_settings", refused)
    assert call(data, "out") == 2 and "cannot be" in error(capsys)
    assert spent(data) == [] and not (data.parents[1] / "out.private").exists()


def test_a_release_whose_generator_is_lost_before_it_is_given_away_gets_it_back(tmp_path, data, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(release, "draw", lambda *_: (_ for _ in ()).throw(Killed))
        call(data, "out")
    (tmp_path / "out.private" / "generator.safetensors").unlink()
    used = charges(monkeypatch)
    assert call(data, "out") == 0 and used == [] and len(spent(data)) == 1


def test_a_folder_that_exists_is_not_written_over_and_one_of_others_not_removed(tmp_path, data, monkeypatch, capsys):
    used = charges(monkeypatch)
    (tmp_path / "out").mkdir()
    others = {"out": ["run.json"], "new": ["run.json"], "next": ["lock", "thesis.txt"], "last": ["whole", "a.txt"]}
    for name, held in others.items():
        place = tmp_path / f"{name}.private"
        place.mkdir(exist_ok=True)
        for file in held:
            (place / file).write_text("years")
        assert call(data, name) == 2 and held[-1] in error(capsys)
        assert {path.name for path in place.iterdir()} == set(held)
        shutil.rmtree(place)
    (tmp_path / "out.private").mkdir()
    (tmp_path / "out.private" / "begun.json").write_text("{}")
    (tmp_path / "out").rmdir()
    assert call(data, "out") == 2 and "does not say what was begun" in error(capsys)
    (tmp_path / "out").mkdir()
    shutil.rmtree(tmp_path / "out.private")
    assert call(data, "out") == 2 and "exists" in error(capsys)
    assert used == spent(data) == [] and not (tmp_path / "out.private").exists()


def test_a_working_folder_is_closed_to_others_and_no_link(tmp_path, data, monkeypatch, capsys):
    (tmp_path / "out.private").mkdir(mode=0o755)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        killed_at(patch, "dp_merf", 2)
        call(data, "out")
    assert (tmp_path / "out.private").stat().st_mode & 0o777 == 0o700
    assert (data / "spent.jsonl").stat().st_mode & 0o777 == 0o600
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "linked.private").symlink_to(tmp_path / "elsewhere")
    capsys.readouterr()
    assert call(data, "linked") == 2 and "must be a folder" in error(capsys)


@pytest.mark.parametrize("out", [".", "/", "data/lesions/out", "x" * 250])
def test_a_place_that_cannot_be_given_away_is_refused(tmp_path, data, monkeypatch, capsys, out):
    monkeypatch.chdir(tmp_path)
    common = ["--data", str(data), "--configfile", "mine.yaml", "--device", "cpu"]
    assert main(["release", "rows", *common, "--out", out]) == 2 and "--out" in error(capsys)
    assert spent(data) == []


@pytest.mark.parametrize(
    ("facts", "words"),
    [
        ({"class_names": None}, "no list of class_names"),
        ({"class_names": "abc"}, "no list of class_names"),
        ({"class_names": [1, 2, 3]}, "each a text"),
        ({"class_names": ["a", "b"]}, "as many class names"),
        ({"class_names": ["a", "A", "b"]}, "rename one"),
        ({"num_classes": 2, "class_names": ["a", "b"]}, "labels 0 .. 2"),
        ({"splits": {"train": {"count": 60, "sha256": "00" * 32}}}, "is not what"),
        ({"splits": {"train": {"count": 60}}}, "no sha256"),
    ],
)
def test_records_that_are_not_their_cards_are_refused_before_a_charge(data, monkeypatch, capsys, facts, words):
    used, stored = charges(monkeypatch), load_images(data / "train.npz")
    records(data, stored.images, stored.labels, **facts)
    assert call(data, "out") == 2 and words in error(capsys)
    assert used == spent(data) == [] and not (data.parents[1] / "out.private").exists()


def test_a_link_to_nowhere_is_not_written_through(tmp_path, data, capsys):
    (tmp_path / "out").symlink_to(tmp_path / "gone")
    assert call(data, "out") == 2 and f"link to {tmp_path / 'gone'}, which is not there" in error(capsys)
    assert spent(data) == []


def test_a_place_among_the_private_files_is_found_through_a_link(tmp_path, data, capsys):
    (tmp_path / "linked").symlink_to(data)
    assert call(data, "linked/out") == 2 and "whose files are private" in error(capsys)
    assert spent(data) == []


def test_raw_pictures_in_place_of_data_are_told_apart(tmp_path, data, capsys):
    (data / "card.json").unlink()
    assert call(data, "out") == 2 and "workflow.datasets" in error(capsys)


def test_what_was_deduced_from_the_pictures_is_said_before_it_is_given_away(tmp_path, data, capsys):
    stored = load_images(data / "train.npz")
    records(data, stored.images, stored.labels, deduced=["size", "mode"])
    call(data, "out")
    assert "size and mode of the images were deduced" in capsys.readouterr().err
    # Whoever receives the folder sees no terminal.
    told = "The size and the mode of the images were not stated beforehand but deduced from the training pictures, and"
    for name in ("privacy.json", "DATASHEET.md"):
        assert told in " ".join((tmp_path / "out" / name).read_text().split())


def test_what_was_stated_beforehand_is_not_called_deduced(tmp_path, data):
    call(data, "out")
    assert all("deduced" not in (tmp_path / "out" / name).read_text() for name in ("privacy.json", "DATASHEET.md"))


def test_a_configuration_of_ones_own_states_the_budget(tmp_path, data):
    text = yaml.safe_dump(MINE | {"datasets": {"lesions": {"folder": "p"}}, "delta": 1e-9, "epsilons": [2]})
    (tmp_path / "mine.yaml").write_text(text)
    call(data, "out")
    stated = json.loads((tmp_path / "out" / "privacy.json").read_text())
    assert stated["epsilon_asked_for"] == 2 and stated["delta"] == 1e-9


def test_delta_stays_below_one_in_the_number_of_records(data):
    for records, delta in ((60, 1e-5), (99_999, 1e-5), (100_000, 1e-6), (1_000_000, 1e-7), (999_999, 1e-6)):
        options = release.argparse.Namespace(epsilon="10", delta=None)
        row = Configured("dp_merf", "lesions", {}, (10.0,), 1e-5, paper=False)
        assert release._budget(options, row, records).delta == pytest.approx(delta)


def test_the_noise_of_a_release_is_that_of_its_plan(tmp_path, data, monkeypatch):
    """Nobody hands over a release whose noise was left out."""
    scales, noisy = [], Grant._noisy

    def watched(self, answer):
        scales.append(self._release.scale)
        return noisy(self, answer)

    monkeypatch.setattr(Grant, "_noisy", watched)
    unrehearsed(monkeypatch)
    call(data, "out")
    stated = json.loads((tmp_path / "out" / "privacy.json").read_text())
    (scale,) = scales
    assert scale > 0 and stated["epsilon"] == pytest.approx(10, rel=1e-3)
