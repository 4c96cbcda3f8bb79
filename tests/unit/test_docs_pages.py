"""The pages of docs/: cards are what code and committed numbers say, the navigation is whole, the site builds."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from toys import shipped

from docs.make import method_cards
from docs.make.older_rows import older
from evaluation.scores import read_scores
from methods.core import registry
from workflow.common.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
SITE = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))


def navigated(entry: object) -> list[str]:
    """Returns the files of a part of the navigation, in order."""
    if isinstance(entry, str):
        return [entry]
    parts = entry.values() if isinstance(entry, dict) else entry
    return [name for part in parts for name in navigated(part)]


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    return method_cards.pages()


def test_the_committed_cards_are_what_the_code_and_the_committed_numbers_say(made) -> None:
    committed = {path.name: path.read_text(encoding="utf-8") for path in (DOCS / "methods").glob("*.md")}
    assert committed == made, "write them again: python -m docs.make.method_cards"


def test_the_command_writes_the_cards_and_removes_what_has_no_words(tmp_path: Path, made) -> None:
    (tmp_path / "gone.md").write_text(f"{method_cards.MADE_BY}\n\n# A method that is no more\n")
    own = {"README.md": "somebody's own page"}
    (tmp_path / "README.md").write_text(own["README.md"])
    assert method_cards.main(["--out", str(tmp_path)]) in (0, None)
    assert {path.name: path.read_text(encoding="utf-8") for path in tmp_path.iterdir()} == {**made, **own}


def test_every_method_of_the_main_preset_has_a_card_with_everything(made) -> None:
    for name in {run.method for run in shipped("quick").runs.values()}:
        heads = re.findall(r"^## (.*)$", made[f"{name}.md"], flags=re.MULTILINE)
        assert heads[:4] == ["Idea", "When to use it", "Source", "Numbers"], name
        assert f"]({name}.md)" in made["index.md"]


def test_a_card_has_our_number_beside_the_published_one_and_every_departure(made) -> None:
    """Of GS-WGAN: the committed quick run's and the paper's accuracies on MNIST."""
    text = made["gs_wgan.md"]
    measured = read_scores(ROOT / "results/reference/quick/scores.csv")
    ours = {one.metric: f"{one.value:.3f}" for one in measured if (one.method, one.dataset) == ("gs_wgan", "mnist")}
    row = f"| `gs_wgan` | MNIST | 10 | {ours['g2r_cnn']} / 0.80 | {ours['r2g_cnn']} / 0.99 |"
    assert any(line.startswith(row) for line in text.splitlines())
    assert "≤ 610.34" in text
    sources = method_cards.registry.load("gs_wgan").SOURCES
    assert text.count("\n- departure") == sum(line.startswith("departure") for line in sources) > 5


def test_a_card_marks_each_row_that_its_preset_would_make_otherwise_today(made) -> None:
    """`quick` holds DPGAN as it is now, and `longer_seeds` DP-NTK with more steps than any preset has."""
    now = shipped("quick").runs

    def committed(name: str, run: str) -> dict:
        record = json.loads((ROOT / f"results/reference/{name}/provenance.json").read_text())
        return record["settings"]["runs"][run]["hyper"]["mnist"]

    assert committed("quick", "dpgan") == now["dpgan"].hyper["mnist"]
    assert committed("longer_seeds", "dp_ntk")["steps"] > now["dp_ntk"].hyper["mnist"]["steps"]
    dpgan = [line for line in made["dpgan.md"].splitlines() if "[quick]" in line]
    ntk = [line for line in made["dp_ntk.md"].splitlines() if "[longer_seeds]" in line]
    assert (len(dpgan), len(ntk)) == (2, 4)
    assert not any("†" in line for line in dpgan) and all("†" in line for line in ntk)


def test_runs_that_two_references_hold_have_one_row(made) -> None:
    """`gan_seeds` was made in the folder of `quick`: of DP-MERF it holds the same runs, of GS-WGAN more seeds."""
    for method, folders in (("dp_merf", {"quick"}), ("gs_wgan", {"quick", "gan_seeds"})):
        rows = [line for line in made[f"{method}.md"].splitlines() if line.startswith(f"| `{method}` | MNIST | 10 |")]
        assert {name for name in ("quick", "gan_seeds") if any(f"[{name}]" in line for line in rows)} == folders


def test_a_row_is_older_where_settings_method_or_scoring_differ_but_not_where_a_default_is_spelled_out() -> None:
    config = shipped("quick")
    run, now = "dp_merf", config.runs["dp_merf"].hyper["mnist"]

    def found(hyper: dict, run: str = run, method: str = "dp_merf", protocol: dict = config.protocol) -> bool:
        one = {"method": method, "hyper": {"mnist": hyper}}
        made = older({"preset": "quick", "protocol": protocol, "runs": {run: one}})
        return made == {(run, "mnist")}

    whole = dataclasses.asdict(registry.hyper("dp_merf", now))
    assert not found(dict(now)) and not found(whole)
    assert found(now | {"steps": now["steps"] + 1}) and found({})
    assert found(dict(now), run="dp_merf_twice") and found({}, run="dp_merf", method="dp_ntk")
    assert found(dict(now), protocol=config.protocol | {"num_samples": 60000})


@pytest.mark.parametrize(("preset", "dataset"), [("quick", "mnist"), ("long", "lesions"), ("paper", "celeba")])
def test_a_row_of_a_configuration_is_held_to_the_preset_that_it_extends(preset: str, dataset: str) -> None:
    now = shipped(preset).summary()
    method = now["runs"]["dp_merf"]["method"]
    hyper = now["runs"]["dp_merf"]["hyper"]["mnist"]
    for changed in ({}, {"features": 17}):
        one = {"method": method, "hyper": {dataset: hyper | changed}}
        settings = {"preset": "mine", "extends": preset, "protocol": now["protocol"], "runs": {"dp_merf": one}}
        assert older(settings) == ({("dp_merf", dataset)} if changed else set())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("dp_merf: {idea: x}", "must have the texts `idea` and `use`"),
        ("dp_merf: {idea: x, use: ''}", "must have the texts `idea` and `use`"),
        ("dp_murf: {idea: x, use: y}", "dp_merf"),
        ("[]", "must hold a mapping of methods"),
    ],
)
def test_words_that_a_card_cannot_use_are_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "words.yaml").write_text(text)
    with pytest.raises(UserError, match=re.escape(words)):
        method_cards.words(tmp_path / "words.yaml")


def test_the_navigation_has_every_page_once() -> None:
    found = navigated(SITE["nav"])
    assert sorted(name for name in found if (DOCS / name).exists()) == PAGES
    others = [name for name in found if name not in PAGES]
    assert others and all((ROOT / name).exists() for name in others) and found[0] == "index.md"


@pytest.mark.parametrize("name", ["README.md", "mkdocs.yml", *(f"docs/{page}" for page in PAGES)])
def test_no_page_names_a_host_or_a_folder_of_one_machine(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    assert not re.search(r"https?://|file://|(?<![\w.>])/(tmp|work|root|srv|opt|home/(?!bench/))", text)


def test_one_version_builds_the_site_everywhere() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    (pin,) = project["optional-dependencies"]["docs"]
    assert Requirement(pin).name == "mkdocs" and re.fullmatch(r"==[\d.]+", str(Requirement(pin).specifier))
    assert f"\n{pin}\n" in (ROOT / "requirements.in").read_text()
    assert f"\n{pin} \\\n" in (ROOT / "requirements.lock").read_text()


def test_make_builds_the_site_so_that_a_warning_ends_it() -> None:
    (line,) = re.findall(r"^pages:.*\n\t(.*)$", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert line.endswith("-m mkdocs build --strict")


def built(root: Path, site: Path) -> subprocess.CompletedProcess[str]:
    # With --quiet no warning is counted, and --strict lets everything pass.
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)


def test_the_site_builds_without_warnings_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    done = built(ROOT, tmp_path / "site")
    assert done.returncode == 0 and "WARNING" not in done.stderr, done.stderr
    for path in (tmp_path / "site").rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"(src|<link[^>]* href)=\"(https?:)?//", text), path
    for page in PAGES:
        assert (tmp_path / "site" / page).with_suffix(".html").is_file(), page
    for taken in ("results/reference/quick_seeds/figures/figure3.png", "results/reference/quick/tables/table5.html"):
        assert (tmp_path / "site" / taken).is_file()


@pytest.mark.slow
@pytest.mark.parametrize("link", ["[x](nowhere.md)", "[x](privacy.md#no-such-part)", "[x](../methods/nowhere.py)"])
def test_a_broken_link_ends_the_build(tmp_path: Path, link: str) -> None:
    pytest.importorskip("mkdocs")
    root = tmp_path / "root"
    for name in ("docs", "results/reference", "results/published", "benchmarks/results", ".github", "methods"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for path in (ROOT / "mkdocs.yml", *ROOT.glob("*.md"), ROOT / "LICENSE"):
        shutil.copy(path, root)
    assert built(root, tmp_path / "site").returncode == 0
    page = root / "docs/faults.md"
    page.write_text(page.read_text(encoding="utf-8") + f"\n{link}\n", encoding="utf-8")
    done = built(root, tmp_path / "site")
    assert done.returncode == 1 and "faults.md" in done.stderr
