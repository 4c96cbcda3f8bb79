"""What Snakemake runs, reruns and leaves alone, on a project with toy stages."""

from __future__ import annotations

import json
import re
import resource

import pytest
from toy_project import Project

from workflow.datasets import mnist

REPORT = {"scores.csv", "audit.csv", "spending.csv", "report.html", "provenance.json"} | {
    f"{name}.{kind}"
    for names, kinds in (
        ([f"tables/table{n}" for n in range(1, 10)], ["csv", "md", "tex"]),
        (["tables/rank"], ["csv", "md"]),
        (["figures/figure3", "figures/figure4"], ["png", "pdf"]),
        (["figures/epsilon_sweep", "figures/runs", "figures/utility_epsilon"], ["png", "pdf"]),
    )
    for name in names
    for kind in kinds
}

COSTS_TABLE = {f"tables/table5.{kind}" for kind in ("csv", "md", "tex")}


def runs_touched(planned: set[str]) -> set[str]:
    return {path.split("/")[2] for path in planned if path.startswith("runs/")}


def test_one_call_makes_every_table_figure_and_run(finished: Project):
    root = finished.folder / "results/quick"
    files = {str(path.relative_to(root)) for path in root.glob("**/*")}
    assert files >= REPORT | {"published_costs.csv"}
    for run in ("alpha", "beta", "beta_short", "gamma"):
        assert f"runs/mnist/{run}/eps10/seed0/utility.json" in files
    assert {"runs/mnist/real/epsinf/seed0/fidelity.json", "runs/mnist/real/epsinf/seed0/utility.json"} <= files


def test_progress_and_the_time_left_are_shown(finished: Project):
    shown = [line for line in (finished.folder / "output.txt").read_text().splitlines() if line.startswith("progress:")]
    assert shown[0].startswith("progress: 0/") and "left" in shown[0]
    done, total = shown[-1].removeprefix("progress: ").split(" steps")[0].split("/")
    assert done == total


def test_the_record_holds_how_long_the_call_took_and_that_it_began_from_nothing(finished: Project):
    call = json.loads((finished.folder / "results/quick/provenance.json").read_text())["call"]
    assert call["steps"] == call["all_steps"] > 20 and 0 < call["wall_seconds"] < 3600


def test_a_dry_run_says_at_its_end_how_long_it_would_take_where_the_preset_knows(fresh: Project):
    runs = [f"results/quick/runs/mnist/{run}/eps10/seed0/run.json" for run in ("alpha", "beta")]
    call = ("-n", "--quiet", "rules", "--", *runs)
    assert "expected:" not in fresh.snakemake(*call).stdout
    cost = "cost: {data: 60, plan: 0, train: {alpha: 600, beta: 360}}"
    fresh.edit("workflow/config/quick.yaml", "preset: quick", f"preset: quick\n{cost}")
    assert fresh.snakemake(*call).stdout.splitlines()[-1] == "expected: 5 steps, about 11 min on 2 cores"
    assert fresh.snakemake("--cores", "1", *call).stdout.splitlines()[-1] == "expected: 5 steps, about 17 min on 1 core"
    assert "expected:" not in fresh.snakemake("-n", "--quiet", "all", "--", *runs).stdout
    assert "expected:" not in fresh.snakemake("--quiet", "rules", "--", *runs).stdout
    assert "expected:" not in fresh.snakemake(*call).stdout


def test_several_classifiers_of_gen2real_are_expected_to_take_as_many_times_as_long(fresh: Project):
    paths = [f"results/quick/runs/mnist/{run}/utility.json" for run in ("alpha/eps10/seed0", "real/epsinf/seed0")]
    cost = "cost: {data: 0, plan: 0, sample: 0, classifiers: 0, utility: 120, real_utility: 480, train: {alpha: 0}}"
    fresh.edit("workflow/config/quick.yaml", "preset: quick", f"preset: quick\n{cost}")
    said = []
    for several in ("", ", g2r_classifiers: 3"):
        fresh.edit("workflow/config/quick.yaml", "num_samples: 10", f"num_samples: 10{several}")
        said.append(fresh.snakemake("--cores", "1", "-n", "--quiet", "rules", "--", *paths).stdout.splitlines()[-1])
    assert [one.split(", ")[1] for one in said] == ["about 10 min on 1 core", "about 30 min on 1 core"]


def test_runs_with_equal_warm_starts_share_one(finished: Project):
    assert len(list(finished.folder.glob("results/quick/private/critics/mnist/*/done.json"))) == 1


def test_missing_optional_data_are_left_out_with_one_notice(finished: Project):
    notices = [line for line in (finished.folder / "output.txt").read_text().splitlines() if line.startswith("notice:")]
    assert len(notices) == 1
    assert "celeba is left out" in notices[0] and "list_attr_celeba.txt" in notices[0]


def test_a_second_call_does_nothing_and_says_so_soon(finished: Project):
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = finished.started()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0
    assert "Nothing to be done" in done.stdout
    assert "progress:" not in done.stdout
    # Processor time: the machine may be busy with other tests.
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 15


def test_touching_a_method_reruns_nothing(finished: Project):
    (finished.folder / "methods/beta.py").touch()
    assert finished.planned() == set()


def test_editing_one_method_reruns_its_runs_and_the_report_only(finished: Project):
    finished.edit("methods/beta.py", "warm: int = 0", "warm: int = 0  # edited")
    planned = finished.planned()
    assert runs_touched(planned) == {"beta", "beta_short"}
    assert {path for path in planned if not path.startswith("runs/")} == REPORT - COSTS_TABLE


def test_changed_published_settings_are_counted_again_and_nothing_is_trained(finished: Project):
    finished.edit("results/published/settings.yaml", "budgets: [10]", "budgets: [10, 1]")
    assert finished.planned() == {"published_costs.csv", "report.html"} | COSTS_TABLE
    assert finished.planned("results/quick/published_costs.csv") == {"published_costs.csv"}


def test_editing_a_method_with_a_published_setting_counts_it_again(finished: Project):
    finished.edit("methods/alpha.py", "warm: int = 0", "warm: int = 0  # edited")
    planned = finished.planned()
    assert "published_costs.csv" in planned and runs_touched(planned) == {"alpha"}


def test_changing_one_runs_settings_reruns_only_it(finished: Project):
    finished.edit("workflow/config/quick.yaml", "{method: beta, steps: 1", "{method: beta, steps: 2")
    planned = finished.planned()
    assert runs_touched(planned) == {"beta_short"}
    assert not any("critics" in path for path in planned)


def test_what_a_row_is_tuned_to_reruns_the_rows_that_take_it_alone(finished: Project):
    tuned = finished.folder / "workflow/config/tuned/quick.yaml"
    tuned.parent.mkdir()
    by = "{trials: 3, core_minutes: 40, commit: abc}"
    tuned.write_text(f"methods: {{beta: {{steps: 4, chosen_on: [mnist_val], chosen_by: {by}}}}}\n")
    assert runs_touched(finished.planned()) == {"beta"}, "beta_short says its steps itself"
    tuned.write_text("runs: {gone: {steps: 4}}\n")
    assert runs_touched(finished.planned()) == set()


def test_changing_the_protocol_trains_nothing(finished: Project):
    planned = finished.planned("--config", "protocol={batch_size: 64}")
    assert not any(path.endswith("run.json") for path in planned)
    assert "runs/mnist/alpha/eps10/seed0/fidelity.json" in planned


def test_evaluation_settings_of_one_data_set_reach_its_jobs_alone(finished: Project):
    planned = finished.planned("--config", "protocol={per_dataset: {mnist: {batch_size: 64}}}")
    assert {"runs/mnist/alpha/eps10/seed0/utility.json", "private/classifiers/mnist/classifiers.json"} <= planned
    assert not any(path.endswith(("run.json", "samples.npz")) for path in planned)
    assert finished.planned("--config", "protocol={per_dataset: {celeba: {batch_size: 64}}}") == set()


def test_choosing_other_runs_does_not_remake_a_shared_warm_start(finished: Project):
    assert not any("critics" in path for path in finished.planned("--config", "runs=gamma"))


def test_a_method_dropped_in_with_one_line_of_config_joins_everything(finished: Project):
    (finished.folder / "methods/foo.py").write_text((finished.folder / "methods/alpha.py").read_text())
    finished.edit("workflow/config/quick.yaml", "  alpha:", "  foo: {}\n  alpha:")
    done = finished.snakemake()
    assert done.returncode == 0, done.stdout
    collected = (finished.folder / "results/quick/lists/runs.txt").read_text().splitlines()
    assert "results/quick/runs/mnist/foo/eps10/seed0" in collected
    assert '"methods train"' in (finished.folder / "results/quick/runs/mnist/foo/eps10/seed0/run.json").read_text()


def test_any_file_can_be_made_by_name_and_only_what_it_needs(fresh: Project):
    planned = fresh.planned("results/quick/runs/mnist/alpha/eps3/seed7/utility.json")
    run = "runs/mnist/alpha/eps3/seed7"
    assert runs_touched(planned) == {"alpha"}
    assert f"{run}/utility.json" in planned and f"{run}/fidelity.json" not in planned


def test_a_file_by_name_brings_its_preset(fresh: Project):
    text = (fresh.folder / "workflow/config/quick.yaml").read_text()
    (fresh.folder / "workflow/config/long.yaml").write_text(text.replace("preset: quick", "preset: long"))
    done = fresh.snakemake("-n", "results/long/runs/mnist/alpha/eps10/seed0/run.json")
    assert done.returncode == 0, done.stdout
    assert "results/long/runs/mnist/alpha/eps10/seed0/run.json" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["--config", "epsilns=3"], ["unknown key 'epsilns'", "did you mean 'epsilons'"]),
        (["--config", "runs={foo: {}}"], ["unknown method 'foo'", "alpha, beta, gamma"]),
        (["--config", "runs={alpha: {steps: 0}}"], ["alpha.steps must be at least 1"]),
        (["--config", "protocol={batch_size: 0}"], ["protocol setting batch_size must be at least"]),
        (["--config", "datasets=mnits"], ["unknown data set 'mnits'", "did you mean 'mnist'"]),
        (["--config", "epsilons=0"], ["epsilon must be a number above 0"]),
        (["--config", "delta=.nan"], ["delta"]),
        (["--config", "methods={alpha: {per_dataset: {mnits: {}}}}"], ["unknown data set 'mnits'"]),
        (["results/quick/data/mnits/card.json"], ["unknown data set 'mnits'"]),
        (["--config", "data_sources=nowhere"], ["no such data folder: nowhere"]),
        (["--config", "data_sources=cut"], ["train-images-idx3-ubyte is truncated"]),
        (["--config", "data_sources=faces"], ["has the faces but no list_attr_celeba.txt"]),
        (["--config", "datasets=celeba"], ["celeba are missing", "img_align_celeba", "DPAC_BENCH_DATA"]),
        (["results/quick/runs/mnist/alpha/eps0/seed0/run.json"], ["epsilon must be a number above 0"]),
        (["results/long/scores.csv", "--config", "preset=quick"], ["belongs to preset 'long'"]),
        (["results/quick/runs/mnist/alpha/eps2.50/seed0/run.json"], ["must be written eps2.5;"]),
        (["results/quick/runs/mnist/alpha/eps10/seed03/run.json"], ["must be written seed3;"]),
        (["results/quick/runs/mnist/real/eps10/seed0/utility.json"], ["must be written results", "real/epsinf/seed0"]),
        (["results/quick/runs/mnits/real/epsinf/seed0/utility.json"], ["unknown data set 'mnits'"]),
        (["./results/quick//scores.csv"], ["makes ./results/quick//scores.csv; its name is results/quick/scores.csv"]),
        (["--config", "runs={7: {method: alpha}}"], ["run name '7' under runs"]),
        (
            ["results/quick/runs/mnist/alpha/eps10/seed98765432109876543210/run.json"],
            ["a seed is at most 9223372036854775807"],
        ),
        (["--config", "seeds=98765432109876543210"], ["98765432109876543210 is no seed"]),
        (["--config", "seeds=0", "epsilons=10", "seeds=1"], ["--config gives seeds twice, '0' and '1'; keep one"]),
        (["--config", "preset="], ["--config: preset= has no value"]),
        (["--config", "runs={beta: {}, beta: {steps: 7}}"], ["key 'beta' stands twice in runs="]),
        (["--configfile", "twice.yaml"], ["twice.yaml", "key 'extends' in line 2 stands twice"]),
        (["nosuch"], ["nothing makes nosuch", "results/quick/scores.csv"]),
        (["results/quick/data"], ["nothing makes results/quick/data"]),
        (["--config", "seeds=2,2.0"], ["--config: seeds: 2 stands twice"]),
    ],
)
def test_wrong_input_is_one_line_and_exit_code_2(fresh: Project, arguments, parts):
    cut, faces = fresh.folder / "cut/mnist", fresh.folder / "faces/img_align_celeba"
    cut.mkdir(parents=True)
    faces.mkdir(parents=True)
    for name in mnist.FILES:
        (cut / name).write_bytes(b"\0\0\x08\x01" + (9).to_bytes(4, "big"))
    (fresh.folder / "twice.yaml").write_text("extends: quick\nextends: long\n")
    error = fresh.refusal(*arguments)
    for part in parts:
        assert part in error


def test_published_settings_are_used_where_there_are_some_and_one_notice_names_the_other_runs(fresh: Project):
    fresh.edit("workflow/config/quick.yaml", "preset: quick", "preset: quick\npaper_settings: true")
    done = fresh.snakemake("-n", "-p")
    assert done.returncode == 0, done.stdout
    commands = [line for line in done.stdout.splitlines() if "-m methods plan" in line]
    assert {line.split("--run ")[1].split()[0]: "--paper" in line for line in commands} == {
        "alpha": True, "beta": False, "beta_short": False, "gamma": False
    }  # fmt: skip
    (notice,) = [line for line in done.stdout.splitlines() if "no published settings" in line]
    assert notice.startswith("notice:") and "alpha" not in notice
    assert "mnist beta eps10, mnist beta_short eps10, mnist gamma eps10" in notice


def test_only_a_run_that_says_so_is_planned_over_its_budget(fresh: Project):
    fresh.edit("workflow/config/quick.yaml", "  beta: {}", "  beta: {over_budget: true}")
    done = fresh.snakemake("-n", "-p", *(f"results/quick/runs/mnist/{run}/eps10/seed0/plan.json"
                                         for run in ("alpha", "beta")))  # fmt: skip
    commands = [line for line in done.stdout.splitlines() if "-m methods plan" in line]
    assert {"--run beta" in line: "--over-budget" in line for line in commands} == {True: True, False: False}


def test_a_forced_rerun_of_a_training_says_the_word_that_a_finished_run_asks_for(finished: Project):
    run = "results/quick/runs/mnist/alpha/eps10/seed0/run.json"
    done = finished.snakemake("--forcerun", "train", "--quiet", "rules", "host", "--", run)
    assert done.returncode == 0, done.stdout
    assert "--again" in json.loads((finished.folder / run).read_text())["arguments"]


def test_a_submission_that_is_begun_once_more_trains_no_finished_run_again(finished: Project):
    """The call in a cluster's job is forced to make its steps, whether or not an earlier try has made them."""
    run = "results/quick/runs/mnist/alpha/eps10/seed0/run.json"
    target = ("--target-jobs", "train:dataset=mnist,run=alpha,epsilon=10,seed=0", "--allowed-rules", "train")
    done = finished.snakemake("--mode", "remote", "--force", "--nolock", *target)
    assert done.returncode == 0 and "rule train" in done.stdout, done.stdout
    assert "--again" not in json.loads((finished.folder / run).read_text())["arguments"]
    # The caller does not take that for a changed command.
    assert "runs/mnist/alpha/eps10/seed0/run.json" not in finished.planned(run)


def test_quiet_output_is_the_progress_line_and_little_else(fresh: Project):
    plan = "results/quick/runs/mnist/alpha/eps10/seed0/plan.json"
    done = fresh.snakemake("--quiet", "rules", "host", "--", plan)
    assert "progress: 2/2 steps" in done.stdout
    assert "Select jobs" not in done.stdout and "Finished jobid" not in done.stdout


def test_a_failing_step_shows_its_error_and_keeps_its_checkpoints(fresh: Project):
    run = fresh.folder / "results/quick/runs/mnist/alpha/eps10/seed0"
    (run / "private").mkdir(parents=True)
    (run / "private/checkpoint.pt").write_text("state")
    (run / "private/ledger.jsonl").write_text("spent\n")
    fresh.edit("workflow/config/quick.yaml", "preset: quick", "preset: quick\ndata_sources: [FAIL]")
    (fresh.folder / "FAIL").mkdir()
    main = (fresh.folder / "methods/__main__.py").read_text()
    fail = "import pathlib\nif sys.argv[1] == 'plan':\n    pathlib.Path(sys.argv[-1]).write_text('FAIL')\n"
    (fresh.folder / "methods/__main__.py").write_text(main + fail)
    done = fresh.snakemake("--quiet", "rules", "host", "--", str(run.relative_to(fresh.folder) / "run.json"))
    assert done.returncode != 0
    assert "error: the training data are not what the plan says" in done.stdout
    assert (run / "private/checkpoint.pt").exists()
    assert (run / "private/ledger.jsonl").read_text() == "spent\n"


def test_an_appended_seed_plans_its_own_jobs_and_what_shows_all_runs(finished: Project):
    planned = finished.planned("--config", "seeds=0,1")
    own = {path for path in planned if path.startswith("runs/")}
    assert {path.split("/")[4] for path in own} == {"seed1"}
    names = ("plan.json", "run.json", "generator.safetensors", "samples.npz", "fidelity.json", "utility.json")
    assert {path.split("/", 2)[2] for path in own} == {
        f"{run}/eps10/seed1/{name}" for run in ("alpha", "beta", "beta_short", "gamma") for name in names
    }
    critics = {path for path in planned if path.startswith("private/critics/")}
    assert len(critics) == 1
    assert planned - own - critics == REPORT - COSTS_TABLE | {"lists/runs.txt", "lists/plans.txt"}


def test_jobs_grow_with_the_runs_and_commands_do_not(fresh: Project):
    counts, lengths = {}, {}
    for seeds in (1, 2, 6):
        done = fresh.snakemake("-n", "-p", "--config", f"seeds={','.join(map(str, range(seeds)))}", "epsilons=1,10")
        commands = [text for text in done.stdout.split("\n\n") if "export OMP_NUM_THREADS=" in text]
        commands = [text[text.index("export OMP_NUM_THREADS=") :] for text in commands]
        counts[seeds], lengths[seeds] = len(commands), max(map(len, commands))
        named = [set(re.findall(r"runs/mnist/\w+/eps\w+/seed\d+", text)) for text in commands]
        assert max(map(len, named)) == 1
    # Four runs at two epsilons, five jobs each, and a warm start.
    assert counts[2] - counts[1] == 4 * 2 * 5 + 1
    assert counts[6] - counts[2] == 4 * (counts[2] - counts[1])
    # Some characters a seed; a folder's name has some forty, and there are forty more of them.
    assert lengths[6] - lengths[1] < 100


@pytest.mark.slow
def test_the_commands_of_1240_runs_are_far_from_the_systems_limit(fresh: Project):
    seeds = ",".join(map(str, range(155)))
    done = fresh.snakemake("-n", "-p", "--config", f"seeds={seeds}", "epsilons=1,10")
    assert done.stdout.count("rule train:") == 1240
    # Linux: one argument of a program has at most 128 KiB, and a shell's command is one.
    assert max(len(line) for line in done.stdout.splitlines() if "OMP_NUM_THREADS" in line) < 131_072 / 10
