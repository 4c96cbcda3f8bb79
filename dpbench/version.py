"""Which version this is: of the checkout it runs from, or of the package where that was installed."""

from __future__ import annotations

import tomllib
from importlib import metadata
from pathlib import Path

NAME = "dp-image-bench"


def version() -> str:
    """Returns the name and the version, such as "dp-image-bench 0.1.0"."""
    project = Path(__file__).resolve().parents[1] / "pyproject.toml"
    if project.is_file():
        return f"{NAME} {tomllib.loads(project.read_text(encoding='utf-8'))['project']['version']}"
    return f"{NAME} {metadata.version(NAME)}"
