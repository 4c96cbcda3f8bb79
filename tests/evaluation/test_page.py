"""report.html: one file that loads nothing, whose headline, tables, plots and cards say what the scores say."""

from __future__ import annotations

import base64
import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from bs4 import BeautifulSoup
from PIL import Image
from report_pages import folder_of, made, scores, words, write

from evaluation.report import charts
from evaluation.report.layout import load_layout
from evaluation.report.page import HERE, SCRIPTS, main
from evaluation.report.page_tables import Links
from evaluation.report.scores_tables import Numbers
from workflow.common.contracts import RunFolder
from workflow.common.files import sha256, write_json, write_text

ROOT = Path(__file__).resolve().parents[2]
# The published minified builds; vendor/README.md says from where.
PINNED = {
    "vega.min.js": "8f6a3587cf8d4f42c7e08120e3eb05d067e746d554e39d2dcf52acc0bd5ba28f",
    "vega-lite.min.js": "35a9821df838825b05a6a73e9414b58747a1b18321583858ed903c66393a5c7e",
    "sortable.min.js": "68a43d520969e80dc5da4a72e54a5550a5e0885278f5debfbee6f8e8440ebfd3",
}
# dp_merf keeps its budget; dpac is better and spends 21.7 by the sound count; real data are a reference.
RUNS = [
    *scores("dp_merf", (0.80, 30.0, 9.9, 9.9, 12.0)),
    *scores("dp_merf", (0.82, 32.0, 9.9, 9.9, 14.0), seed=1),
    *scores("dpgan", (0.70, 50.0, 11.0, 9.9, 5.0)),
    *scores("dpac", (0.90, 20.0, 10.0, 21.7, 60.0), accounting="published"),
    *scores("real", (0.99, 1.0, 0.0, 0.0, 0.0), epsilon=float("inf"), accounting="none")[:2],
    *scores("dp_merf", (0.60, 80.0, 9.9, 9.9, 9.0), dataset="lesions"),
]
COSTS = """method,dataset,epsilon,setting,noise,eps_printed,eps_counted,behaviour,eps_released_counted,\
eps_released_sound,eps_released_sound_is,eps_described_sound,eps_described_sound_is,noise_for_10,noise_for_1,source
dpgan,mnist,10,a setting,1,10,10,leaks,,25.5,tight,9,tight,1,2,a paper
dpac,mnist,10,a setting,1,10,10,two networks,146.6,610,bound,610,bound,1,2,a paper
dp_merf,mnist,1,a setting,1,1,1,as described,,0.7,tight,0.7,tight,1,2,a paper
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("results") / "quick"
    write(root, RUNS)
    for seed in (0, 1):
        folder_of(root, "dp_merf", seed=seed)
    write_text(root / "published_costs.csv", COSTS)
    write_text(root / "logs/train/mnist-dp_merf-eps10-seed0.log", "1 %\r50 %\r100 %\n\x1b[31mdp_merf: <done>\x1b[0m\n")
    spending = "dataset,run,epsilon,accounting,seed,charges,eps_published,eps_sound\n"
    write_text(root / "spending.csv", spending + "mnist,dp_merf,10,sound,0,1,4,3\nmnist,dp_merf,10,sound,0,2,9.9,9.9\n")
    (root / "figures").mkdir()
    (root / "figures/figure3.png").write_bytes(b"\x89PNG not really")
    return root


@pytest.fixture(scope="module")
def page(root) -> BeautifulSoup:
    origins = {"dp_merf": {"mnist": {"steps": "preset quick"}}}
    return made(root, "--origins", json.dumps(origins))


def card(page: BeautifulSoup, title: str) -> BeautifulSoup:
    return next(one for one in page.select(".card") if words(one.summary).startswith(title))


def test_the_page_loads_nothing_from_elsewhere_and_is_small(root, page):
    kinds = ["img", "script", "link", "iframe", "source", "video", "object"]
    fetched = [tag.get("src") or tag.get("href") for tag in page.find_all(kinds)]
    assert all(place is None or place.startswith("data:") for place in fetched)
    assert all(tag["href"].startswith("#") for tag in page.find_all("a"))
    style = page.style.get_text()
    assert "@import" not in style and "url(" not in style
    assert (root.parent / "report.html").stat().st_size < 8e6


def test_every_row_of_every_table_links_to_a_card_that_is_there(page):
    rows = page.select("table.sortable tbody tr")
    assert len(rows) > 40
    targets = {one["id"] for one in page.select(".card .body")}
    assert [words(row) for row in rows if not row.th.a or row.th.a["href"][1:] not in targets] == []
    every = {tag["id"] for tag in page.find_all(id=True)}
    assert {a["href"][1:] for a in page.find_all("a")} <= every


def test_ids_are_given_once(page):
    given = [tag["id"] for tag in page.find_all(id=True)]
    assert len(given) == len(set(given))


def test_the_first_line_counts_trainings_not_cards_and_real_data_is_none(page, tmp_path):
    """dp_merf with two seeds on MNIST and one on the pictures, dpgan and dpac with one: five."""
    assert words(page.select("p.facts")[0]).startswith("5 runs: 4 settings with 1 to 2 seeds each, on MNIST, lesions.")
    alone = tmp_path / "quick"
    write(alone, [row for row in RUNS if row.method in ("dpgan", "real")])
    assert words(made(alone).select("p.facts")[0]).startswith("1 run on MNIST.")
    write(alone, [row for row in RUNS if row.method == "dp_merf" and row.dataset == "mnist"])
    assert words(made(alone).select("p.facts")[0]).startswith("2 runs: 1 setting with 2 seeds each, on MNIST.")


def test_data_sets_stand_in_the_layouts_order_in_the_headline_and_the_ranking_too(tmp_path):
    root = tmp_path / "quick"
    values, names = (0.7, 30.0, 9.9, 9.9, 12.0), ("a_set", "fashion_mnist", "mnist")
    write(root, [row for name in names for row in scores("dp_merf", values, dataset=name)])
    page = made(root)
    assert [words(one)[:7] for one in page.select(".best li")] == ["MNIST, ", "F-MNIST", "a_set, "]
    ranked = page.find(id="which").parent.select(".part[data-set]:has(h3)")
    assert [part["data-set"] for part in ranked] == ["mnist", "fashion_mnist", "a_set"]
    assert [card["data-set"] for card in page.select("details[data-set]")] == ["mnist", "fashion_mnist", "a_set"]


def test_over_budget_is_said_once_of_a_run_whose_label_has_it_too(tmp_path):
    root = tmp_path / "quick"
    write(root, scores("dpac_as_released", (0.9, 20.0, 10.0, 900.0, 60.0), accounting="published"))
    page = made(root)
    assert words(page.find("summary")) == "DP-GAN-DPAC as released on MNIST, ε 10 over budget"
    assert words(page.find(id="which").parent.select("tbody th")[0]) == "DP-GAN-DPAC as released over budget"


def test_a_narrow_screen_leaves_out_how_epsilon_was_counted_but_never_what_was_spent(page):
    for number in (1, 2, 3):
        for head in page.find(id=f"table{number}").parent.select("thead th"):
            name = words(head)
            assert ("count" in head.get("class", [])) == (name in ("Accounting", "ε published")), name
    assert page.select('input[name="kind"][value="count"]')
    assert not page.find(id="table6").parent.select("th.count"), "where they are what the table is about"


def test_the_headline_is_the_best_within_its_budget_and_names_who_is_ahead_over_it(page):
    first = [words(one) for one in page.select(".best li")]
    assert first[0].startswith("MNIST, ε 10: DP-MERF , gen2real CNN ↑ 0.810 ± 0.127 (2), ε sound 9.90.")
    assert "DP-GAN-DPAC 0.900, which spends ε 21.70 by the sound count" in first[0]
    assert first[1].startswith("lesions, ε 10: DP-MERF , gen2real CNN ↑ 0.600, ε sound 9.90.")
    link = page.select(".best li")[0].a["href"][1:]
    assert page.find(id=link).find_parent("details").summary.get_text().strip() == "DP-MERF on MNIST, ε 10"


def test_the_headline_says_what_seeds_do_not_tell_of_the_best(tmp_path):
    values, better = (0.8, 20.0, 9.9, 9.9, 60.0), (0.95, 20.0, 9.9, 9.9, 60.0)
    several = [row for seed in (0, 1) for row in scores("dp_merf", (0.8 + seed / 100, *values[1:]), seed=seed)]
    others = [row for seed in (0, 1) for row in scores("dpac", (0.6 + seed / 50, *values[1:]), seed=seed)]
    told = {}
    for name, rows in {
        "each": scores("dp_merf", values) + scores("dpgan", better),
        "one of two": several + scores("dpgan", better),
        "one of three": several + others + scores("dpgan", better),
        "none": several + others,
    }.items():
        write(tmp_path / name, rows)
        (line,) = made(tmp_path / name).select(".best li")
        told[name] = words(line)
    assert "From one seed each: another may put another first." in told["each"]
    assert "Without several seeds of two methods that differ: another may put another first." in told["one of two"]
    assert told["one of three"].startswith("MNIST, ε 10: DP-MERF ")
    assert "Not compared, of one seed: DPGAN" in told["one of three"]
    assert "seed" not in told["none"]


def test_published_epsilons_that_do_not_hold_are_told_refuted_ones_first(page):
    found = [words(one) for one in page.select(".findings li")]
    assert found == [
        "refuted DPGAN (revisited) , ε 10 on MNIST: the released code spends 25.50.",
        "not proved DP-GAN-DPAC , ε 10 on MNIST: the authors' own count of the released code gives 146.60; of the "
        "released code only ε ≤ 610 is proved.",
    ]


def test_an_attack_above_the_authors_count_refutes_it(root, tmp_path):
    write(tmp_path / "a", RUNS)
    line = "gs_wgan,mnist,10,published,0,mechanism,100,100,4000,0.95,4.66,4.17,20\n"
    heads = "run,dataset,epsilon,accounting,seed,attack,uses,max_uses,canaries,confidence,epsilon_lower,eps_published,"
    write_text(tmp_path / "a/audit.csv", heads + "eps_sound\n" + line)
    (found,) = made(tmp_path / "a").select(".findings li")
    assert "an attack on this run proves ε ≥ 4.66, its authors count 4.17 for as many uses" in words(found)


def table_of(page: BeautifulSoup, name: str, dataset: str) -> BeautifulSoup:
    return page.find(id=name).find_parent("section").select_one(f'[data-set="{dataset}"] table')


def test_measured_published_and_their_difference_stand_side_by_side(page):
    table = table_of(page, "table2", "mnist")
    heads = [words(head) for head in table.thead.find_all("th")]
    assert heads[:3] == ["Method", "ε", "Accounting"] and heads[5:] == [
        "gen2real MLP ↑ published", "gen2real CNN ↑ measured", "gen2real CNN ↑ published", "gen2real CNN ↑ difference",
    ]  # fmt: skip
    row = next(row for row in table.tbody.find_all("tr") if words(row.th).startswith("DP-GAN-DPAC over"))
    ours, paper, difference = row.find_all("td")[-3:]
    assert ours.get_text() == "0.900" and paper["data-sort"] == "0.88"
    assert difference["data-sort"] == "0.02" and words(difference) == "+0.020 better"


def test_a_run_over_its_budget_is_marked_in_words_and_one_within_it_is_not(page):
    rows = {words(row.th): row["class"] for row in table_of(page, "table2", "mnist").tbody.find_all("tr")}
    assert rows["DP-GAN-DPAC over budget"] == ["over"] and rows["DP-MERF"] == ["within"]
    assert rows["Real data reference"] == ["reference"] and rows["GS-WGAN not run here"] == ["other"]
    published = table_of(page, "table2", "celeba").tbody
    assert all("not run here" in words(row.th) for row in published.find_all("tr"))


def test_a_published_row_that_was_not_run_there_has_the_papers_count_whatever_the_run_has_elsewhere(tmp_path):
    root = tmp_path / "quick"
    sound = scores("datalens", (0.7, 50.0, 10.0, 10.0, 5.0))
    write(root, [*sound, *scores("datalens", (0.8, 40.0, 10.0, 20.0, 5.0), accounting="published")])
    made_page = made(root)
    for name in ("table1", "table2"):
        table = table_of(made_page, name, "celeba")
        rows = [row for row in table.tbody.find_all("tr") if words(row.th).startswith("DataLens")]
        assert rows and all("not run here" in words(row.th) for row in rows)
        assert [words(row.find_all("td")[1]) for row in rows if words(row.td) == "10"] == ["published"]
    rows = [row for row in table_of(made_page, "table2", "mnist").tbody.find_all("tr") if "DataLens" in words(row.th)]
    at_ten = {words(row.find_all("td")[1]) for row in rows if words(row.td) == "10"}
    assert at_ten == {"published", "sound"}


def test_columns_that_hold_nothing_are_left_out_of_a_part(page):
    heads = [words(head) for head in table_of(page, "table2", "celeba").thead.find_all("th")]
    assert "ε sound" not in heads and not any("measured" in head for head in heads)


def test_the_card_of_a_run_shows_samples_curves_spending_settings_time_and_log(page):
    one = card(page, "DP-MERF on MNIST")
    image = one.select_one(".samples img")
    assert image["alt"] == (
        "Images generated by DP-MERF on MNIST, ε 10: the first 10 of each of 3 classes, a row a class"
    )
    pixels = Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2])))
    assert pixels.size == (10 * 9, 3 * 9)
    # Image 3 is the second of class 0.
    assert (np.asarray(pixels)[:8, 9:17].ravel() == np.arange(3 * 64, 4 * 64) % 256).all()
    specs = [one.find("script", {"data-for": plot["id"]}) for plot in one.select(".plot")]
    curve, rank, spent = (json.loads(spec.get_text()) for spec in specs)
    assert curve["layer"][0]["data"]["values"] == "x,y,seed\n0.0,1.5,0\n1.0,1.25,0\n0.0,1.5,1\n1.0,1.25,1\n"
    assert rank["layer"][0]["data"]["values"] == "x,y,seed\n1.0,3.0,0\n1.0,3.0,1\n"
    assert "2.0,9.9,sound count" in spent["layer"][0]["data"]["values"]
    text = words(one)
    assert "steps 800 preset quick width 8 the method's default" in text
    assert "0 7 of 8 13 300 cpu 2026-01-01 10:20" in text
    assert one.pre.get_text() == "100 %\ndp_merf: <done>"
    assert "It spent ε 9.90 by the published count and 9.90 by the sound count." in text


def test_a_run_without_a_folder_says_what_is_missing(page):
    text = words(card(page, "DPGAN (revisited) on MNIST"))
    assert "No samples are stored with these results." in text
    assert "No run folder is stored with these results." in text


def test_a_run_over_its_budget_says_so_on_its_card(page):
    assert "over its budget of 10, so it does not compare" in words(card(page, "DP-GAN-DPAC on MNIST"))


def test_the_plots_hold_seeds_means_intervals_and_the_pareto_front(page):
    spec = json.loads(page.find("script", {"data-for": "cost-utility-mnist"}).get_text())
    front = spec["layer"][0]
    assert front["mark"]["type"] == "line"
    lines = list(csv.DictReader(io.StringIO(front["data"]["values"])))
    assert [(line["x"], line["y"], line["name"]) for line in lines] == [
        ("13.0", "0.81", "DP-MERF"), ("5.0", "0.7", "DPGAN (revisited)"),
    ]  # fmt: skip
    seeds = next(layer for layer in spec["layer"] if layer["mark"].get("size") == 22)["data"]["values"]
    assert len(seeds.splitlines()) == 3
    # t(0.975, 1) = 12.7062; 0.81 -+ 12.7062 * 0.0141421 / sqrt(2)
    assert float(lines[0]["y0"]) == pytest.approx(0.682938) and float(lines[0]["y1"]) == pytest.approx(0.937062)
    text = words(page.find(id="cost-utility-mnist").find_parent("figure"))
    assert "The Pareto front among runs within their budget (DPGAN (revisited), DP-MERF)" in text
    plain = page.find(id="utility-epsilon-mnist").find_parent("figure")
    assert "Dashed: Real data (0.990)." in words(plain)


@pytest.mark.parametrize(
    ("value", "domain", "shape"), [(0, [-1, 1], ",d"), (1, [0.9, 1.1], ",d"), (0.52341, [0.471069, 0.575751], ".4~g")]
)
def test_a_plot_of_one_point_has_one_tick_on_each_axis_at_its_value(value, domain, shape):
    (layer,) = charts.curves("c", "loss", {0: [(value, value)]}).spec["layer"]
    for channel in ("x", "y"):
        axis = layer["encoding"][channel]
        assert axis["axis"] == {"values": [pytest.approx(value)], "format": shape}
        assert axis["scale"]["domain"] == pytest.approx(domain) and axis["scale"]["zero"] is False


def test_the_axes_of_several_points_are_the_librarys_and_one_charge_is_a_whole_number():
    (layer,) = charts.curves("c", "loss", {0: [(0, 0.5), (9, 0.25)]}).spec["layer"]
    assert "axis" not in layer["encoding"]["x"] and "domain" not in layer["encoding"]["y"]["scale"]
    one = charts.spent("s", [(1.0, 4.0, 3.0)], 10.0, 1).spec["layer"][0]["encoding"]["x"]
    assert one["axis"] == {"values": [1.0], "format": ",d"}


def test_one_run_alone_gives_plots_whose_axes_say_its_scores(tmp_path):
    write(tmp_path / "quick", scores("dp_merf", (0.8, 30.0, 9.9, 9.9, 12.0)))
    plot = made(tmp_path / "quick").find("script", {"data-for": "fidelity-utility-mnist"})
    axes = json.loads(plot.get_text())["layer"][2]["encoding"]
    assert (axes["x"]["axis"]["values"], axes["y"]["axis"]["values"]) == ([30.0], [0.8])


def test_the_ranking_and_the_limits_are_there(page):
    ranking = page.find(id="which").find_parent("section")
    rows = [words(row.th) for row in ranking.select('[data-set="mnist"] tbody tr')]
    assert rows == ["DP-GAN-DPAC over budget", "DP-MERF", "DPGAN (revisited)", "Real data reference"]
    assert "What comparing spent" in words(ranking)
    limits = words(page.find(id="limits").parent)
    assert "not proved" in limits and "selected by its score on the real test data" in limits


def test_provenance_tells_each_origin(page):
    text = words(page.find(id="provenance").parent)
    assert "1 of 2 runs: commit abc123; Chip, 2 cores; Python 3.11.9; torch 2.13.0" in text
    assert "1 of 2 runs: commit abc123 with uncommitted changes" in text


def test_a_run_that_was_computed_in_more_bits_than_its_settings_ask_for_is_another_origin(tmp_path):
    root = tmp_path / "quick"
    for seed, computed in enumerate(("fp32", "bf16")):
        write(root, scores("dp_merf", (0.5, 9.0, 9.0, 9.0, 1.0), seed=0))
        path = folder_of(root, "dp_merf", seed=0 if not seed else 2) / "run.json"
        record = json.loads(path.read_text())
        write_json(path, record | {"hyper": {"precision": "bf16"}, "computed_in": computed})
    text = words(made(root).find(id="provenance").parent)
    assert "1 of 2 runs: commit abc123; Chip, 2 cores; Python 3.11.9; torch 2.13.0; bfloat16 of the settings" in text
    assert text.count("computed in single precision") == 1
    write_json(path, record | {"hyper": {"precision": "bf16"}, "computed_in": "bf16 and fp32"})
    text = words(made(root).find(id="provenance").parent)
    assert text.count("computed in single precision") == 2
    assert text.count("computed in single precision for a part of the steps") == 1


def test_names_and_logs_are_escaped(tmp_path):
    root, name = tmp_path / "odd", 'a<script>"\'&'
    write(root, scores("dp_merf", (0.5, 9.0, 9.0, 9.0, 1.0), dataset=name))
    page = made(root)
    assert "a<script>" not in (tmp_path / "report.html").read_text()
    assert page.select_one(".best strong").get_text() == f"{name}, ε 10:"
    assert [json.loads(one.get_text()) for one in page.find_all("script", type="application/json")]
    assert name in page.select_one(".card[data-set]")["data-set"]


def test_one_private_run_alone_and_none_at_all_are_shown(tmp_path):
    write(tmp_path / "one", scores("dp_merf", (0.5, 9.0, 9.0, 9.0, 1.0)))
    assert len(made(tmp_path / "one").select(".card[data-set]")) == 1
    write(tmp_path / "none", scores("real", (0.9, 1.0, 0, 0, 0), epsilon=float("inf"), accounting="none")[:2])
    page = made(tmp_path / "none")
    assert "No private run has a score here." in words(page.find(id="headline").parent)
    assert not page.select(".plot")


def test_own_data_sets_are_shown_alone(tmp_path):
    root = tmp_path / "mine"
    write(root, [*scores("dp_merf", (0.5, 9.0, 9.0, 9.0, 1.0), dataset="lesions")])
    page = made(root, "--datasets", "lesions", "--leave-out", "table6")
    titles = [words(one) for one in page.select("#all-tables h3")]
    assert [title.partition(":")[0] for title in titles] == ["Table 1", "Table 2", "Table 3"]
    assert "MNIST" not in words(page.find(id="all-tables"))


def test_claims_are_judged_on_the_page_with_a_link_to_the_row_that_is_said_to_be_better(tmp_path):
    root = tmp_path / "quick"
    # Differences 0.29, 0.30, 0.31: deviation 0.01, 4.302653 * 0.01 / sqrt(3) = 0.0248.
    values = {"dp_gauss": (0.79, 0.90, 0.91), "gs_wgan_sound": (0.50, 0.60, 0.60)}
    rows = [
        one for method, each in values.items() for seed, value in enumerate(each)
        for one in scores(method, (value, 9.0, 9.0, 9.0, 1.0), seed=seed)
    ]  # fmt: skip
    write(root, rows)
    page = made(root)
    table = page.find(id="table9").parent
    (row,) = [row for row in table.select("tbody tr") if "DP-Gauss (no network) GS-WGAN, sound" in words(row)]
    assert "+0.300 +0.275 to +0.325 3" in words(row) and words(row).endswith("supported")
    assert words(page.select_one(f"{row.th.a['href']}").find_parent(class_="card")).startswith("DP-Gauss")
    assert [cell["data-sort"] for cell in row.select("td")][4:6] == ["0.300", "0.275"]
    assert "beats the GANs at a sound count in gen2real (this suite): supported in 1 of 1 comparison" in words(table)


def test_only_the_given_runs_have_folders_and_what_is_left_out_is_not_shown(root, tmp_path):
    folder = RunFolder(root, "mnist", "dp_merf", 10, 0).path
    page = made(root, "--runs", str(folder), "--leave-out", "table4", "figure3")
    assert "1 of 1 runs" in words(page.find(id="provenance").parent)
    assert page.find(id="table4") is None and page.find(id="figures") is None


def test_a_run_whose_log_is_missing_or_has_odd_cells_still_has_a_card(tmp_path):
    root = tmp_path / "odd"
    write(root, scores("dp_merf", (0.5, 9.0, 9.0, 9.0, 1.0)) + scores("dpgan", (0.4, 9.0, 9.0, 9.0, 1.0)))
    (folder_of(root, "dp_merf") / "log.csv").unlink()
    write_text(folder_of(root, "dpgan") / "log.csv", "step,loss,note\n0,nan,begun\n1,,\n2,0.5,ended\n")
    page = made(root)
    assert "No log.csv is stored with this run." in words(card(page, "DP-MERF"))
    (plot,) = card(page, "DPGAN").select(".plot")
    spec = json.loads(page.find("script", {"data-for": plot["id"]}).get_text())
    assert spec["layer"][0]["data"]["values"] == "x,y,seed\n2.0,0.5,0\n"


def test_how_settings_were_chosen_is_read_from_the_record(tmp_path):
    root = tmp_path / "quick"
    write(root, [one for run in ("dp_merf", "dp_gauss", "dp_ntk") for one in scores(run, (0.5, 9.0, 9.0, 9.0, 1.0))])
    runs = {"dp_merf": {"chosen_on": ["mnist (test split)"], "chosen_note": "a < b", "hyper": {"mnist": {"steps": 5}}}}
    by = {"trials": 7, "core_minutes": 39.1, "commit": "1a2b3c"}
    runs["dp_gauss"] = {"chosen_on": ["mnist_val"], "chosen_by": by}
    runs["dp_ntk"] = {}
    write_json(root / "provenance.json", {"settings": {"runs": runs, "delta": 1e-5}})
    page = made(root)
    text = str(page.find(id="choices").parent)
    assert "<code>dp_merf</code> were chosen by scores on the test split of <code>mnist</code>, which flatters" in text
    assert "<code>dp_merf</code>: a &lt; b" in text
    assert "steps 5 the configuration" in words(card(page, "DP-MERF"))
    assert "<code>dp_gauss</code> (7 trials) were chosen on held-out images (<code>mnist_val</code>) by equal" in text
    assert "Chosen on: mnist (test split)." in words(card(page, "DP-MERF"))
    assert "Chosen on: mnist_val, 7 trials, commit 1a2b3c." in words(card(page, "DP-Gauss (no network)"))
    assert "Chosen on" not in words(card(page, "DP-NTK"))


@pytest.mark.parametrize("name", ["quick", "own_faces"])
def test_committed_results_give_a_page_without_any_training(name, tmp_path):
    out = tmp_path / "report.html"
    assert main(["--root", str(ROOT / "results/reference" / name), "--out", str(out)]) == 0
    page = BeautifulSoup(out.read_text(encoding="utf-8"), "html.parser")
    rows = page.select("table.sortable tbody tr")
    targets = {one["id"] for one in page.select(".card .body")}
    assert rows and all(row.th.a and row.th.a["href"][1:] in targets for row in rows)
    assert out.stat().st_size < 5e6
    committed = ROOT / "results/reference" / name / "report.html"
    if name == "quick":
        again = f"python -m evaluation.report.page --root {committed.parent.relative_to(ROOT)} --out"
        assert committed.read_bytes() == out.read_bytes(), f"write it again: {again} {committed.relative_to(ROOT)}"


def test_a_folder_without_scores_is_bad_input(tmp_path, capsys):
    assert main(["--root", str(tmp_path), "--out", str(tmp_path / "r.html")]) == 2
    assert "no scores.csv under" in capsys.readouterr().err


def test_the_vendored_scripts_are_the_published_ones_with_their_licences():
    assert {name: sha256(HERE / "vendor" / name) for name in SCRIPTS} == PINNED
    assert len(list((HERE / "vendor").glob("*.LICENSE"))) == len(SCRIPTS)
    assert not any(b"</script" in (HERE / "vendor" / name).read_bytes() for name in SCRIPTS)


LAYOUT = Path(__file__).resolve().parents[2] / "workflow/config/report.yaml"


def test_a_plot_pairs_what_was_measured_of_the_same_seed():
    rows = [one for seed in range(3) for one in scores("dpac", (0.5 + 0.1 * seed, 30, 9, 9, 100 + seed), seed=seed)]
    lacking = [one for one in rows if (one.metric, one.seed) not in {("g2r_cnn", 0), ("train_seconds", 2)}]
    shown = charts.charts("mnist", Numbers.gather(lacking, []), load_layout(LAYOUT), Links({}, {}))
    (cost,) = (str(one.spec) for one in shown if one.name.startswith("cost-utility"))
    assert "DP-GAN-DPAC: gen2real CNN 0.600, training time (s) 101 (within its budget)" in cost
