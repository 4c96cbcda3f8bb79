"""The verbs of `dpbench`: those of `python -m methods`, and those of the other stages under short names."""

from __future__ import annotations

from methods.__main__ import table
from workflow.common.verbs import Verb

OTHERS = {
    "data": Verb("make a data set: a shipped one, or pictures of your own", "workflow.datasets.__main__"),
    "score": Verb("score any samples against any real set, also of a method trained elsewhere", "dpbench.score_any"),
    "export": Verb("images of a run, or of an npz, as PNG files in a folder per class", "dpbench.picture_export"),
    "rank": Verb("which method? by a scores.csv, and what comparing them spent", "evaluation.rank"),
    "price": Verb("what comparing the methods of a scores.csv spent, alone", "evaluation.price"),
    "compare": Verb("two sets of scores: what moved, what is missing, what is new", "evaluation.compare"),
    "merge": Verb("scores of machines that share no folder, as one set", "evaluation.merge"),
    "tune": Verb("settings of every row, searched in the same time on held-out images", "workflow.tune.__main__"),
    "presets": Verb("the presets, their files and rows, and how to write one's own", "dpbench.preset_files"),
    "graph": Verb("the whole benchmark of a preset; Snakemake's own options follow", "dpbench.graph"),
    "completion": Verb("a shell's completion of all this, to be sourced", "dpbench.completion"),
}


def all_verbs() -> dict[str, Verb]:
    """Returns all verbs; one that `python -m methods` gets is here by itself."""
    return {**table(), **OTHERS}
