"""Which method leads, which cannot be told from it, and what comparing them spends: by hand-computed values."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from evaluation.price import main as price_alone
from evaluation.price import spent
from evaluation.rank import COLUMNS, DEFAULT_METRICS, main
from evaluation.rank import markdown as padded_markdown
from evaluation.scores import Score, write_scores
from evaluation.standings import groups, standings
from workflow.common.files import read_csv, sha256, write_json
from workflow.common.metrics import METRICS

# Three seeds each with a sample standard deviation of 0.02, moved alike by a seed, so their differences show no spread.
# Welch's t has 4 degrees of freedom, t(0.975, 4) = 2.776445: told apart beyond 2.776445 * 0.02 * sqrt(2 / 3) = 0.0453.
LEAD, NEAR, FAR, LAST = (0.79, 0.81, 0.83), (0.75, 0.77, 0.79), (0.74, 0.76, 0.78), (0.50, 0.52, 0.54)


def run(
    method: str, metric: str, values: Sequence[float], eps: float | None = 9.99, epsilon: float = 10.0,
    accounting: str = "sound", dataset: str = "lesions", seconds: float | None = None,
) -> list[Score]:  # fmt: skip
    """Returns the scores of one method, a value per seed, with the sound epsilon of each seed."""
    key = ("mine", dataset, method, epsilon, accounting)
    further = {"eps_sound": eps, "train_seconds": seconds}
    return [
        Score(*key, seed, name, value, "measured")
        for seed, score in enumerate(values)
        for name, value in {metric: score, **further}.items()
        if value is not None
    ]


def squeezed(text: str) -> str:
    """Returns Markdown without the spaces and dashes that only align a table's columns."""
    return re.sub("-{3,}", "---", re.sub(" +", " ", text))


def markdown(scores: list[Score], delta: float | None = None) -> str:
    return squeezed(padded_markdown(scores, delta=delta))


def reference(metric: str, value: float) -> list[Score]:
    return run("nonprivate", metric, [value], None, math.inf, "none")


def four(metric: str = "g2r_cnn") -> list[Score]:
    named = {"near": NEAR, "last": LAST, "lead": LEAD, "far": FAR}
    return [score for method, values in named.items() for score in run(method, metric, values)]


def test_a_run_that_ended_short_is_named_so():
    lead = run("lead", "g2r_cnn", LEAD)
    text = markdown([*lead, *run("far", "g2r_cnn", FAR), *run("lead", "steps_share", (0.5,))])
    assert "| lead (ended short) |" in text and "at 50.0% of them" in text and "far (" not in text
    assert "ended short" not in markdown(lead)


def verdicts(scores: list[Score], metric: str = "g2r_cnn") -> list[tuple[str, int | None, str]]:
    (group,) = groups(scores)
    return [(s.contender.method, s.place, s.verdict) for s in standings(group, metric)]


def test_the_best_within_noise_are_marked_and_the_next_is_not():
    assert verdicts(four()) == [
        ("lead", 1, "best within noise"),
        ("near", 1, "best within noise"),  # 0.04 behind
        ("far", 2, "behind"),  # 0.05 behind, and no more than 0.01 behind the one between
        ("last", 4, "behind"),
    ]


def test_methods_are_told_apart_seed_by_seed_where_they_share_seeds():
    # Differences 0.029, 0.03, 0.031: the interval leaves 0 out, though each method moves by 0.2 from seed to seed.
    scores = run("lead", "g2r_cnn", (0.4, 0.6, 0.8)) + run("below", "g2r_cnn", (0.371, 0.57, 0.769))
    assert verdicts(scores) == [("lead", 1, "best within noise"), ("below", 2, "behind")]
    # Differences 0.01, 0.03, 0.05: 0.03 -+ 4.302653 * 0.02 / sqrt(3) = 0.03 -+ 0.0497.
    scores = run("lead", "g2r_cnn", (0.4, 0.6, 0.8)) + run("alike", "g2r_cnn", (0.39, 0.57, 0.75))
    assert verdicts(scores) == [("lead", 1, "best within noise"), ("alike", 1, "best within noise")]


def test_of_a_distance_the_smaller_is_better_also_seed_by_seed():
    scores = run("far", "fid_classifier", (40, 60, 80)) + run("near", "fid_classifier", (37.1, 57, 76.9))
    assert verdicts(scores, "fid_classifier") == [("near", 1, "best within noise"), ("far", 2, "behind")]


def test_a_place_is_one_more_than_the_number_of_those_that_are_better_beyond_noise():
    # Each differs from the next by 0.01, 0.03, 0.05 and cannot be told from it; from the one after by 0.06 -+ 0.0050.
    named = {"a": (0.700, 0.80, 0.90), "b": (0.69, 0.77, 0.85), "c": (0.638, 0.74, 0.842)}
    scores = [score for method, values in named.items() for score in run(method, "g2r_cnn", values)]
    assert [place for _, place, _ in verdicts(scores)] == [1, 1, 2]


def test_methods_of_other_seeds_are_told_apart_each_by_its_own_spread():
    calm, wild = run("calm", "g2r_cnn", (0.60, 0.61, 0.62)), run("wild", "g2r_cnn", (0.3, 0.5, 0.7))
    moved = [replace(one, seed=one.seed + 3) for one in wild]
    assert [place for _, place, _ in verdicts(calm + moved)] == [1, 1]
    # A third row that moves as little makes neither of the two sure, as a pooled spread would.
    steady = run("steady", "g2r_cnn", (0.10, 0.1001, 0.1002))
    assert verdicts(calm + moved + steady)[:2] == verdicts(calm + moved)


def test_rows_that_beat_each_other_in_a_ring_by_the_seeds_they_share_leave_a_first_place():
    # Each is ahead of the next on the two seeds that both have, and all have the same mean.
    of_seed = {"a": (2.0, 2.1, None, None, 1.0, 1.0), "b": (1.0, 1.0, 2.0, 2.1), "c": (None, None, 1.0, 1.0, 2.0, 2.1)}
    scores = [
        one for method, values in of_seed.items()
        for one in run(method, "is", [9.0 if value is None else value for value in values])
        if values[one.seed] is not None
    ]  # fmt: skip
    assert verdicts(scores, "is") == [(method, 1, "best within noise") for method in "abc"]
    assert "| IS ↑ | a, b, c, which cannot be told apart |" in squeezed(padded_markdown(scores, ["is"]))


def test_whoever_has_the_best_mean_is_first_whatever_the_shared_seeds_alone_say():
    scores = run("best", "is", (1.0, 1.0, 5.0)) + run("shares", "is", (2.0, 2.1))
    assert verdicts(scores, "is") == [("best", 1, "best within noise"), ("shares", 1, "best within noise")]


@pytest.mark.parametrize("single", [0.99, 0.7, 0.1])
def test_one_seed_has_no_place_where_others_have_several_since_nobody_knows_its_spread(single):
    scores = four() + run("one", "g2r_cnn", [single])
    assert ("one", None, "one seed") in verdicts(scores)
    assert [row for row in verdicts(scores) if row[0] != "one"] == verdicts(four())
    text = markdown(scores)
    assert "Without a place, since they have one seed where others have several: one." in text
    assert f"| one | sound | {single:.3f} | 9.99 |" in text


def test_of_which_metrics_noise_is_not_known_is_said_where_it_is_known_of_others():
    scores = four() + run("lead", "recall", [0.5]) + run("far", "recall", [0.4]) + run("one", "g2r_cnn", [0.9])
    text = markdown(scores)
    assert "By recall, no two methods have several seeds that differ: nothing can be told about noise" in text
    assert "Without a place, since they have one seed where others have several: one." in text


def test_one_that_leads_all_with_seeds_is_not_called_ahead_of_one_seed():
    scores = run("lead", "g2r_cnn", LEAD) + run("last", "g2r_cnn", LAST)
    assert "| lead, ahead of all others beyond noise |" in markdown(scores)
    single = run("one", "g2r_cnn", [0.1])
    assert "| lead, ahead of all others with several seeds beyond noise |" in markdown(scores + single)


def test_several_seeds_of_one_method_alone_tell_nothing_of_the_others():
    scores = run("lead", "g2r_cnn", LEAD) + run("one", "g2r_cnn", [0.1])
    assert verdicts(scores) == [("lead", 1, "first"), ("one", 2, "behind")]
    assert "not known without several seeds of two methods; first: lead" in markdown(scores)


def test_lower_is_better_where_the_metric_says_so():
    found = verdicts(four("fid_classifier"), "fid_classifier")
    assert [name for name, _, _ in found] == ["last", "far", "near", "lead"]
    assert found[:2] == [("last", 1, "best within noise"), ("far", 2, "behind")]


def test_a_run_over_its_budget_stands_in_the_list_without_a_place():
    scores = four() + run("broken", "g2r_cnn", (0.98, 0.99, 1.0), eps=1778.41, accounting="published")
    assert verdicts(scores)[0] == ("broken", None, "over budget")
    assert verdicts(scores)[1] == ("lead", 1, "best within noise")
    text = markdown(scores)
    # t(0.975, 2) = 4.302653, times 0.01 / sqrt(3).
    assert "| broken (over budget) | published | 0.990 ± 0.025 (3) |" in text and "ε 10 is kept: broken." in text


def test_an_over_budget_run_moves_no_other():
    wild = run("broken", "g2r_cnn", (0.1, 0.5, 0.9), eps=1778.41, accounting="published")
    assert [row for row in verdicts(four() + wild) if row[0] != "broken"] == verdicts(four())


@pytest.mark.parametrize(("eps", "verdict"), [(10.0, "only one"), (10.00005, "only one"), (10.01, "over budget")])
def test_the_budget_is_kept_up_to_the_files_last_digit(eps, verdict):
    assert verdicts(run("lead", "g2r_cnn", LEAD, eps=eps))[0][2] == verdict


def test_one_seed_over_budget_is_enough():
    scores = four()
    scores[next(i for i, s in enumerate(scores) if s.method == "lead" and s.metric == "eps_sound")] = Score(
        "mine", "lesions", "lead", 10.0, "sound", 0, "eps_sound", 12.0, "measured"
    )
    assert verdicts(scores)[0] == ("lead", None, "over budget")


def test_a_sound_count_of_some_seeds_alone_is_none():
    scores = four()
    scores.remove(next(s for s in scores if s.method == "lead" and s.metric == "eps_sound"))
    assert verdicts(scores)[0] == ("lead", None, "no sound count")


def test_without_a_sound_count_nothing_is_ranked():
    scores = run("lead", "g2r_cnn", LEAD, eps=None)
    assert verdicts(scores) == [("lead", None, "no sound count")]
    assert "no run within its budget" in markdown(scores)
    assert "these 3 runs, without 3 that have no recorded sound ε," in markdown(scores)


def test_one_seed_marks_the_first_alone_and_says_that_nothing_can_be_told():
    scores = run("lead", "g2r_cnn", [0.8]) + run("near", "g2r_cnn", [0.7999])
    assert verdicts(scores) == [("lead", 1, "first"), ("near", 2, "behind")]
    text = markdown(scores)
    assert "nothing can be told about noise" in text and "1. 0.800 first" in text and " best |" not in text
    assert "not known without several seeds of two methods; first: lead" in text
    assert "nothing can be told" not in markdown(four())


def test_ties_share_a_place():
    scores = run("a", "g2r_cnn", [0.8]) + run("b", "g2r_cnn", [0.8]) + run("c", "g2r_cnn", [0.7])
    assert verdicts(scores) == [("a", 1, "first"), ("b", 1, "first"), ("c", 3, "behind")]
    # 0.1 + 0.2 + 0.3 differs from 0.3 + 0.2 + 0.1 in the last bit
    scores = run("a", "g2r_cnn", [0.7, 0.7]) + run("b", "g2r_cnn", [0.7 + 1e-13, 0.7])
    assert [place for _, place, _ in verdicts(scores)] == [1, 1]


def test_what_the_interval_does_not_cover_is_said():
    text = markdown(four())
    assert "nobody knows how far it scatters" in text and "not which test images there are" in text
    (networks,) = re.findall("Nor does it cover the networks behind ([^:]+):", text)
    of_networks = [METRICS[name].label for name in DEFAULT_METRICS if METRICS[name].network]
    assert of_networks and all(label.removesuffix(" CNN") in networks for label in of_networks)


def test_seeds_that_gave_the_same_say_nothing_of_noise():
    scores = run("a", "g2r_cnn", [0.8, 0.8]) + run("b", "g2r_cnn", [0.79, 0.79])
    assert verdicts(scores) == [("a", 1, "first"), ("b", 2, "behind")]
    scores += run("c", "g2r_cnn", [0.5, 0.7])
    assert [place for _, place, _ in verdicts(scores)] == [1, 1, 1]


def test_one_method_alone_is_not_called_the_best():
    assert verdicts(run("lead", "g2r_cnn", LEAD)) == [("lead", 1, "only one")]
    assert "lead, the only one within its budget" in markdown(run("lead", "g2r_cnn", LEAD))


def test_references_stand_below_and_are_not_ranked():
    assert verdicts(four() + reference("g2r_cnn", 0.99))[-1] == ("nonprivate", None, "reference")
    text = markdown(reference("g2r_cnn", 0.99))
    assert "### lesions, references alone" in text and "nonprivate (reference) | none | 0.990 | ∞" in text


def test_a_method_without_a_metric_is_shown_and_not_ranked_by_it():
    scores = four() + run("recalls", "recall", (0.4, 0.5, 0.6))
    assert "recalls" not in [name for name, _, _ in verdicts(scores)]
    assert "| recalls | sound | n/m | 1. 0.500 ± 0.248 (3) only one |" in markdown(scores)


def test_the_tables_are_aligned_as_plain_text():
    text = padded_markdown(four() + reference("g2r_cnn", 0.9))
    tables = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(tables) == 2
    for lines in tables:
        assert len({len(line) for line in lines}) == 1
        assert len({tuple(i for i, letter in enumerate(line) if letter == "|") for line in lines}) == 1


def test_references_alone_spend_nothing_and_say_nothing_of_it():
    text = markdown(reference("g2r_cnn", 0.9))
    assert "What comparing spent" not in text and "How to read it" in text


def test_each_epsilon_has_its_own_table_with_the_references():
    text = markdown(four() + run("lead", "g2r_cnn", [0.3], eps=1.0, epsilon=1.0) + reference("g2r_cnn", 0.9))
    assert text.index("### lesions, ε 10") < text.index("### lesions, ε 1\n")
    assert text.count("nonprivate (reference)") == 2


def test_what_all_runs_spent_is_the_sum_over_seeds_epsilons_and_methods():
    scores = four() + run("lead", "recall", [0.3, 0.4], eps=0.5, epsilon=1.0) + reference("g2r_cnn", 0.9)
    scores += run("broken", "g2r_cnn", [0.9], eps=1778.41, accounting="published")
    scores += run("other", "g2r_cnn", [0.9], dataset="elsewhere")
    cost = spent(scores, "lesions")
    assert (cost.runs, cost.uncounted) == (4 * 3 + 2 + 1, 0)
    assert cost.epsilon == pytest.approx(12 * 9.99 + 2 * 0.5 + 1778.41)
    assert cost.epsilon_over == pytest.approx(1778.41)
    text = markdown(scores, delta=1e-5)
    assert (
        "On lesions these 15 runs spent ε 1899.3 in all (of which 1778.4 by runs over their budget), at δ 0.00015"
        in text
    )
    assert "(15 times 1e-05)" in text and "docs/your-own-images.md" in text and "protect nobody" in text
    assert "On elsewhere this 1 run spent ε 10.0 in all, at δ 1e-05" in text


def test_an_endless_epsilon_makes_an_endless_sum():
    assert "spent ε ∞ in all" in markdown(run("broken", "g2r_cnn", [0.9], eps=math.inf))


def write(folder: Path, scores: list[Score], provenance: Mapping | None = None) -> str:
    write_scores(folder / "scores.csv", scores)
    if provenance is not None:
        write_json(folder / "provenance.json", provenance | {"scores_sha256": sha256(folder / "scores.csv")})
    return str(folder / "scores.csv")


def test_the_command_writes_both_files_or_prints(tmp_path, capsys):
    path = write(tmp_path, four() + reference("g2r_cnn", 0.9), {"settings": {"delta": 1e-5}})
    assert main([path, "--out", str(tmp_path / "tables")]) == 0 and capsys.readouterr().out == ""
    text = (tmp_path / "tables/rank.md").read_text()
    assert "at δ 0.00012 (12 times 1e-05)" in text
    rows = read_csv(tmp_path / "tables/rank.csv", COLUMNS, exact=True)
    assert [row["method"] for row in rows] == ["lead", "near", "far", "last", "nonprivate"]
    columns = ("place", "mean", "std", "seeds", "verdict", "eps_sound")
    assert [rows[1][name] for name in columns] == ["1", "0.77", "0.02", "3", "best within noise", "9.99"]
    assert rows[-1]["place"] == rows[-1]["std"] == rows[-1]["eps_sound"] == ""
    assert main([path]) == 0 and capsys.readouterr().out == text


@pytest.mark.parametrize(
    "provenance",
    [None, {}, {"settings": None}, {"settings": {"delta": "small"}}, {"settings": {"delta": 0}}],
    ids=json.dumps,
)
def test_a_delta_that_is_not_known_is_said_in_words(tmp_path, capsys, provenance):
    assert main([write(tmp_path, four(), provenance)]) == 0
    assert "which no provenance.json beside the scores says" in capsys.readouterr().out


def test_the_delta_of_other_scores_is_not_taken(tmp_path, capsys):
    path = write(tmp_path, four(), {"settings": {"delta": 1e-5}})
    write_scores(path, four("recall"))
    assert main([path]) == 0
    assert "which no provenance.json beside the scores says" in capsys.readouterr().out


def test_the_first_metric_asked_for_orders_the_rows(tmp_path, capsys):
    path = write(tmp_path, four() + [s for s in four("fid_classifier") if s.metric == "fid_classifier"])
    assert main([path, "--metric", "fid_classifier", "g2r_cnn", "--dataset", "lesions"]) == 0
    first = squeezed(capsys.readouterr().out).splitlines()[4]
    assert first.startswith("| last | sound | 1. 0.52 ± 0.05 (3) best | 4. 0.520 ± 0.050 (3) |")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--dataset", "lesion"], "unknown data set 'lesion' in {path}; did you mean 'lesions'?"),
        (["--metric", "g2r_cn"], "unknown metric to rank by 'g2r_cn'; did you mean 'g2r_cnn'?"),
        (["--metric", "eps_sound"], "unknown metric to rank by 'eps_sound'"),
        (["--metric", "g2r_cnn_best_on_test"], "picks on the images that it is scored on, so it ranks nothing"),
        (["--metric", "recall"], "has no recall of these runs; there are: g2r_cnn"),
    ],
)
def test_a_bad_option_is_one_clear_line_and_exit_code_2(tmp_path, capsys, options, message):
    path = write(tmp_path, four())
    assert main([path, *options]) == 2
    error = capsys.readouterr().err
    assert message.format(path=path) in error and error.count("\n") == 1


HEADER = "preset,dataset,method,epsilon,accounting,seed,metric,value,source\n"
LINE = "mine,lesions,dpac,10,sound,0,{},{},{}\n"


def test_the_price_is_a_command_of_its_own_and_says_what_it_lacks(tmp_path, capsys):
    path = write(tmp_path, four())
    assert price_alone([path]) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("### What comparing spent") and printed.rstrip() in rank_text(path, capsys)
    assert price_alone([]) == 2
    assert "error: the following arguments are required: SCORES.csv" in capsys.readouterr().err


def rank_text(path: str, capsys: pytest.CaptureFixture) -> str:
    assert main([path]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such file"),
        ("dataset,metric\n", "the first line must be"),
        (HEADER, "holds no measured scores"),
        (HEADER + LINE.format("is", 1, "published"), "holds no measured scores"),
        (HEADER + LINE.format("is", "nan", "measured"), "line 2: value must be a number, got 'nan'"),
        (HEADER + LINE.format("is", 1, "measured"), "holds none of the metrics g2r_cnn"),
        (HEADER + 2 * LINE.format("g2r_cnn", 1, "measured"), "two values for g2r_cnn of"),
    ],
)
def test_a_bad_file_is_one_clear_line_and_exit_code_2(tmp_path, capsys, text, message):
    path = tmp_path / "scores.csv"
    if text is not None:
        path.write_text(text)
    assert main([str(path)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_a_claimed_epsilon_has_no_place_whatever_it_scores_and_is_called_a_claim():
    claimed = run("theirs", "g2r_cnn", (0.99, 0.98, 0.97), None, accounting="claimed")
    assert verdicts(four() + claimed)[0] == ("theirs", None, "claimed, not checked")
    # Nor does a sound epsilon that somebody wrote beside it make it one.
    assert verdicts(four() + run("theirs", "g2r_cnn", (0.99,), 1.0, accounting="claimed"))[0][1:] == (
        None, "claimed, not checked",
    )  # fmt: skip
    text = markdown(four() + claimed)
    assert "| theirs (claimed, not checked) | claimed |" in text
    assert "no sound count shows that ε 10 is kept: theirs." in text
    assert "without 3 that have no recorded sound ε" in markdown(four() + claimed, 1e-5)
