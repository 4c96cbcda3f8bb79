"""What was promised about the records behind a release, as data and in words: a function of the plan alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from methods.core.released.mechanism import in_words
from methods.core.runs.plan import Plan
from workflow.common.provenance import added_code, provenance

ADJACENCY = {
    "replace_one": "two sets of pictures are neighbours if one picture, with its label, is exchanged for any other"
    " (replace one)",
    "add_or_remove": "two sets of pictures are neighbours if one is the other and one more picture, with its label (add"
    " or remove one); the number of pictures is given away and stated alike for both, as if the one that is left out"
    " were there and added nothing",
}
COUNT = (
    "the sound count: an upper bound on epsilon for all noisy answers of the whole training together, by privacy loss"
    " distributions, and by the exact Gaussian curve where no records are drawn"
)
NOISE = (
    "All noise and all secret draws follow from a key of the operating system's random source, which lived in the"
    " memory of the training program, was never written, and does not follow from anything in this folder. The seed of"
    " the first weights and of public draws is left out as well."
)
UNIT = (
    "One record is one picture with its label, and the promise is made for one. For a person with k pictures it is"
    " k times the epsilon at a delta of up to k * e^((k - 1) * epsilon) times the one stated, which at a large epsilon"
    " is soon above 1 and no promise."
)
NOT_COVERED = (
    "Other releases made from the same pictures, by this method or any other: their epsilons and deltas add up.",
    "Several pictures of one person, and a picture that is there twice: see Neighbours.",
    "Choosing the method or its settings by looking at results on these pictures.",
    "Names of classes, the number of pictures and of classes, and the size of the images: they are given as they are.",
    "What the training machine shows of itself, such as running time, memory and power, and anyone who watched it or"
    " has access to it.",
    "Scores or statistics of the original pictures that are published elsewhere.",
    "Floating point: noise is a normal or Laplace number rounded to a public grid, not one of an exact discrete law."
    " The difference is about 2^-38 of epsilon for each coordinate of each Gaussian answer, and up to 2^-41 of delta"
    " for each Laplace one (docs/privacy.md, \"What no count covers\").",
    "Errors in the code: it is tested and audited, not verified.",
)  # fmt: skip


def privacy_facts(plan: Plan, class_names: Sequence[str], deduced: Sequence[str] = ()) -> dict[str, Any]:
    """Returns the content of privacy.json: JSON values, without seed, times, counts of classes, or paths.

    `deduced` names what of the images' form was taken from the pictures, as a data set's card does.
    """
    return {
        "epsilon": plan.costs["sound"],
        "epsilon_asked_for": plan.budget.epsilon,
        "delta": plan.budget.delta,
        "count": COUNT,
        "adjacency": {name: ADJACENCY[name] for name in adjacencies(plan)},
        "unit": UNIT,
        "method": plan.method,
        "sources": list(plan.method_class.SOURCES),
        "mechanism": [in_words(release) for release in plan.releases],
        "assumed": assumed(plan, deduced),
        "noise": NOISE,
        "not_covered": list(NOT_COVERED),
        "code": code_version(),
        "class_names": list(class_names),
        "plan": published_plan(plan),
    }


def adjacencies(plan: Plan) -> list[str]:
    """Returns the relations of neighbours that the plan's releases are counted for, each once."""
    return sorted({release.adjacency for release in plan.releases})


def assumed(plan: Plan, deduced: Sequence[str] = ()) -> list[str]:
    """Returns in words what the promise rests on; `deduced` as in `privacy_facts`."""
    public = plan.public
    channels, height, width = public.image_shape
    colour = "grey" if channels == 1 else "colour"
    return [
        f"These are public: the number of training pictures ({public.num_train}), the size of the images"
        f" ({height} x {width}, {colour}) and how pictures became such images (crop or padding, window, background),"
        f" the number of classes ({public.num_classes}), their names and that of the data set.",
        *_taken(deduced),
        "The method, its settings, epsilon and delta were chosen without looking at these pictures. If they were not,"
        " that choice is not counted.",
        "Nobody read the key of the noise from the memory of the training program.",
    ]


def _taken(deduced: Sequence[str]) -> list[str]:
    if not deduced:
        return []
    return [
        f"The {' and the '.join(deduced)} of the images were not stated beforehand but deduced from the training"
        " pictures, and are given as they are: what they tell of these pictures is not counted."
    ]


def code_version() -> dict[str, Any]:
    """Returns the commit of the code and whether its files differed from it; None for what is not known.

    A method's file that was never committed differs too: whoever has the commit alone cannot load its generator.
    """
    made_by = provenance()
    modified = made_by["modified"]
    return {"commit": made_by["commit"], "modified": None if modified is None else modified or bool(added_code())}


def published_plan(plan: Plan) -> dict[str, Any]:
    """Returns what `Plan.from_dict` takes, but for `run` and `seed`, which whoever loads the generator chooses."""
    left_out = {"run", "seed", "eps_published"}
    content = {name: value for name, value in plan.to_dict().items() if name not in left_out}
    # A name only: what stands before it may be a folder of the machine.
    name = PurePath(plan.public.dataset).name
    return {**content, "dataset": name, "public": {**content["public"], "dataset": name}}
