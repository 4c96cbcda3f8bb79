"""Lets these tests take the contract's tiny runs of any method."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1] / "contract"))
