"""Ways to spoil npz, zip, PNG, IDX and safetensors where it hurts: headers and directories that lie, and bombs."""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile
import zlib

import numpy as np


def npz_arrays(data: bytes, rng: random.Random) -> bytes:
    """The same npz with one array missing, of another type or shape, in Fortran's order, pickled, or with NaN."""
    with np.load(io.BytesIO(data)) as stored:
        arrays = {name: stored[name] for name in stored.files}
    name = rng.choice(sorted(arrays))
    array = arrays[name]
    act = rng.randrange(12)
    if act == 0:
        del arrays[name]
    elif act == 1:
        arrays[name] = array.astype(rng.choice(("f8", "f4", "i1", "i8", "u8", "c16", "?", "U3", "S2", "f2", ">i8")))
    elif act == 2:
        arrays[name] = np.array([None, {}], object)
    elif act == 3:
        arrays[name] = array[: rng.randrange(len(array) + 1)] if array.ndim else array.reshape(1, 1)
    elif act == 4:
        arrays[name] = array.reshape(-1)
    elif act == 5:
        arrays[name] = array[None] if array.ndim < 6 else array
    elif act == 6 and array.dtype.kind == "f":
        arrays[name] = np.full_like(array, rng.choice((np.nan, np.inf, 1e38)))
    elif act == 7 and array.dtype.kind in "iu":
        arrays[name] = np.full_like(array, rng.choice((-1 if array.dtype.kind == "i" else 255, 10, 120)))
    elif act == 8:
        arrays[name] = np.asfortranarray(array)
    elif act == 9:
        arrays[name] = np.zeros((0, *array.shape[1:]), array.dtype) if array.ndim else np.array([])
    elif act == 10:
        arrays = {f"{key}x": value for key, value in arrays.items()}
    else:
        arrays[name] = np.zeros(5, [("a", "u1"), ("b", "f4")])
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    return buffer.getvalue()


def npz_head(data: bytes, rng: random.Random) -> bytes:
    """An npz whose header of one array claims another shape, type or length than the bytes that follow it."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = rng.choice(sorted(members))
    kind = rng.choice(("|u1", "<i8", "<f8", "|O", "|V1000000000", "<U999999999", "bad", "<M8[ns]"))
    shape = rng.choice((
        (2**31, 1, 28, 28), (2**63, 4), (2**40,), (-1,), (24, 1, 28, 28), (24,), (), (0,), (10**30,), (1,) * 70,
        (2**32, 2**32), (24, 1, 2**20, 28),
    ))  # fmt: skip
    head = f"{{'descr': {kind!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    head = rng.choice((head, head, head, head, b"{" * 3000, b"[" * 200, b"__import__('os')", b"{'descr': 1}"))
    members[name] = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head) + 1) + head + b"\n" + members[name][128:]
    return _zipped(members, rng)


def _zipped(members: dict[str, bytes], rng: random.Random) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return buffer.getvalue()


def zip_entry(data: bytes, rng: random.Random) -> bytes:
    """A zip whose directory lies: sizes, flags (a password), methods of compression, names."""
    changed = bytearray(data)
    marks = [at for mark in (b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06") for at in _all(data, mark)]
    if not marks:
        return data[: rng.randrange(len(data) + 1)]
    at = rng.choice(marks) + rng.randrange(4, 46)
    value = rng.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x01\0", b"\x63\0", b"\xff", b"../", b"\x0c\0", b"\x0e\0"))
    changed[at : at + len(value)] = value
    return bytes(changed[: len(data)])


def _all(data: bytes, mark: bytes) -> list[int]:
    found, at = [], data.find(mark)
    while at >= 0:
        found.append(at)
        at = data.find(mark, at + 1)
    return found


def bomb(data: bytes, rng: random.Random) -> bytes:
    """A few kilobytes that unpack to 4 GiB: as gzip if the file is one, else as a member of a zip."""
    if data[:2] == b"\x1f\x8b":
        return _gzip_bomb()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = rng.choice(sorted(members))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in members.items():
            if member != name:
                archive.writestr(member, content)
        with archive.open(name, "w") as out:
            out.write(members[name][:128])
            for _ in range(64):
                out.write(bytes(1 << 20))
    return buffer.getvalue()


def _gzip_bomb() -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    block = bytes(1 << 20)
    return (
        packer.compress(b"\0\0\x08\x03" + struct.pack(">III", 2**31 - 1, 28, 28))
        + b"".join(packer.compress(block) for _ in range(96))
        + packer.flush()
    )


def png_size(data: bytes, rng: random.Random) -> bytes:
    """A PNG whose header names another size, depth or colour, with the right checksum."""
    width, height = rng.choice(
        ((30000, 30000), (2**31 - 1, 2**31 - 1), (0, 0), (1, 2**31 - 1), (8, 8), (1, 1), (4000, 4000))
    )
    depth, colour = rng.choice(((8, 0), (16, 2), (1, 3), (99, 7), (8, 6)))
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, rng.choice((0, 1, 9)))
    return data[:12] + head + struct.pack(">I", zlib.crc32(head)) + data[33:]


def idx_head(data: bytes, rng: random.Random) -> bytes:
    body = zlib.decompress(data, 31) if data[:2] == b"\x1f\x8b" else data
    shape = rng.choice(
        ((2**31, 28, 28), (2**32 - 1,) * 3, (12, 28, 29), (0, 0, 0), (2**16, 2**16, 0), (12 * 28, 28, 1))
    )
    magic = rng.choice(
        (b"\0\0\x08\x03", b"\0\0\x08\x03", b"\0\0\x0d\x03", b"\0\0\x08\xff", b"\0\0\x08\0", b"\1\0\x08\3")
    )
    return magic + struct.pack(">III", *shape) + body[16:]


def safetensors_head(data: bytes, rng: random.Random) -> bytes:
    length = struct.unpack("<Q", data[:8])[0]
    head = json.loads(data[8 : 8 + length])
    act = rng.randrange(6)
    name = rng.choice(sorted(set(head) - {"__metadata__"}))
    if act == 0:
        return struct.pack("<Q", rng.choice((0, 2**63, 2**40, length - 1, length + 1))) + data[8:]
    if act == 1:
        head[name]["shape"] = rng.choice(([2**62], [-1], [], [0], "x", [2**31, 2**31, 4]))
    elif act == 2:
        head[name]["dtype"] = rng.choice(("F64", "I8", "BF16", "F999", "BOOL"))
    elif act == 3:
        head[name + "x"] = head.pop(name)
    elif act == 4:
        head.pop(name)
    else:
        facts = head.setdefault("__metadata__", {})
        facts[rng.choice([*facts, "x"])] = rng.choice(
            ("", "-1", "9" * 30, "1x28", "0x0x0", "nan", "1x9999x9999", "lenet")
        )
    text = json.dumps(head).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]
