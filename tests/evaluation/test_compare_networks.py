"""`evaluation.compare` where another network scored each side: what it scored moves, and is no regression."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from evaluation.compare import main
from evaluation.comparison import networks
from evaluation.comparison.changes import Row, Run
from evaluation.scores import Score, write_scores

# DP-Gauss of three seeds on MNIST, and real data, as one feature network scored them.
FID, RECALL, REAL_FID = (20.482, 20.4293, 20.785), (0.3024, 0.2578, 0.2448), 0.185896
# Of seed 0's images another network made 22.8828 and 0.2398, with the same FWD to six digits.
ELSEWHERE, REAL_ELSEWHERE = tuple(value * 22.8828 / 20.482 for value in FID), 0.190242
NOTE = "not the same on both sides, as real data's scores say: feature network of mnist; what they score may move"

Runs = Mapping[tuple[str, str], Sequence[float]]  # (run, metric) -> a value a seed


def gauss(distances: Sequence[float], of_real: float, **others: Sequence[float]) -> Runs:
    metrics = {"fid_classifier": distances, **others}
    return {("real", "fid_classifier"): [of_real], **{("dp_gauss", name): values for name, values in metrics.items()}}


def scores(runs: Runs, dataset: str) -> list[Score]:
    return [
        Score("quick", dataset, name, math.inf if name == "real" else 10.0, "none" if name == "real" else "sound", seed,
              metric, value, "measured")
        for (name, metric), values in runs.items() for seed, value in enumerate(values)
    ]  # fmt: skip


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    def compare(old: Runs, new: Runs, *options: str, beside: tuple[Runs, Runs] = ({}, {})) -> tuple[int, str]:
        paths = [tmp_path / "a.csv", tmp_path / "b.csv"]
        for path, runs, further in zip(paths, (old, new), beside, strict=True):
            write_scores(path, scores(runs, "mnist") + scores(further, "fashion_mnist"))
        code = main([*map(str, paths), *options])
        out = capsys.readouterr()
        return code, out.out + out.err

    return compare


@pytest.mark.parametrize("seeds", ["each", "mean"])
def test_a_distance_by_another_network_moves_and_is_no_regression(run, seeds):
    code, out = run(gauss(FID, REAL_FID), gauss(ELSEWHERE, REAL_ELSEWHERE), "--seeds", seeds)
    assert code == 0 and out.startswith("no regression; ") and NOTE in out
    assert "\nmoved        mnist dp_gauss eps 10 sound" in out
    # As far as real data's scores tell, the same network: then the images have become worse.
    code, out = run(gauss(FID, REAL_FID), gauss(ELSEWHERE, REAL_FID), "--seeds", seeds)
    assert code == 1 and "not the same" not in out


@pytest.mark.parametrize("lacks", ["A", "B", "both"])
def test_without_a_shared_row_of_real_data_nobody_knows_which_network_it_was_and_worse_is_worse(run, lacks):
    sides = [gauss(FID, REAL_FID), gauss(ELSEWHERE, REAL_ELSEWHERE)]
    for one, name in zip(sides, "AB", strict=True):
        if lacks in (name, "both"):
            del one["real", "fid_classifier"]
    code, out = run(*sides, "--common")
    assert code == 1 and "regression   mnist dp_gauss" in out and "not the same on both sides" not in out
    assert "not known whether the same network scored both sides, which share no row of real data: feature net" in out
    assert "feature network of mnist; judged as if it had" in out


def test_a_network_that_scored_all_equally_raises_no_question(run):
    alone = {("dp_gauss", "fid_classifier"): FID}
    assert "not known" not in run(alone | {("dp_gauss", "fwd"): (1, 2, 3)}, alone | {("dp_gauss", "fwd"): (4, 5, 6)})[1]


def test_a_published_value_was_scored_by_no_network_of_ours() -> None:
    row = Row(Run("", "mnist", "dp_merf", 10.0, "sound", None, "published"), "is")
    assert networks.unknown({row: 8.0}, {row: 8.2}) == set()
    assert networks.unknown(*({row._replace(run=row.run._replace(source="measured")): value} for value in (8.0, 8.2)))


def test_what_the_network_has_no_part_in_is_judged_as_ever(run):
    before, after = (gauss(*sides, g2r_cnn=of_seeds) for *sides, of_seeds in (
        (FID, REAL_FID, (0.950, 0.952, 0.954)), (ELSEWHERE, REAL_ELSEWHERE, (0.920, 0.922, 0.924))))  # fmt: skip
    code, out = run(before, after)
    assert code == 1 and "regression   mnist dp_gauss eps 10 sound: g2r_cnn: 0.952 -> 0.922" in out


def test_what_does_not_compare_is_none_of_the_scores_that_are_tested_together(run):
    two = [gauss(*sides, recall=RECALL, g2r_cnn=(0.950, 0.952, 0.954))
           for sides in ((FID, REAL_FID), (ELSEWHERE, REAL_ELSEWHERE))]  # fmt: skip
    assert "1 of 4 scores tested by Welch's t" in run(*two)[1]
    assert "3 of 4 scores tested by Welch's t" in run(two[0], two[0])[1]


def test_another_data_set_has_a_network_of_its_own(run):
    beside = gauss(FID, REAL_FID), gauss(ELSEWHERE, REAL_FID)
    code, out = run(gauss(FID, REAL_FID), gauss(ELSEWHERE, REAL_ELSEWHERE), beside=beside)
    assert code == 1 and "regression   fashion_mnist dp_gauss" in out and "moved        mnist dp_gauss" in out


def test_a_network_that_is_worse_on_real_data_is_a_regression(run):
    before, after = (
        {("real", "r2g_cnn"): [of_real], ("dp_gauss", "r2g_cnn"): of_seeds}
        for of_real, of_seeds in ((0.99, (0.98, 0.981, 0.982)), (0.93, (0.90, 0.901, 0.902)))
    )
    code, out = run(before, after)
    assert code == 1 and "regression   mnist real eps inf none: r2g_cnn: 0.99 -> 0.93" in out
    assert "moved        mnist dp_gauss eps 10 sound: r2g_cnn" in out and "real2gen CNN of mnist" in out


def test_real_datas_own_distance_is_on_the_networks_scale(run):
    # On Fashion-MNIST by two networks of preset long.
    code, out = run(gauss(FID, 0.0563559), gauss(FID, 0.0597436))
    assert code == 0 and "moved        mnist real eps inf none: fid_classifier: 0.0563559 -> 0.0597436" in out


def test_an_exact_comparison_lets_no_network_be_another(run):
    code, out = run(gauss(FID, REAL_FID), gauss(ELSEWHERE, REAL_ELSEWHERE), "--exact")
    assert code == 1 and "not the same on both sides" not in out
