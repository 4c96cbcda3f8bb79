"""How the settings of a preset's rows were chosen, as lines of a page, from what the preset says."""

from __future__ import annotations

import re
import textwrap

from methods.core import registry
from workflow import presets
from workflow.datasets.sources import NAMES

PLACE = re.compile(r"^<!-- chosen: (\w+) -->\n\n((?:(?:- |  ).*\n)*)", re.MULTILINE)
_WIDTH = 120


def filled(page: str) -> str:
    """Returns a page with the lines below each `<!-- chosen: PRESET -->` written anew.

    Raises UserError for an unknown preset.
    """

    def written(place: re.Match[str]) -> str:
        return f"<!-- chosen: {place[1]} -->\n\n{lines(place[1])}" + ("" if place[2] else "\n")

    return PLACE.sub(written, page)


def lines(preset: str) -> str:
    """Returns one item of a Markdown list for each sentence."""
    config = presets.load({"preset": preset}, datasets=NAMES, methods=registry, protocol_keys=None)
    wrapped = (
        textwrap.fill(f"- {sentence}", _WIDTH, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
        for sentence in config.chosen_on()
    )
    return "".join(f"{item}\n" for item in wrapped)
