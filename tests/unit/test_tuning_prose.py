"""What docs/tuning.md says of machines and of single trials is what the committed trials.csv says."""

from __future__ import annotations

import csv
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TUNING = " ".join((ROOT / "docs/tuning.md").read_text().split())


def tuning_trials() -> list[dict[str, str]]:
    with (ROOT / "results/reference/tuning/quick/trials.csv").open(newline="") as handle:
        return list(csv.DictReader(handle))


def test_the_page_says_which_rows_were_tuned_on_which_processor_by_which_factor():
    told = re.search(r"((?:`\w+`[ ,and]*)+) were tuned on an Intel Xeon, the last \w+ with factors of ([\d., and]+),"
                     r" all other rows on an AMD EPYC", TUNING)  # fmt: skip
    names, factors = re.findall(r"\w+", told[1].replace("and", "")), re.findall(r"[\d.]+", told[2])
    said = dict(zip(names, ["1", *factors], strict=True))
    found = {row["run"]: (row["time_factor"], "Xeon" in row["processor"]) for row in tuning_trials()}
    assert {run: factor for run, (factor, on_xeon) in found.items() if on_xeon} == said
    assert {factor for factor, on_xeon in found.values() if not on_xeon} == {"1"}
    assert all("EPYC" in row["processor"] for row in tuning_trials() if row["run"] not in said)


def test_the_page_names_the_trial_that_repeats_another():
    settings: dict[tuple[str, str], set[str]] = {}
    for row in tuning_trials():
        settings.setdefault((row["run"], row["settings"]), set()).add(row["trial"])
    assert {run: trials for (run, _), trials in settings.items() if len(trials) > 1} == {"gs_wgan": {"0", "3"}}
    assert "Trial 3 of `gs_wgan` repeats its first one" in TUNING
