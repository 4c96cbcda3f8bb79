"""Malformed inputs of every kind end in one line that names the file, never in a traceback, a hang or a wrong value."""

from __future__ import annotations

import io
import os
import re
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from faults import malformed, malformed_child, malformed_files
from faults.malformed import FINDINGS, Planned
from faults.malformed_readers import READERS
from toys import toy_records

from methods.core.runs.warm_start import make as make_warm_start
from workflow.common.contracts import load_images
from workflow.common.errors import UserError, command
from workflow.common.files import json_or_path, read_csv, read_json, write_npz
from workflow.common.options import Parser, whole
from workflow.common.readers import zip_file
from workflow.common.readers.yaml_text import parse_yaml, read_yaml
from workflow.datasets import idx
from workflow.datasets.pictures import probe

QUICK_READERS, QUICK_COMMANDS = 110, 40  # cases; the whole has over 2,000
SLOW = re.compile(r"train|release|run \(|audit|account|classifiers|fidelity|utility|costs|benchmarks|figures| run$")
SECONDS = 20.0


@pytest.fixture(scope="module")
def files() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="malformed-files-") as folder:
        yield malformed_files.make(Path(folder))


def findings(plan: Sequence[Planned], files: Path, copied: bool) -> list[str]:
    found = list(malformed.outcomes(plan, files, SECONDS, copied))
    print(malformed.table(found))
    return [f"{outcome.kind}: {one.seed}: {outcome.detail}" for one, outcome in found if outcome.kind in FINDINGS]


def test_every_reader_takes_its_own_file_whole(files: Path) -> None:
    """Else a refusal of a spoiled file would say nothing."""
    cases = [partial(lambda reader, folder: malformed.judged_reader(reader, folder, "whole"), one) for one in READERS]
    ends = malformed_child.run(cases, files, SECONDS, copied=False)
    refused = {one.name: end.detail for one, end in zip(READERS, ends, strict=True) if end.kind != "accepted"}
    assert refused == {}


def test_what_once_ended_in_a_traceback_or_a_hang_does_so_no_more(files: Path) -> None:
    readers, commands = malformed.kept()
    assert len(readers) > 40 and len(commands) > 5
    assert findings(readers, files, copied=False) == []
    assert findings(commands, files, copied=True) == []


def test_a_sample_of_malformed_inputs_is_refused_in_one_line_or_accepted_in_range(files: Path) -> None:
    readers, commands = malformed.planned(3 * len(READERS), seed=2026)
    for plan, count, copied in ((readers, QUICK_READERS, False), (commands, QUICK_COMMANDS, True)):
        cheap = [one for one in plan if not SLOW.search(one.group)]
        assert findings(cheap[:: max(1, len(cheap) // count)], files, copied) == []


@pytest.mark.faults
def test_thousands_of_malformed_inputs_are_refused_in_one_line_or_accepted_in_range(files: Path) -> None:
    readers, commands = malformed.planned(2400, seed=1)
    assert len(readers) + len(commands) > 2000
    assert findings(readers, files, copied=False) == []
    assert findings(commands, files, copied=True) == []


def npz_that_claims(shape: tuple[int, ...], kind: str = "|u1") -> bytes:
    head = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + b"\0" * 90
        archive.writestr("images.npy", content)
        archive.writestr("labels.npy", content)
    return buffer.getvalue()


def png_of(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 99)) + chunk(b"IEND", b"")


BILLION = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join([f'*{old}'] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("read", "content", "says"),
    [
        (load_images, npz_that_claims((2**31, 1, 28, 28)), "images holds 90 bytes where its header says uint8"),
        (load_images, npz_that_claims((3,), "|O"), "Python objects"),
        (load_images, npz_that_claims((2**62, 2**62)), "images holds 90 bytes"),
        (idx.read_bytes, zlib.compressobj(9, 8, 31).compress(b"") + b"\0" * 9, "damaged gzip file"),
        (lambda path: probe([str(path)], "x"), png_of(30_000, 30_000), "more pixels than 89,478,485; make it smaller"),
        (lambda path: probe([str(path)], "x"), png_of(12_000, 10_000), "is 12000x10000, 120,000,000 pixels; at most"),
        (read_json, b"[" * 200_000, "it is nested too deep"),
        (read_json, b'{"delta": NaN}', "NaN is no number of JSON"),
        (read_json, b'{"delta": 1e400}', "the number 1e400 is too large"),
        (read_json, b'{"seed": 1, "seed": 2}', "key 'seed' stands twice"),
        (read_json, '{"a": 1}'.encode("utf-16"), "is not readable JSON"),
        (read_json, b'{"a": "\0"}', "null characters"),
        (read_yaml, BILLION.encode(), "its anchors repeat themselves to more than 100,000 values"),
        (read_yaml, b"a: &a [1, *a]", "an anchor in line 1 holds itself"),
        (read_yaml, b"a: 1\nb: 2\na: 3", "key 'a' in line 3 stands twice"),
        (read_yaml, b"a: {b: 1, 2024: 2}", "a key in line 1 is no text; put it in quotes"),
        (read_yaml, b"!!python/object/apply:os.system [true]", "which is no plain value"),
        (read_yaml, b"delta: .nan", ".nan, which is no number"),
        (read_yaml, b"[" * 700, "it is nested too deep"),
        (read_csv, b'a,b\n1,"' + b"x" * 200_000 + b'"\n', "line 2: field larger than field limit"),
        (read_csv, b'a,b\n1,"x\n', "unexpected end of data"),
        (read_csv, b"a,b\n1,\0\n", "null characters"),
    ],
)  # fmt: skip
def test_sizes_and_values_are_bounded_before_anything_is_made_of_them(tmp_path: Path, read, content, says) -> None:
    path = tmp_path / "given"
    path.write_bytes(content)
    with pytest.raises(UserError) as refusal:
        read(path)
    assert says in str(refusal.value) and str(path) in str(refusal.value)


def test_a_gzip_bomb_is_unpacked_no_further_than_its_limit(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(idx, "MOST_BYTES", 1 << 20)
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    (tmp_path / "bomb.gz").write_bytes(packer.compress(bytes(1 << 24)) + packer.flush())
    with pytest.raises(UserError, match="unpacks to more than 1,048,576 bytes"):
        idx.read_bytes(tmp_path / "bomb.gz")


@pytest.mark.parametrize("read", [load_images, read_json, read_csv, read_yaml, idx.read_bytes, json_or_path])
def test_a_pipe_a_folder_a_device_and_a_circle_of_links_are_refused_at_once(tmp_path: Path, read) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "circle").symlink_to("circle")
    for path in (tmp_path / "pipe", tmp_path, Path("/dev/zero"), tmp_path / "circle", tmp_path / ("x" * 300)):
        with pytest.raises(UserError) as refusal:
            read(path)
        assert path.name[:60] in str(refusal.value)


def test_plain_yaml_is_what_it_always_was() -> None:
    text = "a: &x {b: 1, c: [.inf, 1.0e-5, yes]}\nd: *x\ne: {<<: *x, b: 2}\nf: 2024-01-01\n"
    shared = {"b": 1, "c": [float("inf"), 1e-5, True]}
    assert parse_yaml(text) == {"a": shared, "d": shared, "e": {**shared, "b": 2}, "f": "2024-01-01"}
    assert parse_yaml("") is None


def test_an_array_on_disk_is_read_as_it_was_written(tmp_path: Path) -> None:
    images = np.random.default_rng(3).integers(0, 256, (5, 3, 8, 8), dtype=np.uint8)
    write_npz(tmp_path / "a.npz", images=images, labels=np.arange(5))
    read = load_images(tmp_path / "a.npz")
    assert (read.images == images).all() and (read.labels == np.arange(5)).all()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--thr", "1"], "unrecognized arguments: --thr 1; see toy --help"),
        (["--threads"], "argument --threads: expected one argument; see toy --help"),
        (["--threads", "1_0"], "--threads must be a whole number, got '1_0'"),
        (["--threads", "٣"], "--threads must be a whole number"),
        (["--threads", "9" * 5000], "--threads must be at most 2147483647"),
        (["--threads", "0"], "--threads must be at least 1, got 0"),
        (["a\nb"], "unrecognized arguments: a b"),
        (["x" * 9000], "..."),
        (["\0"], "an argument holds a null character"),
    ],
)
def test_a_wrong_command_line_is_one_line_without_the_usage(capsys, arguments, says) -> None:
    @command
    def main(argv=None):
        parser = Parser(prog="toy")
        parser.add_argument("--threads", type=whole("--threads"), default=1)
        parser.parse_args(argv)

    assert main(arguments) == 2
    shown = capsys.readouterr().err
    assert shown.startswith("error: ") and says in shown and shown.count("\n") == 1 and len(shown) < 2200


def test_a_warm_start_does_not_empty_a_folder_of_other_files(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match=r"holds thesis.tex, which no warm start left there"):
        make_warm_start("gs_wgan", {"num_shards": 6}, malformed_files.PUBLIC, toy_records(), 0, None, tmp_path)
    assert (tmp_path / "thesis.tex").exists()


@pytest.mark.parametrize(("limit", "refused"), [("300", True), ("max", False), (str(1 << 40), False), ("", False)])
def test_no_array_is_larger_than_a_container_may_take(tmp_path: Path, monkeypatch, limit, refused):
    (tmp_path / "limit").write_text(limit + "\n")
    monkeypatch.setattr(zip_file, "_LIMIT", tmp_path / "limit")
    np.savez_compressed(tmp_path / "a.npz", images=np.zeros((1, 1, 20, 20), np.uint8), labels=np.zeros(1, np.int64))
    if refused:
        with pytest.raises(UserError, match="images is 400 bytes, more than the 300 of this machine's memory"):
            load_images(tmp_path / "a.npz")
    else:
        assert len(load_images(tmp_path / "a.npz")) == 1
