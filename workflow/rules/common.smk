# The configuration, the methods that exist, and what every rule shares.

import dataclasses
import functools
import hashlib
import logging
import math
import os
import shlex
import sys
from pathlib import Path

ROOT = Path(workflow.basedir)
sys.path.insert(0, str(ROOT))
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
os.environ["PYTHONUNBUFFERED"] = "1"

from workflow.common import process

process.print_anything()
process.draw_anywhere()
process.end_quietly()
process.end_with_the_reader()

from evaluation.protocol import Protocol
from methods.core import registry
from workflow import datasets as dataset_stage
from workflow import (
    calls,
    cluster,
    external_runs,
    grid,
    invocation,
    merging,
    own_content,
    presets,
    run_list,
    source_content,
)
from workflow.common.contracts import REAL as REAL_DATA
from workflow.common.contracts import RUN_PATTERN, RunFolder, format_epsilon
from workflow.common.errors import UserError, unknown
from workflow.common.pins import VARIABLE as PINNED
from workflow.dataset_entries import GIVE, check_folders, facts, unprotected
from workflow.datasets.sources import CELEBA_SIZES, ENVIRONMENT, celeba_folders, celeba_problem
from workflow.origins import setting_origins, with_origins
from workflow.progress import Progress

# A library among the methods' imports gives the root logger a handler, which would print Snakemake's messages again.
logging.getLogger("snakemake.logging").propagate = False

# As the shell takes it: a path may hold a space.
PYTHON = shlex.quote(sys.executable)
NAME = r"[a-z][a-z0-9_]*"


def requested_files():
    """Returns the files under results/ that the command line names; Snakemake reads its targets only after this.

    Raises UserError for one that is written in a longer way than the rules do.
    """
    found = []
    for before, argument in zip(sys.argv, sys.argv[1:]):
        if before.startswith("-") and before != "--" and before not in ("-n", "-np", "-p", "-F", "-f", "-q"):
            continue  # An option's value.
        short = os.path.relpath(argument) if os.path.isabs(argument) else os.path.normpath(argument)
        if len(Path(short).parts) > 2 and Path(short).parts[0] == "results":
            if argument != short:
                raise UserError(f"no rule makes {argument}; its name is {short}")
            found.append(argument)
    return found


def config_files():
    """Returns what each --configfile holds, from weak to strong; Snakemake's own `config` has them merged already.

    Read anew, for Snakemake takes the last of two equal keys.
    """
    return [presets.Layer(path.name, invocation.config_file(path)) for path in workflow.config_settings.configfiles]


def command_line(files):
    """Returns the overrides of --config, with the preset taken from the files asked for where nothing else names it."""
    given = dict(workflow.config_settings.config)
    named = {Path(target).parts[1] for target in requested_files()}
    stated = {key for layer in [given, *(file.values for file in files)] for key in ("preset", "extends") if key in layer}
    if not stated and len(named) == 1 and named <= set(presets.names()):
        return {**given, "preset": named.pop()}
    return given


def check_requested(configuration):
    """Raises UserError for a file asked for by name whose preset, data set, run, epsilon or seed cannot be."""
    for target in requested_files():
        parts = Path(target).parts
        if parts[1] != configuration.preset:
            raise UserError(
                f"{target} belongs to preset {parts[1]!r}, but the preset is {configuration.preset!r}; "
                f"valid: {', '.join(presets.names())}; choose one by --config preset=NAME, or one of your own by "
                "--configfile FILE"
            )
        if parts[2] == "data" and len(parts) > 3 and parts[3] not in configuration.datasets:
            raise unknown("data set", parts[3], configuration.datasets, f"add others by --config datasets=NAME or {GIVE}")
        if parts[2] == "runs" and len(parts) > 7:
            check_run(RunFolder.parse(Path(*parts[:7])), configuration)


def check_run(folder, configuration):
    """Raises UserError for a run folder that no job has."""
    if folder.run != REAL_DATA:
        configuration.job(folder)
        return
    if folder.dataset not in configuration.datasets:
        raise unknown("data set", folder.dataset, configuration.datasets)
    if (folder.epsilon, folder.seed) != (math.inf, 0):
        right = RunFolder(configuration.root, folder.dataset, REAL_DATA, math.inf, 0).path
        raise UserError(f"real data have no epsilon and no seed: {folder.path} must be written {right}")


def missing_files(name, configuration):
    """Returns what is wrong with the folders searched for a data set whose files are missing, and how to fix it."""
    give = f"give its folder by --config data_sources=FOLDER, in the preset's data_sources, or in ${ENVIRONMENT}"
    if name not in CELEBA_SIZES:
        return give
    problems = [celeba_problem(name, folder) for folder in celeba_folders(name, configuration.data_sources)]
    if problems:
        return "; ".join(problems)
    files = "img_align_celeba.zip (or the folder img_align_celeba), list_attr_celeba.txt and list_eval_partition.txt"
    download = f"; or download it by python -m workflow.datasets celeba --out {configuration.root}/data/celeba"
    return f"put {files} into one folder and {give}" + (download if name == "celeba" else "")


def has_data(name, configuration):
    """Returns whether a data set has been made already or can be made from what is at hand.

    Raises UserError where a folder that was given holds damaged files: now, not after minutes of work.
    """
    if os.path.exists(f"{configuration.root}/data/{name}/card.json"):
        return True
    if name in configuration.own:
        check_folders({name: configuration.own[name]})
        return True
    dataset_stage.check(name, configuration.data_sources)
    return dataset_stage.available(name, configuration.data_sources)


def leave_out_missing(configuration):
    """Returns the configuration without optional data sets whose files are missing, after one notice for each."""
    missing = [name for name in configuration.datasets if not has_data(name, configuration)]
    for name in missing:
        if name not in configuration.optional:
            raise UserError(f"the files of data set {name} are missing: {missing_files(name, configuration)}")
        print(f"notice: data set {name} is left out: {missing_files(name, configuration)}", file=sys.stderr)
    return configuration.without(missing)


def tell_unpublished(configuration):
    """Prints one notice that names the runs for which the preset asks for published settings and there are none."""
    jobs = configuration.without_published_settings
    names = sorted({f"{job.dataset} {job.run} eps{format_epsilon(job.epsilon)}" for job in jobs})
    if names:
        print(f"notice: no published settings, so their methods' defaults: {', '.join(names)}", file=sys.stderr)


def warn_unprotected(configuration):
    """Prints one warning where own pictures that are not marked public take part."""
    if warning := unprotected(configuration.own, configuration.datasets):
        print(warning, file=sys.stderr, flush=True)


def fail(error):
    """Ends with one line and exit code 2, as every command does; Snakemake itself would add its own report."""
    print(f"error: {' '.join(str(error).split())}", file=sys.stderr, flush=True)
    sys.stdout.flush()
    os._exit(2)


def own_pictures(configuration):
    """Returns data set -> what its images follow from, for the own sets whose folders are at hand.

    One whose data are made and whose folder is gone is not among them, but in a notice: its data stay as they are.
    """
    found = {}
    for name in configuration.own:
        one = configuration.own[name]
        try:
            check_folders({name: one})
        except UserError as error:
            print(f"notice: {error}; the images in {configuration.root}/data/{name} are used", file=sys.stderr)
            continue
        cache = Path(configuration.root, "private", "own", f"{name}.json")
        content, card = own_content.content(one, cache), Path(configuration.root, "data", name, "card.json")
        if not calls.is_recorded(card):
            own_content.check_made(card, content)
        found[name] = grid.canonical([facts(one), content])
    return found


def raw_files(configuration):
    """Returns data set -> what its images follow from, for the shipped sets that can be made anew.

    One whose data are made and whose folder is gone is not among them, but in a notice: its data stay as they are.
    """
    found = {}
    for name in [name for name in configuration.datasets if name not in configuration.own]:
        folder = Path(configuration.root, "data", name)
        made = all((folder / file).exists() for file in ("train.npz", "test.npz", "card.json"))
        missing = [source for source in configuration.data_sources if not Path(source).expanduser().is_dir()]
        if made and (missing or not dataset_stage.available(name, configuration.data_sources)):
            where = f"folder {missing[0]} does not exist" if missing else "its raw files are not at hand"
            print(f"notice: data set {name}: {where}; the images in {folder} are used", file=sys.stderr)
            continue
        cache = Path(configuration.root, "private", "sources", f"{name}.json")
        found[name] = source_content.content(name, configuration.data_sources, cache)
    return found


def check_company(configuration):
    """Raises UserError where samples made elsewhere would stand alone: the audit and the counts are of trained runs."""
    if EXTERNAL and not any(math.isfinite(job.epsilon) for job in configuration.jobs if not job.external):
        names = ", ".join(sorted({run for _, run, _ in EXTERNAL}))
        raise UserError(
            f"{names}: samples made elsewhere are compared with private runs trained here; add one, such as dp_gauss, or"
            " score them alone by python -m dpbench score"
        )


def print_config():
    """Prints the merged settings and where each came from, and ends: nothing is made, and no data are needed."""
    keys = ("method", "accounting", "over_budget")
    runs = {run.name: {key: getattr(run, key) for key in keys} for run in CONFIG.runs.values()}
    defaults = {**presets.DEFAULTS, "protocol": dataclasses.asdict(Protocol()), "runs": runs}
    merged = merging.read([*FILES, presets.Layer(merging.COMMAND_LINE, command_line(FILES))], dataset_stage.NAMES)
    print(with_origins(merged, defaults), end="", flush=True)
    os._exit(0)


try:
    invocation.check_entries(sys.argv[1:])
    invocation.check_profile(sys.argv[1:])
    FILES = config_files()
    CONFIG = presets.load(
        command_line(FILES),
        datasets=dataset_stage.NAMES,
        methods=registry,
        protocol_keys=[field.name for field in dataclasses.fields(Protocol)],
        files=FILES,
    )
    for name in CONFIG.datasets:
        Protocol.parse(grid.canonical(CONFIG.protocol_of(name)))
    if "print_config" in sys.argv[1:]:
        print_config()
    check_requested(CONFIG)
    CONFIG = leave_out_missing(CONFIG)
    PICTURES = own_pictures(CONFIG)
    RAW_FILES = raw_files(CONFIG)
    EXTERNAL = {(job.dataset, job.run, job.seed): external_runs.content(job, CONFIG.root) for job in CONFIG.jobs if job.external}
    check_company(CONFIG)
    tell_unpublished(CONFIG)
except UserError as error:
    fail(error)

if CONFIG.reproducible:
    # For the fork server, whose libraries the steps take as they find them.
    os.environ[PINNED] = "1"
OUT = CONFIG.root
JOBS = CONFIG.jobs
TRAINED = [one for one in JOBS if not one.external]


def priced_as(wildcards):
    """Returns the name by which a training's cost is listed: that of its run, or else of its method."""
    return wildcards.run if wildcards.run in CONFIG.cost.get("train", {}) else CONFIG.runs[wildcards.run].method


def times(rule, wildcards):
    """Returns how many times a preset's seconds a job takes: what scores gen2real trains several classifiers or one."""
    several = rule in ("utility", "real_utility")
    return CONFIG.protocol_of(wildcards.dataset).get("g2r_classifiers", 1) if several else 1


PROGRESS = Progress(CONFIG.cost, priced_as, OUT, times)
calls.guard(workflow, OUT, fail, PROGRESS)


def minutes(rule):
    """Returns the minutes that a cluster is asked for a job of a rule, as a function of wildcards and attempt."""
    return lambda wildcards, attempt: cluster.minutes(rule, PROGRESS.seconds(rule, wildcards), attempt)


def code(path):
    """Returns a source file as seen from the working folder, so that it can be an input of a rule.

    It lies here, where a call keeps everything else in a storage of its own.
    """
    return local(os.path.relpath(ROOT / path))


@functools.cache
def job_of(folder):
    """Returns the training of a run folder. Snakemake asks for each a dozen times."""
    return CONFIG.job(RunFolder.parse(folder))


def job(wildcards):
    """Returns the training that a rule's wildcards name."""
    return job_of(RUN.format(**dict(wildcards.items())))


def logged(command, whole="false"):
    """Returns a command whose output goes to the rule's log, and whose last lines reach the console if it fails.

    `whole` is a command that says whether one that a signal ended had done all its work.
    """
    # Nothing to show where Ctrl-C, or what it sends to the steps, ended it.
    show = "case $status in 130|143) ;; *) echo 'failed: rule {rule}, see {log}' >&2; tail -n 5 {log} >&2;; esac"
    ended = f"status=$?; if [ $status -gt 128 ] && {whole}; then exit 0; fi; {show}; exit $status;"
    pins = f" {PINNED}=1" if CONFIG.reproducible else ""
    return f"export OMP_NUM_THREADS={{threads}}{pins}; {command} > {{log}} 2>&1 || {{{{ {ended} }}}}"


wildcard_constraints:
    dataset=NAME,
    run=rf"(?!{REAL_DATA}/){NAME}",
    epsilon=r"[0-9][0-9.e+-]*|inf",
    seed=r"\d+",
    key="[0-9a-f]{12}",


# The runs that have a plan: a run whose samples were made elsewhere has none.
TRAINED_RUN = rf"(?!({'|'.join([REAL_DATA, *(run.name for run in CONFIG.runs.values() if run.external)])})/){NAME}"
RUN = f"{OUT}/{RUN_PATTERN}"
REAL = str(RunFolder(OUT, "{dataset}", REAL_DATA, math.inf, 0).path)
DATA = f"{OUT}/data/{{dataset}}"
CLASSIFIERS = f"{OUT}/private/classifiers/{{dataset}}"
CRITICS = f"{OUT}/private/critics/{{dataset}}/{{key}}"
LOGS = f"{OUT}/logs"
RUN_LOG = "{dataset}-{run}-eps{epsilon}-seed{seed}"
# Steps with one group's name are one submission to a cluster. Nothing else reads it.
RUN_GROUP = RUN_LOG
