"""The IDX format of MNIST: a big-endian header (magic, sizes), then bytes."""

from __future__ import annotations

import gzip
import hashlib
import io
import math
import struct
from pathlib import Path

import numpy as np

from workflow.common.errors import UserError
from workflow.common.readers import guard

_UNSIGNED_BYTE = 0x08
MOST_BYTES = 1 << 28  # 268 MB; MNIST's largest file has 47
FETCH = "fetch it again"


def read_bytes(path: Path) -> bytes:
    """Returns the decompressed content of an IDX file, plain or gzip (told apart by content, not by name).

    Raises UserError if there is no such file, the gzip stream is damaged, or the content exceeds MOST_BYTES.
    """
    content = guard.read_bytes(path, "is no readable file", FETCH, MOST_BYTES)
    if content[:2] != b"\x1f\x8b":
        return content
    with guard.reading(path, "is a truncated or damaged gzip file", FETCH):
        return _unpacked(content)


def _unpacked(content: bytes) -> bytes:
    """Returns gzip's content, no further than MOST_BYTES. Raises ValueError beyond them, and gzip's own errors."""
    with gzip.GzipFile(fileobj=io.BytesIO(content)) as stream:
        unpacked = stream.read(MOST_BYTES + 1)
    if len(unpacked) > MOST_BYTES:
        raise ValueError(f"it unpacks to more than {MOST_BYTES:,} bytes, the most that an IDX file of MNIST's kind has")
    return unpacked


def decode(content: bytes, name: object) -> np.ndarray:
    """Returns the uint8 array of an IDX file's content; `name` is for messages.

    Raises UserError if the content is not IDX of unsigned bytes, holds nothing, or has another size than its header
    says.
    """
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != _UNSIGNED_BYTE or not 1 <= content[3] <= 4:
        raise UserError(f"{name} is not an IDX file of unsigned bytes (it begins {content[:4].hex() or 'empty'})")
    header = 4 + 4 * content[3]
    if len(content) < header:
        raise UserError(f"{name} is truncated inside its header; fetch it again")
    shape = struct.unpack(f">{content[3]}I", content[4:header])
    if 0 in shape:
        # Other sizes beside a zero may be any, beyond what an array has.
        raise UserError(f"{name} holds nothing: its header says {list(shape)}; fetch it again")
    expected = header + math.prod(shape)
    if len(content) != expected:
        state = "truncated" if len(content) < expected else "too long"
        raise UserError(f"{name} is {state}: {len(content)} bytes where its header says {expected}; fetch it again")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def digest(content: bytes) -> str:
    """Returns the hex SHA-256 of decompressed content."""
    return hashlib.sha256(content).hexdigest()
