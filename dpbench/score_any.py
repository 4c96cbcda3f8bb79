"""`dpbench score`: any samples against any real set, by the suite's own evaluation."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import math
import re
import signal
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from dpbench.kept_classifiers import CARD, Kept
from dpbench.parts import Parts
from evaluation.protocol import Protocol
from workflow import merging
from workflow.common import process
from workflow.common.contracts import CLAIMED, LabelledImages, format_epsilon, parse_epsilon
from workflow.common.durations import describe
from workflow.common.errors import UserError, unknown
from workflow.common.files import refuse_unwritable, write_json
from workflow.common.metrics import METRICS
from workflow.common.options import whole
from workflow.common.run_name import check_run_name
from workflow.common.seeds import MOST_SEED
from workflow.datasets.foreign_samples import read_samples
from workflow.datasets.real_sets import RealSet, read_real
from workflow.progress import FALLBACK_SECONDS

# What the steps are called, those of the classifiers by the names of evaluation/classifiers.py.
CLASSIFIERS = {"features": "feature network", "mlp": "real2gen MLP", "cnn": "real2gen CNN"}
LOADING, FIDELITY, UTILITY = "library loading", "fidelity", "gen2real and real2gen"
# Settings that say nothing of a real set's classifiers, of those that folders of before were kept without.
_OF_SAMPLES = {"g2r_classifiers"}


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
    if arguments.classifiers is not None and not (arguments.classifiers / CARD).is_file():
        refuse_unwritable(arguments.classifiers / CARD)
    protocol = Protocol.parse(json.dumps(_settings(arguments)))
    real = read_real(arguments.real, arguments.test)
    samples = read_samples(arguments.samples, real.wanted)
    kept = Kept(arguments.classifiers, _key(real, protocol, arguments.seed), CLASSIFIERS)
    with kept.held():
        parts = Parts(expected(arguments.preset, kept))
        count = min(len(samples), protocol.num_samples)
        print(beginning(count, real.wanted.name, arguments.preset, kept, parts), file=sys.stderr, flush=True)
        try:
            found = scores(samples, real, protocol, kept, parts, arguments.seed, arguments.threads)
        except KeyboardInterrupt:
            raise process.Stopped(signal.SIGINT, left(real.wanted.name, kept)) from None
    _write(arguments, real.wanted.name, epsilon, found)
    print(text(arguments, real, len(samples), epsilon, found))


def _key(real: RealSet, protocol: Protocol, seed: int) -> str:
    """Returns a digest of what the classifiers of a real set depend on."""
    settings = {name: value for name, value in asdict(protocol).items() if name not in _OF_SAMPLES}
    # As a dataclass shows itself.
    shown = f"Protocol({', '.join(f'{name}={value!r}' for name, value in settings.items())})"
    return hashlib.sha256(f"{real.train.digest()} {real.test.digest()} {shown} {seed}".encode()).hexdigest()


def expected(preset: str, kept: Kept) -> dict[str, float | None]:
    """Returns the parts of a call in order, each with the seconds of a core that the preset has measured on its sets.

    None for those of which it says nothing. The classifiers that are to be trained have equal shares of what they take
    together.
    """
    cost = merging.shipped_content(preset).get("cost") or {}
    together = cost.get("classifiers")
    share = None if together is None else together / len(CLASSIFIERS)
    trained = {part: share for name, part in CLASSIFIERS.items() if name not in kept.done}
    return {LOADING: FALLBACK_SECONDS, **trained, FIDELITY: cost.get("fidelity"), UTILITY: cost.get("utility")}


def beginning(count: int, name: str, preset: str, kept: Kept, parts: Parts) -> str:
    """Returns what is said before anything is trained: the work, about how long it takes, and what is kept of it.

    Args:
        count: of the samples.
        name: of the real set.
    """
    if math.isfinite(parts.seconds):
        long = f"about {describe(parts.seconds)} of a core by the times of preset {preset}, more on a busy machine"
    else:
        long = f"preset {preset} does not say how long that takes"
    if kept.folder is None:
        stays = f"--classifiers FOLDER would keep the classifiers of {name}, for the next call and for a killed one"
    elif kept.is_whole:
        stays = f"the classifiers of {name} are those in {kept.folder}"
    else:
        already = f", as {len(kept.done)} of {len(CLASSIFIERS)} are already" if kept.done else ""
        stays = f"each classifier of {name} is kept in {kept.folder} once it is trained{already}"
    return f"scoring {count} samples against {name} in {len(parts)} steps: {long}; {stays}"


def left(name: str, kept: Kept) -> str:
    """Returns what Ctrl-C leaves of a call against the real set `name`, for its one line."""
    if kept.folder is None:
        return f"nothing is kept; with --classifiers FOLDER the classifiers of {name} would be, each once it is trained"
    done = f"{len(kept.done)} of {len(CLASSIFIERS)} classifiers of {name} are kept in {kept.folder}"
    return f"{done}; the same command goes on from there"


def scores(
    samples: LabelledImages, real: RealSet, protocol: Protocol, kept: Kept, parts: Parts, seed: int, threads: int
) -> dict[str, float]:
    """Returns metric -> value, as the graph's rules `fidelity` and `utility` do.

    Classifiers of the real set that `kept` lacks are made in its folder, or in a temporary one. `parts` are those of
    `expected`.
    """
    with parts, contextlib.ExitStack() as stack:
        with parts.part(LOADING), process.importing():
            from evaluation import classifiers, nets, utility
            from evaluation.features import RealFeatures
            from evaluation.fidelity import fidelity, inception_fid
            from evaluation.inputs import capped
            from workflow.common.torch_threads import use_threads
        use_threads(threads)
        folder = kept.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name, part in CLASSIFIERS.items():
            if name not in kept.done:
                with parts.part(part):
                    kept.add(name, classifiers.train_one(name, real.train, real.test, protocol, seed, threads, folder))
        kept.finish(classifiers.about(real.train))
        samples = capped(samples, protocol.num_samples, "samples")
        with parts.part(FIDELITY):
            with _mendable(kept):
                network = nets.load(folder / nets.FEATURES)
                near = RealFeatures.find(folder, network, real.train, protocol)
                stored = utility.load_stored(folder)
            found, notices = fidelity(samples, near, network, protocol)
            by_inception, more = inception_fid(samples, real.train, protocol)
            for notice in notices + more:
                print(f"notice: {notice}", file=sys.stderr)
        with parts.part(UTILITY):
            for direction in utility.DIRECTIONS:
                found |= utility.score(direction, samples, real.test, protocol, seed, stored, threads)
    return {metric: float(value) for metric in METRICS if (value := (found | by_inception).get(metric)) is not None}


@contextlib.contextmanager
def _mendable(kept: Kept) -> Iterator[None]:
    """Says of classifiers that are missing or damaged in the user's folder that this command makes them too."""
    try:
        yield
    except UserError as error:
        if kept.folder is None:
            raise
        raise UserError(f"{error}, or remove {kept.folder}: the same command then trains them anew") from None


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
