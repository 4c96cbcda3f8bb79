"""Independent work on threads: as many at a time as torch has, errors first, nothing begun in vain."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import torch

from methods.core.speed.threads import GoOn, for_each

CPU = torch.device("cpu")


@pytest.fixture
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


two_threads = pytest.mark.parametrize("threads", [2], indirect=True)


@two_threads
def test_as_many_items_are_at_work_as_torch_has_threads_each_with_one(threads):
    both, seen = threading.Barrier(2), []

    def work(item: int, go_on: GoOn) -> None:
        both.wait(timeout=30)
        seen.append((item, torch.get_num_threads()))

    for_each(work, range(4), CPU)
    assert sorted(seen) == [(item, 1) for item in range(4)]
    assert torch.get_num_threads() == 2


@two_threads
def test_an_error_is_raised_ends_what_is_at_work_and_leaves_what_was_not_begun(threads):
    both, begun, finished = threading.Barrier(2), [], []

    def work(item: int, go_on: GoOn) -> None:
        begun.append(item)
        if item < 2:
            both.wait(timeout=30)
        if item == 0:
            raise ValueError("no such shard")
        for _ in range(3000):
            go_on()
            time.sleep(0.01)
        finished.append(item)

    with pytest.raises(ValueError, match="no such shard"):
        for_each(work, range(50), CPU)
    assert not finished and len(begun) < 50
    assert torch.get_num_threads() == 2


@pytest.mark.parametrize("threads", [1], indirect=True)
def test_one_thread_takes_the_items_in_turn(threads):
    seen = []
    for_each(lambda item, go_on: seen.append((item, threading.current_thread())), range(3), CPU)
    assert seen == [(item, threading.main_thread()) for item in range(3)]
