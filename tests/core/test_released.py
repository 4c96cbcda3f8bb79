"""A released folder: it holds what it says and nothing of the seed, the machine, the time or the records."""

from __future__ import annotations

import dataclasses
import getpass
import io
import json
import math
import os
import re
import socket
import stat
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pyarrow import parquet
from safetensors import safe_open
from toys import CPU

from methods.core.release import Budget, PublicSpec, Release, emptiness
from methods.core.released import parquet_file
from methods.core.released.datasheet import datasheet
from methods.core.released.mechanism import in_words
from methods.core.released.privacy_facts import privacy_facts
from methods.core.released.writer import write
from methods.core.runs import sample
from methods.core.runs.plan import Plan
from workflow.common.class_names import safe_name
from workflow.common.errors import UserError

SOUND = Budget(10.0, 1e-5, "sound")
SEED = 0xC0FFEE42
NAMES = ("healthy", "naïve nevus", "T-shirt/top")
TINY = {"features": 8, "hidden": 4, "channels": 2, "steps": 2}


def a_plan(
    shape: tuple[int, int, int] = (1, 28, 28), classes: int = 3, seed: int = SEED, budget: Budget = SOUND,
    dataset: str = "toy", method: str = "dp_merf",
) -> Plan:  # fmt: skip
    hyper = TINY if method == "dp_merf" else {"batch_size": 20}
    return Plan.make(method, "a_run", hyper, PublicSpec(dataset, shape, classes, 60), budget, seed)


def arrays(plan: Plan, count: int = 20) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(1)
    images = random.integers(0, 256, (count, *plan.public.image_shape), dtype=np.uint8)
    return images, random.permutation(np.arange(count, dtype=np.int64) % plan.public.num_classes)


def released(folder: Path, plan: Plan | None = None, names=NAMES, count: int = 20, parquet: bool = True) -> Path:
    plan = plan or a_plan()
    write(folder, plan, names, *arrays(plan, count), plan.build(CPU).public_state(), parquet)
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def unpacked(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Yields every file as it lies there, and again what its compression hides."""
    for name, content in files(folder).items():
        yield name, content
        if name.endswith(".png"):
            yield name, Image.open(io.BytesIO(content)).tobytes()
        elif name.endswith(".npz"):
            archive = zipfile.ZipFile(io.BytesIO(content))
            yield from ((f"{name}/{member}", archive.read(member)) for member in archive.namelist())
        elif name.endswith(".parquet"):
            table = parquet.read_table(io.BytesIO(content))
            yield f"{name} schema", repr(table.schema.metadata).encode()
            yield from ((f"{name} rows", repr(row).encode()) for row in table.to_pylist())


def forms(seed: int) -> set[bytes]:
    """Returns a seed as text and as an integer of either byte order, 4 bytes (its lowest) and 8."""
    texts = {str(seed), f"{seed:x}", f"{seed:X}"}
    low = seed % 2**32
    integers = {struct.pack(f"{order}{kind}", n) for order in "<>" for kind, n in (("I", low), ("Q", seed))}
    return {text.encode() for text in texts} | integers


def chunks(png: bytes) -> list[str]:
    names, at = [], 8
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        names.append(png[at + 4 : at + 8].decode())
        at += length + 12
    return names


@pytest.mark.parametrize("with_parquet", [False, True])
def test_the_folder_holds_these_files_and_no_other(tmp_path: Path, with_parquet: bool) -> None:
    folder = released(tmp_path / "out", parquet=with_parquet)
    _, labels = arrays(a_plan())
    pictures = {
        f"images/{safe_name(name)}/{number:05}.png"
        for label, name in enumerate(NAMES) for number in range((labels == label).sum())
    }  # fmt: skip
    others = {"contact_sheet.png", "samples.npz", "generator.safetensors", "privacy.json", "DATASHEET.md"}
    assert set(files(folder)) == pictures | others | ({parquet_file.FILE} if with_parquet else set())
    assert len(pictures) == 20 and "images/T-shirt_top/00000.png" in pictures
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == ["data"] * with_parquet + ["images"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(("shape", "mode"), [((1, 28, 28), "L"), ((3, 32, 32), "RGB")])
def test_png_npz_and_parquet_hold_the_same_pixels(tmp_path: Path, shape: tuple[int, int, int], mode: str) -> None:
    plan = a_plan(shape)
    folder = released(tmp_path / "out", plan)
    images, labels = arrays(plan)
    with np.load(folder / "samples.npz") as stored:
        assert set(stored.files) == {"images", "labels"}
        assert stored["images"].dtype == np.uint8 and np.array_equal(stored["images"], images)
        assert stored["labels"].dtype == np.int64 and np.array_equal(stored["labels"], labels)
    rows = parquet.read_table(folder / parquet_file.FILE).to_pylist()
    assert [row["label"] for row in rows] == labels.tolist()
    seen = [0] * 3
    for image, label, row in zip(images, labels, rows, strict=True):
        path = folder / "images" / safe_name(NAMES[label]) / f"{seen[label]:05}.png"
        seen[label] += 1
        opened = Image.open(path)
        assert opened.mode == mode
        pixels = np.asarray(opened)
        assert np.array_equal(pixels[None] if mode == "L" else pixels.transpose(2, 0, 1), image)
        assert row["image"] == {"bytes": path.read_bytes(), "path": path.relative_to(folder / "images").as_posix()}


def test_equal_arguments_give_equal_bytes_modes_and_times(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        one, other = (released(tmp_path / name) for name in ("one", "other"))
    finally:
        os.umask(before)
    assert files(one) == files(other)
    for path in (one, other, *one.rglob("*"), *other.rglob("*")):
        status = path.stat()
        assert stat.S_IMODE(status.st_mode) == (0o755 if path.is_dir() else 0o644), path
        assert status.st_mtime_ns == 315576000 * 10**9, path


def test_no_file_holds_a_time_or_a_text_of_its_own(tmp_path: Path) -> None:
    folder = released(tmp_path / "out")
    for name, content in files(folder).items():
        if name.endswith(".png"):
            assert set(chunks(content)) == {"IHDR", "IDAT", "IEND"}, name
    with zipfile.ZipFile(folder / "samples.npz") as archive:
        assert {entry.date_time for entry in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
    with safe_open(folder / "generator.safetensors", "pt") as stored:
        assert stored.metadata() is None
    facts = json.loads((folder / "privacy.json").read_text())
    assert set(facts["code"]) == {"commit", "modified"}
    texts = (folder / "privacy.json").read_text() + (folder / "DATASHEET.md").read_text()
    # No day, no hour; 32 hexadecimal digits and more are the commit alone.
    assert not re.search(r"\d{4}-\d\d-\d\d|\d\d:\d\d", texts)
    assert set(re.findall(r"\b[0-9a-f]{32,}\b", texts)) <= {facts["code"]["commit"]}


@pytest.mark.parametrize("seed", [SEED, 0x5EEDC0FFEE421234])
def test_the_seed_is_in_no_file_in_no_form(tmp_path: Path, seed: int) -> None:
    folder = released(tmp_path / "out", a_plan(seed=seed))
    found = [(name, form) for name, content in unpacked(folder) for form in forms(seed) if form in content]
    assert found == []
    facts = json.loads((folder / "privacy.json").read_text())
    assert "seed" not in {*facts, *facts["plan"], *facts["plan"]["hyper"], *facts["plan"]["public"]}
    # The search itself finds a seed, also where compression hides it.
    np.savez_compressed(folder / "planted.npz", hidden=np.array([seed], np.uint64))
    assert any(form in content for name, content in unpacked(folder) if "planted.npz/" in name for form in forms(seed))


def test_another_seed_changes_the_generator_alone(tmp_path: Path) -> None:
    one, other = (files(released(tmp_path / str(seed), a_plan(seed=seed))) for seed in (SEED, 7))
    assert [name for name in one if one[name] != other[name]] == ["generator.safetensors"]


def test_nothing_names_the_machine_its_user_or_its_folders(tmp_path: Path) -> None:
    folder = released(tmp_path / "out", a_plan(dataset=str(tmp_path / "lesions")))
    words = {str(tmp_path), tmp_path.parent.name, str(Path.home()), socket.gethostname(), os.uname().release}
    # A short name may be a word of the texts.
    words = {word for word in words | {getpass.getuser()} if len(word) > 5}
    found = [(name, word) for name, content in unpacked(folder) for word in words if word.encode() in content]
    assert found == []
    assert json.loads((folder / "privacy.json").read_text())["plan"]["dataset"] == "lesions"
    assert "(`lesions`)" in (folder / "DATASHEET.md").read_text()


def test_true_counts_steps_and_the_published_count_are_not_in_the_facts() -> None:
    facts = privacy_facts(a_plan(), NAMES)
    assert set(facts) == {
        "epsilon", "epsilon_asked_for", "delta", "count", "adjacency", "unit", "method", "sources", "mechanism",
        "assumed", "noise", "not_covered", "code", "class_names", "plan",
    }  # fmt: skip
    assert set(facts["plan"]) == {
        "method", "dataset", "epsilon", "delta", "accounting", "hyper", "public", "releases", "eps_sound",
    }  # fmt: skip
    assert facts["class_names"] == list(NAMES)


@pytest.mark.parametrize("target", [10.0, 1.0, 0.2])
def test_the_sheet_and_the_facts_state_what_the_plan_costs(target: float) -> None:
    plan = a_plan(budget=Budget(target, 3e-6, "sound"))
    facts, sheet = privacy_facts(plan, NAMES), datasheet(plan, parquet=True)
    assert (facts["epsilon"], facts["delta"]) == (plan.costs["sound"], 3e-6) and facts["epsilon_asked_for"] == target
    row = re.search(r"^\| ([\d.]+) \| (\S+) \| epsilon (\S+) \| (\w+) \|$", sheet, re.M)
    epsilon, delta, asked, count = row.groups()
    # Rounded, but never below.
    assert plan.costs["sound"] <= float(epsilon) < plan.costs["sound"] + 1.01e-4
    assert (float(delta), float(asked), count) == (3e-6, target, "sound")
    (release,) = plan.releases
    assert f"noise multiplier {release.noise:.6g}" in " ".join(sheet.split())
    factor = float(re.search(r"e\^epsilon = ([\d.,]+) times", " ".join(sheet.split()))[1].replace(",", ""))
    assert 1 <= factor / math.exp(plan.costs["sound"]) < 1.01
    assert datasheet(plan, parquet=True).count("load_dataset") == 2 and "load_dataset" not in datasheet(plan, False)


@pytest.mark.parametrize(("delta", "least"), [
    (0.01, math.log(1e5)), (1e-5, math.log(1e5)), (1e-7, math.log(1e7)), (1e-12, math.log(1e10)),
])  # fmt: skip
def test_a_promise_is_called_empty_from_where_it_limits_no_guess_as_likely_as_delta(delta: float, least: float) -> None:
    assert emptiness(0.999 * least, delta) == ""
    assert f"at least {round(math.exp(least)):,}, so nothing is promised" in emptiness(1.001 * least, delta)


@pytest.mark.parametrize(("target", "empty"), [(10.0, False), (11.0, False), (12.0, True), (1e6, True)])
def test_the_sheet_of_a_large_epsilon_says_that_it_promises_next_to_nothing(target: float, empty: bool) -> None:
    sheet = datasheet(a_plan(budget=Budget(target, 1e-5, "sound")), parquet=False)
    said = "**This epsilon promises next to nothing**: e^epsilon is at least 100,000" in " ".join(sheet.split())
    assert said == empty and all(len(line) <= 120 for line in sheet.splitlines())


def test_the_sheet_says_whom_it_protects_from_what_and_what_it_does_not_cover() -> None:
    sheet = " ".join(datasheet(a_plan(), parquet=False).split())
    for words in (
        "exchanged for any other (replace one)", "For a person with k pictures it is k times the epsilon",
        "Several pictures of one person", "crop or padding, window, background",
        "the number of training pictures (60)", "28 x 28, grey", "number of classes (3)", "that choice is not counted",
        "was never written", "Other releases made from the same pictures", "Names of classes", "running time",
        "anyone who watched it", "Floating point", "docs/privacy.md", "Harder, Adamczewski, Park",
        "In the names of these folders `_` stands for blanks",
    ):  # fmt: skip
        assert words in sheet, words
    assert "add or remove" not in sheet and all(len(line) <= 120 for line in datasheet(a_plan(), True).splitlines())


def test_the_other_relation_is_stated_for_poisson_batches_and_both_where_both_are() -> None:
    poisson = a_plan(method="dp_cgan")
    sheet = " ".join(datasheet(poisson, parquet=False).split())
    assert "(add or remove one)" in sheet and "replace one" not in sheet and "had that picture not been there" in sheet
    assert list(privacy_facts(poisson, NAMES)["adjacency"]) == ["add_or_remove"]
    assert f"with probability {poisson.releases[0].rate:.6g}" in sheet
    other = dataclasses.replace(poisson.releases[0], name="other", adjacency="replace_one")
    both = dataclasses.replace(poisson, releases=(*poisson.releases, other))
    sheet = " ".join(datasheet(both, parquet=False).split())
    first = poisson.releases[0].name
    assert f"for `{first}`, two sets" in sheet and "for `other`, two sets" in sheet
    assert "(add or remove one)" in sheet and "(replace one)" in sheet
    assert set(privacy_facts(both, NAMES)["adjacency"]) == {"add_or_remove", "replace_one"}


GRADIENT = Release(
    name="gradient", kind="gaussian", clip=0.5, noise=3.0, bounded="function", rows=32, rate=1 / 60,
    sampling="one_shard_of_k", max_uses=700, state="hidden", draws="per_row",
)  # fmt: skip


@pytest.mark.parametrize(
    ("release", "words"),
    [
        (GRADIENT, ("At most 32 rows", "L2 norm 0.5 on its own", "standard deviation 3 ",
                    "multiplier 3 times sensitivity 1.", "One of 60 fixed parts", "anew for each row", "at most 700.",
                    "remember earlier draws")),
        (Release(name="v", kind="gaussian", clip=1, noise=2, bounded="votes", rows=9, rate=1.0, sampling="all",
                 max_uses=3, answers=4),
         ("Counts of votes", "sensitivity 1.41421.", "All records take part (rate 1)",
          "at most 3, each with 4 answers")),
        (Release(name="l", kind="laplace", clip=0.5, noise=7, bounded="function", rows=1, rate=1.0, sampling="all",
                 max_uses=1), ("At most 1 row,", "L1 norm 0.5", "Laplace noise of scale 7 is")),
        # One kind for classes and for the parts that DP-Gauss splits them into.
        (Release(name="parts", kind="gaussian", clip=1, noise=2, bounded="moments", rows=9, rate=1.0, sampling="all",
                 max_uses=1),
         ("of each class, or of each part of one, all together", "at most 9 rows u, each from one record")),
    ],
)  # fmt: skip
def test_each_kind_of_answer_is_put_in_words(release: Release, words: tuple[str, ...]) -> None:
    for part in words:
        assert part in in_words(release)


def test_the_generator_gives_the_same_images_with_what_the_folder_says_alone(tmp_path: Path) -> None:
    from safetensors.torch import load_file

    plan = a_plan()
    folder = released(tmp_path / "out", plan)
    facts = json.loads((folder / "privacy.json").read_text(encoding="utf-8"))
    loaded = Plan.from_dict({**facts["plan"], "run": "release", "seed": 1})
    state = load_file(folder / "generator.safetensors")
    own = plan.build(CPU).public_state()
    assert set(state) == set(own) and all(torch.equal(state[name], own[name]) for name in own)
    images = [
        sample.draw(one, state, 6, CPU, torch.Generator().manual_seed(0))[0] for one in (plan, loaded)
    ]  # fmt: skip
    assert np.array_equal(*images)
    # The sheet's own lines run.
    code = re.findall(r"^```python\n(.*?)^```", (folder / "DATASHEET.md").read_text(), re.M | re.S)[0]
    scope: dict[str, object] = {}
    here = Path.cwd()
    os.chdir(folder)
    try:
        exec(code, scope)
    finally:
        os.chdir(here)
    assert scope["images"].shape == (100, 1, 28, 28) and scope["released"]["images"].shape == (20, 1, 28, 28)


def test_parquet_says_what_its_columns_are_as_hugging_face_does(tmp_path: Path) -> None:
    schema = parquet.read_schema(released(tmp_path / "out") / parquet_file.FILE)
    assert json.loads(schema.metadata[b"huggingface"]) == {
        "info": {"features": {
            "image": {"_type": "Image"}, "label": {"names": list(NAMES), "_type": "ClassLabel"},
        }}
    }  # fmt: skip
    assert [(field.name, str(field.type)) for field in schema] == [
        ("image", "struct<bytes: binary, path: string>"), ("label", "int64"),
    ]  # fmt: skip


def test_parquet_of_several_row_groups_keeps_the_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_file, "_ROWS", 7)
    path = released(tmp_path / "out") / parquet_file.FILE
    assert parquet.ParquetFile(path).num_row_groups == 3
    assert parquet.read_table(path)["label"].to_pylist() == arrays(a_plan())[1].tolist()


def test_a_hundred_classes_have_a_folder_each_and_a_short_sheet(tmp_path: Path) -> None:
    names = [str(number) for number in range(100)]
    folder = released(tmp_path / "out", a_plan(classes=100), names, count=150, parquet=False)
    assert {path.name for path in (folder / "images").iterdir()} == set(names)
    assert len(list((folder / "images").rglob("*.png"))) == 150
    wide, high = Image.open(folder / "contact_sheet.png").size
    assert wide < 1200 and high < 20 * 100
    assert (folder / "DATASHEET.md").read_text().count("\n") < 100


def test_the_contact_sheet_shows_each_class_in_its_row(tmp_path: Path) -> None:
    plan = a_plan((3, 32, 32), classes=2)
    labels = np.arange(30, dtype=np.int64) % 2
    images = np.zeros((30, 3, 32, 32), np.uint8)
    images[labels == 0, 0], images[labels == 1, 2] = 255, 255
    write(tmp_path / "out", plan, ("red", "blue"), images, labels, plan.build(CPU).public_state(), False)
    sheet = np.asarray(Image.open(tmp_path / "out/contact_sheet.png"))
    half = len(sheet) // 2
    for part, colour in ((sheet[:half], (255, 0, 0)), (sheet[half:], (0, 0, 255))):
        coloured = (part[:, 124:] == colour).all(-1)
        # Ten images of 64 by 64, and nothing of the other class.
        assert coloured.sum() == 10 * 64 * 64 and ((part[:, 124:] == 255).all(-1) | coloured).all()


@pytest.mark.parametrize("name", ["a b", "日本", "../up", "/etc", "C:\\x", "con", "é", "line\nbreak", "100 %"])
def test_any_class_name_stays_inside_the_folder_and_whole_in_the_labels(tmp_path: Path, name: str) -> None:
    folder = released(tmp_path / "out", a_plan(classes=2), ("plain", name))
    assert {path.name for path in (folder / "images").iterdir()} == {"plain", safe_name(name)}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert json.loads((folder / "privacy.json").read_text())["class_names"] == ["plain", name]
    schema = parquet.read_schema(folder / parquet_file.FILE)
    assert json.loads(schema.metadata[b"huggingface"])["info"]["features"]["label"]["names"] == ["plain", name]


def write_wrongly(folder: Path, plan: Plan | None = None, **changed: object) -> None:
    plan = plan or a_plan()
    images, labels = arrays(plan)
    given = {"class_names": NAMES, "images": images, "labels": labels, **changed}
    write(folder, plan, **given, state=plan.build(CPU).public_state(), parquet=False)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"class_names": ("a", "b")}, "3 classes and needs as many class names"),
        ({"class_names": ("a b", "a_b", "c")}, "both be folder"),
        ({"images": np.zeros((20, 3, 28, 28), np.uint8)}, r"uint8 \[N, 1, 28, 28\]"),
        ({"images": np.zeros((20, 1, 28, 28), np.float32)}, "got float32"),
        ({"images": np.zeros((0, 1, 28, 28), np.uint8), "labels": np.zeros(0, np.int64)}, "at least one"),
        ({"labels": np.zeros(19, np.int64)}, r"labels int64 \[20\]"),
        ({"labels": np.zeros(20, np.int32)}, "got int32"),
        ({"labels": np.full(20, 3)}, r"0 \.\. 2, got 3"),
        ({"labels": np.full(20, -1)}, r"0 \.\. 2, got -1"),
    ],
)
def test_what_does_not_fit_the_plan_is_refused_before_a_file_is_written(tmp_path, changed, message) -> None:
    with pytest.raises(UserError, match=message):
        write_wrongly(tmp_path / "out", **changed)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("budget", [Budget(10.0, 1e-5, "published"), Budget(math.inf, 1e-5, "none")])
def test_a_plan_without_a_sound_budget_is_refused(tmp_path: Path, budget: Budget) -> None:
    with pytest.raises(UserError, match="sound"):
        write_wrongly(tmp_path / "out", a_plan(budget=budget))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_holds_something_is_refused_and_kept(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("kept")
    with pytest.raises(UserError, match="not an empty folder"):
        write_wrongly(tmp_path)
    with pytest.raises(UserError, match="not an empty folder"):
        write_wrongly(tmp_path / "mine")
    assert [path.name for path in tmp_path.iterdir()] == ["mine"] and (tmp_path / "mine").read_text() == "kept"
