"""The one command line: every verb, the same functions as the `python -m` forms, quick to start."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

import methods.__main__ as methods_main
from dpbench import completion, preset_files
from dpbench.__main__ import main
from dpbench.verbs import all_verbs
from evaluation import compare
from evaluation.scores import Score, write_scores
from methods.core import registry
from workflow.common import verbs

ROOT = Path(__file__).resolve().parents[2]


def helped(capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    """Returns what a call with --help prints."""
    with pytest.raises(SystemExit) as end:
        main([*argv, "--help"])
    assert end.value.code == 0
    return capsys.readouterr().out


def test_it_has_every_verb_of_the_methods_and_those_of_the_other_stages() -> None:
    assert set(methods_main.VERBS) < set(all_verbs())
    assert {"data", "score", "export", "rank", "compare", "presets", "graph", "completion"} <= set(all_verbs())


def test_a_verb_that_the_methods_get_is_there_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(methods_main.VERBS, "look-on", "a verb of tomorrow")
    assert all_verbs()["look-on"] == verbs.Verb("a verb of tomorrow", "methods.commands.look_on")


def test_every_verb_has_help_that_says_more_than_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    for verb in all_verbs():
        text = helped(capsys, verb)
        assert text.startswith(f"usage: dpbench {verb}") and len(text.splitlines()) > 3, verb


def test_an_unknown_verb_is_one_line_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scoer"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: unknown command 'scoer'; did you mean 'score'? valid: ") and error.count("\n") == 1


@pytest.mark.parametrize(
    ("typed", "meant"), [("nwe", "new"), ("rnu", "run"), ("nww", "new"), ("dat", "data"), ("wacth", "watch")]
)
def test_a_slip_in_a_short_verb_is_understood_too(typed, meant, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([typed]) == 2
    assert f"unknown command {typed!r}; did you mean {meant!r}? valid: " in capsys.readouterr().err


def test_a_verb_like_no_other_is_met_with_the_list_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["foo"]) == 2
    assert "unknown command 'foo'; valid: " in capsys.readouterr().err


def test_presets_are_listed_each_in_whole_sentences(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["presets"]) == 0
    lines = capsys.readouterr().out.partition("\n\n")[0].splitlines()
    assert [line for line in lines if not line.endswith(".")] == []
    (own,) = (line for line in lines if line.startswith("own: "))
    assert own.endswith("64x64: give them as `datasets:`.")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("# One. Two at 0.5 and\n# more. Three.\npreset: x\n", "One."),
        ("# It begins here,\n# and ends here. More\npreset: x\n", "It begins here, and ends here."),
        ("# no stop\npreset: x\n# other.\n", "no stop"),
        ("preset: x\n", ""),
    ],
)
def test_what_a_preset_is_about_ends_with_a_sentence(text, said) -> None:
    assert preset_files.about(text) == said


def test_the_version_is_the_projects(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["--version"])
    stated = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert end.value.code == 0 and capsys.readouterr().out == f"{stated['name']} {stated['version']}\n"


def test_help_and_lists_start_without_torch() -> None:
    code = """
import sys
from dpbench.__main__ import main
for argv in (["list"], ["list", "--names"], ["presets"], ["presets", "smoke"], ["--help"]):
    try:
        assert main(argv) == 0, argv
    except SystemExit as end:
        assert end.code == 0
print(sorted({"torch", "sklearn", "snakemake", "matplotlib"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "[]", done.stdout + done.stderr


@pytest.mark.parametrize("verb", ["run", "account", "audit"])
def test_help_behind_a_method_lists_its_settings_with_their_ranges(
    verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "\n  decays (int, default 5, 0 to 1000): " in helped(capsys, verb, "dp_merf")
    assert "NAME --help shows" in helped(capsys, verb)


def test_compare_is_the_same_command_under_both_names(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, value in (("a", 0.9), ("b", 0.7)):
        row = Score("quick", "mnist", "dpac", 10.0, "sound", 0, "g2r_cnn", value, "measured")
        write_scores(tmp_path / f"{name}.csv", [row])
    found = []
    for tolerance in ("0.1", "0.3"):
        argv = ["--tolerance", f"g2r_cnn={tolerance}", "is=5%", str(tmp_path / "a.csv"), str(tmp_path / "b.csv")]
        both = [(call(), capsys.readouterr().out) for call in (
            lambda argv=argv: compare.main(argv), lambda argv=argv: main(["compare", *argv]),
        )]  # fmt: skip
        assert both[0] == both[1]
        found.append(both[0][0])
    assert found == [1, 0]


def test_an_error_names_the_command_that_was_called(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compare", "a.csv"]) == 2
    assert "see dpbench compare --help" in capsys.readouterr().err
    assert compare.main(["a.csv"]) == 2
    assert "see python -m evaluation.compare --help" in capsys.readouterr().err


def test_snakemake_without_its_file_is_one_line(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["graph", "--cores", "1"]) == 2
    assert "holds no Snakefile: run `dpbench graph` in the suite's own folder" in capsys.readouterr().err


def test_a_shell_completes_verbs_options_methods_and_presets(tmp_path: Path) -> None:
    (tmp_path / "script").write_text(completion.script("bash"))
    for name, words in (("dpbench", "-m dpbench"),):
        (tmp_path / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {words} "$@"\n')
        (tmp_path / name).chmod(0o755)

    def completed(*words: str) -> set[str]:
        line = " ".join(f"'{word}'" for word in words)
        ask = f"COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _shtab_dpbench; printf '%s\\n' \"${{COMPREPLY[@]}}\""
        environment = os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
        done = subprocess.run(
            ["bash", "-c", f"source '{tmp_path}/script'; {ask}"], cwd=ROOT, env=environment, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        return set(done.stdout.split())

    assert {"compare", "completion"} <= completed("dpbench", "comp")
    assert "--tolerance" in completed("dpbench", "compare", "--to")
    assert completed("dpbench", "describe", "dp_") == {name for name in registry.names() if name.startswith("dp_")}
    assert completed("dpbench", "score", "--preset", "s") == {"smoke"}


def test_make_console_puts_a_command_into_the_environment_that_works_anywhere(tmp_path: Path) -> None:
    root = tmp_path / "a suite"
    root.mkdir()
    for name in ("Makefile", "pyproject.toml"):
        shutil.copyfile(ROOT / name, root / name)
    for package in ("dpbench", "workflow", "methods"):
        (root / package).symlink_to(ROOT / package)
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", root / ".venv"], check=True)
    subprocess.run(["make", "-s", "console", f"PYTHON={sys.executable}"], cwd=root, check=True)
    environment = os.environ | {"PYTHONPATH": str(Path(np.__file__).parents[1])}
    # Folders of the suite's names beside a user must not be taken for it.
    (tmp_path / "workflow").mkdir()
    (tmp_path / "workflow/__init__.py").write_text("raise SystemExit('not mine')")
    done = subprocess.run(
        [root / ".venv/bin/dpbench", "list", "--names"], cwd=tmp_path, env=environment, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.stdout.split() == registry.names(), done.stderr


def saved(path: Path, labels: list[int], side: int = 4) -> str:
    np.savez(path, images=np.zeros((len(labels), 1, side, side), np.uint8), labels=np.array(labels, np.int64))
    return str(path)


def test_two_classes_of_one_name_are_not_exported_over_each_other(tmp_path: Path, capsys) -> None:
    samples = saved(tmp_path / "s.npz", [0, 1])
    for names in (["same", "same"], ["a/b", "a:b"]):
        (tmp_path / "card.json").write_text(json.dumps({"class_names": names}))
        assert main(["export", samples, "--card", str(tmp_path / "card.json"), "--out", str(tmp_path / "out")]) == 2
        assert f"classes {names[0]!r} and {names[1]!r} would both be folder" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_labels_of_any_size_are_exported(tmp_path: Path) -> None:
    assert main(["export", saved(tmp_path / "s.npz", [10**12, 3]), "--out", str(tmp_path / "out")]) == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [str(10**12), "3"]


def test_images_without_a_pixel_are_refused(tmp_path: Path, capsys) -> None:
    assert main(["export", saved(tmp_path / "s.npz", [0, 1], side=0), "--out", str(tmp_path / "out")]) == 2
    assert "2 images [1, 0, 0]; PNG needs one at least" in capsys.readouterr().err
