"""The IDX format of MNIST: a big-endian header (magic, sizes), then bytes."""

from __future__ import annotations

import gzip
import hashlib
import struct
import zlib
from pathlib import Path

import numpy as np

from workflow.common.errors import UserError

_UNSIGNED_BYTE = 0x08


def read_bytes(path: Path) -> bytes:
    """Returns the decompressed content of an IDX file, plain or gzip (told apart by content, not by name).

    Raises UserError if the gzip stream is truncated or damaged.
    """
    content = path.read_bytes()
    if content[:2] != b"\x1f\x8b":
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, OSError, zlib.error) as error:
        raise UserError(f"{path} is a truncated or damaged gzip file ({error}); fetch it again") from None


def decode(content: bytes, name: object) -> np.ndarray:
    """Returns the uint8 array of an IDX file's content; `name` is for messages.

    Raises UserError if the content is not IDX of unsigned bytes, or has more or fewer bytes than its header says.
    """
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != _UNSIGNED_BYTE or not 1 <= content[3] <= 4:
        raise UserError(f"{name} is not an IDX file of unsigned bytes (it begins {content[:4].hex() or 'empty'})")
    header = 4 + 4 * content[3]
    if len(content) < header:
        raise UserError(f"{name} is truncated inside its header; fetch it again")
    shape = struct.unpack(f">{content[3]}I", content[4:header])
    expected = header + int(np.prod(shape, dtype=np.int64))
    if len(content) != expected:
        state = "truncated" if len(content) < expected else "too long"
        raise UserError(f"{name} is {state}: {len(content)} bytes where its header says {expected}; fetch it again")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def digest(content: bytes) -> str:
    """Returns the hex SHA-256 of decompressed content."""
    return hashlib.sha256(content).hexdigest()
