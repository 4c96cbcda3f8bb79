"""`python -m methods audit-coverage`: how often the audit's lower bounds lie above an epsilon that is known."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from methods.core.audit import coverage
from workflow.common.files import csv_text
from workflow.common.options import whole

COLUMNS = ("mechanism", "attack", "canaries", "epsilon", "audits", "median_lower", "above", "share_above", "limit")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    parser.add_argument(
        "--audits", type=whole("--audits", 1, 10**6), default=200, help="audits of each mechanism (default 200)"
    )
    parser.add_argument("--attack", nargs="+", default=coverage.ATTACKS, choices=coverage.ATTACKS, help="default all")


def run(arguments: argparse.Namespace) -> int:
    """Prints the table as csv, and returns 1 if any share lies above its limit."""
    rows = []
    for case in coverage.cases(arguments.attack):
        print(f"auditing {case.mechanism} by {case.attack}, {arguments.audits} times", file=sys.stderr)
        rows.append(case.covered(arguments.audits))
    print(csv_text(COLUMNS, [_shown(row) for row in rows]), end="")
    return int(any(row.above > row.limit for row in rows))


def _shown(row: coverage.Coverage) -> dict[str, Any]:
    return {
        "mechanism": row.mechanism,
        "attack": row.attack,
        "canaries": row.canaries,
        "epsilon": round(row.epsilon, 4),
        "audits": row.audits,
        "median_lower": round(row.median_lower, 4),
        "above": row.above,
        "share_above": round(row.above / row.audits, 4),
        "limit": round(row.limit / row.audits, 4),
    }
