"""Ways to spoil a small valid file, by the kind of its content; each is a function of the bytes and a seeded generator.

A mutation returns bytes, or places something else than a file (a folder, a pipe, a link) and returns None.
"""

from __future__ import annotations

import io
import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from faults.malformed_containers import (
    bomb,
    idx_head,
    npz_arrays,
    npz_head,
    png_size,
    safetensors_head,
    zip_entry,
)

Mutation = Callable[[bytes, random.Random], bytes]
TEXTS = (
    "", " ", "nan", "-inf", "inf", "-1", "1.7", "-0.1", "1e999", "1e308", "1_0", "0x10", "٣", "9" * 40, "9" * 5000,
    "x" * 300, "x" * 200_000, "../../etc/passwd", "/etc/passwd", "C:\\a", "a\\..\\b", "a\0b", "\u202e", "ü", "=1+1",
    "true", "null", "None", "~nosuchuser/x",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, [], {}, "", "x", -1, 0, 1, 1.5, 2**31, 2**63, 10**400, float("nan"), float("inf"), -float("inf"), 1e308,
    [[]], [None], {"": None}, "\ud800", "a\nb", "a\0b", "../../x", "x" * 100_000, [1] * 1000, -0.0,
)  # fmt: skip


def cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def flip(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8, 64))):
        if changed:
            changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def flip_head(data: bytes, rng: random.Random) -> bytes:
    """Headers are short: hit them often."""
    return flip(data[:128], rng) + data[128:]


def flip_tail(data: bytes, rng: random.Random) -> bytes:
    return data[:-128] + flip(data[-128:], rng)


def blank(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data) + 1)
    count = rng.randrange(1, 200)
    return data[:start] + bytes([rng.choice((0, 255))]) * len(data[start : start + count]) + data[start + count :]


def insert(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data) + 1)
    return data[:start] + rng.randbytes(rng.choice((1, 2, 16, 1000))) + data[start:]


def drop(data: bytes, rng: random.Random) -> bytes:
    start = rng.randrange(len(data) + 1)
    return data[:start] + data[start + rng.randrange(1, 100) :]


def twice(data: bytes, rng: random.Random) -> bytes:
    return data + data


def empty(data: bytes, rng: random.Random) -> bytes:
    return rng.choice((b"", b"\0", b"\n", b"\xef\xbb\xbf", b"\0" * 4096, b"{}", b"[]", b"null", b"\xff\xfe"))


def noise(data: bytes, rng: random.Random) -> bytes:
    return rng.randbytes(rng.randrange(1, 3000))


def encoded(data: bytes, rng: random.Random) -> bytes:
    """A text in another encoding, with a mark, or with bytes of none."""
    text = data.decode("utf-8", "replace")
    kind = rng.choice(("utf-16", "utf-32", "utf-8-sig", "cp037"))
    return rng.choice(
        (text.encode(kind, "replace"), data + b"\xff", data.replace(b"\n", b"\r"), b"\0".join([data[:9], data[9:]]))
    )


def other_format(data: bytes, rng: random.Random) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, a=np.zeros(3))
    return rng.choice((
        buffer.getvalue(), b"\x89PNG\r\n\x1a\n" + data[:20], b"\x1f\x8b" + data[:30], b"PK\x03\x04" + data[:40],
        b"%PDF-1.4", b"\x93NUMPY\x01\x00v\x00", b"<html></html>", b"\x80\x04K\x01.", b"GIF89a" + data[:10],
    ))  # fmt: skip


BYTES: tuple[Mutation, ...] = (
    cut, cut, flip, flip, flip_head, flip_head, flip_tail, blank, insert, drop, twice, empty, noise, other_format,
)  # fmt: skip


def json_value(data: bytes, rng: random.Random) -> bytes:
    """Another value, a missing, a renamed or a second key, at a random place of a JSON text (or of its first line)."""
    first, *rest = data.decode().splitlines() if data.count(b"\n{") else [data.decode()]
    value = json.loads(first)
    places = list(_places(value))
    holder, key = rng.choice(places)
    act = rng.choice(("set", "set", "set", "set", "drop", "name", "type", "scale"))
    if act == "drop":
        del holder[key]
    elif act == "name" and isinstance(holder, dict):
        holder[key + "x"] = holder.pop(key)
    elif act == "type":
        holder[key] = [holder[key]] if rng.random() < 0.5 else str(holder[key])
    elif act == "scale" and isinstance(holder[key], int | float):
        holder[key] = holder[key] * rng.choice((-1, 0, 1e-9, 1e9, 1e300))
    else:
        holder[key] = rng.choice(VALUES)
    return "\n".join([json.dumps(value), *rest]).encode("utf-8", "surrogatepass")


def _places(value: Any) -> Any:
    keys = value if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])


def json_text(data: bytes, rng: random.Random) -> bytes:
    inner = data.strip().removeprefix(b"{").removesuffix(b"}")
    deep = rng.choice((b"[", b'{"a":'))
    return rng.choice((
        b"{" + inner + b"," + inner + b"}", deep * 100_000, b'{"a":' + b"[" * 5000 + b"]" * 5000 + b"}", b"NaN",
        b"-Infinity", b"9" * 5000, b'"\\ud800"', b"{" + inner + b',"a":NaN}', b"{" + inner + b',"a":1e999}',
        b"{" + inner + b",}", b"'a'", data + data, b"[" + data + b"]", b'{"a": "' + b"x" * 1_000_000 + b'"}',
    ))  # fmt: skip


def csv_cell(data: bytes, rng: random.Random) -> bytes:
    rows = [line.split(",") for line in data.decode().splitlines()]
    row = rng.choice(rows)
    row[rng.randrange(len(row))] = rng.choice(TEXTS)
    return "\n".join(map(",".join, rows)).encode()


def csv_shape(data: bytes, rng: random.Random) -> bytes:
    lines = data.decode().splitlines()
    place = rng.randrange(len(lines))
    changed = rng.choice((
        [*lines, lines[place]], lines[1:], lines[:1], [line + ",1" for line in lines], lines[::-1],
        [line.rsplit(",", 1)[0] for line in lines], [lines[0] + "," + lines[0].split(",")[0], *lines[1:]],
        ['"' + lines[0], *lines[1:]], [*lines, '"' + "x" * 200_000 + '"'], [*lines, "", ""], [*lines, "\0"],
        [line.replace(",", ";") for line in lines], [line.replace(",", "\t") for line in lines],
        [lines[0].upper(), *lines[1:]], [lines[0], *[lines[-1]] * 3], [*lines, '"a\nb",' * 3],
    ))  # fmt: skip
    return "\n".join(changed).encode()


def yaml_text(data: bytes, rng: random.Random) -> bytes:
    text = data.decode()
    bomb = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    )
    lines = text.splitlines()
    key = rng.choice([line for line in lines if ":" in line])
    name = key.split(":")[0]
    return rng.choice((
        bomb.encode(), (text + bomb).encode(), b"a: &a [*a]\n", (text + "zz: &z {z: *z}\n").encode(), b"&a {a: *a}",
        b"[" * 3000, b"a: " + b"{a: " * 2000, b"!!python/object/apply:os.system [true]",
        text.replace(":", "", 1).encode(),
        text.replace(key, f"{name}: &q [*q]").encode(), text.replace(key, f"{name}: 2024-01-01").encode(),
        text.replace(key, f"{name}: !!binary aGk=").encode(), text.replace(key, f"{name}: !!set {{a, b}}").encode(),
        text.replace(key, f"{name}: .nan").encode(), text.replace(key, f"{name}: {'9' * 5000}").encode(),
        (text + "\t" + key).encode(), (text + key + "\n" + key).encode(), ("? [1, 2]\n: 3\n" + text).encode(),
        (text + "\n---\na: 1\n").encode(), text.replace(key, f"{name}:").encode(), f"1: 2\n{text}".encode(),
        text.replace(key, f"{name}: 0x{'f' * 300}").encode(), b"%YAML 9.9\n---\na: 1", text.replace(" ", "\t").encode(),
        f"null: 2\n{text}".encode(), f".nan: 2\n{text}".encode(), f"true: 2\n{text}".encode(), b"*x", b"a: *x",
        text.replace(key, f"{name}: 1:30:59").encode(), text.replace(key, f"{name}: {'x' * 100_000}").encode(),
    ))  # fmt: skip


def yaml_value(data: bytes, rng: random.Random) -> bytes:
    import yaml

    value = yaml.safe_load(data)
    holder, key = rng.choice(list(_places(value)))
    if rng.random() < 0.2:
        del holder[key]
    elif rng.random() < 0.2 and isinstance(holder, dict):
        holder[rng.choice((None, 1, 1.5, True, "", "x", "a b", "ü", "real", "../x", "x" * 300))] = holder.pop(key)
    else:
        holder[key] = rng.choice([value for value in VALUES if value != 10**400])
    return yaml.safe_dump(value, allow_unicode=False).encode("utf-8", "replace")


KINDS: dict[str, tuple[Mutation, ...]] = {
    "json": (*BYTES, encoded, json_text, json_text, json_text, *[json_value] * 14),
    "jsonl": (*BYTES, encoded, json_text, json_text, *[json_value] * 10),
    "csv": (*BYTES, encoded, encoded, *[csv_shape] * 6, *[csv_cell] * 10),
    "text": (*BYTES, encoded, encoded, encoded),
    "yaml": (*BYTES, encoded, *[yaml_text] * 10, *[yaml_value] * 12),
    "npz": (*BYTES, *[npz_arrays] * 10, *[npz_head] * 6, *[zip_entry] * 4, bomb),
    "zip": (*BYTES, *[zip_entry] * 8, bomb),
    "picture": (*BYTES, *[flip] * 6),
    "png": (*BYTES, *[flip] * 2, *[png_size] * 6),
    "idx": (*BYTES, *[idx_head] * 6),
    "gz": (*BYTES, *[idx_head] * 3, bomb),
    "safetensors": (*BYTES, *[safetensors_head] * 10),
}


PLACED = ("folder", "pipe", "circle", "nothing", "endless", "dangling")


def place(path: Path, kind: str) -> str:
    """Puts something else than a file at `path`, one of PLACED, and returns it."""
    path.unlink(missing_ok=True)
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "circle":
        path.symlink_to(path.name)
    elif kind == "endless":
        path.symlink_to("/dev/zero")
    elif kind == "dangling":
        path.symlink_to("nowhere/at/all")
    return kind
