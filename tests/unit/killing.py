"""Kills a training at a step, as a machine that goes down would."""

from __future__ import annotations

import pytest

from methods.core import registry


class Killed(Exception):
    """What `killed_at` raises in place of a step."""


def killed_at(monkeypatch: pytest.MonkeyPatch, method: str, step: int) -> None:
    """Lets each run of `method` die when it comes to `step`."""
    cls = registry.load(method)
    whole = cls.step

    def stop(self, t, data, ledger):
        if t == step:
            raise Killed
        return whole(self, t, data, ledger)

    monkeypatch.setattr(cls, "step", stop)
