"""Every command line with arguments that work in a folder of `malformed_files.make`, and what is put in their place."""

from __future__ import annotations

import json
import os
import random
import re
import shlex
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from faults.malformed_files import CRITICS, DATA, HYPER, RUN

SETS = " ".join(f"--set {key}={value}" for key, value in HYPER.items())
POINT = json.dumps({"hyper": CRITICS, "image_size": 28, "shard_size": 8, "steps": 1})
OUTPUTS = ("--out",)
# What stands for a file: never a device as an output, which a process of root would replace.
FILES = (
    "nowhere",
    ".",
    "pictures",
    "one.png",
    "med.npz",
    "scores.csv",
    "mine.yaml",
    f"{DATA}/card.json",
    f"{DATA}/train.npz",
    "pipe",
    "circle",
    "img_align_celeba.zip",
    "classifiers/cnn.safetensors",
    "tables/table1.md",
    "scores.csv/x",
    "x" * 300,
    "a\nb",
    "\udcff",
    "~nosuchuser/x",
    "{",
    "[",
    "\0",
    "/dev/zero",
)
WORDS = (
    "",
    " ",
    "nan",
    "-inf",
    "inf",
    "-1",
    "0",
    "1e999",
    "-1e-999",
    "1e308",
    "٣",
    "1_0",
    "0x10",
    "1.5",
    "9" * 40,
    "9" * 5000,
    "x" * 300,
    "x" * 20_000,
    "ü\u202e",
    "\udcff",
    "a\nb",
    "{",
    "[]",
    "null",
    "{}",
    "[1]",
    '{"a": NaN}',
    "; true",
    "../..",
    "None",
    "-",
    "--",
    "%s",
    "{0}",
    "dpac",
    "mnist",
    "lesions",
    "1,nan",
    ",",
    "a=b",
    "=",
    "steps=1e400",
    "steps={",
    "&a [*a]",
)


@dataclass(frozen=True)
class Command:
    """A command line: its module, and arguments that it takes; exit codes besides 2 that are an answer."""

    module: str
    arguments: tuple[str, ...]
    codes: tuple[int, ...] = (0,)

    @property
    def name(self) -> str:
        """How it is called."""
        verb = [self.arguments[0]] if self.module == "methods" else []
        return " ".join(["python -m", self.module, *verb])

    def run(self, arguments: list[str]) -> int:
        """Returns the exit code of its `main`."""
        name = self.module if hasattr(import_module(self.module), "main") else f"{self.module}.__main__"
        return import_module(name).main(arguments)


def _command(module: str, text: str, codes: tuple[int, ...] = (0,)) -> Command:
    """Returns a command of its arguments as a shell takes them, where DATA, RUN and other names of files stand."""
    names = {"CARD": f"{DATA}/card.json", "TRAIN": f"{DATA}/train.npz", "TEST": f"{DATA}/test.npz"}
    names |= {"PLAN": f"{RUN}/plan.json", "RUN": RUN, "DATA": DATA, "SETS": SETS}
    for name, value in names.items():
        text = re.sub(rf"\b{name}\b", value, text)
    return Command(module, tuple(shlex.split(text)), codes)


COMMANDS = (
    _command("methods", "list"),
    _command("methods", "describe dp_merf"),
    _command("methods", "account dp_merf --dataset CARD --epsilon 10 --delta 1e-5 SETS"),
    _command("methods", "account dp_merf --dataset mnist --records 900 --epsilon 10,1 --noise 2 --preset own"),
    _command("methods", "spending --plan PLAN --out spending2.csv"),
    _command("methods", "published-costs --settings settings.yaml --method dp_merf --out costs2.csv"),
    _command("methods", "audit --plan PLAN --seconds 0.05 --audit-seed 0 --out a.csv"),
    _command("methods", "audit dp_merf --dataset CARD --epsilon 10 --seconds 0.05 --uses 1 --canaries 20"
             " --confidence 0.9 SETS"),
    _command("methods", "audit-coverage --audits 1 --attack mechanism", codes=(0, 1)),
    _command("methods", f"plan --method dp_merf --hyper '{json.dumps(HYPER)}' --card CARD --epsilon 10"
             " --out plan2.json"),
    _command("methods", "plan --method dp_merf --run a --hyper hyper.json --card CARD --epsilon 10 --delta 1e-5"
             " --accounting sound --seed 0 --out plan2.json"),
    _command("methods", "warm-start --method gs_wgan --settings critics.json --card CARD --data TRAIN --seed 1"
             " --out critics"),
    _command("methods", "train --plan PLAN --data TRAIN --out again --threads 1 --device cpu"),
    _command("methods", "sample --run RUN --num 6 --out samples2.npz --device cpu"),
    _command("methods", "run dp_merf --data DATA --num 6 --out run2 --run a --seed 1 --minutes 5 SETS"),
    _command("methods", "join parts --out joined.npz"),
    _command("methods", "release dp_merf --data DATA --out released --num 6 --epsilon 5 --delta 1e-5 SETS"),
    _command("methods", "release dp_merf --data DATA --out released --configfile mine.yaml --epsilon 5 SETS"),
    _command("evaluation.compare", "scores.csv scores.csv --tolerance is=5%", codes=(0, 1)),
    _command("evaluation.compare", "scores.csv . --tolerance is=5% recall=0 --common --seeds mean --format json",
             codes=(0, 1)),
    _command("evaluation.rank", "scores.csv --dataset lesions --metric g2r_cnn --out ranked"),
    _command("evaluation.fidelity", "--samples samples.npz --real TRAIN --classifiers classifiers"
             " --protocol protocol.json --threads 1 --out fidelity.json"),
    _command("evaluation.utility", "--samples samples.npz --test TEST --r2g-samples TEST --classifiers classifiers"
             " --protocol protocol.json --directions r2g --seed 0 --out utility.json"),
    _command("evaluation.classifiers", "--train TRAIN --test TEST --protocol protocol.json --seed 0 --out fitted"),
    _command("evaluation.report.collect", "--preset quick --root . --out scores2.csv"),
    _command("evaluation.report.collect", "--preset quick --root . --out scores2.csv RUN"),
    _command("evaluation.report.scores_tables", "--scores scores.csv --published scores.csv --layout layout.yaml"
             " --datasets lesions --num-samples many --out tables2"),
    _command("evaluation.report.published_costs", "--published-costs costs.csv --layout layout.yaml --out tables2"),
    _command("evaluation.report.frontier", "--scores scores.csv --frontier frontier.csv --layout layout.yaml"
             " --cards CARD --delta 1e-5 --out tables2"),
    _command("evaluation.report.verdicts", "--scores scores.csv --published scores.csv --layout layout.yaml"
             " --datasets lesions --out tables2"),
    _command("evaluation.report.audit", "--audit audit.csv --layout layout.yaml --out tables2"),
    _command("evaluation.report.score_plots", "--scores scores.csv --layout layout.yaml --out figures"),
    _command("evaluation.report.figures", "--root . --layout layout.yaml --runs RUN --data data --out figures"),
    _command("evaluation.report.page", "--root . --runs RUN --leave-out table9 --out report.html"),
    _command("workflow.datasets", "lesions --folder pictures --size 28 --test-fraction 0.4 --window '' --out made"),
    _command("workflow.datasets", "lesions --folder flat --labels labels.csv --mode grey --fit pad --background black"
             " --split-seed 2 --test-fraction 0.4 --out made"),
    _command("workflow.datasets", "lesions --folder med.npz --test-split val --size 28 --out made"),
    _command("workflow.datasets", "lesions --own set.json --check", codes=(0, 1)),
    _command("workflow.datasets", "celeba --source . --cache cache --test-split valid --out made"),
    _command("workflow.datasets", "mnist_val --source flat --cache cache --out made", codes=()),
    _command("workflow.run_list", "--root . --runs runs.txt --plans plans.txt --grid"
             """ '{"sweeps": [[["10"], [0]]], "runs": [["lesions/a", 0, true]]}'"""),
    _command("workflow.record", "--root . --settings hyper.json --out provenance2.json"),
    _command("benchmarks", "--only nothing --repeats 1 --out speed"),
    _command("benchmarks.point", f"'{POINT}' --threads 1 --device cpu"),
)  # fmt: skip


def spoiled(command: Command, rng: random.Random) -> list[str]:
    """Returns the command's arguments with one to two faults."""
    arguments = list(command.arguments)
    first = 1 if command.module == "methods" else 0
    for _ in range(rng.choice((1, 1, 1, 2))):
        _spoil(arguments, first, rng)
    return arguments


def _spoil(arguments: list[str], first: int, rng: random.Random) -> None:
    act = rng.choice(
        ("value", "value", "value", "value", "value", "file", "file", "drop", "option", "short", "glued", "more")
    )
    places = [at for at in range(first, len(arguments)) if not arguments[at].startswith("--")]
    if act in ("value", "file", "glued") and places:
        at = rng.choice(places)
        output = arguments[at - 1] in OUTPUTS
        value = rng.choice(WORDS if act == "value" else FILES)
        if not (output and value.startswith("/dev")):
            arguments[at] = value
        if act == "glued" and arguments[at - 1].startswith("--"):
            arguments[at - 1 : at + 1] = [f"{arguments[at - 1]}={arguments[at]}"]
    elif act == "drop" and len(arguments) > first:
        del arguments[rng.randrange(first, len(arguments))]
    elif act == "option":
        arguments.append(
            rng.choice(("--nonsense", "--nonsense=1", "-x", "--seed", "--out=", "--epsilon", "--\udcff", "--a\nb"))
        )
    elif act == "short":
        options = [at for at in range(first, len(arguments)) if arguments[at].startswith("--")]
        if options:
            at = rng.choice(options)
            arguments[at] = arguments[at][: max(3, len(arguments[at]) - 2)]
    else:
        arguments.insert(rng.randrange(first, len(arguments) + 1), rng.choice(WORDS))


def furnish(folder: Path) -> None:
    """Adds what some arguments name: a pipe, and a link to itself."""
    os.mkfifo(folder / "pipe")
    (folder / "circle").symlink_to("circle")
