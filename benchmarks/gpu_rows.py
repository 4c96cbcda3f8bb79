"""`python -m benchmarks.gpu_rows PART...`: the runs of a session on a GPU, each as a call of `python -m methods run`.

A line is a run's folder, a tab, and its arguments as a shell reads them, in the order of the session. Made where the
presets can be read, which takes jsonschema; the machine with the GPU needs the lines alone.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator

from methods.core import registry
from workflow import presets
from workflow.common.errors import command, unknown
from workflow.common.options import Parser
from workflow.datasets.sources import NAMES
from workflow.grid import Config, Job

_TEACHERS = ("datalens_paper", "g_pate_paper", "datalens_as_released", "g_pate_as_released")
# Part: its preset, and its runs in their order, first on one data set, then on the other.
PARTS: dict[str, tuple[str, tuple[str, ...]]] = {
    "paper": ("paper", ("dpac", "gs_wgan", "dpac_scatter", "dpac_sound")),
    "teachers": ("teachers", _TEACHERS),
}
# Memory that a card has; the processor would draw noise for nine gigabytes of rounding in every round.
_OF_A_CARD = {"teacher_memory": "fp32"}
_DATASETS = ("mnist", "fashion_mnist")
_EPSILON, _SEED = 10.0, 0


def lines(part: str) -> Iterator[str]:
    """Yields a part's lines."""
    preset, runs = PARTS[part]
    config = presets.load({"preset": preset}, datasets=NAMES, methods=registry, protocol_keys=None)
    jobs = {(job.dataset, job.run): job for job in config.jobs if (job.epsilon, job.seed) == (_EPSILON, _SEED)}
    for dataset in _DATASETS:
        for run in runs:
            yield _line(config, jobs[dataset, run])


def _line(config: Config, job: Job) -> str:
    options = ["--run", job.run, "--epsilon", f"{job.epsilon:g}", "--delta", f"{config.delta:g}", "--seed", job.seed]
    options += ["--accounting", job.accounting, *(["--paper"] if job.paper else [])]
    options += ["--over-budget"] if job.over_budget else []
    for key, value in (job.hyper | {key: own for key, own in _OF_A_CARD.items() if key in job.hyper}).items():
        options += ["--set", f"{key}={value if isinstance(value, str) else json.dumps(value)}"]
    return f"{job.folder(config.preset)}\t{job.dataset}\t{shlex.join(map(str, [job.method, *options]))}"


@command
def main(argv: list[str] | None = None) -> None:
    parser = Parser(prog="python -m benchmarks.gpu_rows", description=__doc__)
    parser.add_argument("parts", nargs="+", metavar="PART", help=", ".join(PARTS))
    parts = parser.parse_args(argv).parts
    for part in parts:
        if part not in PARTS:
            raise unknown("part", part, PARTS)
    for part in parts:
        for line in lines(part):
            print(line)


if __name__ == "__main__":
    raise SystemExit(main())
