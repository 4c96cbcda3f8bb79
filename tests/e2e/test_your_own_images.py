"""docs/your-own-images.md, followed command by command on pictures that are made here."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from toys import copied_sources

from workflow.common.contracts import load_images

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/your-own-images.md").read_text(encoding="utf-8")
CLASSES = ("benign", "melanoma", "naevus")
# Fewer runs than the page's: methods of each kind, with seeds enough to tell noise.
FEWER = ("--config", "runs=dp_merf,dp_cgan,dp_sinkhorn,pate_gan,gs_wgan_sound", "seeds=0,1")
FILES = {"contact_sheet.png", "samples.npz", "generator.safetensors", "privacy.json", "DATASHEET.md"}


def blocks(kind: str) -> dict[int, list[str]]:
    """Returns the lines of the page's blocks of one kind by the number of the step that they stand in."""
    steps = re.findall(r"^## (\d)\. .*?\n(.*?)(?=^## )", PAGE, flags=re.MULTILINE | re.DOTALL)
    found = {int(step): re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL) for step, text in steps}
    return {step: "".join(texts).splitlines() for step, texts in found.items()}


COMMANDS = blocks("sh")
DRY, REAL, RANK = COMMANDS[3]


def draw_pictures(folder: Path, seed: int, per_class: int = 25) -> None:
    """Makes pictures of mixed sizes, aspects and formats: a class is a shade and the place of a spot.

    Small and grey, since the release's time grows with the number of values.
    """
    rng = np.random.default_rng(seed)
    for label, name in enumerate(CLASSES):
        (folder / name).mkdir(parents=True)
        for number in range(per_class):
            height, width = rng.integers(24, 40, 2)
            picture = rng.integers(0, 40, (height, width), dtype=np.uint8) + 40 * label
            rows, columns = (slice(label * side // 4, (label + 2) * side // 4) for side in (height, width))
            picture[rows, columns] += 80
            suffix = (".png", ".jpg", ".JPEG")[number % 3]
            Image.fromarray(picture).save(folder / name / f"{number}{suffix}")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the source files with `pictures`, `lookalike` and the page's mine.yaml."""
    folder = copied_sources(tmp_path_factory.mktemp("repository"))
    draw_pictures(folder / "pictures", seed=0)
    draw_pictures(folder / "lookalike", seed=1)
    (folder / "mine.yaml").write_text("\n".join(blocks("yaml")[3]) + "\n", encoding="utf-8")
    return folder


def follow(folder: Path, command: str, *more: str) -> str:
    """Runs a command of the page in `folder`, which must succeed; returns what it printed."""
    program, *arguments = shlex.split(command)
    run = {"python": [sys.executable], "snakemake": [sys.executable, "-m", "snakemake"]}[program]
    environment = {**os.environ, "PYTHONPATH": str(folder), "XDG_CACHE_HOME": str(folder / ".cache")}
    done = subprocess.run(
        [*run, *arguments, *more], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{command}\n{done.stdout[-5000:]}"
    return done.stdout


@pytest.fixture(scope="module")
def looked_at(repository: Path) -> str:
    (command,) = COMMANDS[1]
    return follow(repository, command)


@pytest.fixture(scope="module")
def released(repository: Path, looked_at: str) -> Path:
    (command,) = COMMANDS[2]
    before = {path.name for path in repository.iterdir()}
    follow(repository, command)
    (new,) = {path.name for path in repository.iterdir()} - before
    return repository / new


def test_the_page_has_the_commands_of_three_steps_and_its_file_is_valid() -> None:
    assert [len(COMMANDS[step]) for step in (1, 2, 3)] == [1, 1, 3]
    assert yaml.safe_load("\n".join(blocks("yaml")[3]))["datasets"]["lookalike"]["public"] is True


def test_looking_reads_every_picture_and_says_what_it_made_of_them(repository: Path, looked_at: str) -> None:
    train, test = (load_images(repository / f"data/lesions/{split}.npz") for split in ("train", "test"))
    assert len(train) + len(test) == 25 * len(CLASSES)
    assert train.image_shape == test.image_shape == (1, 28, 28)
    assert json.loads((repository / "data/lesions/card.json").read_text())["class_names"] == list(CLASSES)
    assert len(looked_at.splitlines()) == 1 and "28x28 grey" in looked_at and "3 classes" in looked_at


def test_the_release_holds_what_the_page_lists(released: Path) -> None:
    table = PAGE.split("| in `lesions-released/` |")[1].split("\n\n")[0]
    listed = re.findall(r"^\| `([\w./<>]+)`[^|]*\|", table, flags=re.MULTILINE)
    assert {name for name in listed if "/" not in name} == FILES
    assert {path.name for path in released.iterdir()} == FILES | {"images"}
    assert {path.name for path in (released / "images").iterdir()} == set(CLASSES)


def test_the_released_pictures_are_the_arrays_pixel_for_pixel(released: Path) -> None:
    samples = load_images(released / "samples.npz")
    for label, name in enumerate(CLASSES):
        paths = sorted((released / "images" / name).glob("*.png"))
        pixels = np.stack([np.asarray(Image.open(path)) for path in paths])
        assert np.array_equal(pixels, samples.images[samples.labels == label][:, 0]), name


def test_the_release_states_the_epsilon_that_was_asked_for(released: Path) -> None:
    facts = json.loads((released / "privacy.json").read_text())
    assert 9 < facts["epsilon"] <= 10 and facts["delta"] <= 1e-5
    assert "epsilon" in (released / "DATASHEET.md").read_text()


def test_nothing_private_is_left_beside_the_release(repository: Path, released: Path) -> None:
    assert not (repository / f"{released.name}.private").exists()
    facts = json.loads((released / "privacy.json").read_text())
    assert "seed" not in {*facts, *facts["plan"], *facts["plan"]["public"]}
    for path in (path for path in released.rglob("*") if path.is_file()):
        assert str(repository).encode() not in path.read_bytes(), path


def test_the_comparison_can_be_planned_and_lists_every_method_and_seed(repository: Path) -> None:
    assert f"{REAL} -n --quiet rules" == DRY, "what is listed is what is done"
    shown = follow(repository, DRY)
    jobs = dict(re.findall(r"^(\w+) +(\d+)$", shown, flags=re.MULTILINE))
    assert int(jobs["train"]) >= 3 * 5 and jobs["rank"] == jobs["classifiers"] == "1"
    assert "warning" not in shown and not (repository / "results/mine/runs").exists()


@pytest.mark.slow
def test_the_comparison_ends_in_a_ranked_table(repository: Path) -> None:
    follow(repository, REAL, *FEWER)
    shown = follow(repository, RANK)
    assert "### lookalike, ε 10" in shown and "On lookalike these 10 runs spent ε" in shown
    with (repository / "results/mine/tables/rank.csv").open(newline="") as handle:
        rows = [row for row in csv.DictReader(handle) if row["metric"] == "g2r_cnn"]
    ranked = [row for row in rows if row["place"]]
    assert {row["method"] for row in ranked} == set(FEWER[1].removeprefix("runs=").split(","))
    assert ranked[0]["verdict"] == "best within noise" and {row["seeds"] for row in ranked} == {"2"}
    page = (repository / "results/mine/report.html").read_text()
    assert "Which method?" in page and "lookalike, ε 10" in page
    assert "MNIST" not in (repository / "results/mine/tables/table1.md").read_text()


@pytest.mark.slow
def test_an_npz_in_medmnists_layout_goes_from_its_path_to_tables(repository: Path) -> None:
    random = np.random.default_rng(0)
    arrays = {}
    for split, count in (("train", 200), ("val", 30), ("test", 60)):
        labels = np.arange(count) % 4
        images = random.integers(0, 60, (count, 28, 28, 3), dtype=np.uint8)
        images += (labels * 60).astype(np.uint8)[:, None, None, None]
        arrays |= {f"{split}_images": images, f"{split}_labels": labels[:, None]}
    np.savez(repository / "madeup.npz", **arrays)
    text = {"extends": "smoke", "runs": "dp_merf", "datasets": {"madeup": {"folder": "madeup.npz", "public": True}}}
    (repository / "npz.yaml").write_text(yaml.safe_dump(text), encoding="utf-8")
    follow(repository, "snakemake --cores 2 --configfile npz.yaml --quiet rules host")
    with (repository / "results/npz/tables/table2.csv").open(newline="") as handle:
        table = list(csv.reader(handle))
    assert [row[0] for row in table[1:]] == ["DP-MERF", "Real data (reference)"]
    assert "madeup_g2r_cnn_measured_mean" in table[0] and not any("mnist" in cell for cell in table[0])
    card = json.loads((repository / "results/npz/data/madeup/card.json").read_text())
    assert card["image_shape"] == [3, 28, 28] and card["splits"]["test"]["count"] == 60
