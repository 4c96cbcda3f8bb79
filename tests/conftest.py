"""What all tests share: no network, no data folder of the user's, one thread."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
# A shell lets what it runs in the background ignore Ctrl-C, and so would the commands that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def _no_waiting_for_disks() -> Iterator[None]:
    """No test cuts the power, and thousands of waits of some milliseconds for a disk are half a minute.

    Commands that a test starts do wait; what is put on disk when is tested by stand-ins of os.fsync.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", _only_checked)
        yield


@pytest.fixture(autouse=True, scope="session")
def _bfloat16() -> Iterator[None]:
    """Tests of `precision: bf16` compute in it on a processor without its instructions too, where it takes longer.

    From the first test to the last: a run that many tests share is not to be of another precision than theirs.
    """
    # Here: a command that a test starts has no need of it.
    from methods.core.speed import precision

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(precision, "processor_has_bfloat16", lambda: True)
        yield


@pytest.fixture(autouse=True)
def _closed_world(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path_factory) -> None:
    """Unless a test is marked `network`: connections fail, and caches and data folders of the user are out of sight."""
    if request.node.get_closest_marker("network"):
        return
    monkeypatch.delenv("DPAC_BENCH_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))

    for name in ("create_connection", "getaddrinfo"):
        monkeypatch.setattr(socket, name, _only_loopback(getattr(socket, name)))


def _only_checked(handle: int) -> None:
    # A closed file stays an error.
    os.fstat(handle)


def _only_loopback(function: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(address: Any, *rest: Any, **named: Any) -> Any:
        host = address[0] if isinstance(address, tuple) else address
        if host not in ("127.0.0.1", "localhost"):
            raise OSError("the default suite uses no network; mark the test `network`")
        return function(address, *rest, **named)

    return guarded
