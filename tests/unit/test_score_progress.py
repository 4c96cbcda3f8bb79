"""`dpbench score` says what it will do and how far it is, and keeps each classifier that it has trained."""

from __future__ import annotations

import hashlib
import json
import math
import re
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from toys import squares

from dpbench import kept_classifiers, parts, score_any
from dpbench.__main__ import main
from dpbench.kept_classifiers import BEGUN, CARD, WHAT_FOR, Kept
from dpbench.parts import Parts
from evaluation import classifiers
from evaluation.protocol import Protocol
from workflow import merging
from workflow.common.errors import UserError
from workflow.common.files import read_json, write_json
from workflow.common.locks import locked
from workflow.datasets.real_sets import read_real

TINY = (
    '{"min_steps": 2, "batch_size": 64, "feature_epochs": 1, "cnn_r2g_epochs": 1, "cnn_g2r_epochs": 1,'
    ' "mlp_r2g_iterations": 2, "mlp_g2r_iterations": 2, "inception_images": 0, "is_splits": 2, "prc_images": 50}'
)
STEP = r"progress: (\d)/(\d) steps, .* elapsed, about .* left(; running .*)?"


@pytest.fixture(autouse=True)
def _no_minute_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is, no line comes in between."""
    monkeypatch.setattr(parts, "EVERY_SECONDS", 1e6)


@pytest.fixture
def call(tmp_path: Path) -> list[str]:
    for name, data in {"samples": squares(90, 3), "real": squares(120, 1)}.items():
        np.savez(tmp_path / f"{name}.npz", images=data.images, labels=data.labels)
    return ["score", "--samples", str(tmp_path / "samples.npz"), "--real", str(tmp_path / "real.npz"), "--preset",
            "smoke", "--protocol", TINY]  # fmt: skip


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """The classifiers that calls have trained, by name, and the one at which Ctrl-C is pressed."""
    seen, train_one = SimpleNamespace(names=[], interrupted=None), classifiers.train_one

    def watched(name: str, *others: object) -> dict:
        if name == seen.interrupted:
            raise KeyboardInterrupt
        seen.names.append(name)
        return train_one(name, *others)

    monkeypatch.setattr(classifiers, "train_one", watched)
    return seen


def interrupted(call: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Returns the last line of a call that Ctrl-C ends."""
    with pytest.raises(SystemExit) as end:
        main(call)
    assert end.value.code == 130
    return capsys.readouterr().err.splitlines()[-1]


def test_a_call_says_first_what_it_will_do_and_then_at_each_step_how_far_it_is(call, capsys) -> None:
    assert main(call) == 0
    first, *lines = capsys.readouterr().err.splitlines()
    assert first == (
        "scoring 90 samples against real in 6 steps: about 31 s of a core by the times of preset smoke, more on a busy"
        " machine; --classifiers FOLDER would keep the classifiers of real, for the next call and for a killed one"
    )
    found = [re.fullmatch(STEP, line) for line in lines if line.startswith("progress: ")]
    assert all(found) and {one[2] for one in found} == {"6"}
    assert [one[1] for one in found] == list("0123456")
    names = ["library loading", "feature network", "real2gen MLP", "real2gen CNN", "fidelity", "gen2real and real2gen"]
    assert [one[3] for one in found] == [*(f"; running {name}" for name in names), None]


def test_what_an_ended_call_has_trained_is_used_by_the_same_call(call, trained, tmp_path, capsys) -> None:
    assert main(call) == 0
    scores = capsys.readouterr().out
    trained.names, trained.interrupted, folder = [], "cnn", tmp_path / "kept"
    again = [*call, "--classifiers", str(folder)]
    assert interrupted(again, capsys) == (
        f"interrupted: 2 of 3 classifiers of real are kept in {folder}; the same command goes on from there"
    )
    assert trained.names == ["features", "mlp"]
    trained.names, trained.interrupted = [], None
    assert main(again) == 0
    printed = capsys.readouterr()
    assert trained.names == ["cnn"] and "in 4 steps" in printed.err and "as 2 of 3 are already" in printed.err
    # The same numbers as of one whole call.
    assert printed.out == scores
    assert (folder / CARD).exists() and not (folder / BEGUN).exists()
    assert main(again) == 0
    printed = capsys.readouterr()
    assert trained.names == ["cnn"] and printed.out == scores
    assert f"the classifiers of real are those in {folder}\n" in printed.err


def test_several_classifiers_of_gen2real_take_the_real_set_s_that_were_kept_for_one(call, trained, tmp_path) -> None:
    again = [*call, "--classifiers", str(tmp_path / "kept")]
    assert main(again) == 0
    card = read_json(tmp_path / "kept" / CARD)
    real = read_real(tmp_path / "real.npz", None)
    shown = str(Protocol.parse(json.dumps(merging.shipped_content("smoke")["protocol"] | json.loads(TINY))))
    # The key of a folder from before there was such a setting.
    before = shown.replace("g2r_classifiers=1, ", "")
    text = f"{real.train.digest()} {real.test.digest()} {before} 0"
    assert before != shown and card[WHAT_FOR] == hashlib.sha256(text.encode()).hexdigest()
    again[again.index(TINY)] = TINY.replace("{", '{"g2r_classifiers": 2, ')
    assert main(again) == 0 and len(trained.names) == 3
    again[again.index("--protocol") + 1] = TINY.replace("{", '{"num_samples": 80, ')
    assert main(again) == 2


def test_what_was_begun_with_other_settings_is_not_used(call, trained, tmp_path, capsys) -> None:
    again = [*call, "--classifiers", str(tmp_path / "kept")]
    trained.interrupted = "mlp"
    interrupted(again, capsys)
    trained.interrupted = "features"
    interrupted([*again, "--seed", "1"], capsys)
    # That call may have written over the first one's files.
    trained.names, trained.interrupted = [], "cnn"
    interrupted(again, capsys)
    assert trained.names == ["features", "mlp"]


def test_without_a_folder_ctrl_c_says_that_nothing_is_kept(call, trained, capsys) -> None:
    trained.interrupted = "mlp"
    assert interrupted(call, capsys) == (
        "interrupted: nothing is kept; with --classifiers FOLDER the classifiers of real would be, each once it is"
        " trained"
    )


def test_the_steps_are_those_of_the_evaluation_s_own_classifiers() -> None:
    assert tuple(score_any.CLASSIFIERS) == classifiers.NAMES


def test_a_preset_that_has_measured_nothing_promises_no_time(capsys) -> None:
    kept = Kept(None, "", score_any.CLASSIFIERS)
    made = Parts(score_any.expected("paper", kept))
    assert math.isinf(made.seconds)
    assert "preset paper does not say how long that takes" in score_any.beginning(9, "faces", "paper", kept, made)
    with made.part("fidelity"):
        pass
    assert re.fullmatch(r"progress: 0/6 steps, \d+ s elapsed; running fidelity\n", capsys.readouterr().err)


def test_a_long_step_is_told_again_while_it_runs(monkeypatch, capsys) -> None:
    told, reported = threading.Event(), Parts.report

    def report(self: Parts) -> None:
        reported(self)
        if threading.current_thread() is not threading.main_thread():
            told.set()

    monkeypatch.setattr(parts, "EVERY_SECONDS", 0.01)
    monkeypatch.setattr(Parts, "report", report)
    with Parts({"a": 60.0}) as made, made.part("a"):
        assert told.wait(30)
    *lines, _ = capsys.readouterr().err.splitlines()
    assert len(lines) > 1 and all(re.fullmatch(STEP, line) and line.endswith("; running a") for line in lines)


def test_a_broken_note_of_what_is_kept_is_named(call, tmp_path, capsys) -> None:
    write_json(tmp_path / "kept" / BEGUN, [1])
    assert main([*call, "--classifiers", str(tmp_path / "kept")]) == 2
    said = capsys.readouterr().err
    assert f"{tmp_path / 'kept' / BEGUN} holds [1]" in said and said.count("\n") == 1


# Several calls, and folders that are not as they were left


def test_two_calls_at_once_do_not_mix_the_classifiers_of_two_sets(call, trained, tmp_path, capsys) -> None:
    folder = tmp_path / "kept"
    again = [*call, "--classifiers", str(folder)]
    with locked(folder):
        assert main(again) == 2
    assert f"error: {folder} is in use by another process" in capsys.readouterr().err and trained.names == []
    assert main(again) == 0
    # Whoever only reads them waits for nobody.
    with locked(folder):
        assert main(again) == 0
    assert len(trained.names) == 3


def test_what_another_call_did_before_this_one_had_the_folder_counts(tmp_path) -> None:
    late, early = (Kept(tmp_path, "key", score_any.CLASSIFIERS) for _ in range(2))
    with early.held():
        early.add("mlp", {})
    with late.held():
        assert late.done == {"mlp": {}}
    other = Kept(tmp_path, "other", score_any.CLASSIFIERS)
    early.add("features", {})
    assert set(Kept(tmp_path, "key", score_any.CLASSIFIERS).done) == {"mlp", "features"}
    with other.held():
        assert not (tmp_path / BEGUN).exists() and other.done == {}


def test_a_classifier_is_said_to_be_kept_once_its_note_is_on_disk(tmp_path, monkeypatch) -> None:
    kept = Kept(tmp_path, "key", score_any.CLASSIFIERS)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(kept_classifiers, "write_json", interrupt)
    with pytest.raises(KeyboardInterrupt):
        kept.add("mlp", {})
    assert score_any.left("real", kept).startswith("0 of 3 classifiers")


def test_a_whole_folder_is_read_where_nothing_can_be_written(call, trained, tmp_path, monkeypatch, capsys) -> None:
    again = [*call, "--classifiers", str(tmp_path / "kept")]
    assert main(again) == 0
    # As on a closed disk, whoever runs this test.
    monkeypatch.setattr(score_any, "refuse_unwritable", lambda path: (_ for _ in ()).throw(UserError(f"closed {path}")))
    assert main(again) == 0 and len(trained.names) == 3
    assert main([*call, "--classifiers", str(tmp_path / "other")]) == 2
    assert "closed" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["features.safetensors", "cnn.safetensors", "mlp.npz", "real_features.npz"])
def test_a_damaged_classifier_is_named_and_how_to_have_it_again(call, trained, tmp_path, capsys, name) -> None:
    folder = tmp_path / "kept"
    again = [*call, "--classifiers", str(folder)]
    assert main(again) == 0
    (folder / name).write_bytes(b"no such file")
    capsys.readouterr()
    assert main(again) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert str(folder / name) in said and said.endswith(f"or remove {folder}: the same command then trains them anew")
