"""Words of pages, and not numbers: which rows, which premise, which presets, as code and committed files have it."""

from __future__ import annotations

import re
from pathlib import Path
from statistics import fmean, stdev

import pytest
import yaml
from scipy import stats
from toys import shipped

from evaluation.scores import read_scores
from methods.__main__ import main
from workflow import presets

ROOT = Path(__file__).resolve().parents[2]
NUMBERS = {3: "three", 5: "five", 7: "seven"}


def page(name: str) -> str:
    return " ".join((ROOT / name).read_text(encoding="utf-8").split())


def seeds(name: str) -> dict[str, int]:
    """Returns how many seeds each row of a reference has, where they are more than one."""
    found: dict[str, set[int | None]] = {}
    for one in read_scores(ROOT / f"results/reference/{name}/scores.csv"):
        found.setdefault(one.method, set()).add(one.seed)
    return {run: len(own) for run, own in found.items() if len(own) > 1}


@pytest.mark.parametrize(
    ("method", "premise"),
    [
        ("dp_cgan", "for images alone, and as if its shuffled batches were Poisson ones; for labels no bound is known"),
        ("dp_merf", "if its length scale, which looks measured on the data, is public"),
        ("dp_sinkhorn", "only if the size of its Poisson batch, which what it releases shows, stays secret"),
    ],
)
def test_a_published_setting_whose_bound_has_a_premise_is_told_with_it(method: str, premise: str) -> None:
    settings = yaml.safe_load((ROOT / "results/published/settings.yaml").read_text(encoding="utf-8"))["settings"]
    conditional = {one["method"] for one in settings if one.get("conditional")}
    assert conditional == {"dp_cgan", "dp_merf", "dp_sinkhorn"}
    assert method in conditional and premise in page("docs/privacy.md")


def test_the_published_count_converts_dp_sinkhorns_bound_otherwise_than_its_authors(capsys) -> None:
    assert main(["account", "dp_sinkhorn", "--paper", "--noise", "1.1"]) == 0
    assert "noise 1.1 costs epsilon 9.16" in capsys.readouterr().out
    assert "at DP-Sinkhorn's noise it is 9.2" in page("docs/privacy.md")


def test_best_is_not_all_that_seeds_cannot_tell_from_the_first() -> None:
    """Of the faces g_pate is told from another row than the first, so it is not marked, and the page says why."""
    accuracies: dict[str, dict[int, float]] = {}
    for one in read_scores(ROOT / "results/reference/own_faces/scores.csv"):
        if one.metric == "g2r_cnn":
            accuracies.setdefault(one.method, {})[one.seed] = one.value

    def told(better: str, other: str) -> bool:
        apart = [accuracies[better][seed] - accuracies[other][seed] for seed in range(3)]
        return fmean(apart) > stats.t.ppf(0.975, 2) * stdev(apart) / 3**0.5

    better = {run for run in accuracies.keys() - {"g_pate", "nonprivate", "real"} if told(run, "g_pate")}
    assert better and "dp_gauss" not in better
    ranking = (ROOT / "results/reference/own_faces/tables/rank.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| g_pate .*?\(3\)( best)? \|", ranking, flags=re.MULTILINE) == [""]
    assert "`best` marks each method that three seeds tell no other to be better than" in page(
        "docs/your-own-images.md"
    )


def test_which_rows_of_long_have_been_run_is_what_their_reference_holds() -> None:
    rows = {one.method for one in read_scores(ROOT / "results/reference/eight_times/scores.csv")} - {"real"}
    told = f"[{NUMBERS[len(rows)]} rows](measurements.md#longer-trainings) have been run, at ε 10"
    assert told in page("docs/running.md")


def test_the_changes_say_how_many_seeds_the_rows_have_and_which_presets_there_are() -> None:
    changes, gans, sound = page("CHANGELOG.md"), seeds("gan_seeds"), seeds("sound_seeds")
    assert "five seeds of `gs_wgan`, `dpac` and the ablations, three of DPGAN, PATE-GAN, G-PATE and DataLens" in changes
    ablations = {run for run in gans if run.startswith("dpac_wo")}
    assert {run for run, count in gans.items() if count == 5} == {"gs_wgan", "dpac", *ablations} and ablations
    assert {run for run, count in gans.items() if count == 3} == {"dpgan", "pate_gan", "g_pate", "datalens"}
    assert "three of DP-MERF, DP-CGAN and DP-Sinkhorn, five of both sharded GANs" in changes
    assert sound == dict.fromkeys(("dp_merf", "dp_cgan", "dp_sinkhorn"), 3) | {"gs_wgan_sound": 5, "dpac_sound": 5}
    (named,) = re.findall(r"- Presets ((?:`\w+`,? ?(?:and )?)+);", changes)
    assert set(re.findall(r"`(\w+)`", named)) == set(presets.names())


def test_how_many_discriminator_steps_dpgan_makes_in_the_presets_is_what_its_card_says() -> None:
    assert "in every preset but `paper` it makes one" in page("docs/methods/dpgan.md")
    runs = {name: shipped(name).runs for name in presets.names()}
    steps = {
        name: {hyper.get("generator_every") for hyper in of["dpgan"].hyper.values()}
        for name, of in runs.items() if "dpgan" in of
    }  # fmt: skip
    assert steps.pop("paper") == {None} and len(steps) == 4 and all(one == {1} for one in steps.values())
