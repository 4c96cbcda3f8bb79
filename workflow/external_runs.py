"""Rows of a grid whose samples were made elsewhere: `theirs: {external: samples.npz, claimed_epsilon: 10}`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workflow import own_content
from workflow.common.contracts import CLAIMED
from workflow.common.errors import UserError, unknown
from workflow.common.own_set import OwnSet
from workflow.grid import Job, Run

METHOD = "external"  # in the place of a method's name; no file of methods/ may be called so
KEYS = ("external", "claimed_epsilon", "datasets", "seeds")
SUCH = "such as {external: samples.npz, claimed_epsilon: 10}"


def external_run(name: str, entry: Mapping[str, Any], content: Mapping[str, Any], source: str) -> Run:
    """Returns the row of an entry that names samples.

    `content` is the whole configuration, `source` the file or --config that holds the entry. Raises UserError for one
    without samples or claim, for a key of trained runs, and for samples that would stand for several sets or seeds.
    """
    where = f"{source}: run {name!r}"
    for key in entry:
        if key not in KEYS:
            why = f"run {name!r} is external: nothing of it is trained here"
            raise unknown("key", key, KEYS, why, where=f"in {source}")
    if lacking := [key for key in KEYS[:2] if key not in entry]:
        raise UserError(f"{where} lacks {lacking[0]}; an external run is written {SUCH}")
    path, epsilon = entry["external"], float(entry["claimed_epsilon"])
    for one in entry.get("datasets", ()):
        if one not in content["datasets"]:
            raise unknown("data set", one, content["datasets"], where=f"of run {name!r}")
    datasets = tuple(one for one in content["datasets"] if one in entry.get("datasets", content["datasets"]))
    if len(datasets) > 1 and "{dataset}" not in path:
        mend = f"add datasets: [{datasets[0]}], or write {{dataset}} in external"
        raise UserError(f"{where} names one set of samples for {', '.join(datasets)}; {mend}")
    seeds = tuple(entry.get("seeds", content["seeds"] if "{seed}" in path else (0,)))
    if len(seeds) > 1 and "{seed}" not in path:
        mend = "keep one, or write {seed} in external"
        raise UserError(f"{where} names one set of samples for {len(seeds)} seeds; {mend}")
    return Run(
        name=name, method=METHOD, accounting="none" if math.isinf(epsilon) else CLAIMED, over_budget=False,
        datasets=datasets, epsilons=(epsilon,), seeds=seeds, hyper={one: {} for one in content["datasets"]},
        external=path,
    )  # fmt: skip


def content(job: Job, root: str | Path) -> str:
    """Returns a hash of a job's samples. Raises UserError where they are missing or cannot be read."""
    path = Path(job.external).expanduser()
    if not path.exists() or (path.is_file() and path.suffix.lower() != ".npz"):
        what = "is no .npz" if path.exists() else "does not exist"
        raise UserError(
            f"run {job.run!r}: {path} {what}; external names an .npz of images and labels, or a folder with a"
            f" sub-folder of pictures per class (a relative path starts from {Path.cwd()})"
        )
    cache = Path(root, "private", "external", f"{job.dataset}-{job.run}-seed{job.seed}.json")
    return own_content.content(OwnSet(folder=str(path)), cache)
