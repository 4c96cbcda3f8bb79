"""The tables of numbers in README and docs/ are written by a command, from the committed scores."""

from __future__ import annotations

import pytest

from docs.make import chosen_lines, results_tables
from docs.make.measured_files import Rows, Timings, TuningCosts
from docs.make.references import Reference, with_interval
from docs.make.results_tables import Cell, Table, filled, pages, read_tables
from evaluation.scores import Score
from workflow.common.errors import UserError


def score(run: str, metric: str, value: float, seed: int = 0, epsilon: float = 10.0, source: str = "measured") -> Score:
    return Score("toy", "mnist", run, epsilon, "sound", seed, metric, value, source)


def accuracy(run: str, **others: object) -> Cell:
    return Cell(run, "mnist", "g2r_cnn", 3, **others)


def one_row(cells: list[Cell], *measured: Score) -> Table:
    return Table(Reference("toy", {}, measured, {}), "run", ["x"] * len(cells), {"`foo`": cells})


def test_every_committed_page_has_the_tables_that_the_command_writes():
    made = pages()
    assert {path.name for path in made} >= {"README.md", "results.md"}
    for path, text in made.items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: python -m docs.make.results_tables"


def test_a_cell_shows_one_value_or_the_mean_of_seeds_with_its_interval():
    seeds = [score("foo", "g2r_cnn", value, seed) for seed, value in enumerate((0.5, 0.7, 0.9))]
    assert accuracy("foo").text(seeds, []) == "0.700 ± 0.497 (3)"  # 4.302653 * 0.2 / sqrt(3)
    assert accuracy("foo").text(seeds[:1], []) == "0.500"
    assert accuracy("foo", mean=True).text(seeds, []) == "0.700"
    assert accuracy("foo", epsilon=1.0).text(seeds, []) == accuracy("bar").text(seeds, []) == "-"
    paper = [score("foo", "g2r_cnn", 0.876, source="published")]
    assert accuracy("foo", published=True).text(seeds[:1], paper) == "0.88 / 0.500"


def test_values_at_two_budgets_are_no_seeds():
    both = [score("foo", "g2r_cnn", 0.9), score("foo", "g2r_cnn", 0.5, epsilon=1.0)]
    assert accuracy("foo", epsilon=1.0).text(both, []) == "0.500"
    with pytest.raises(UserError, match="g2r_cnn of foo on mnist has values at the epsilons 1, 10; say which is meant"):
        accuracy("foo").text(both, [])


def test_a_number_on_a_page_is_written_anew_and_words_around_it_stay():
    page = "before\n\n<!-- table: toy -->\n\n| run | x |\n| --- | --- |\n| `foo` | 0.111 |\n\nafter | 0.111 |\n"
    tables = {"toy": one_row([accuracy("foo")], score("foo", "g2r_cnn", 0.25))}
    assert filled(page, tables, []) == page.replace("`foo` | 0.111", "`foo` | 0.250")
    # A table that is not there yet.
    assert filled("<!-- table: toy -->\n\nafter\n", tables, []).endswith("| `foo` | 0.250 |\n\nafter\n")
    with pytest.raises(UserError, match=r"unknown table of a page 'tyo'.*toy"):
        filled(page.replace("toy", "tyo"), tables, [])


def test_all_rows_are_those_that_keep_their_budget_then_the_others_then_the_ceilings():
    runs = {"low": (0.2, 10.0), "high": (0.6, 9.9), "over": (0.9, 17.0)}
    measured = [
        one for run, (value, spent) in runs.items()
        for one in (score(run, "g2r_cnn", value), score(run, "eps_sound", spent))
    ]  # fmt: skip
    measured += [score(run, "g2r_cnn", 0.95, epsilon=float("inf")) for run in ("real", "nonprivate")]
    first = {"dataset": "mnist", "metric": "g2r_cnn", "digits": 3}
    rows = results_tables._all_runs(Reference("toy", {}, measured, {}), first, without=[])
    assert rows == ["high", "low", "over", "nonprivate", "real"]
    assert results_tables._all_runs(Reference("toy", {}, measured, {}), first, without=["over"])[2] == "nonprivate"


def test_stages_are_shown_from_the_longest_with_their_shares():
    text = results_tables.Stages(Reference("toy", {}, [], {"data": 10.0, "train": 30.0, "total": 99.0})).markdown([])
    assert text.splitlines()[2:] == ["| `train` | 30 | 75.0% |", "| `data` | 10 | 25.0% |", "| all | 40 | 100.0% |"]


def test_timings_show_a_median_and_for_ratios_the_lowest_and_highest(tmp_path):
    path = tmp_path / "toy.csv"
    path.write_text("part,case,at,quantity,value,unit,low,high\np,foo,16,ours,0.05,s,0.04,0.06\np,foo,16,ratio,2,x,1.5,3\n")
    with path.open("a") as handle:
        handle.write("p,bar,32,other,0.05,s,0.04,0.06\n")
    columns = {
        "ms": {"quantity": "ours", "digits": 0, "times": 1000}, "times": {"quantity": "ratio", "digits": 1},
        "none": {"quantity": "other", "digits": 1},
    }  # fmt: skip
    made = Timings(path, "width", {"16": {"case": "foo", "at": 16}}, columns).markdown([])
    assert made.splitlines()[::2] == ["| width | ms | times | none |", "| 16 | 50 | 2.0 (1.5 to 3.0) | - |"]
    # A dash is what a case lacks, not what a table misspells.
    for key, row, quantity in (("case", {"case": "fo", "at": 16}, "ours"), ("at", {"case": "foo", "at": 1}, "ours"),
                               ("quantity", {"case": "foo", "at": 16}, "our")):  # fmt: skip
        with pytest.raises(UserError, match=f"unknown {key} of a table"):
            Timings(path, "width", {"16": row}, {"ms": {"quantity": quantity, "digits": 0}}).markdown([])


def test_a_csv_is_shown_line_by_line_in_the_columns_that_are_named(tmp_path):
    path = tmp_path / "toy.csv"
    path.write_text("run,jobs,seconds,note\nfoo,6243,12.149,x\nbar,180,3.05,y\n")
    columns = {"row": {"key": "run", "code": True}, "s": {"key": "seconds", "digits": 1},
               "steps": {"key": "jobs", "digits": 0}, "as": {"key": "note"}}  # fmt: skip
    head, _, *lines = Rows(path, columns).markdown([]).splitlines()
    assert head == "| row | s | steps | as |"
    assert lines == ["| `foo` | 12.1 | 6,243 | x |", "| `bar` | 3.0 | 180 | y |"]
    with pytest.raises(UserError, match="column note holds 'x', no number; show it without digits"):
        Rows(path, {"as": {"key": "note", "digits": 1}}).markdown([])
    with pytest.raises(UserError, match="memory"):
        Rows(path, {"memory": {"key": "memory"}}).markdown([])


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("metric: fwd", "metrik: fwd", r"'metrik'.*did you mean 'metric'"),
        ("metric: fwd", "metric: fdw", r"unknown metric of a cell of table best_distances 'fdw'"),
        ("[dpac_scatter, dp_gauss", "[dpac_scater, dp_gauss", r"'dpac_scater'.*did you mean 'dpac_scatter'"),
        ("dataset: mnist,", "dataset: mnits,", r"'mnits'.*did you mean 'mnist'"),
        ("epsilon: 10,", "epsilon: -10,", r"unknown epsilon of a cell.*'-10'"),
        ("digits: 3", "digits: three", r"unknown digits of a cell.*'three'"),
        ("reference: *several", "referense: *several", r"'referense'.*did you mean 'reference'"),
        ("reference: quick\n  rows", "head: run\n  rows", "table all_rows lacks reference"),
        ("without:", "withot:", r"'withot'.*did you mean 'without'"),
    ],
)
def test_what_a_description_misspells_is_named_and_writes_nothing(right, wrong, message, tmp_path):
    described = tmp_path / "results.yaml"
    text = results_tables.DESCRIBED.read_text(encoding="utf-8")
    assert right in text
    described.write_text(text.replace(right, wrong, 1), encoding="utf-8")
    with pytest.raises(UserError, match=message):
        read_tables(described)
    described.write_text("", encoding="utf-8")
    with pytest.raises(UserError, match="must hold a mapping of tables"):
        read_tables(described)


def test_what_tuning_cost_has_a_line_a_row_and_none_before_anything_was_tuned(tmp_path):
    costs = TuningCosts(tmp_path / "costs.csv")
    head = "| row | tuned on | runs | sum of their ε | ε of all together | at δ |"
    assert costs.markdown([]).splitlines() == [head, "| --- | --- | --- | --- | --- | --- |"]
    (tmp_path / "costs.csv").write_text("run,dataset,runs,delta,eps_sum,eps_together\nfoo,toy_val,8,1e-05,44,20.44\n")
    assert costs.markdown([]).splitlines()[2:] == ["| `foo` | `toy_val` | 8 | 44.0 | 20.4 | 1e-05 |"]


def test_a_table_may_say_where_each_row_s_settings_were_chosen():
    chosen = {"foo": "toy_val, 7 trials, commit 1a2b"}
    reference = Reference("toy", {}, [score("foo", "g2r_cnn", 0.5)], {}, chosen=chosen)
    shown = Table(reference, "run", ["x"], {"`foo`": [accuracy("foo")], "`bar`": [accuracy("bar")]}, "chosen on")
    assert shown.markdown([]).splitlines() == [
        "| run | x | chosen on |", "| --- | --- | --- |", "| `foo` | 0.500 | toy_val, 7 trials, commit 1a2b |",
        "| `bar` | - | - |",
    ]  # fmt: skip


def test_how_a_preset_s_settings_were_chosen_is_written_below_its_mark():
    page = "before\n\n<!-- chosen: quick -->\n\n- Settings of nothing\n  were chosen.\n- A note.\n\nafter\n"
    made = chosen_lines.filled(page)
    assert made == f"before\n\n<!-- chosen: quick -->\n\n{chosen_lines.lines('quick')}\nafter\n"
    assert made == chosen_lines.filled("before\n\n<!-- chosen: quick -->\n\nafter\n")
    with pytest.raises(UserError, match="unknown preset 'qick'"):
        chosen_lines.filled(page.replace("quick", "qick"))


@pytest.mark.parametrize("values", [[5.0, float("inf")], [float("inf"), 5.0]])
def test_no_seed_hides_that_another_has_no_finite_epsilon(values):
    assert with_interval(values, 1) == "inf"
