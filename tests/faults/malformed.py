"""Malformed inputs over every reader and every command line: `python tests/faults/malformed.py [--cases N] [--seed S]`.

Each case must end refused, by one line, or accepted with a value in range; never in a traceback, a hang, or with more
memory than a case may have. Prints a line for each reader and command line; exit code 1 if there is any finding.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(folder) for folder in (ROOT, ROOT / "tests") if str(folder) not in sys.path]

from faults import malformed_child, malformed_files  # noqa: E402
from faults.malformed_child import Case, Outcome, judged_command  # noqa: E402
from faults.malformed_commands import COMMANDS, Command, furnish, spoiled  # noqa: E402
from faults.malformed_mutations import KINDS, PLACED, place  # noqa: E402
from faults.malformed_readers import READERS, Reader  # noqa: E402

from workflow.common.errors import UserError  # noqa: E402
from workflow.common.files import read_json  # noqa: E402

CORPUS = Path(__file__).resolve().parent / "corpus"
READER_SECONDS, COMMAND_SECONDS = 10.0, 60.0
FINDINGS = ("traceback", "hang", "wrong", "lines")


@dataclass(frozen=True)
class Planned:
    """A case with the reader or command line it is of, and the seed that makes it again."""

    group: str
    seed: str
    case: Case


def read_spoiled(reader: Reader, seed: str, folder: Path) -> Outcome:
    """Spoils the reader's file as `seed` says, and reads it."""
    rng = random.Random(seed)
    path = folder / reader.target
    whole = path.read_bytes()
    if rng.random() < 0.06:
        return judged_reader(reader, folder, place(path, rng.choice(PLACED)))
    mutation = rng.choice(KINDS[reader.kind])
    try:
        content = mutation(whole, rng)
    except (UnicodeEncodeError, KeyError, IndexError):
        content = whole[: len(whole) // 2]
    path.unlink()
    path.write_bytes(content)
    return judged_reader(reader, folder, mutation.__name__)


def judged_reader(reader: Reader, folder: Path, how: str) -> Outcome:
    """Returns how a reader ends on what lies in `folder`; `how` names what was done to its file."""
    try:
        value = reader.read(folder)
    except UserError as error:
        return Outcome("refused" if " ".join(str(error).split()) else "lines", f"{how}: {str(error)[:300]}")
    if not reader.check(value):
        return Outcome("wrong", f"{how}: accepted {str(value)[:200]}")
    return Outcome("accepted", how)


def run_spoiled(command: Command, seed: str, folder: Path) -> Outcome:
    """Calls a command with the arguments that `seed` spoils."""
    furnish(folder)
    arguments = spoiled(command, random.Random(seed))
    outcome = judged_command(lambda: command.run(arguments), command.codes)
    return Outcome(outcome.kind, f"{arguments!a}: {outcome.detail}"[:600])


def read_kept(reader: Reader, entry: Mapping[str, str], folder: Path) -> Outcome:
    """Reads what a line of the corpus keeps: a file, or something that is none, in place of the reader's own."""
    path = folder / reader.target
    if "misplaced" in entry:
        return judged_reader(reader, folder, place(path, entry["misplaced"]))
    path.unlink()
    path.write_bytes((CORPUS / entry["file"]).read_bytes())
    return judged_reader(reader, folder, entry["file"])


def run_kept(command: Command, arguments: Sequence[str], folder: Path) -> Outcome:
    """Calls a command with arguments that the corpus keeps."""
    furnish(folder)
    outcome = judged_command(lambda: command.run(list(arguments)), command.codes)
    return Outcome(outcome.kind, f"{arguments!a}: {outcome.detail}"[:600])


def kept() -> tuple[list[Planned], list[Planned]]:
    """Returns the cases of the corpus: each once ended in a traceback, a hang or a value that cannot be."""
    index = read_json(CORPUS / "index.json")
    readers, commands = {reader.name: reader for reader in READERS}, {command.name: command for command in COMMANDS}
    of_readers = [
        Planned(entry["reader"], f"corpus/{entry}", partial(read_kept, readers[entry["reader"]], entry))
        for entry in index["readers"]
    ]
    of_commands = [
        Planned(one["command"], f"corpus/{one}", partial(run_kept, commands[one["command"]], one["arguments"]))
        for one in index["commands"]
    ]
    return of_readers, of_commands


def planned(cases: int, seed: int) -> tuple[list[Planned], list[Planned]]:
    """Returns about `cases` cases, two thirds of them of readers, spread evenly; and those of command lines."""
    each = max(1, round(cases * 2 / 3 / len(READERS)))
    per_command = max(1, round(cases / 3 / len(COMMANDS)))
    of_readers = [
        Planned(reader.name, key, partial(read_spoiled, reader, key))
        for reader in READERS for number in range(each) if (key := f"{seed}/{reader.name}/{number}")
    ]  # fmt: skip
    of_commands = [
        Planned(command.name, key, partial(run_spoiled, command, key))
        for place, command in enumerate(COMMANDS) for number in range(per_command)
        if (key := f"{seed}/{place} {command.name}/{number}")
    ]  # fmt: skip
    return of_readers, of_commands


def outcomes(
    plan: Sequence[Planned], files: Path, seconds: float, copied: bool
) -> Iterator[tuple[Planned, Outcome]]:
    """Yields each case with its outcome; `copied` as in `malformed_child.run`."""
    yield from zip(plan, malformed_child.run([one.case for one in plan], files, seconds, copied), strict=True)


def table(found: Sequence[tuple[Planned, Outcome]]) -> str:
    """Returns the counts of each reader and command line, and of all."""
    counts: dict[str, Counter[str]] = {}
    for one, outcome in found:
        counts.setdefault(one.group, Counter())[outcome.kind] += 1
    total: Counter[str] = sum(counts.values(), Counter())
    heads = ("refused", "accepted", "traceback", "hang", "wrong", "lines")
    width = max(map(len, counts))
    rows = [f"{'':{width}} {'cases':>7}" + "".join(f"{head:>11}" for head in heads)]
    for name, count in [*counts.items(), ("all", total)]:
        rows.append(f"{name:{width}} {sum(count.values()):7}" + "".join(f"{count[head]:11}" for head in heads))
    return "\n".join(rows)


def main(argv: list[str] | None = None) -> int:
    """Runs the cases, prints each finding and the table."""
    parser = argparse.ArgumentParser(prog="python tests/faults/malformed.py", description=__doc__)
    parser.add_argument("--cases", type=int, default=2400, help="about so many (default 2400)")
    parser.add_argument("--seed", type=int, default=0, help="default 0")
    parser.add_argument("--only", default="", help="readers and command lines whose name holds this text")
    parser.add_argument("--refusals", action="store_true", help="print what each refusal says as well")
    options = parser.parse_args(argv)
    found: list[tuple[Planned, Outcome]] = []
    with tempfile.TemporaryDirectory(prefix="malformed-files-") as folder:
        files = malformed_files.make(Path(folder))
        cases = [old + new for old, new in zip(kept(), planned(options.cases, options.seed), strict=True)]
        for plan, seconds, copied in zip(cases, (READER_SECONDS, COMMAND_SECONDS), (False, True), strict=True):
            for one, outcome in outcomes([one for one in plan if options.only in one.group], files, seconds, copied):
                found.append((one, outcome))
                if outcome.kind in FINDINGS or options.refusals:
                    print(f"{outcome.kind}: {one.seed}: {outcome.detail!a}", flush=True)
    print(table(found))
    return int(any(outcome.kind in FINDINGS for _, outcome in found))


if __name__ == "__main__":
    raise SystemExit(main())
