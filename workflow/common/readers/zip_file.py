"""What a zip's directory may say: names that stay inside, each once, and sizes that this machine can hold."""

from __future__ import annotations

import os
import re
import zipfile
from pathlib import Path

MOST_MEMBERS = 1_000_000
# Linux's control groups; a container sees its own. A text, "max", where there is no limit.
_LIMIT = Path("/sys/fs/cgroup/memory.max")
_DRIVE = re.compile(r"[A-Za-z]:")


def most_bytes() -> int:
    """Returns the bytes of the largest member that is read: this machine's memory, or what its container may take."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = _LIMIT.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return machine
    return min(machine, int(limit)) if limit.isdigit() else machine


def check_directory(archive: zipfile.ZipFile) -> None:
    """Raises ValueError for a name that stands twice or leaves the archive, a password, or too many members."""
    names = archive.namelist()
    if len(names) > MOST_MEMBERS:
        raise ValueError(f"it has {len(names):,} members; at most {MOST_MEMBERS:,} are read")
    if len(set(names)) < len(names):
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} is in it twice")
    for info in archive.infolist():
        if leaves(info.filename):
            raise ValueError(f"{info.filename[:80]!r} leaves the archive")
        if info.flag_bits & 1:
            raise ValueError(f"{info.filename[:80]!r} needs a password")


def leaves(name: str) -> bool:
    """Returns whether a path is absolute, climbs above where it starts, or is one on Windows alone."""
    return name.startswith(("/", "\\")) or bool(_DRIVE.match(name)) or "\0" in name or ".." in re.split(r"[/\\]", name)


def read_member(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    """Returns a member's content. Raises ValueError if it is larger than `most` bytes, KeyError if there is none."""
    size = archive.getinfo(name).file_size
    if size > most:
        raise ValueError(f"{name} unpacks to {size:,} bytes; at most {most:,} are read")
    with archive.open(name) as stream:
        content = stream.read(most + 1)
    if len(content) > most:
        raise ValueError(f"{name} unpacks to more than the {most:,} bytes that are read")
    return content
