"""Every reader of the suite: the file it reads, how it is called in a folder of `malformed_files.make`, what it gives.

A reader either raises UserError or returns a value that `check` finds in range: what is accepted is then another valid
input and not a damaged one.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from faults.malformed_files import DATA, HYPER, PROTOCOL, PUBLIC, RUN

from evaluation import nets, rank
from evaluation.comparison import sides
from evaluation.features import RealFeatures
from evaluation.fitting import Mlp
from evaluation.protocol import Protocol
from evaluation.report import audit, figures, frontier, page, published_costs, scores_tables
from evaluation.report.collect import collect_run
from evaluation.report.layout import load_layout
from evaluation.scores import Score, read_scores
from methods.__main__ import main as methods_main
from methods.commands import published_costs as settings_file
from methods.commands.arguments import read_plan, read_private, read_public
from methods.commands.join import join
from methods.core import registry
from methods.core.privacy.ledger import Ledger
from methods.core.released.workplace import Workplace
from methods.core.runs import finished, generator, spent
from methods.core.runs.sample import draw
from workflow import merging, own_content, presets, progress, record
from workflow.common.contracts import LabelledImages, RunFolder, load_images
from workflow.common.errors import UserError
from workflow.common.files import json_or_path, read_csv, read_json
from workflow.common.own_set import OwnSet
from workflow.datasets import celeba, idx, medmnist, own, pictures, sources
from workflow.datasets.look import Look


@dataclass(frozen=True)
class Reader:
    """A reader: `read` is called with the folder after its file `target`, of a kind of KINDS, was spoiled."""

    name: str
    target: str
    kind: str
    read: Callable[[Path], Any]
    check: Callable[[Any], bool] = lambda value: True


def _images(data: LabelledImages) -> bool:
    whole = data.images.dtype == np.uint8 and data.images.ndim == 4 and data.labels.dtype == np.int64
    return whole and data.labels.shape == data.images.shape[:1] and (data.labels >= 0).all()


def _finite(*arrays: np.ndarray) -> bool:
    return all(np.isfinite(array).all() for array in arrays)


def _score(score: Score) -> bool:
    shares = ("precision", "recall", "distinct_fraction", "g2r_mlp", "g2r_cnn", "r2g_mlp", "r2g_cnn")
    fits = 0 <= score.value <= 1 if score.metric in shares else score.value >= 0
    endless = score.metric.startswith("eps_")
    return (fits or score.metric.startswith("fid")) and score.epsilon > 0 and (math.isfinite(score.value) or endless)


def _scores(scores: list[Score]) -> bool:
    return all(map(_score, scores)) and len({score.order for score in scores}) == len(scores)


def _strict(value: Any) -> bool:
    """Whether a value is JSON without NaN and infinity."""
    json.dumps(value, allow_nan=False)
    return True


def _plan(plan: Any) -> bool:
    costs = all(cost >= 0 for cost in plan.costs.values())
    seed = isinstance(plan.seed, int) and not isinstance(plan.seed, bool) and plan.seed >= 0
    return costs and seed and isinstance(plan.run, str) and 0 < plan.budget.delta < 1


def _own(name: str) -> Callable[[Path], Any]:
    return lambda folder: OwnSet.parse(name, {"folder": str(folder / "pictures"), "size": 28})


def _med(folder: Path) -> Any:
    own_set = OwnSet.parse("lesions", {"folder": str(folder / "med.npz")})
    return medmnist.load("lesions", own_set, folder / "med.npz", "0")


def _picture(name: str) -> Callable[[Path], Any]:
    def read(folder: Path) -> Any:
        path = str(folder / name)
        facts = pictures.probe([path], "heads")
        own_set = OwnSet.parse("x", {"folder": "x", "size": 28})
        look = Look.decide(own_set, facts.sides, facts.all_grey, facts.deep > 0)
        return pictures.decode([path], look, "pictures")[0]

    return read


def _listed(folder: Path) -> Any:
    entry = {"folder": str(folder / "flat"), "labels": str(folder / "labels.csv"), "size": 28, "test_fraction": 0.4}
    return own.load("lesions", OwnSet.parse("lesions", entry))


def _celeba_zip(folder: Path) -> np.ndarray:
    with celeba.opener(folder) as read:
        return celeba.decode(["000001.jpg", "000004.jpg"], read, "faces")


def _preset(folder: Path) -> Any:
    layer = presets.Layer("mine.yaml", merging.mapping(folder / "mine.yaml"))
    return presets.load({}, datasets=sources.NAMES, methods=registry, protocol_keys=None, files=[layer])


def _features(folder: Path) -> Any:
    network = nets.load(folder / "classifiers" / nets.FEATURES)
    real = load_images(folder / DATA / "train.npz")
    return RealFeatures.find(folder / "classifiers", network, real, Protocol(**PROTOCOL))


def _drawn(folder: Path) -> Any:
    plan = read_plan(folder / RUN / "plan.json")
    return LabelledImages(*draw(plan, generator.load(folder / RUN), 6, torch.device("cpu")))


def _resumed(folder: Path) -> Any:
    plan = read_plan(folder / RUN / "plan.json")
    try:
        with Ledger.open(folder / RUN / "ledger.jsonl", plan.releases, plan.budget, resume=True, run=plan.digest):
            return None
    except (OSError, MemoryError) as error:
        # As the commands report what the system refuses.
        raise UserError(repr(error)) from None


def _joined(folder: Path) -> Any:
    join(folder / "parts", folder / "joined.npz")
    return load_images(folder / "joined.npz")


def _page(f: Path) -> str:
    return page.build_report(f, load_layout(page.LAYOUT), _folder(f))


def _tables(folder: Path) -> Any:
    scores = read_scores(folder / "scores.csv")
    scores_tables.write_tables(load_layout(str(folder / "layout.yaml")), scores, scores, folder / "out")


def _audit(folder: Path) -> Any:
    layout = load_layout(str(folder / "layout.yaml"))
    for spec in layout.audit.values():
        audit.build_table(audit.read_audit(folder / "audit.csv", spec), spec, layout)


def _costs(folder: Path) -> Any:
    published_costs.write_tables(load_layout(str(folder / "layout.yaml")), folder / "costs.csv", folder / "out")


def _figures(folder: Path) -> Any:
    layout = load_layout(str(folder / "layout.yaml"))
    return [figures.build_panels(spec, layout, _folder(folder), folder / "data") for spec in layout.figures.values()]


def _folder(folder: Path) -> list[RunFolder]:
    return [RunFolder.parse(folder / RUN)]


def _begun(folder: Path) -> Any:
    place = Workplace(folder / "released")
    place.folder.mkdir()
    if os.path.lexists(folder / "begun.json"):
        (folder / "begun.json").rename(place.folder / "begun.json")
    return place.begun()


def _content(folder: Path) -> Any:
    return own_content.content(_own("lesions")(folder), folder / "content.json")


def _collected(folder: Path) -> Any:
    return collect_run(_folder(folder)[0], "quick")


def _command(*arguments: str) -> Callable[[Path], Any]:
    """Returns what calls `python -m methods` there; its one line on stderr becomes a UserError again."""

    def read(folder: Path) -> None:
        heard = io.StringIO()
        with contextlib.redirect_stderr(heard):
            code = methods_main(list(arguments))
        lines = [line for line in heard.getvalue().splitlines() if line.startswith("error: ")]
        if code == 2 and len(lines) == 1:
            raise UserError(lines[0])
        if code or lines:
            raise AssertionError(f"exit code {code} with {heard.getvalue()[-300:]}")

    return read


def _with_spent(folder: Path) -> Any:
    (folder / "spent.jsonl").rename(folder / DATA / "spent.jsonl")
    return _command(*RELEASE)(folder)


SETS = [part for key, value in HYPER.items() for part in ("--set", f"{key}={value}")]
RELEASE = ("release", "dp_merf", "--data", DATA, "--out", "released", "--num", "6", "--epsilon", "5", *SETS)
READERS = (
    Reader("images (npz)", "samples.npz", "npz", lambda f: load_images(f / "samples.npz"), _images),
    Reader("records (npz)", f"{DATA}/train.npz", "npz", lambda f: read_private(f / DATA / "train.npz", PUBLIC)),
    Reader("parts of samples (npz)", "parts/samples-000.npz", "npz", _joined, _images),
    Reader("list of the parts", "parts/samples.json", "json", _joined, _images),
    Reader("stored perceptron (npz)", "classifiers/mlp.npz", "npz", lambda f: Mlp.load(f / "classifiers/mlp.npz"),
           lambda mlp: _finite(*mlp.weights, *mlp.biases)),
    Reader("stored features (npz)", "classifiers/real_features.npz", "npz", _features,
           lambda found: found.mu.ndim == 1
           and _finite(found.mu, found.sigma, found.near, found.packets.mean, found.packets.covariance)),
    Reader("MedMNIST (npz)", "med.npz", "npz", _med, lambda made: _images(made.train) and _images(made.test)),
    Reader("stored network", "classifiers/cnn.safetensors", "safetensors",
           lambda f: nets.load(f / "classifiers/cnn.safetensors"),
           lambda net: all(torch.isfinite(value).all() for value in net.state_dict().values())),
    Reader("generator", f"{RUN}/generator.safetensors", "safetensors", _drawn, _images),
    Reader("IDX", "images-idx3-ubyte", "idx", lambda f: idx.decode(idx.read_bytes(f / "images-idx3-ubyte"), "x")),
    Reader("IDX (gzip)", "images-idx3-ubyte.gz", "gz",
           lambda f: idx.decode(idx.read_bytes(f / "images-idx3-ubyte.gz"), "x")),
    *(Reader(f"picture ({kind})", f"one.{kind}", "png" if kind == "png" else "picture", _picture(f"one.{kind}"))
      for kind in ("png", "jpg", "bmp", "webp", "tif", "gif", "ppm")),
    Reader("picture of 16 bits", "deep.png", "png", _picture("deep.png")),
    Reader("CelebA's attributes", "list_attr_celeba.txt", "text",
           lambda f: celeba.read_attribute(f / "list_attr_celeba.txt", "Male"),
           lambda rows: set(rows.values()) <= {0, 1}),
    Reader("CelebA's first line", "list_attr_celeba.txt", "text", sources.celeba_defect),
    Reader("CelebA's partition", "list_eval_partition.txt", "text",
           lambda f: celeba.read_partition(f / "list_eval_partition.txt")),
    Reader("CelebA's zip", "img_align_celeba.zip", "zip", _celeba_zip),
    Reader("class list", "labels.csv", "csv", _listed, lambda made: _images(made.train)),
    Reader("JSON", "provenance.json", "json", lambda f: read_json(f / "provenance.json"), _strict),
    Reader("settings (JSON)", "hyper.json", "json", lambda f: json_or_path(str(f / "hyper.json")), _strict),
    Reader("card.json", f"{DATA}/card.json", "json", lambda f: read_public(f / DATA / "card.json")),
    Reader("plan.json", f"{RUN}/plan.json", "json", lambda f: read_plan(f / RUN / "plan.json"), _plan),
    Reader("begun.json", "begun.json", "json", _begun, lambda begun: begun is None or _plan(begun.plan)),
    Reader("content of pictures", "content.json", "json", _content, lambda text: isinstance(text, str)),
    Reader("protocol", "protocol.json", "json", lambda f: Protocol.parse(str(f / "protocol.json"))),
    Reader("own set (JSON)", "set.json", "json", lambda f: OwnSet.parse("x", json_or_path(str(f / "set.json")))),
    Reader("run.json", f"{RUN}/run.json", "json", _collected, _scores),
    Reader("fidelity.json", f"{RUN}/fidelity.json", "json", _collected, _scores),
    Reader("utility.json", f"{RUN}/utility.json", "json", _collected, _scores),
    Reader("record of results", f"{DATA}/card.json", "json", lambda f: record.record(f, {})),
    Reader("page (run.json)", f"{RUN}/run.json", "json", _page),
    Reader("page (provenance.json)", "provenance.json", "json", _page),
    Reader("page (log.csv)", f"{RUN}/log.csv", "csv", _page),
    Reader("page (scores.csv)", "scores.csv", "csv", _page),
    Reader("page (audit.csv)", "audit.csv", "csv", _page),
    Reader("figures (samples)", f"{RUN}/samples.npz", "npz", _figures),
    Reader("figures (layout)", "layout.yaml", "yaml", _figures),
    Reader("ledger, resumed", f"{RUN}/ledger.jsonl", "jsonl", _resumed),
    Reader("ledger, finished", f"{RUN}/ledger.jsonl", "jsonl", lambda f: finished.spent(f / RUN / "ledger.jsonl"),
           lambda found: all(cost >= 0 for cost in found.costs.values())),
    Reader("record of releases", "spent.jsonl", "jsonl", lambda f: spent.total(spent.entries(f)),
           lambda text: "nan" not in text),
    Reader("CSV", "labels.csv", "csv", lambda f: read_csv(f / "labels.csv", ("file",))),
    Reader("scores.csv", "scores.csv", "csv", lambda f: read_scores(f / "scores.csv"), _scores),
    Reader("scores.csv, compared", "scores.csv", "csv",
           lambda f: sides.read_both(f / "scores.csv", f / "scores.csv")),
    Reader("scores.csv, ranked", "scores.csv", "csv",
           lambda f: (rank.markdown(found := rank._chosen(f / "scores.csv", None), rank._metrics([], found, f)),
                      rank.as_csv(found)), lambda texts: not re.search(r"\bnan\b", "".join(texts))),
    Reader("scores.csv, as tables", "scores.csv", "csv", _tables),
    Reader("layout", "layout.yaml", "yaml", _tables),
    Reader("audit.csv", "audit.csv", "csv", _audit),
    Reader("published costs", "costs.csv", "csv", _costs),
    Reader("published results", "frontier.csv", "csv", lambda f: frontier.read_frontier(f / "frontier.csv"),
           lambda found: all(_finite(*values) for one in found for values in one.values.values())),
    Reader("published settings", "settings.yaml", "yaml", lambda f: settings_file.read_settings(f / "settings.yaml")),
    Reader("configuration", "mine.yaml", "yaml", _preset),
    Reader("release (card.json)", f"{DATA}/card.json", "json", _command(*RELEASE)),
    Reader("release (train.npz)", f"{DATA}/train.npz", "npz", _command(*RELEASE)),
    Reader("release (record)", "spent.jsonl", "jsonl", _with_spent),
    Reader("release (configuration)", "mine.yaml", "yaml", _command(*RELEASE, "--configfile", "mine.yaml")),
    Reader("run (card.json)", f"{DATA}/card.json", "json",
           _command("run", "dp_merf", "--data", DATA, "--num", "6", "--out", "run2", *SETS)),
    Reader("training (plan.json)", f"{RUN}/plan.json", "json",
           _command("train", "--plan", f"{RUN}/plan.json", "--data", f"{DATA}/train.npz", "--out", "again")),
    Reader("audit (plan.json)", f"{RUN}/plan.json", "json",
           _command("audit", "--plan", f"{RUN}/plan.json", "--seconds", "0.05", "--out", "a.csv")),
    Reader("benchmark of a rule", "bench.tsv", "csv", lambda f: progress.measured_seconds(f / "bench.tsv"),
           lambda value: value is None or (math.isfinite(value) and value >= 0)),
)

