"""Table 9 on the pages: each row from one committed run, the verdicts the report's, mixed runs marked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from docs.make import results_tables
from docs.make.conclusions import Conclusions
from docs.make.references import Reference, owners, pooled, read_reference
from docs.make.results_tables import filled, read_tables
from evaluation.report.layout import parse_layout
from evaluation.scores import Score
from workflow.common.errors import UserError

REFERENCES = Path(__file__).resolve().parents[2] / "results/reference"
LAYOUT = parse_layout({
    "runs": {"foo": "Foo", "bar": "Bar", "baz": "Baz"}, "datasets": {"mnist": "MNIST"},
    "claims": {"table9": {"title": "Table 9", "claims": {
        name: {"says": f"foo beats {than}", "by": "us", "pairs": [["foo", than]], "metrics": ["g2r_cnn"],
               "datasets": ["mnist"], "epsilons": [10]}
        for name, than in (("one", "bar"), ("two", "baz"))
    }}},
})  # fmt: skip


def reference(name: str, commit: str = "abcdef123", **runs: Sequence[float]) -> Reference:
    scores = [
        Score("toy", "mnist", run, 10.0, "sound", seed, "g2r_cnn", value, "measured")
        for run, values in runs.items() for seed, value in enumerate(values)
    ]  # fmt: skip
    return Reference(name, {run: run for run in runs}, scores, {}, {commit: 4})


# Differences 0.19, 0.20, 0.21.
FIRST = reference("first", foo=(0.59, 0.70, 0.81))
SECOND = reference("second", "fedcba987", foo=(0.1, 0.1, 0.1, 0.1), bar=(0.40, 0.50, 0.60), baz=(0.2,))


def written(form: str, only: tuple[str, ...] = (), references: Sequence[Reference] = (FIRST, SECOND)) -> str:
    return Conclusions(references, LAYOUT, "table9", form, only).markdown([])


def test_a_row_is_the_first_reference_s_that_has_it_and_mixes_no_two():
    assert {run: one.name for (*_, run), one in owners([FIRST, SECOND]).items()} == {
        "foo": "first", "bar": "second", "baz": "second",
    }  # fmt: skip
    scores = pooled([FIRST, SECOND]).scores
    assert [s.value for s in scores if s.method == "foo"] == [0.59, 0.70, 0.81]
    assert len(scores) == 3 + 3 + 1


def test_where_settings_were_chosen_is_said_by_the_reference_that_a_row_is_of():
    first, second = (
        replace(reference(name, **runs), chosen=dict.fromkeys(runs, f"as {name} says"))
        for name, runs in (("first", {"foo": (0.5,)}), ("second", {"foo": (0.4,), "bar": (0.3,)}))
    )
    assert pooled([first, second]).chosen == {"foo": "as first says", "bar": "as second says"}
    # What another run of the same name was tuned to says nothing of this one.
    assert pooled([replace(first, chosen={}), second]).chosen["foo"] == ""


def test_references_that_were_scored_otherwise_share_no_table():
    first, second = (replace(one, protocol={"num_samples": 500}) for one in (FIRST, SECOND))
    assert pooled([first, second]).name == "first, second"
    more = replace(second, protocol={"num_samples": 500, "g2r_classifiers": 5})
    with pytest.raises(UserError, match="first and second were scored by other evaluation settings"):
        pooled([first, more])
    # One more score, of the best epoch on test images, moves no other.
    quick, long, scatter = (read_reference(REFERENCES / name) for name in ("quick", "long", "long_scatter"))
    assert pooled([scatter, long]).scores
    with pytest.raises(UserError, match="quick and long were scored by other"):
        pooled([quick, long])


@pytest.mark.parametrize(
    ("metric", "there", "verdict"),
    [
        ("r2g_cnn", 0.99, "supported"),
        ("r2g_cnn", 0.98, "open, 1 comparison was scored by two networks"),
        ("r2g_cnn", None, "open, 1 comparison was scored by two networks"),
        ("g2r_cnn", 0.98, "supported"),
    ],
)
def test_rows_that_another_network_scored_are_not_compared(metric, there, verdict):
    def scored(one: Reference, real: float | None) -> Reference:
        scores = [replace(s, metric=metric) for s in one.scores]
        if real is None:
            return replace(one, scores=scores)
        of_real = Score("toy", "mnist", "real", float("inf"), "none", 0, metric, real, "measured")
        return replace(one, scores=[*scores, of_real])

    claim = LAYOUT.claims["table9"].claims["one"]
    spec = replace(LAYOUT.claims["table9"], claims={"one": replace(claim, metrics=(metric,))})
    layout = replace(LAYOUT, claims={"table9": spec})
    pair = [scored(FIRST, there and 0.99), scored(SECOND, there)]
    assert f"| foo beats bar | us | {verdict}" in Conclusions(pair, layout, "table9", "claims").markdown([])


def test_sentences_and_claims_say_the_verdicts():
    assert written("sentences").splitlines() == [
        "- foo beats bar (us): supported in 1 of 1 comparison.",
        "- foo beats baz (us): open, 1 comparison lacks a second seed.",
    ]
    assert written("sentences", only=("two",)) == "- foo beats baz (us): open, 1 comparison lacks a second seed."
    assert written("claims").splitlines()[2:] == [
        "| 1 | foo beats bar | us | supported in 1 of 1 comparison |",
        "| 2 | foo beats baz | us | open, 1 comparison lacks a second seed |",
    ]


def test_comparisons_are_those_that_two_seeds_judge_and_a_star_marks_rows_of_two_runs():
    (line,) = written("comparisons").splitlines()[2:]
    assert line == (
        "| 1 | MNIST | 10 | gen2real CNN ↑ | Foo | Bar | +0.200 | +0.175 to +0.225 | 3 | 0.001 | — | supported * |"
    )
    alone = reference("alone", foo=(0.59, 0.70, 0.81), bar=(0.40, 0.50, 0.60))
    assert written("comparisons", references=[alone]).endswith("| supported |")


def test_a_comparison_has_the_number_of_its_claim_among_all_of_them():
    raised = reference("raised", foo=(0.59, 0.70, 0.81), baz=(0.40, 0.50, 0.60))
    line = written("comparisons", ("two",), [raised]).splitlines()[2]
    assert line.startswith("| 2 |")


def test_sources_name_the_rows_and_commits_of_each_run():
    assert written("sources").splitlines()[2:] == [
        "| first | `foo` | 3 | abcdef1 (4 runs) |",
        "| second | `bar`, `baz` | 3 | fedcba9 (4 runs) |",
    ]


def test_a_long_sentence_is_written_anew_whole():
    long = "| run |"
    claims = Conclusions([FIRST, SECOND], LAYOUT, "table9", "sentences")
    page = "<!-- table: toy -->\n\n- an older sentence,\n  of two lines.\n- another\n\nafter " + long + "\n"
    assert filled(page, {"toy": claims}, []) == f"<!-- table: toy -->\n\n{claims.markdown([])}\n\nafter {long}\n"


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("form: sentences", "form: sentence", "unknown form of table conclusions 'sentence'; did you mean 'sentences'"),
        ("claims: table9", "claims: table8", "unknown claims of table conclusions 'table8'"),
        ("only: [dpac_gen2real", "only: [dpac_gen2reel", "did you mean 'dpac_gen2real'"),
    ],
)
def test_what_a_description_of_claims_misspells_is_named(right, wrong, message, tmp_path):
    described = tmp_path / "results.yaml"
    text = results_tables.DESCRIBED.read_text(encoding="utf-8")
    assert right in text
    described.write_text(text.replace(right, wrong, 1), encoding="utf-8")
    with pytest.raises(UserError, match=message):
        read_tables(described)
