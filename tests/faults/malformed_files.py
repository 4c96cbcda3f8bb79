"""A folder with one small valid file for every reader: what the malformed inputs are made from."""

from __future__ import annotations

import gzip
import io
import json
import shutil
import struct
import zipfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from toys import squares

from evaluation import nets
from evaluation.features import RealFeatures
from evaluation.fitting import Mlp
from evaluation.nets import Classifier
from evaluation.protocol import Protocol
from methods.core.release import Budget, PublicSpec
from methods.core.runs import parts
from methods.core.runs.plan import Plan
from methods.core.runs.train import train
from workflow.common.contracts import LabelledImages
from workflow.common.files import write_json, write_npz
from workflow.datasets.store import Dataset, save

DATA = "data/lesions"
RUN = "runs/lesions/dp_merf/eps10/seed0"
PUBLIC = PublicSpec("lesions", (1, 28, 28), 3, 24)
HYPER = {"features": 20, "steps": 2, "batch_size": 4, "hidden": 4, "channels": 2}
CRITICS = {
    "num_shards": 2,
    "warm_start_steps": 1,
    "warm_start_width": 2,
    "critic_width": 2,
    "critic_batch": 4,
    "critic_steps": 1,
    "generator": "dcgan",
    "generator_width": 2,
    "batch_size": 2,
}
PROTOCOL = {
    "num_samples": 24,
    "batch_size": 8,
    "min_steps": 0,
    "feature_epochs": 1,
    "cnn_r2g_epochs": 1,
    "cnn_g2r_epochs": 1,
    "mlp_r2g_iterations": 1,
    "mlp_g2r_iterations": 1,
    "is_splits": 2,
    "fid_real_images": 20,
    "prc_images": 10,
    "inception_images": 0,
}
PICTURES = ("png", "jpg", "bmp", "webp", "tif", "gif", "ppm")
SCORES = """preset,dataset,method,epsilon,accounting,seed,metric,value,source
quick,lesions,dp_merf,10,sound,0,g2r_cnn,0.61,measured
quick,lesions,dp_merf,10,sound,1,g2r_cnn,0.63,measured
quick,lesions,dp_merf,10,sound,0,eps_sound,9.99,measured
quick,lesions,dp_merf,10,sound,1,eps_sound,9.99,measured
quick,lesions,dp_merf,10,sound,0,fid_classifier,41.5,measured
quick,lesions,dpac,10,sound,0,g2r_cnn,0.55,measured
quick,lesions,dpac,10,sound,0,eps_sound,9.8,measured
quick,lesions,real,inf,none,0,g2r_cnn,0.97,measured
paper,mnist,DPAC,10,published,,is,9.71,published
"""
AUDIT = """run,dataset,epsilon,accounting,seed,attack,uses,max_uses,canaries,confidence,epsilon_lower,eps_published,\
eps_sound
dp_merf,lesions,10,sound,0,mechanism,1,1,200,0.95,8.1,9.9,9.9
dpac,lesions,10,sound,0,mechanism,1,2,200,0.95,3.2,4.1,9.9
"""
COSTS = """method,dataset,epsilon,eps_counted,eps_released_sound,eps_released_sound_is,behaviour
dpac,mnist,10,9.99,31.2,bound,one draw a step
dp_merf,mnist,10,9.99,9.97,tight,one embedding
"""
FRONTIER = """method,public_data,dataset,epsilon,delta,train_images,classifier,metric,value,source
DPDM,,lesions,10,1.7e-6,55000,highest of three,g2r,0.977,a README
PrivImage,ImageNet,lesions,10,,,,fid_inception,2.3,a README
"""
LAYOUT = """runs: {dpac: DP-GAN-DPAC, dp_merf: DP-MERF}
references: {real: Real data}
datasets: {lesions: Lesions}
tables:
  table1:
    title: Quality
    metrics: [g2r_cnn, fid_classifier]
    datasets: [lesions]
    rows: [dpac, {run: dp_merf, label: DP-MERF}]
figures:
  figure3: {title: Images, datasets: [lesions], rows: [dp_merf]}
published_costs:
  table5: {title: Costs, columns: {eps_counted: {label: counted, decimals: 2}}, notes: [a note]}
frontier:
  table8: {title: Frontier, datasets: [lesions], classifier: one}
claims:
  table9:
    title: Claims
    claims:
      one: {says: one is better, by: us, pairs: [[dp_merf, dpac]], metrics: [g2r_cnn], datasets: [lesions],
        epsilons: [10]}
audit:
  table7: {title: Audit, columns: {epsilon_lower: {label: lower, decimals: 2}}}
"""
OWN = """# A configuration of one's own.
extends: own
datasets:
  lesions: {folder: pictures, size: 28, test_fraction: 0.4}
epsilons: [1, 10]
seeds: [0]
runs:
  dp_merf: {steps: {one_per: 5, at_least: 3}, features: 40}
  dpac: {}
protocol: {num_samples: 100, per_dataset: {lesions: {holdout: 0.2}}}
"""
SETTINGS = """budgets: [1, 10]
settings:
  - {method: dp_merf, dataset: mnist, epsilon: 10, setting: "a setting", released: as_described,
     behaviour: one embedding, source: paper, noise: 1.5}
"""
ATTRIBUTES = """4
Bald Male
000001.jpg -1 1
000002.jpg -1 -1
000003.jpg 1 1
000004.jpg -1 -1
"""


def make(folder: Path) -> Path:
    """Writes the files into `folder` and returns it."""
    train_split, test_split = squares(24, 0), squares(12, 1)
    save(Dataset("lesions", train_split, test_split, ("a", "b", "c"), "folder x", {"content": "0" * 64}), folder / DATA)
    write_npz(folder / "samples.npz", images=train_split.images, labels=train_split.labels)
    _run(folder, train_split)
    _classifiers(folder / "classifiers", train_split)
    _pictures(folder)
    _raw_sets(folder)
    texts = {
        "scores.csv": SCORES,
        "audit.csv": AUDIT,
        "costs.csv": COSTS,
        "frontier.csv": FRONTIER,
        "layout.yaml": LAYOUT,
        "mine.yaml": OWN,
        "settings.yaml": SETTINGS,
        "provenance.json": json.dumps({"settings": {"delta": 1e-5}}),
        "bench.tsv": "s\th:m:s\n12.5\t0:00:12\n",
        "protocol.json": json.dumps(PROTOCOL),
        "set.json": json.dumps({"folder": "pictures", "size": 28, "window": ""}),
        "hyper.json": json.dumps(HYPER),
        "critics.json": json.dumps(CRITICS),
        "content.json": json.dumps({"listing": "0", "content": "1"}),
        "spent.jsonl": json.dumps({"id": "a", "epsilon": 1.0, "delta": 1e-5, "adjacency": ["replace_one"]}) + "\n",
        "tables/table1.md": "### Quality\n\n| a | b |\n| --- | ---: |\n| x | 1 |\n\nA note.\n",
    }
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def _run(folder: Path, records: LabelledImages) -> None:
    from methods.core.privacy.private_data import PrivateData

    plan = Plan.make("dp_merf", "dp_merf", HYPER, PUBLIC, Budget(10.0, 1e-5, "sound"), 0)
    run = folder / RUN
    data = PrivateData(torch.from_numpy(records.images), torch.from_numpy(records.labels))
    write_json(run / "plan.json", plan.to_dict())
    train(plan, data, run, torch.device("cpu"))
    write_npz(run / "samples.npz", images=records.images, labels=records.labels)
    (folder / "parts").mkdir()
    for name in ("plan.json", "generator.safetensors"):
        shutil.copy(run / name, folder / "parts")
    parts.write(folder / "parts", plan, records, len(records))
    write_json(run / "fidelity.json", {"is": 1.4, "fid_classifier": 30.0, "precision": 0.5, "distinct_fraction": 1.0})
    write_json(run / "utility.json", {"g2r_cnn": 0.5, "g2r_mlp": 0.6, "seed": 0, "num_samples": 24})
    write_json(folder / "begun.json", {"id": "a" * 16, "train": "0" * 64, "plan": plan.to_dict()})


def _classifiers(folder: Path, records: LabelledImages) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        small, cnn = (Classifier(name, records.image_shape, 3).eval() for name in ("small", "lenet"))
    nets.save(small, folder / nets.FEATURES)
    nets.save(cnn, folder / "cnn.safetensors")
    protocol = Protocol(**PROTOCOL)
    RealFeatures.of(small, records, protocol).save(folder)
    layers = [np.ones(shape, np.float32) / 100 for shape in ((784, 4), (4, 3))]
    Mlp(tuple(layers), (np.zeros(4, np.float32), np.zeros(3, np.float32)), np.arange(3)).save(folder / "mlp.npz")


def _pictures(folder: Path) -> None:
    rows = ["file,label"]
    for place in range(8):
        name, label = f"{place}.png", "ab"[place % 2]
        rows.append(f"{name},{label}")
        path = folder / "pictures" / label / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((28, 30), 20 * place, np.uint8)).save(path)
        (folder / "flat").mkdir(exist_ok=True)
        Image.fromarray(np.full((28, 30), 20 * place, np.uint8)).save(folder / "flat" / name)
    (folder / "labels.csv").write_text("\n".join(rows) + "\n")
    image = Image.fromarray(np.arange(30 * 28 * 3, dtype=np.uint8).reshape(30, 28, 3))
    for kind in PICTURES:
        image.save(folder / f"one.{kind}")
    Image.fromarray(np.arange(30 * 28, dtype=np.uint16).reshape(30, 28)).save(folder / "deep.png")


def _raw_sets(folder: Path) -> None:
    images = (np.arange(12 * 28 * 28) % 251).reshape(12, 28, 28).astype(np.uint8)
    labels = (np.arange(12) % 3).astype(np.uint8)[:, None]
    splits = {
        f"{split}_{what}": array
        for split in ("train", "val", "test")
        for what, array in (("images", images), ("labels", labels))
    }
    np.savez_compressed(folder / "med.npz", **splits)
    content = struct.pack(">BBBBIII", 0, 0, 8, 3, 12, 28, 28) + images.tobytes()
    (folder / "images-idx3-ubyte").write_bytes(content)
    (folder / "images-idx3-ubyte.gz").write_bytes(gzip.compress(content, mtime=0))
    (folder / "list_attr_celeba.txt").write_text(ATTRIBUTES)
    names = [line.split()[0] for line in ATTRIBUTES.splitlines()[2:]]
    (folder / "list_eval_partition.txt").write_text(
        "".join(f"{name} {place % 3}\n" for place, name in enumerate(names))
    )
    with zipfile.ZipFile(folder / "img_align_celeba.zip", "w") as archive:
        for name in names:
            picture = io.BytesIO()
            Image.fromarray(np.full((40, 32, 3), 90, np.uint8)).save(picture, "JPEG")
            archive.writestr(f"img_align_celeba/{name}", picture.getvalue())
