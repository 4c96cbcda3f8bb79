"""`evaluation.compare --exact`, and what a comparison says of the processors that its sides were made on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evaluation.compare import main
from evaluation.scores import Score, write_scores

VALUES = {"g2r_cnn": 0.8, "fid_classifier": 20.0, "eps_sound": 9.9, "train_seconds": 5.0}
AGAIN = {"train_seconds": 5.1}  # the same scores, made anew
OLD = {"processor": "AMD EPYC, family 25 model 17, AVX-512", "packages": {"torch": "2.13.0", "numpy": "2.4.6"},
       "pinned": {"MKL_CBWR": "COMPATIBLE"}}  # fmt: skip


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    def compare(
        changed: dict[str, float], *options: str, seeds: tuple[int, int] = (1, 1), **records: dict[str, Any] | None
    ) -> tuple[int, list[str]]:
        for side, values, count in (("a", VALUES, seeds[0]), ("b", VALUES | changed, seeds[1])):
            rows = [
                Score("smoke", "digits", "dpac", 10.0, "sound", seed, metric, value * (1 + 0.01 * seed), "measured")
                for metric, value in values.items()
                for seed in range(count)
            ]
            write_scores(tmp_path / side / "scores.csv", rows)
            if records.get(side) is not None:
                (tmp_path / side / "provenance.json").write_text(json.dumps(records[side]))
        code = main([str(tmp_path / "a"), str(tmp_path / "b"), *options])
        out = capsys.readouterr()
        return code, (out.out + out.err).splitlines()

    return compare


@pytest.mark.parametrize(
    ("metric", "value", "shown"),
    [
        ("g2r_cnn", 0.799999, "0.8 -> 0.799999"),
        ("g2r_cnn", 0.800001, "0.8 -> 0.800001"),
        ("fid_classifier", 19.9999, "20 -> 19.9999"),
    ],
)
def test_any_move_of_the_six_digits_is_a_difference_whichever_way_it_goes(run, metric, value, shown) -> None:
    code, lines = run({metric: value}, "--exact")
    assert code == 1 and lines[0] == "1 difference; 4 scores compared, 0 new"
    assert lines[-1] == f"different    digits dpac eps 10 sound seed 0: {metric}: {shown} (tolerance none)"
    assert run({metric: value})[0] == 0


def test_equal_scores_are_no_difference_and_time_belongs_to_the_machine(run) -> None:
    code, lines = run({"train_seconds": 50.0}, "--exact")
    assert code == 0 and lines[0] == "no difference; 4 scores compared, 0 new, 1 moved"
    assert lines[1] == "note: compared exactly"


def test_a_score_that_is_missing_counts_with_those_that_differ(tmp_path: Path, run, capsys) -> None:
    assert run({"g2r_cnn": 0.7})[0] == 1
    rows = [Score("smoke", "digits", "dpac", 10.0, "sound", 0, "g2r_cnn", 0.7, "measured")]
    write_scores(tmp_path / "b/scores.csv", rows)
    assert main([str(tmp_path / "a"), str(tmp_path / "b"), "--exact"]) == 1
    out = capsys.readouterr().out
    assert out.startswith("3 differences (1 different, 2 missing); 1 scores compared, 0 new")


@pytest.mark.parametrize(
    ("options", "named"), [(("--tolerance", "is=5%"), "--tolerance of is"), (("--seeds", "mean"), "--seeds mean")]
)
def test_exact_goes_with_no_tolerance_and_no_means(run, options, named) -> None:
    code, lines = run({}, "--exact", *options)
    assert code == 2
    assert lines == [f"error: --exact goes with neither --tolerance nor --seeds, got {named}; leave one out"]


def test_both_processors_are_named_and_what_else_differs(run) -> None:
    new = {"processor": "Intel(R) Xeon(R) Processor", "packages": {"torch": "2.14.0", "numpy": "2.4.6"}}
    note = run({"g2r_cnn": 0.7}, "--exact", a=OLD, b=new)[1][1]
    assert note == (
        "note: A from AMD EPYC, family 25 model 17, AVX-512, B from Intel(R) Xeon(R) Processor; torch 2.13.0 in A, "
        "2.14.0 in B; A alone is reproducible: true; compared exactly"
    )
    assert run(AGAIN, a=OLD, b=OLD)[1][1] == f"note: both sides from {OLD['processor']}"


def test_sides_that_were_scored_otherwise_are_told_apart(run) -> None:
    def scored(**protocol: Any) -> dict[str, Any]:
        return OLD | {"settings": {"datasets": ["digits", "mnist"], "protocol": {"num_samples": 500, **protocol}}}

    def told(a: dict[str, Any], b: dict[str, Any]) -> str:
        return run(AGAIN, a=a, b=b)[1][1].removeprefix(f"note: both sides from {OLD['processor']}")

    assert told(scored(), scored(g2r_classifiers=5)) == "; protocol: g2r_classifiers by default in A, 5 in B"
    own = {"per_dataset": {"mnist": {"g2r_classifiers": 5}, "celeba": {"num_samples": 9}}}
    assert told(scored(g2r_classifiers=1, **own), scored(g2r_classifiers=5)) == (
        "; protocol: g2r_classifiers 1 in A, 5 in B"
    )
    # Neither the place of a file, nor what is said of a data set that one side has alone, moves a score.
    assert told(scored(**own), scored(per_dataset={"mnist": own["per_dataset"]["mnist"]}, inception_weights="/x")) == ""
    assert told(scored(), OLD) == told(scored(), OLD | {"settings": {"datasets": 3, "protocol": []}}) == ""


def test_a_side_whose_origin_is_not_noted_has_no_processor(run) -> None:
    assert len(run(AGAIN, a=OLD)[1]) == 1
    assert "B from a processor that nobody noted" in run(AGAIN, a=OLD, b={})[1][1]


def test_a_reference_of_several_seeds_gives_its_spread_to_one_seed_where_asked(run) -> None:
    """Seeds of 0.8, 0.808 and 0.816: of two scores tested, each may move by t(2, 1.25%) * 0.008 * sqrt(4/3) = 0.057."""
    mean = ("--seeds", "mean")
    code, lines = run({"g2r_cnn": 0.77}, *mean, seeds=(3, 1))
    assert code == 0 and "2 have one seed in B and are judged by A's spread" in lines[1]
    code, lines = run({"g2r_cnn": 0.74}, *mean, seeds=(3, 1))
    assert code == 1 and "g2r_cnn: 0.808 -> 0.74 (tolerance 0.0573 by 3 and 1 seeds)" in lines[-2]


def test_one_seed_is_compared_with_the_same_seed_and_several_by_their_means_without_being_asked(run) -> None:
    assert run({"g2r_cnn": 0.77}, "--common", seeds=(3, 1))[0] == 1
    assert run({"g2r_cnn": 0.79}, "--common", seeds=(3, 1))[0] == 0
    assert "note: means over seeds: " in "\n".join(run({"g2r_cnn": 0.5}, seeds=(3, 3))[1])
