"""Every test here runs for every method that the registry finds, a dropped-in file included."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

import harness

from methods.core import registry


@pytest.fixture(scope="module", params=registry.names())
def name(request: pytest.FixtureRequest) -> str:
    """A method's name."""
    return request.param


@pytest.fixture(scope="module", params=sorted(harness.SHAPES))
def spec(request: pytest.FixtureRequest) -> harness.PublicSpec:
    """Public facts of a toy data set."""
    return harness.public(request.param)


@pytest.fixture(scope="module")
def trained(name: str, spec: harness.PublicSpec, tmp_path_factory: pytest.TempPathFactory) -> harness.Run:
    """A finished run; tests only read it."""
    return harness.Run(name, spec, tmp_path_factory.mktemp(f"{name}_{spec.dataset}")).train()
