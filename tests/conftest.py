"""What all tests share: no network, no data folder of the user's, one thread."""

from __future__ import annotations

import os
import socket

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def _closed_world(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path_factory) -> None:
    """Unless a test is marked `network`: connections fail, and caches and data folders of the user are out of sight."""
    if request.node.get_closest_marker("network"):
        return
    monkeypatch.delenv("DPAC_BENCH_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))

    def refuse(*_: object, **__: object) -> None:
        raise OSError("the default suite uses no network; mark the test `network`")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
