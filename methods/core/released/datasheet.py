"""DATASHEET.md: one page, for whoever receives a release and for whoever has to allow it."""

from __future__ import annotations

import inspect
import math
import re
import textwrap
from collections.abc import Sequence

from methods.core.release import emptiness
from methods.core.released import privacy_facts
from methods.core.released.mechanism import in_words
from methods.core.released.parquet_file import FILE
from methods.core.runs.plan import Plan
from workflow.common.rounding import up

_CHANGED = {"replace_one": "been another one", "add_or_remove": "not been there"}
_WIDTH = 110

_PARQUET = """
`{file}` holds the images and the labels with their names, for Hugging Face `datasets`:

```python
from datasets import load_dataset
released = load_dataset("parquet", data_files="{file}", split="train")
```
"""

_TEXT = """\
# Datasheet of a set of synthetic images

The images here are made by a generator that was trained under differential privacy on {records} private pictures
(`{dataset}`). This folder holds generated images alone. What is promised:

| epsilon | delta | budget asked for | count |
| --- | --- | --- | --- |
| {epsilon} | {delta} | {asked} | sound |

**What that means.** Whatever somebody concludes about one picture from this folder, knowing the code and all the other
pictures, is at most e^epsilon = {factor} times as likely as it would be had that picture {changed}, but for a
probability of delta. That is the limit in the worst case, for all files here together. The smaller epsilon, the
stronger it is: at 1 it is strong, at 10 it rules out little by itself.{empty}

**Neighbours.** {adjacency} {unit}

**Count.** Epsilon is {count}; it is rounded up here, and whole in `privacy.json`.

## Mechanism

Method `{method}`. {summary} Source: {source}. Departures from it stand in `privacy.json`.
All that training let out of the records is:

{mechanism}

The generator is computed from these noisy answers and from numbers that do not depend on the pictures; the images are
drawn from the generator. {noise}

Code: {code}.

## Assumed

{assumed}

## Not covered

{not_covered}

## Use

How many images each class has was chosen and says nothing about the original pictures. Synthetic images may lack what
is rare, and may show what is not so: check on real pictures whatever you conclude from them.

`images/<class>/*.png` are the images in `samples.npz`, in its order within each class; `contact_sheet.png` shows some.
In the names of these folders `_` stands for blanks and other signs that not every system allows.
Label i is called `class_names[i]` in `privacy.json`; programs that number the folders by name may number otherwise.

```python
import json, numpy, torch
facts = json.load(open("privacy.json", encoding="utf-8"))
released = numpy.load("samples.npz")  # images uint8 [N, {channels}, {height}, {width}]

# More images, at no further cost in privacy; this needs the code named above.
from methods.core.runs import sample
from methods.core.runs.plan import Plan
from safetensors.torch import load_file
plan = Plan.from_dict({{**facts["plan"], "run": "release", "seed": 1}})  # another seed, other images
images, labels = sample.draw(plan, load_file("generator.safetensors"), 100, torch.device("cpu"))
```
{parquet}"""


def datasheet(plan: Plan, parquet: bool, deduced: Sequence[str] = ()) -> str:
    """Returns the Markdown text; `parquet`: there is a Parquet file; `deduced` as in `privacy_facts`."""
    channels, height, width = plan.public.image_shape
    text = _TEXT.format(
        records=plan.public.num_train,
        dataset=privacy_facts.published_plan(plan)["dataset"],
        # The sheet may promise less than the plan, never more.
        epsilon=up(plan.costs["sound"], ".4f"),
        factor=_factor(plan.costs["sound"]),
        empty=_empty(plan),
        changed=" or ".join(_CHANGED[name] for name in privacy_facts.adjacencies(plan)),
        delta=repr(plan.budget.delta),
        asked=f"epsilon {plan.budget.epsilon!r}",
        adjacency=_adjacency(plan),
        unit=privacy_facts.UNIT,
        count=privacy_facts.COUNT,
        method=plan.method,
        summary=_summary(plan),
        source=plan.method_class.SOURCES[0],
        mechanism=_points([in_words(release) for release in plan.releases]),
        noise=privacy_facts.NOISE,
        code=_code(),
        assumed=_points(privacy_facts.assumed(plan, deduced)),
        not_covered=_points(privacy_facts.NOT_COVERED),
        channels=channels,
        height=height,
        width=width,
        parquet=_PARQUET.format(file=FILE) if parquet else "",
    )
    return _wrapped(text)


def _wrapped(text: str) -> str:
    """Returns Markdown with its paragraphs and points filled to one width; tables and code stay as they are."""
    blocks = re.split(r"(^```.*?^```$|^\|.*?$)", text, flags=re.MULTILINE | re.DOTALL)
    return "".join(block if block.startswith(("```", "|")) else _filled(block) for block in blocks)


def _filled(prose: str) -> str:
    # A new line begins a paragraph, a point or a heading, or goes on with the one before.
    whole = re.sub(r"(?<=[^\n])\n(?=[^\n#-])", " ", prose)
    return "\n".join(
        textwrap.fill(
            line, _WIDTH, subsequent_indent="  " if line.startswith("- ") else "",
            break_long_words=False, break_on_hyphens=False,
        )
        for line in whole.split("\n")
    )  # fmt: skip


def _factor(epsilon: float) -> str:
    # e^700 is near the end of double precision.
    if epsilon > 700:
        return "more than 10^300"
    # A promise is rounded up, to three digits.
    unit = 10.0 ** (math.floor(epsilon / math.log(10)) - 2)
    factor = math.ceil(math.exp(epsilon) / unit) * unit
    return f"{factor:.3g}" if factor < 100 else f"{factor:,.0f}" if factor < 1e9 else f"{factor:.3g}"


def _empty(plan: Plan) -> str:
    why = emptiness(plan.costs["sound"], plan.budget.delta)
    return f"\n\n**This epsilon promises next to nothing**: {why}." if why else ""


def _points(texts: list[str] | tuple[str, ...]) -> str:
    return "\n".join(f"- {text}" for text in texts)


def _summary(plan: Plan) -> str:
    first = (inspect.getdoc(plan.method_class) or "").split("\n\n")[0]
    return " ".join(first.split())


def _adjacency(plan: Plan) -> str:
    relations = privacy_facts.adjacencies(plan)
    words = [privacy_facts.ADJACENCY[name] for name in relations]
    if len(words) == 1:
        return f"{words[0][0].upper()}{words[0][1:]}."
    owners = [", ".join(f"`{one.name}`" for one in plan.releases if one.adjacency == name) for name in relations]
    listed = "; ".join(f"for {names}, {text}" for names, text in zip(owners, words, strict=True))
    return f"The answers differ in what they protect: {listed}."


def _code() -> str:
    version = privacy_facts.code_version()
    if version["commit"] is None:
        return "version unknown, it was not run from a git checkout"
    changed = {True: "with files changed or added since", False: "unchanged", None: "whether changed is not known"}
    return f"commit {version['commit']}, {changed[version['modified']]}"
