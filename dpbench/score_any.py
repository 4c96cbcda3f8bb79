"""`dpbench score`: any samples against any real set, by the suite's own evaluation."""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import re
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workflow import merging
from workflow.common.contracts import CLAIMED, LabelledImages, format_epsilon, parse_epsilon
from workflow.common.errors import UserError, unknown
from workflow.common.files import read_object, refuse_unwritable, write_json
from workflow.common.metrics import METRICS
from workflow.common.options import whole
from workflow.common.run_name import check_run_name
from workflow.common.seeds import MOST_SEED
from workflow.datasets.foreign_samples import read_samples
from workflow.datasets.real_sets import RealSet, read_real

if TYPE_CHECKING:
    from evaluation.protocol import Protocol

WHAT_FOR = "made"  # marks a folder of classifiers as whole, and says of what


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command."""
    parser.add_argument("--samples", type=Path, required=True, help=".npz of images and labels, or a folder of PNGs: a"
                        " sub-folder per class")  # fmt: skip
    parser.add_argument("--real", type=Path, required=True, help="the real set: a data folder, such as"
                        " results/quick/data/mnist; an .npz of images and labels, or in MedMNIST's layout; or a folder"
                        " of pictures")  # fmt: skip
    parser.add_argument("--test", type=Path, help="real test split, where --real has none (default: a fifth is drawn)")
    parser.add_argument("--claimed-epsilon", help="as the makers of the samples state it, or inf; it is not checked")
    parser.add_argument("--run", default="external", help="name of the row in a .csv (default external)")
    parser.add_argument("--preset", default="quick", help="whose evaluation settings (default quick)")
    parser.add_argument("--protocol", help="settings that differ, as JSON text or a JSON file")
    parser.add_argument("--classifiers", type=Path, help="folder that keeps the real set's classifiers for next time")
    parser.add_argument("--seed", type=whole("--seed", 0, MOST_SEED), default=0, help="of the classifiers (default 0)")
    parser.add_argument("--threads", type=whole("--threads", 1, 1024), default=1, help="CPU threads (default 1)")
    parser.add_argument("--out", type=Path, help="write the scores: .json, or .csv as scores.csv, for rank and compare")


def run(arguments: argparse.Namespace) -> None:
    """Prints the scores. Raises UserError, before anything is trained, for sets that are malformed or do not match."""
    check_run_name(arguments.run, "--run")
    epsilon = None if arguments.claimed_epsilon is None else parse_epsilon(arguments.claimed_epsilon)
    _check_out(arguments.out, epsilon)
    if arguments.classifiers is not None:
        refuse_unwritable(arguments.classifiers / "classifiers.json")
    settings = _settings(arguments)
    real = read_real(arguments.real, arguments.test)
    samples = read_samples(arguments.samples, real.wanted)
    # Here: it imports torch, and what is malformed was refused without.
    from evaluation.protocol import Protocol

    protocol = Protocol.parse(json.dumps(settings))
    with tempfile.TemporaryDirectory() as temporary:
        folder = arguments.classifiers or Path(temporary)
        found = scores(samples, real, protocol, folder, arguments.seed, arguments.threads)
    _write(arguments, real.wanted.name, epsilon, found)
    print(text(arguments, real, len(samples), epsilon, found))


def scores(
    samples: LabelledImages, real: RealSet, protocol: Protocol, folder: Path, seed: int, threads: int
) -> dict[str, float]:
    """Returns metric -> value, as the graph's rules `fidelity` and `utility` do.

    Classifiers of the real set are made in `folder`, or taken from there if they are of the same set and settings.
    """
    from evaluation import classifiers, nets, utility
    from evaluation.features import RealFeatures
    from evaluation.fidelity import fidelity, inception_fid
    from evaluation.inputs import capped
    from workflow.common.torch_threads import use_threads

    use_threads(threads)
    key = hashlib.sha256(f"{real.train.digest()} {real.test.digest()} {protocol} {seed}".encode()).hexdigest()
    if not _is_of(folder, key):
        print(
            f"training the classifiers of {real.wanted.name}: a minute or more of a core; the next call has them too if"
            " both give --classifiers FOLDER",
            file=sys.stderr,
        )
        card = classifiers.train(real.train, real.test, protocol, seed, threads, folder)
        write_json(folder / "classifiers.json", card | {WHAT_FOR: key})
    samples = capped(samples, protocol.num_samples, "samples")
    network = nets.load(folder / nets.FEATURES)
    near = RealFeatures.find(folder, network, real.train, protocol)
    found, notices = fidelity(samples, near, network, protocol)
    by_inception, more = inception_fid(samples, real.train, protocol)
    for notice in notices + more:
        print(f"notice: {notice}", file=sys.stderr)
    stored = utility.load_stored(folder)
    for direction in utility.DIRECTIONS:
        found |= utility.score(direction, samples, real.test, protocol, seed, stored, threads)
    return {metric: float(value) for metric in METRICS if (value := (found | by_inception).get(metric)) is not None}


def text(
    arguments: argparse.Namespace, real: RealSet, count: int, epsilon: float | None, found: dict[str, float]
) -> str:
    """Returns what is printed: a line on both sets, and one a score."""
    about = {None: "no epsilon stated", math.inf: "no privacy"}.get(epsilon)
    about = about or f"epsilon {format_epsilon(epsilon)} claimed, not checked"
    lines = [f"{arguments.samples} ({count} samples; {about}) against {real.wanted.name} ({len(real.train)} train, "
             f"{len(real.test)} test)"]  # fmt: skip
    for metric, value in found.items():
        known = METRICS[metric]
        arrow = "higher is better" if known.higher_is_better else "lower is better"
        lines.append(f"  {known.label:<22} {value:10.{known.decimals}f}  {arrow}")
    return "\n".join(lines)


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    from workflow.common.files import json_or_path

    if arguments.preset not in merging.names():
        raise unknown("preset", arguments.preset, merging.names(), merging.PRESET_HINT)
    stated = merging.shipped_content(arguments.preset)["protocol"]
    shared = {key: value for key, value in stated.items() if key != "per_dataset"}
    return {**shared, **(json_or_path(arguments.protocol, "--protocol") if arguments.protocol else {})}


def _check_out(out: Path | None, epsilon: float | None) -> None:
    if out is None:
        return
    if out.suffix not in (".json", ".csv"):
        raise UserError(f"--out must end in .json or .csv, got {out}")
    refuse_unwritable(out)
    if out.suffix == ".csv" and epsilon is None:
        raise UserError("--out .csv needs --claimed-epsilon, which stands in every row; inf if there is no privacy")


def _is_of(folder: Path, key: str) -> bool:
    card = folder / "classifiers.json"
    if not card.is_file():
        return False
    if read_object(card, "a card").get(WHAT_FOR) != key:
        raise UserError(f"{folder} holds the classifiers of another set, or of other settings; name another folder")
    return True


def _write(arguments: argparse.Namespace, dataset: str, epsilon: float | None, found: dict[str, float]) -> None:
    if arguments.out is None:
        return
    accounting = "none" if epsilon is None or math.isinf(epsilon) else CLAIMED
    if arguments.out.suffix == ".json":
        claim = None if epsilon is None else format_epsilon(epsilon)
        who = {"samples": str(arguments.samples), "real": dataset, "run": arguments.run, "claimed_epsilon": claim}
        write_json(arguments.out, {**who, "accounting": accounting if claim else None, "scores": found})
        return
    from evaluation.scores import Score, write_scores

    name = re.sub(r"[^a-z0-9_]+", "_", dataset.lower()) or "real"
    key = (arguments.preset, name, arguments.run, epsilon, accounting, arguments.seed)
    write_scores(arguments.out, [Score(*key, metric, value, "measured") for metric, value in found.items()])
