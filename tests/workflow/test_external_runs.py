"""Rows of a grid whose samples were made elsewhere: which jobs they make, what is refused, and that none is planned."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from test_presets import DATASETS, PRESET, Methods
from toy_project import Project

from workflow import presets
from workflow.common.contracts import RunFolder
from workflow.common.errors import UserError


@pytest.fixture
def load(tmp_path: Path):
    """Loads the preset `tiny` with top-level keys replaced by `changes`, under `overrides`."""

    def loaded(overrides: dict[str, Any], **changes: Any):
        (tmp_path / "tiny.yaml").write_text(yaml.safe_dump({**PRESET, **changes}, sort_keys=False))
        return presets.load(
            {"preset": "tiny", **overrides},
            datasets=DATASETS, methods=Methods(), protocol_keys=["num_samples"], folder=tmp_path,
        )  # fmt: skip

    return loaded


def external(**entry: Any) -> dict[str, Any]:
    return {"runs": {"beta": {}, "theirs": {"external": "a.npz", "claimed_epsilon": 3, "datasets": ["mnist"], **entry}}}


def test_an_external_run_has_one_job_for_each_set_of_samples_and_its_epsilon_is_a_claim(load):
    (job,) = (job for job in load({}, **external()).jobs if job.run == "theirs")
    assert (job.epsilon, job.seed, job.accounting, job.external) == (3.0, 0, "claimed", "a.npz")
    every = external(external="{dataset}/{seed}.npz", datasets=["mnist", "celeba"], seeds=[4, 5])
    jobs = [job for job in load({"epsilons": "1,10"}, **every).jobs if job.run == "theirs"]
    assert [(job.external, job.epsilon) for job in jobs] == [
        ("mnist/4.npz", 3.0), ("mnist/5.npz", 3.0), ("celeba/4.npz", 3.0), ("celeba/5.npz", 3.0),
    ]  # fmt: skip


def test_samples_made_elsewhere_take_the_place_of_a_row_of_the_preset_whole_and_may_be_exchanged(load):
    samples = {"external": "a.npz", "claimed_epsilon": 3, "datasets": ["mnist"]}
    runs = {"alpha": {"accounting": "published", "steps": 3}, "beta": {}}
    row = load({"runs": {"alpha": samples}}, runs=runs).runs["alpha"]
    assert (row.external, row.epsilons, row.accounting) == ("a.npz", (3.0,), "claimed")
    other = load({"runs": {"theirs": {"external": "b.npz"}}}, **external()).runs["theirs"]
    assert (other.external, other.epsilons, other.datasets) == ("b.npz", (3.0,), ("mnist",))


def test_external_samples_without_privacy_are_a_reference(load):
    run = load({}, **external(claimed_epsilon=math.inf)).runs["theirs"]
    assert run.accounting == "none" and run.epsilons == (math.inf,)


def test_a_preset_of_published_settings_asks_none_of_an_external_run(load):
    config = load({}, paper_settings=True, **external())
    assert "theirs" not in {job.run for job in config.without_published_settings}


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"steps": 3}, "unknown key 'steps' in tiny.yaml; valid: claimed_epsilon, datasets, external, seeds (run"),
        ({"accounting": "sound"}, "unknown key 'accounting'"),
        ({"method": "beta"}, "unknown key 'method'"),
        ({"claimed_epsilon": 0}, "claimed_epsilon: must be above 0, got 0"),
        ({"claimed_epsilon": "ten"}, "claimed_epsilon: must be a number, got 'ten'"),
        ({"external": ""}, "external"),
        ({"external": 7}, "external: must be a text, got 7"),
        ({"datasets": ["mnits"]}, "unknown data set 'mnits'"),
        ({"datasets": ["mnist", "celeba"]}, "samples for mnist, celeba; add datasets: [mnist], or write {dataset} in"),
        ({"seeds": [0, 1]}, "names one set of samples for 2 seeds; keep one, or write {seed} in external"),
    ],
)
def test_a_malformed_external_run_is_one_error(load, entry, says):
    with pytest.raises(UserError) as refusal:
        load({}, **external(**entry))
    assert says in str(refusal.value)


@pytest.mark.parametrize("lacking", ["external", "claimed_epsilon"])
def test_an_external_run_without_samples_or_claim_says_how_one_is_written(load, lacking):
    changed = external()
    del changed["runs"]["theirs"][lacking]
    with pytest.raises(UserError, match=f"lacks {lacking}; an external run is written such as"):
        load({}, **changed)


def test_another_epsilon_or_seed_of_external_samples_is_refused(load):
    config = load({}, **external())
    for epsilon, seed in ((10.0, 0), (3.0, 1)):
        with pytest.raises(UserError, match="is external: it has samples at epsilon 3, seed 0, alone"):
            config.job(RunFolder(Path("results/tiny"), "mnist", "theirs", epsilon, seed))


def test_an_unknown_run_or_preset_says_where_they_stand_and_how_to_write_ones_own(load):
    for overrides in ({"runs": "gamma"}, {"runs": "beta,gamma"}):
        with pytest.raises(UserError) as refusal:
            load(overrides)
        assert "the rows of workflow/config/tiny.yaml; a row of your own: a file such as" in str(refusal.value)
    with pytest.raises(UserError, match=r"the rows of workflow/config/tiny\.yaml.*--configfile mine\.yaml"):
        load({}).job(RunFolder(Path("results/tiny"), "mnist", "gamma", 10.0, 0))
    with pytest.raises(UserError, match=r"unknown preset 'qiuck'.*their files: workflow/config/<preset>\.yaml"):
        load({"preset": "qiuck"})


@pytest.fixture
def with_samples(fresh: Project) -> Project:
    """A toy project with a row of samples made elsewhere."""
    np.savez(fresh.folder / "theirs.npz", images=np.zeros((2, 1, 4, 4), np.uint8), labels=np.arange(2))
    theirs = "  theirs: {external: theirs.npz, claimed_epsilon: 10, datasets: [mnist]}\n"
    fresh.edit("workflow/config/quick.yaml", "runs:\n", f"runs:\n{theirs}")
    return fresh


def test_the_graph_imports_the_samples_and_plans_and_trains_nothing_of_the_run(with_samples: Project) -> None:
    done = with_samples.snakemake("-n", "-p", "--quiet", "host")
    assert done.returncode == 0, done.stdout
    commands = [line.strip() for line in done.stdout.splitlines() if "/theirs/" in line and " -m " in line]
    imported = [line for line in commands if "workflow.datasets.external --samples theirs.npz" in line]
    assert len(imported) == 1
    assert "--claimed-epsilon 10 --out results/quick/runs/mnist/theirs/eps10/seed0" in imported[0]
    verbs = " ".join(commands)
    for step in ("evaluation.fidelity", "evaluation.utility"):
        assert step in verbs
    # Among the runs that are collected and shown, and not among the plans that are audited.
    (listed, *_) = (line for line in done.stdout.splitlines() if "workflow.run_list" in line)
    assert '["mnist/theirs",0,false]' in listed
    for step in ("methods plan", "methods train", "methods sample", "methods audit", "methods spending"):
        assert not [line for line in commands if step in line and "theirs" in line], step


def test_missing_samples_and_samples_alone_are_refused_in_one_line(with_samples: Project) -> None:
    assert "theirs: samples made elsewhere are compared with private runs trained here" in with_samples.refusal(
        "--config", "runs=theirs"
    )
    (with_samples.folder / "theirs.npz").unlink()
    assert "run 'theirs': theirs.npz does not exist; external names an .npz" in with_samples.refusal()
