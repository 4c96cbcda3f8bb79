"""What the evaluation says of itself: its sources and each departure from them."""

from __future__ import annotations

import subprocess
import sys

from evaluation.protocol import SOURCES
from workflow.common.departures import EVALUATION


def test_sources_are_short_sentences_and_all_but_the_first_name_a_departure():
    assert isinstance(SOURCES, tuple) and SOURCES is EVALUATION and len(set(SOURCES)) == len(SOURCES)
    assert [source for source in SOURCES if not 0 < len(source.strip()) <= 330 or "\n" in source] == []
    assert [source for source in SOURCES[1:] if not source.startswith("departure: ")] == []


def test_the_departures_can_be_printed_alone():
    command = [sys.executable, "-m", "evaluation.protocol"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines() == list(SOURCES)
