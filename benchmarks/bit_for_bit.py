"""`python -m benchmarks.bit_for_bit`: whether this processor computes what others have computed, bit by bit.

Each operation of `benchmarks/arithmetic.py` is computed with what `reproducible: true` pins, and the digest of its
result compared with the committed one. With --scores the scores of preset smoke are compared instead. Where all is
equal, --note adds this processor to those on which equality was seen, and --seen says whether it is one of them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.comparison.sides import in_common, read_both
from workflow.common.errors import UserError, command
from workflow.common.files import read_object, write_json
from workflow.common.options import Parser
from workflow.common.pins import VARIABLE, pinned
from workflow.common.provenance import provenance

ROOT = Path(__file__).resolve().parents[1]
DIGESTS = ROOT / "benchmarks/results/bit_for_bit/digests.json"
SCORES = ROOT / "results/reference/smoke"
SEEN = "equal_on"


def digest(arrays: Iterable[np.ndarray]) -> str:
    """Returns a hash of the bytes of arrays, in their order."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:16]


def digests() -> dict[str, str]:
    """Returns operation -> digest of what this processor computes. Raises UserError in a process that is not pinned."""
    if not pinned():
        raise UserError(f"this compares what is pinned; set {VARIABLE}=1 in the command's environment")
    # Here: they take seconds to load, and whether the process is pinned is known without.
    from benchmarks.arithmetic import results
    from workflow.common.torch_threads import use_threads

    use_threads(1)
    return {name: digest(arrays) for name, arrays in results()}


def compared(known: Mapping[str, str], found: Mapping[str, str]) -> list[str]:
    """Returns the operations whose digests differ, or that only one side has."""
    return [name for name in {**known, **found} if known.get(name) != found.get(name)]


def noted(record: dict[str, Any], processor: str, what: str) -> dict[str, Any]:
    """Returns a record in which a processor stands among those on which `what`, in words, was equal; once."""
    others = [one for one in record.get(SEEN, []) if one["processor"] != processor]
    return {**record, SEEN: [*others, {"processor": processor, "equal": what}]}


def seen(record: Mapping[str, Any], here: Mapping[str, Any]) -> bool:
    """Returns whether a record names the processor of `here` as one on which all was equal, and has its packages."""
    known = any(one["processor"] == here["processor"] for one in record.get(SEEN, []))
    return known and record.get("packages") == here["packages"]


def _operations(again: bool) -> tuple[Path, dict[str, Any], list[str], str]:
    found = digests()
    if again:
        # What others saw was of other digests.
        write_json(DIGESTS, {"operations": found, "packages": provenance()["packages"], SEEN: []})
    record = read_object(DIGESTS, "digests of operations")
    return DIGESTS, record, compared(record["operations"], found), f"{len(found)} operations"


def _scores(folder: Path) -> tuple[Path, dict[str, Any], list[str], str]:
    sides = read_both(SCORES, folder)
    old, new, _ = in_common(sides.old, sides.new)
    rows = [row for row in old if row.metric != "train_seconds"]
    path = SCORES / "provenance.json"
    different = [str(row) for row in rows if old[row] != new[row]]
    of = f"{len(rows)} scores of {len({row.run for row in rows})} rows"
    return path, read_object(path, "the origin of scores"), different, of


@command
def main(argv: list[str] | None = None) -> int:
    """Compares and prints; returns 1 where something differs."""
    parser = Parser(prog="python -m benchmarks.bit_for_bit", description=__doc__)
    parser.add_argument("--scores", type=Path, metavar="FOLDER", help="results/smoke, all rows or some")
    parser.add_argument(
        "--seen", action="store_true",
        help="compare nothing; exit code 0 if smoke's scores were equal on this processor with these packages",
    )  # fmt: skip
    parser.add_argument("--again", action="store_true", help="write the digests anew, as for another version of torch")
    parser.add_argument("--note", action="store_true", help="note this processor where all is equal")
    parser.add_argument("--named", metavar="TEXT", help="what to note it as (default: its own name)")
    options = parser.parse_args(argv)
    if options.seen:
        return int(not seen(read_object(SCORES / "provenance.json", "the origin of scores"), provenance()))
    path, record, different, what = _scores(options.scores) if options.scores else _operations(options.again)
    processor = options.named or provenance()["processor"]
    if different:
        print(f"{processor}: {len(different)} of {what} differ: {', '.join(different[:20])}")
        return 1
    print(f"{processor}: {what} are equal")
    if options.note:
        write_json(path, noted(record, processor, what))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
