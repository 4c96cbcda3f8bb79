"""Table 9: a claim is judged by the seeds that two rows share, and is open wherever they do not tell."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from evaluation.report import verdicts
from evaluation.report.layout import load_layout, parse_layout
from evaluation.report.verdicts import Comparison, build_grid, judge, main
from evaluation.scores import Score, write_scores
from workflow.common.errors import UserError
from workflow.common.files import read_csv
from workflow.common.metrics import METRICS

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED, LAYOUT = ROOT / "results/published/scores.csv", ROOT / "workflow/config/report.yaml"
CLAIM = {
    "says": "foo beats bar", "by": "us", "pairs": [["foo", "bar"]], "metrics": ["g2r_cnn"], "datasets": ["mnist"],
    "epsilons": [10],
}  # fmt: skip


def described(**changes: object) -> dict:
    return {
        "runs": {"foo": "Foo", "bar": "Bar", "baz": "Baz"}, "datasets": {"mnist": "MNIST", "fashion_mnist": "F-MNIST"},
        "claims": {"table9": {"title": "Table 9", "claims": {"one": CLAIM | changes}}},
    }  # fmt: skip


def run(
    method: str, values: Sequence[float], metric: str = "g2r_cnn", dataset: str = "mnist", epsilon: float = 10.0,
    first: int = 0, accounting: str = "sound", preset: str = "quick",
) -> list[Score]:  # fmt: skip
    """Returns a value per seed, from the seed `first` on."""
    key = (preset, dataset, method, epsilon, accounting)
    return [Score(*key, seed, metric, value, "measured") for seed, value in enumerate(values, first)]


def judged(scores: list[Score], **changes: object) -> list[Comparison]:
    return judge(parse_layout(described(**changes)).claims["table9"], scores)


def verdict(scores: list[Score], **changes: object) -> str:
    (line,) = judged(scores, **changes)
    return line.verdict


MIXED = "open: under two counts or presets"
# Less BAR: 0.19, 0.20, 0.21; deviation 0.01, t = 0.2 / (0.01 / sqrt(3)) = 34.6, p = 1 - t / sqrt(2 + t^2) = 0.00083.
FOO, BAR = (0.59, 0.70, 0.81), (0.40, 0.50, 0.60)


def test_a_difference_that_seeds_tell_from_0_supports_a_claim_or_contradicts_it():
    scores = run("foo", FOO) + run("bar", BAR)
    assert verdict(scores) == "supported"
    assert verdict(scores, pairs=[["bar", "foo"]]) == "contradicted"
    (line,) = judged(scores)
    assert (line.difference, line.effect.p) == (pytest.approx(0.2), pytest.approx(0.00083, abs=1e-5))


def test_of_a_distance_the_smaller_is_better():
    scores = run("foo", FOO, "fid_classifier") + run("bar", BAR, "fid_classifier")
    assert verdict(scores, metrics=["fid_classifier"]) == "contradicted"


def test_a_difference_within_what_seeds_move_is_open():
    # Differences 0.1, 0.2, 0.3: p 0.074.
    assert verdict(run("foo", (0.5, 0.7, 0.9)) + run("bar", (0.4, 0.5, 0.6))) == "open at this size"


def test_with_one_seed_a_claim_is_open_whatever_the_difference():
    (line,) = judged(run("foo", (0.99,)) + run("bar", (0.01,)))
    assert (line.verdict, line.difference, line.effect) == ("open: one seed", pytest.approx(0.98), None)


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        (run("foo", FOO), "open: not run"),
        (run("foo", FOO) + run("bar", BAR, first=3), "open: no seed in common"),
        (run("foo", FOO) + run("bar", BAR, first=2), "open: one seed"),
        (run("foo", (0.5, 0.6, 0.7)) + run("bar", (0.4, 0.5, 0.6)), "open: seeds show no spread"),
        (run("foo", FOO) + run("foo", FOO, accounting="published") + run("bar", BAR), MIXED),
        (run("foo", FOO) + run("bar", BAR, preset="long"), MIXED),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_missing_for_a_verdict_is_said(scores, expected):
    assert verdict(scores) == expected


def test_what_neither_row_ran_has_no_line():
    assert judged(run("baz", FOO)) == [] and judged([]) == []
    assert judged(run("foo", FOO, epsilon=1.0)) == []


def test_where_both_rows_ran_they_are_compared_also_where_the_claim_was_not_made():
    elsewhere = run("foo", FOO, dataset="lesions") + run("bar", BAR, dataset="lesions") + run("foo", FOO, epsilon=1.0)
    lines = judged(run("foo", FOO) + run("bar", BAR) + elsewhere)
    assert [(line.dataset, line.epsilon) for line in lines] == [("mnist", 10.0), ("lesions", 10.0)]
    alone = parse_layout(described()).only(["lesions"]).claims["table9"]
    assert [line.dataset for line in judge(alone, run("foo", FOO) + run("bar", BAR) + elsewhere)] == ["lesions"]


def test_each_comparison_of_a_claim_makes_the_others_harder():
    # Differences 0.05, 0.06, 0.09: mean 0.0666667, deviation 0.0208167, t = 5.547002, p = 0.0310: alone it is enough.
    close = run("foo", (0.45, 0.56, 0.69), dataset="fashion_mnist") + run("bar", BAR, dataset="fashion_mnist")
    both = ["mnist", "fashion_mnist"]
    assert verdict(close, datasets=both) == "supported"
    first, second = judged(run("foo", FOO) + run("bar", BAR) + close, datasets=both)
    assert (first.p_holm, second.p_holm) == (pytest.approx(2 * 0.00083, abs=2e-5), pytest.approx(0.0310, abs=1e-4))
    weak = judged(run("foo", (0.5, 0.7, 0.9)) + run("bar", BAR) + close, datasets=both)
    assert [line.verdict for line in weak] == ["open at this size"] * 2
    assert weak[1].p_holm == pytest.approx(2 * 0.0310, abs=2e-4) and weak[1].effect.low > 0
    # What has no second seed was not tried.
    single = judged(run("foo", FOO[:1]) + run("bar", BAR[:1]) + close, datasets=both)
    assert [line.verdict for line in single] == ["open: one seed", "supported"]


def test_a_sentence_counts_the_verdicts():
    scores = run("foo", FOO) + run("bar", BAR) + run("baz", (0.1,))
    three = parse_layout(described(pairs=[["foo", "bar"], ["bar", "foo"], ["foo", "baz"]])).claims["table9"]
    assert verdicts.summary(three, judge(three, scores)) == [
        "foo beats bar (us): supported in 1, contradicted in 1 of 2 comparisons; 1 more lacks a second seed."
    ]
    two = parse_layout(described()).claims["table9"]
    one_seed = run("foo", FOO[:1]) + run("bar", BAR[:1])
    told = verdicts.summary(two, judge(two, one_seed))
    assert told == ["foo beats bar (us): open, 1 comparison lacks a second seed."]
    assert verdicts.summary(two, []) == ["Not run here: foo beats bar."]


def test_a_sentence_says_of_comparisons_with_seeds_that_these_are_not_what_they_lack():
    pairs = [["foo", "bar"], ["baz", "foo"]]
    spec = parse_layout(described(pairs=pairs)).claims["table9"]
    alike = run("foo", (0.6,) * 3) + run("bar", (0.5,) * 3) + run("baz", (0.4,), preset="long")
    assert verdicts.summary(spec, judge(spec, alike)) == [
        "foo beats bar (us): open, 1 comparison shows no spread between seeds; 1 more is under two counts or presets."
    ]


def test_what_two_networks_scored_is_not_compared_and_corrects_nothing_else():
    scores = run("foo", FOO) + run("bar", BAR) + run("baz", BAR)
    spec = parse_layout(described(pairs=[["foo", "bar"], ["foo", "baz"]])).claims["table9"]
    apart = judge(spec, scores, by_two_networks=lambda line: line.than == "baz")
    assert [(line.verdict, line.difference is None) for line in apart] == [
        ("supported", False), ("open: scored by two networks", True)
    ]  # fmt: skip
    assert apart[0].p_holm == apart[0].effect.p < judge(spec, scores)[0].p_holm
    said = "foo beats bar (us): supported in 1 of 1 comparison; 1 more was scored by two networks."
    assert verdicts.summary(spec, apart) == [said]
    # One that was not run was scored by none.
    lacking = judge(spec, run("foo", FOO), by_two_networks=lambda line: True)
    assert {line.verdict for line in lacking} == {"open: not run"}


def test_which_metrics_of_the_claims_are_by_one_network_for_all_seeds_is_said():
    claims = load_layout(str(LAYOUT)).claims["table9"].claims.values()
    judged_by_one = {METRICS[name].label for claim in claims for name in claim.metrics if METRICS[name].network}
    (said,) = re.findall(r"Nor does it cover, in (.+), the network that scores", " ".join(verdicts.HOW_TO_READ))
    assert {label.removesuffix(" MLP").removesuffix(" CNN") for label in judged_by_one} == set(said.split(" and "))


def test_the_table_shows_each_comparison_with_the_paper_s_difference():
    layout = parse_layout(described())
    paper = [
        Score("published", "mnist", name, 10.0, "published", None, "g2r_cnn", value, "published")
        for name, value in (("foo", 0.88), ("bar", 0.8))
    ]
    lines = judge(layout.claims["table9"], run("foo", FOO) + run("bar", BAR), paper)
    (cells,) = build_grid(layout.claims["table9"], layout, lines).rows
    assert cells == [
        "foo beats bar (us)", "MNIST", "10", "gen2real CNN ↑", "Foo", "Bar", "+0.200", "+0.175 to +0.225", "3",
        "0.001", "+0.08", "supported",
    ]  # fmt: skip


def test_a_row_that_ended_short_is_named_so():
    layout = parse_layout(described())
    spec, scores = layout.claims["table9"], run("foo", FOO) + run("bar", BAR)
    short = build_grid(spec, layout, judge(spec, [*scores, *run("bar", (0.4,), "steps_share", first=1)]))
    assert short.rows[0][4:6] == ["Foo", "Bar (ended short)"]
    assert [note for note in short.notes if "stopped before its last planned step, at 40.0% of them" in note]
    whole = build_grid(spec, layout, judge(spec, scores))
    assert whole.rows[0][4:6] == ["Foo", "Bar"] and not [note for note in whole.notes if "short" in note]


def test_the_command_writes_the_table_three_times(tmp_path):
    scores = run("dpac", FOO) + run("gs_wgan", BAR)
    write_scores(tmp_path / "scores.csv", scores)
    paths = ["--scores", str(tmp_path / "scores.csv"), "--published", str(PUBLISHED), "--layout", str(LAYOUT)]
    assert main([*paths, "--out", str(tmp_path / "tables")]) == 0
    rows = read_csv(tmp_path / "tables/table9.csv", verdicts.COLUMNS, exact=True)
    told = next(row for row in rows if (row["claim"], row["metric"]) == ("dpac_gen2real", "g2r_cnn"))
    assert [told[name] for name in ("difference", "seeds", "published_difference", "verdict")] == [
        "0.2", "3", "0.08", "supported",
    ]  # fmt: skip
    assert "| DP-GAN-DPAC | GS-WGAN | +0.200 |" in (tmp_path / "tables/table9.md").read_text()
    assert "DP-GAN-DPAC & GS-WGAN & +0.200" in (tmp_path / "tables/table9.tex").read_text()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pairs": [["foo", "bat"]]}, "unknown run in layout claims.table9.claims.one.pairs 'bat'.*bar, baz, foo"),
        ({"pairs": [["foo"]]}, "each must name two runs, the better one first; got .'foo'."),
        ({"metrics": ["g2r"]}, r"unknown metric in layout claims.table9.claims.one.metrics 'g2r'"),
        ({"metrics": ["eps_sound"]}, "unknown metric"),
        ({"datasets": ["mnits"]}, "did you mean 'mnist'"),
        ({"epsilons": ["ten"]}, "epsilons: must be numbers above 0, got 'ten'"),
        ({"says": 3}, "says: must be of type str, got 3"),
        ({"sais": "foo"}, r"unknown key of layout claims.table9.claims.one 'sais'.*did you mean 'says'"),
    ],
)
def test_a_wrong_claim_is_named_with_its_place(changes, message):
    with pytest.raises(UserError, match=message):
        parse_layout(described(**changes))


def test_the_shipped_claims_are_the_paper_s_and_this_suite_s():
    claims = load_layout(str(LAYOUT)).claims["table9"].claims
    assert {claim.by for claim in claims.values()} == {"the paper", "this suite"}
    ablated = {than for claim in claims.values() for better, than in claim.pairs if better == "dpac"}
    assert ablated >= {f"dpac_wo_{part}" for part in ("g2r", "r2g", "seq", "seq_mixed", "init")} | {"gs_wgan"}
