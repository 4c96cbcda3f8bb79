"""What the README says of results and commands is what the repository holds."""

from __future__ import annotations

import csv
import hashlib
import json
import math
import re
from collections import Counter
from pathlib import Path
from statistics import mean, stdev

import pytest
import yaml
from toys import shipped

from evaluation.scores import Score, read_scores
from methods.__main__ import VERBS
from workflow.common import metrics

ROOT = Path(__file__).resolve().parents[2]
# Trials of tuning are no scores.
PRESETS = sorted(path.name for path in (ROOT / "results/reference").iterdir() if path.name != "tuning")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
README = (ROOT / "README.md").read_text(encoding="utf-8")
RESULTS, MEASURED, TUNING, MAP = (
    (ROOT / f"docs/{name}.md").read_text(encoding="utf-8") for name in ("results", "measurements", "tuning", "map")
)
YOUR_OWN = (ROOT / "docs/your-own-images.md").read_text(encoding="utf-8")
NEWEST = read_scores(ROOT / "results/reference/gan_seeds/scores.csv")
SOUND = read_scores(ROOT / "results/reference/sound_seeds/scores.csv")
LOW = read_scores(ROOT / "results/reference/sound_eps1/scores.csv")
OTHERS = ("dp_merf", "dp_cgan", "dpgan", "gs_wgan_sound", "dpac_sound", "dp_sinkhorn", "g_pate", "datalens", "pate_gan")
SEEDS, BEST = read_scores(ROOT / "results/reference/quick_seeds/scores.csv"), ("dpac_scatter", "dp_gauss", "dp_ntk")
COLUMNS = [(dataset, "g2r_cnn") for dataset in ("mnist", "fashion_mnist")] + [
    (dataset, "r2g_cnn") for dataset in ("mnist", "fashion_mnist")
]


def scores(path: str) -> dict[tuple[str, str, str], str]:
    with (ROOT / path).open(newline="") as handle:
        return {(row["method"], row["dataset"], row["metric"]): row["value"] for row in csv.DictReader(handle)}


def number(value: str | None, digits: int) -> str:
    return "-" if value is None else f"{float(value):.{digits}f}"


def row(run: str, measured: dict, published: dict) -> str:
    """Returns a line of the table of all rows: published / measured for each column, and the sound epsilon on MNIST."""
    cells = [
        f"{number(published.get((run, *column)), 2)} / {number(measured.get((run, *column)), 3)}" for column in COLUMNS
    ]
    sound = measured.get((run, "mnist", "eps_sound"))
    return "| " + " | ".join([f"`{run}`", *cells, "-" if sound is None else f"{float(sound):.1f}"]) + " |"


def test_the_readme_is_short_and_has_one_picture():
    assert len(README.splitlines()) < 150 and len(re.findall(r"!\[[^\]]+\]\(", README)) == 1
    assert "](docs/index.md)" in README


def test_the_table_of_all_rows_is_the_committed_run():
    measured = scores("results/reference/quick/scores.csv")
    published = scores("results/published/scores.csv")
    shown = re.findall(r"^\| `\w+` \| .+ / .*$", RESULTS, flags=re.MULTILINE)
    runs = [re.match(r"\| `(\w+)`", line)[1] for line in shown]
    assert shown == [row(run, measured, published) for run in runs]
    assert {run for run, dataset, _ in measured if dataset == "mnist"} == set(runs)
    # What may be compared with a budget of 10 comes first.
    kept = [float(measured.get((run, "mnist", "eps_sound"), "inf")) <= 10 for run in runs]
    assert kept == sorted(kept, reverse=True) and any(kept)


def home(run: str) -> list[Score]:
    """Returns the scores of the committed seeds of a sound row."""
    return next(scores for scores in (SEEDS, SOUND, NEWEST) if any(one.method == run for one in scores))


def chosen_in(reference: str, run: str) -> str:
    """Returns where the run that is shown had its settings chosen: another of its name may have others."""
    record = json.loads((ROOT / "results/reference" / reference / "provenance.json").read_text())
    settings = record["settings"]["runs"][run]
    trials = settings.get("chosen_by")
    said = [f"{trials['trials']} trials", f"commit {trials['commit']}"] if trials else []
    return ", ".join([*settings["chosen_on"], *said])


def test_the_readmes_first_table_is_three_seeds_a_row_the_sound_ones_first_beside_the_published_cells():
    published, sets = scores("results/published/scores.csv"), ("mnist", "fashion_mnist")
    rows = [(run, home(run)) for run in (*BEST, *OTHERS)]
    over = [(run, NEWEST) for run in ("dpac", "gs_wgan")]
    names = {id(SEEDS): "quick_seeds", id(SOUND): "sound_seeds", id(NEWEST): "gan_seeds"}
    expected = []
    for run, measured in [*rows, *over]:
        paper = [number(published.get((run, dataset, "g2r_cnn")), 2) for dataset in sets]
        ours = [over_seeds(measured, run, dataset, 10, "g2r_cnn") for dataset in sets]
        low = SEEDS if run in BEST else LOW
        at_one = [over_seeds(low, run, dataset, 1, "g2r_cnn") if run in (*BEST, *OTHERS) else "-" for dataset in sets]
        spent = mean(one.value for one in measured if (one.method, one.dataset, one.epsilon, one.metric)
                     == (run, "mnist", 10, "eps_sound"))  # fmt: skip
        assert (spent <= 10) == ((run, measured) in rows)
        cells = [*(f"{theirs} / {here}" for theirs, here in zip(paper, ours, strict=True)), *at_one, f"{spent:.1f}"]
        cells.append(chosen_in(names[id(measured)], run))
        expected.append("| " + " | ".join([f"`{run}`", *cells]) + " |")
    assert re.findall(r"^\| `\w+` \|.*$", README, flags=re.MULTILINE) == expected
    assert README.index(expected[0]) == README.index("| `"), "no row stands before the sound ones"


def judged(page: str, head: str) -> list[list[str]]:
    """Returns the cells of each row of the table of a page that begins with this line."""
    lines = page.split(head + "\n")[1].split("\n\n")[0].splitlines()[1:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_readmes_conclusions_are_what_table_9_says():
    table = judged(RESULTS, "| # | claim | of | verdicts |")
    claims = {(claim, by): (number, told) for number, claim, by, told in table}
    said = [" ".join(one.split()) for one in re.findall(r"^- ((?:.+\n)(?:  .+\n)*)", README, flags=re.MULTILINE)]
    sentences = [re.fullmatch(r"(.+) \(([\w ]+)\): (.+)\.", one).groups() for one in said if "compar" in one]
    assert len(sentences) == 3
    heads = next(line for line in MEASURED.splitlines() if line.startswith("| # | Data set |"))
    lines = judged(MEASURED, heads)
    for claim, by, told in sentences:
        number, verdicts = claims[claim, by]
        assert told == verdicts
        of_claim = [line for line in lines if line[0] == number]
        counts = Counter(line[-1].removesuffix(" *") for line in of_claim)
        order = sorted(counts, key=["supported", "contradicted", "open at this size"].index)
        assert told.startswith(", ".join(f"{verdict} in {counts[verdict]}" for verdict in order))
        assert f"of {len(of_claim)} comparison" in told
    assert sentences[0][2].startswith("open") and sentences[2][2].startswith("supported")


def test_gaussians_pass_every_published_gen2real_accuracy_of_the_lenet():
    published = scores("results/published/scores.csv")
    highest = {
        dataset: max(
            float(value) for (run, *rest), value in published.items()
            if rest == [dataset, "g2r_cnn"] and run not in ("real", "nonprivate")
        )
        for dataset in ("mnist", "fashion_mnist")
    }  # fmt: skip
    assert all(value_of_seeds("dp_gauss", dataset, 10, "g2r_cnn") > highest[dataset] for dataset in highest)
    claim = "**pass every gen2real accuracy of a LeNet that the paper prints** ({mnist:.2f} and {fashion_mnist:.2f} at"
    assert claim.format(**highest) in " ".join(README.split())


def with_interval(values: list[float], digits: int) -> str:
    """Returns the mean of three or five seeds and half the width of its t interval, as all tables have them."""
    t = {3: 4.302653, 5: 2.776445}[len(values)]  # t(0.975, seeds - 1)
    reach = t * stdev(values) / math.sqrt(len(values))
    return f"{mean(values):.{digits}f} ± {reach:.{digits}f} ({len(values)})"


def over_seeds(measured: list, run: str, dataset: str, epsilon: float, metric: str, digits: int = 3) -> str:
    """Returns the mean over seeds with its interval, as the tables of results have them."""
    values = [
        one.value for one in measured
        if (one.method, one.dataset, one.epsilon, one.metric) == (run, dataset, epsilon, metric)
    ]  # fmt: skip
    return with_interval(values, digits)


def rows_of_seeds(page: str, section: str) -> list[str]:
    return re.findall(r"^\| `\w+` \| .+ ± .*$", page.split(f"## {section}\n")[1].split("\n## ")[0], re.MULTILINE)


def test_the_table_of_seeds_is_the_committed_run():
    expected = []
    rows = [(SOUND, "gs_wgan_sound"), (SOUND, "dpac_sound"), (NEWEST, "gs_wgan"), (NEWEST, "dpac")]
    for measured, run in rows:
        cells = [over_seeds(measured, run, dataset, 10, "g2r_cnn") for dataset in ("mnist", "fashion_mnist")]
        for count in ("eps_published", "eps_sound"):
            spent = [one.value for one in measured if (one.method, one.dataset, one.metric) == (run, "mnist", count)]
            cells.append(f"{mean(spent):.1f}")
        expected.append("| " + " | ".join([f"`{run}`", *cells]) + " |")
    assert rows_of_seeds(MEASURED, "GANs at a sound count, by several shards") == expected


def value_of_seeds(run: str, dataset: str, epsilon: float, metric: str) -> float:
    return mean(
        one.value for one in SEEDS
        if (one.method, one.dataset, one.epsilon, one.metric) == (run, dataset, epsilon, metric)
    )  # fmt: skip


def best_row(run: str, metric: str) -> str:
    """Returns a line of the tables of the best rows: both data sets at epsilon 10, then at 1."""
    sets = ("mnist", "fashion_mnist")
    measured = home(run)
    cells = [over_seeds(measured, run, dataset, 10, metric) for dataset in sets]
    cells += [over_seeds(SEEDS if run in BEST else LOW, run, dataset, 1, metric) for dataset in sets]
    return "| " + " | ".join([f"`{run}`", *cells]) + " |"


def test_the_tables_of_the_best_sound_rows_are_the_committed_run():
    expected = [best_row(run, metric) for metric in ("g2r_cnn", "r2g_cnn") for run in [*BEST, *OTHERS]]
    for run in [*BEST, *OTHERS]:
        cells = [
            over_seeds(home(run), run, dataset, 10, metric, digits)
            for metric, digits in (("fid_classifier", 1), ("fwd", 2), ("recall", 2))
            for dataset in ("mnist", "fashion_mnist")
        ]
        expected.append("| " + " | ".join([f"`{run}`", *cells]) + " |")
    assert rows_of_seeds(RESULTS, "Rows of several seeds at a sound ε") == expected
    spent = {one.epsilon: one.value for one in SEEDS if one.metric == "eps_sound"}
    assert set(spent) == {1, 10} and all(spent[epsilon] <= epsilon for epsilon in spent)


def test_the_table_of_8000_faces_is_the_committed_run():
    measured = scores("results/reference/celeba10k/scores.csv")
    columns = ("g2r_cnn", 3), ("g2r_mlp", 3), ("r2g_cnn", 3), ("fid_classifier", 1), ("fwd", 2), ("recall", 2)
    section = MEASURED.split("## 8,000 faces\n")[1].split("\n## ")[0]
    shown = re.findall(r"^\| `(\w+)` \| (.+) \|$", section, flags=re.MULTILINE)
    assert {run for run, _ in shown} == {run for run, _, _ in measured}
    for run, cells in shown:
        private = run not in ("real", "nonprivate")
        values = [number(measured.get((run, "celeba10k", metric)), digits) for metric, digits in columns]
        values.append(number(measured.get((run, "celeba10k", "eps_sound")) if private else None, 1))
        values.append(number(measured.get((run, "celeba10k", "train_seconds")), 0))
        assert cells == " | ".join(values), run


def test_what_500_faces_took_is_that_of_the_committed_run():
    spent = json.loads((ROOT / "results/reference/own_faces/provenance.json").read_text())["job_seconds"]["total"]
    assert f"Step 3 took {spent / 60:.0f} minutes" in YOUR_OWN


def test_the_method_that_the_page_releases_by_is_the_best_on_500_faces():
    measured = read_scores(ROOT / "results/reference/own_faces/scores.csv")
    accuracies = {run: mean(s.value for s in measured if (s.method, s.metric) == (run, "g2r_cnn"))
                  for run in {s.method for s in measured} - {"real", "nonprivate"}}  # fmt: skip
    (released,) = set(re.findall(r"methods release (\w+) --data data/lesions", YOUR_OWN))
    assert released == max(accuracies, key=accuracies.get)


@pytest.mark.parametrize("preset", ["quick", "long"])
def test_how_settings_were_chosen_is_what_the_preset_says(preset):
    section = TUNING.split(f"### `{preset}`\n\n<!-- chosen: {preset} -->\n")[1].split("\n#")[0]
    shown = " ".join(section.replace("\n- ", "\n\n- ").split()).removeprefix("- ").split(" - ")
    assert shown == shipped(preset).chosen_on()


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_file_that_a_page_links_to_is_there(page):
    links = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def anchors(page: Path) -> set[str]:
    """Returns what a link may name behind `#`: each heading's words, without marks, joined by hyphens."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_heading_that_a_page_links_to_is_there(page):
    links = re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text(encoding="utf-8"))
    assert [link for link in links if link[1] not in anchors((page.parent / link[0]) if link[0] else page)] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_every_command_that_a_page_names_is_there(page):
    text = page.read_text()
    for module in set(re.findall(r"python -m ([\w.]+)", text)) - {"pip", "pytest"}:
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").exists() or (path / "__main__.py").exists(), module
    assert set(re.findall(r"python -m methods ([a-z][\w-]*)", text)) <= set(VERBS)


def test_every_file_that_the_map_names_is_there():
    paths = re.findall(r"`([\w.]+/[\w./]+)`", MAP)
    assert len(paths) > 30 and [path for path in paths if not (ROOT / path).exists()] == []


def test_every_name_in_a_file_that_the_map_points_to_is_there():
    for owner, name, path in re.findall(r"`(\w+)\.(\w+)`[^|`]* in `([\w./]+)`", MAP):
        text = (ROOT / path).read_text()
        assert f"class {owner}" in text and f"def {name}(" in text, (owner, name)


def test_the_map_covers_every_metric_table_and_figure():
    layout = yaml.safe_load((ROOT / "workflow/config/report.yaml").read_text())
    assert [name for name in metrics.ORDER if f"`{name}`" not in MAP] == []
    for section in ("tables", "published_costs", "audit", "frontier", "claims", "figures"):
        assert layout[section] and f"section `{section}`" in MAP


def test_committed_numbers_come_from_clean_runs_of_the_committed_code():
    assert {"quick", "smoke"} <= set(PRESETS)
    for preset in PRESETS:
        folder = ROOT / "results/reference" / preset
        record = json.loads((folder / "provenance.json").read_text())
        assert record["modified"] is False and not [key for key in record["runs_by_commit"] if "modified" in key]
        assert record["scores_sha256"] == hashlib.sha256((folder / "scores.csv").read_bytes()).hexdigest()


def test_committed_scores_are_measured_and_numbers():
    for preset in PRESETS:
        rows = read_scores(ROOT / "results/reference" / preset / "scores.csv")
        assert {row.source for row in rows} == {"measured"}
        assert all(math.isfinite(row.value) for row in rows)
