"""Every command of README, docs/ and the policies is tried in a way that documented_commands.yaml says."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image
from toys import copied_sources, shipped

from methods import __main__ as methods_command
from workflow.datasets.__main__ import main as prepare

ROOT = Path(__file__).resolve().parents[2]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
REGISTERED = yaml.safe_load(Path(__file__).with_name("documented_commands.yaml").read_text(encoding="utf-8"))
KINDS = ("here", "slow", "planned", "ci", "test", "help", "nowhere")
# Fenced blocks of a page that a test of its own takes from it and follows.
FOLLOWED = {
    "docs/your-own-images.md": "tests/e2e/test_your_own_images.py",
    "docs/add-a-method.md": "tests/e2e/test_add_a_method.py",
}
_FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`((?:python[\d.]* |snakemake |make [a-z]|\.ci/|podman |mkdocs |dpbench )[^`]*)`")


def commands(text: str, fenced: bool = True) -> set[str]:
    """Returns the commands of a page: lines of fenced blocks that are no code or text, and those in a sentence."""
    blocks = _FENCED.findall(text) if fenced else []
    shells = [block.replace("\\\n", " ") for language, block in blocks if language in ("", "sh", "bash", "console")]
    lines = [re.sub(r"(^|\s)#.*$", "", line) for block in shells for line in block.splitlines()]
    found = [*lines, *_INLINE.findall(_FENCED.sub("", text))]
    # An ellipsis stands for any command of a kind, and so does a package alone.
    named = {" ".join(line.split()) for line in found if not line.endswith("...")}
    return named - {"", "python -m", "python -m methods"}


def kind(how: str) -> list[str]:
    """Returns the registered commands of a kind."""
    return [command for command, entry in REGISTERED.items() if how in entry]


def test_every_command_of_every_page_is_registered_and_nothing_else_is() -> None:
    pages = {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in PAGES}
    found = {name: commands(text, name not in FOLLOWED) for name, text in pages.items()}
    told = {name: sorted(missing) for name, held in found.items() if (missing := held - set(REGISTERED))}
    assert told == {}, "say in documented_commands.yaml how these are tried"
    followed = set().union(*(commands(pages[name]) for name in FOLLOWED))
    assert sorted(set(REGISTERED) - set().union(*found.values()) - followed) == [], "these stand on no page"
    assert all(len(entry) == 1 and set(entry) <= set(KINDS) for entry in REGISTERED.values())


def test_a_new_command_is_seen_wherever_it_stands() -> None:
    block = "```\nfoo --bar \\\n  baz  # why\n# not this\n```\n```yaml\nno: command\n```\n"
    text = f"`make x`\n{block}and `python -m\nthere a`"
    assert commands(text) == {"make x", "foo --bar baz", "python -m there a"}


def run(command: str, capsys: pytest.CaptureFixture[str]) -> str:
    """Runs `python -m MODULE ...` or `dpbench ...` in this process, which must succeed; returns what it printed."""
    module, *arguments = shlex.split(command.removeprefix("python -m "))
    package = (ROOT / module.replace(".", "/")).is_dir()
    try:
        code = importlib.import_module(f"{module}.__main__" if package else module).main(arguments)
    except SystemExit as end:  # argparse's --help
        code = end.code
    shown = capsys.readouterr()
    assert code in (0, None), shown.err
    return " ".join((shown.out + shown.err).split())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with pictures, the committed results of quick under both names, and those of own pictures."""
    folder = tmp_path_factory.mktemp("documented")
    for name in ("reference/quick", "quick"):
        (folder / "results" / name).mkdir(parents=True)
        shutil.copy(ROOT / "results/reference/quick/scores.csv", folder / "results" / name)
    shutil.copytree(ROOT / "results/published", folder / "results/published")
    (folder / "results/mine").mkdir()
    shutil.copy(ROOT / "results/reference/own_faces/scores.csv", folder / "results/mine")
    random = np.random.default_rng(0)
    for label, name in enumerate(("benign", "melanoma")):
        (folder / "PICTURES" / name).mkdir(parents=True)
        for number in range(6):
            picture = random.integers(0, 100, (28, 28), dtype=np.uint8) + 100 * label
            Image.fromarray(picture).save(folder / "PICTURES" / name / f"{number}.png")
    return folder


@pytest.fixture
def there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(folder)
    yield folder
    shutil.rmtree(folder / "data", ignore_errors=True)


@pytest.mark.parametrize("command", kind("here"))
def test_it_runs_and_says_what_the_pages_say(there: Path, capsys, command: str) -> None:
    if "--dataset data/lesions" in command:
        prepare(["lesions", "--folder", "PICTURES", "--out", "data/lesions"])
    shown = run(command, capsys)
    assert [words for words in REGISTERED[command]["here"] if words not in shown] == [], shown[-2000:]


@pytest.mark.slow
@pytest.mark.parametrize("command", kind("slow"))
def test_it_runs_given_time(there: Path, capsys, command: str) -> None:
    if "results/smoke/data" in command:
        prepare(["digits", "--out", "results/smoke/data/digits"])
        _plan("smoke", "dp_cgan", there / "results/smoke/data/digits/card.json")
    if "results/quick/runs" in command:
        card = {"dataset": "mnist", "image_shape": [1, 28, 28], "num_classes": 10}
        card |= {"splits": {"train": {"count": 60000}}}
        (there / "card.json").write_text(json.dumps(card))
        _plan("quick", "gs_wgan", there / "card.json")
    capsys.readouterr()
    shown = run(command, capsys)
    assert [words for words in REGISTERED[command]["slow"] if words not in shown] == [], shown[-2000:]


def _plan(preset: str, name: str, card: Path) -> None:
    """Writes the plan of a preset's run, where the graph does."""
    settings, dataset = shipped(preset).runs[name], json.loads(card.read_text())["dataset"]
    out = f"results/{preset}/runs/{dataset}/{name}/eps10/seed0/plan.json"
    chosen = ["--hyper", json.dumps(dict(settings.hyper[dataset])), "--accounting", settings.accounting]
    given = ["plan", "--method", settings.method, "--card", str(card), "--epsilon", "10", *chosen, "--out", out]
    assert methods_command.main(given) in (0, None)


@pytest.mark.parametrize("command", [one for one in REGISTERED if one.startswith("python -m methods ")])
def test_the_options_of_a_method_command_are_those_that_it_takes(command: str, monkeypatch, capsys) -> None:
    """Also of one that some other test runs."""
    verb, *rest = shlex.split(command)[3:]
    module = importlib.import_module(f"methods.commands.{verb.replace('-', '_')}")
    called = []
    monkeypatch.setattr(module, "run", called.append)
    if "help" in REGISTERED[command]:
        assert verb == REGISTERED[command]["help"]
        with pytest.raises(SystemExit) as end:
            methods_command.main([verb, "--help"])
        assert end.value.code == 0 and "usage" in capsys.readouterr().out
    else:
        methods_command.main([verb, *rest])
        assert len(called) == 1


@pytest.mark.parametrize("command", [one for one in kind("planned") if one.startswith("make ")])
def test_make_would_do_it(command: str, tmp_path: Path) -> None:
    dry = ["make", "--dry-run", *shlex.split(command)[1:], f"VENV={tmp_path}"]
    shown = subprocess.run(dry, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert REGISTERED[command]["planned"] in shown


@pytest.mark.slow
@pytest.mark.parametrize("command", [one for one in kind("planned") if one.startswith("snakemake ")])
def test_snakemake_would_do_it(command: str, tmp_path: Path) -> None:
    sources = copied_sources(tmp_path / "sources")
    shutil.copytree(ROOT / "profiles", sources / "profiles", dirs_exist_ok=True)
    for name in ("benign", "melanoma"):
        (sources / "lookalike" / name).mkdir(parents=True)
        for number in range(200):
            Image.new("L", (28, 28), number % 250).save(sources / "lookalike" / name / f"{number}.png")
    (sources / "mine.yaml").write_text("extends: own\ndatasets:\n  lookalike: {folder: lookalike, public: true}\n")
    # print_config only prints.
    dry = [sys.executable, "-m", *shlex.split(command)]
    dry += [] if "-n" in dry or "print_config" in dry else ["-n"]
    done = subprocess.run(dry, cwd=sources, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and REGISTERED[command]["planned"] in done.stdout + done.stderr, done.stderr[-2000:]


@pytest.mark.parametrize("command", kind("ci"))
def test_ci_runs_it(command: str) -> None:
    steps = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())["jobs"]["suite"]["steps"]
    lines = [*(ROOT / ".ci/run").read_text().splitlines(), *(step.get("run", "") for step in steps)]
    line = REGISTERED[command]["ci"]
    assert line == command and any(shown == line or shown.startswith(f"{line} ") for shown in lines)


@pytest.mark.parametrize("command", [one for one in kind("help") if one.startswith("dpbench ")])
def test_a_verb_of_the_command_line_has_a_help(command: str, capsys) -> None:
    assert f"usage: {command}" in run(f"{command} --help", capsys)


@pytest.mark.parametrize("command", kind("test"))
def test_the_test_that_runs_it_is_there(command: str) -> None:
    path, _, name = REGISTERED[command]["test"].partition("::")
    text = (ROOT / path).read_text(encoding="utf-8")
    assert f"def {name or 'test_'}" in text


@pytest.mark.parametrize("page", FOLLOWED)
def test_a_page_that_is_followed_is_read_by_its_test(page: str) -> None:
    assert f'"{page}"' in (ROOT / FOLLOWED[page]).read_text(encoding="utf-8")


def test_what_nothing_runs_is_little_and_has_a_reason() -> None:
    reasons = [REGISTERED[command]["nowhere"] for command in kind("nowhere")]
    assert len(reasons) <= 4 and all(len(reason) > 20 for reason in reasons)
