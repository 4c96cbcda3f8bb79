"""What Snakemake makes of pictures of the user's own, on a project with toy stages."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from toy_project import PRESET, Project, make_project

MINE = ("--configfile", "mine.yaml")
HOST = ("--quiet", "host")


@pytest.fixture
def own(fresh: Project) -> Project:
    """A toy project with pictures in `pictures/<class>`, mine.yaml over preset quick, and a preset without data."""
    return with_pictures(fresh)


@pytest.fixture(scope="module")
def _whole_once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Project, str]:
    project = with_pictures(make_project(tmp_path_factory.mktemp("whole")))
    return project, made(project, *MINE)


@pytest.fixture
def whole(_whole_once: tuple[Project, str], tmp_path: Path) -> Project:
    """A copy of such a project in which all of mine.yaml has been made."""
    shutil.copytree(_whole_once[0].folder, tmp_path / "whole", symlinks=True)
    return Project(tmp_path / "whole")


def with_pictures(fresh: Project) -> Project:
    for name in ("benign", "melanoma"):
        for number in range(3):
            path = fresh.folder / f"pictures/{name}/{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{name} {number}")
    describe(fresh, {"lesions": {"folder": "pictures", "size": 32}})
    preset = PRESET.replace("preset: quick", "preset: own").replace("{mnist: {}, celeba: {optional: true}}", "{}")
    (fresh.folder / "workflow/config/own.yaml").write_text(preset)
    return fresh


def describe(project: Project, datasets: dict, **more) -> None:
    text = yaml.safe_dump({"extends": "quick", "datasets": datasets, **more})
    (project.folder / "mine.yaml").write_text(text)


def outputs(project: Project, *arguments: str) -> set[str]:
    return {path.removeprefix("results/mine/") for path in project.planned(*arguments, *MINE)}


def made(project: Project, *arguments: str) -> str:
    done = project.snakemake(*arguments)
    assert done.returncode == 0, done.stdout
    return done.stdout


def names(paths: set[str], folder: str) -> set[str]:
    return {Path(path).stem for path in paths if path.startswith(folder)}


def test_one_call_makes_the_tables_of_the_own_set_in_a_folder_of_its_own(own: Project, _whole_once):
    planned = outputs(own)
    assert names(planned, "tables/") == {"table1", "table2", "table3", "table6", "table7", "table9", "rank"}
    assert names(planned, "figures/") == {"figure3", "epsilon_sweep", "runs", "utility_epsilon"}
    whole, shown = _whole_once
    root = whole.folder / "results/mine"
    files = {str(path.relative_to(root)) for path in root.glob("**/*")}
    assert {"report.html", "scores.csv", "runs/lesions/alpha/eps10/seed0/utility.json"} <= files
    assert not (root / "published_costs.csv").exists() and not (whole.folder / "results/quick").exists()
    data = json.loads((root / "data/lesions/card.json").read_text())["arguments"]
    assert data[:2] == ["lesions", "--own"] and json.loads(data[2]) == {"folder": "pictures", "size": 32}
    alone = json.loads((root / "tables/table1.md").read_text())["arguments"]
    assert alone[alone.index("--datasets") + 1] == "lesions"
    page = json.loads((root / "report.html").read_text())["arguments"]
    assert page[page.index("--leave-out") + 1 :][:4] == ["table4", "table5", "table8", "figure4"]
    warnings = [line for line in shown.splitlines() if line.startswith("warning: a benchmark run")]
    assert len(warnings) == 1 and "protects nobody in lesions:" in warnings[0]
    assert outputs(whole) == set()


def test_the_pictures_are_read_again_only_where_they_changed_and_where_they_lie_does_not_matter(whole: Project):
    cache = whole.folder / "results/mine/private/own/lesions.json"
    before = cache.read_text()
    shutil.copytree(whole.folder / "pictures", whole.folder / "moved")
    describe(whole, {"lesions": {"folder": "moved", "size": 32, "public": True}})
    assert outputs(whole) == set()
    assert json.loads(cache.read_text())["content"] == json.loads(before)["content"]
    (whole.folder / "moved/benign/0.png").write_text("another picture")
    planned = outputs(whole)
    assert "data/lesions/train.npz" in planned and "runs/lesions/alpha/eps10/seed0/run.json" in planned
    shutil.rmtree(whole.folder / "moved")
    done = made(whole, *MINE, "-n", *HOST)
    assert "Nothing to be done" in done and "notice: data set lesions: folder moved does not exist" in done


def test_results_copied_without_snakemakes_records_are_not_taken_for_those_of_other_pictures(whole: Project):
    card = whole.folder / "results/mine/data/lesions/card.json"
    content = json.loads((whole.folder / "results/mine/private/own/lesions.json").read_text())["content"]
    stated = json.loads(card.read_text()) | {"files": {"content": content}}
    card.write_text(json.dumps(stated))
    shutil.rmtree(whole.folder / ".snakemake")
    assert "Nothing to be done" in made(whole, "results/mine/data/lesions/card.json", "-n", *MINE, *HOST)
    picture = whole.folder / "pictures/benign/0.png"
    picture.write_text(picture.read_text().replace("0", "9"))
    error = whole.refusal(*MINE)
    assert "the images in results/mine/data/lesions were made from other pictures" in error and "remove" in error


def test_unchanged_pictures_are_not_read_at_the_next_start(own: Project):
    made(own, *MINE, "-n", *HOST)
    # Where the hash were computed again, this stand-in would end the call.
    own.edit("workflow/datasets/own.py", "def content_hash(own", "def content_hash(own, broken")
    made(own, *MINE, "-n", *HOST)
    (own.folder / "pictures/benign/new.png").write_text("new")
    assert own.snakemake(*MINE, "-n").returncode != 0


def test_other_settings_of_the_images_make_the_data_again(whole: Project):
    describe(whole, {"lesions": {"folder": "pictures", "size": 64}})
    assert "data/lesions/train.npz" in outputs(whole)


def test_next_to_a_paper_s_data_set_its_tables_are_shown_too(own: Project):
    describe(own, {"mnist": {}, "lesions": {"folder": "pictures"}})
    planned = outputs(own)
    assert names(planned, "tables/") == {f"table{number}" for number in (1, 2, 3, 5, 6, 7, 8, 9)} | {"rank"}
    assert {"data/mnist/card.json", "data/lesions/card.json"} <= planned
    describe(own, {"fashion_mnist": {}, "celeba10k": {"optional": True}, "lesions": {"folder": "pictures"}})
    assert "table4" in names(outputs(own), "tables/")


def test_any_file_of_an_own_set_can_be_made_by_name(own: Project):
    target = "results/mine/runs/lesions/beta/eps3/seed7/utility.json"
    planned = outputs(own, target)
    assert "runs/lesions/beta/eps3/seed7/utility.json" in planned and "scores.csv" not in planned
    chosen = outputs(own, "--config", "runs=gamma", "epsilons=1,10", "seeds=0,1")
    assert {path.split("/", 2)[2] for path in chosen if path.startswith("runs/") and path.endswith("run.json")} == {
        f"gamma/eps{epsilon}/seed{seed}/run.json" for epsilon in (1, 10) for seed in (0, 1)
    }


def test_one_line_without_a_file_needs_a_preset_made_for_it(own: Project):
    line = ("--config", "preset=own", "datasets={lesions: {folder: pictures, size: 32, public: true}}")
    done = made(own, *line, "-n", *HOST)
    assert "results/own/data/lesions/card.json" in done


def test_the_settings_are_printed_without_the_pictures(own: Project):
    shutil.rmtree(own.folder / "pictures")
    shown = made(own, *MINE, "--config", "seeds=3", "--cores", "1", "print_config")
    text = shown[shown.index("preset: mine") :]
    settings = yaml.safe_load(text)
    assert settings["datasets"]["lesions"]["size"] == 32 and settings["protocol"]["batch_size"] == 128
    for line in (
        "size: 32  # mine.yaml",
        "seeds: [3]  # --config",
        "steps: 3  # preset quick",
        "threads: 1  # default",
    ):
        assert line in text
    assert not (own.folder / "results/mine").exists()


@pytest.mark.parametrize(
    ("datasets", "more", "arguments", "parts"),
    [
        ({"lesions": {"foldr": "pictures"}}, {}, MINE, ["'foldr'", "did you mean 'folder'", "mine.yaml"]),
        ({"lesions": {"folder": "picures"}}, {}, MINE, ["data set lesions: folder picures does not exist", "/picures"]),
        ({"lesions": {"folder": "pictures", "labels": "l.csv"}}, {}, MINE, ["lesions: labels l.csv does not exist"]),
        ({"lesions": {"folder": "pictures", "size": 33}}, {}, MINE, ["datasets.lesions", "got 33"]),
        ({"lesions": {"folder": "pictures"}}, {"extends": "quik"}, MINE, ["'quik'", "did you mean 'quick'"]),
        ({"lesions": {"folder": "pictures"}}, {}, ("results/mine/scores.csv",), ["preset 'mine'", "--configfile FILE"]),
        (
            {"lesions": {"folder": "pictures"}}, {}, ("results/mine/data/lesoins/card.json", *MINE),
            ["unknown data set 'lesoins'", "did you mean 'lesions'"],
        ),
        ({}, {}, ("--config", "preset=own"), ["own.yaml has no data set", "datasets={NAME: {folder: PATH}}"]),
    ],
)  # fmt: skip
def test_wrong_input_is_one_line_and_exit_code_2(own: Project, datasets, more, arguments, parts):
    describe(own, datasets, **more)
    error = own.refusal(*arguments)
    for part in parts:
        assert part in error
