"""`python -m workflow.environment`: writes environment.yml (conda) from the pins in requirements.lock."""

from __future__ import annotations

from pathlib import Path

from packaging.requirements import Requirement

from workflow.common.errors import command
from workflow.common.files import write_text
from workflow.common.options import Parser

ROOT = Path(__file__).resolve().parents[1]
PYTHON = "3.11"
_PLATFORM = {"python_version": PYTHON, "python_full_version": f"{PYTHON}.14", "sys_platform": "linux"}


def pins(root: Path = ROOT) -> list[str]:
    """Returns `name==version` of all packages pinned for Linux and Python 3.11, torch last."""
    text = (root / "requirements.lock").read_text(encoding="utf-8").replace("\\\n", " ")
    lines = [line.split(" --hash")[0] for line in text.splitlines() if line.strip() and not line.startswith("#")]
    required = [Requirement(line) for line in lines]
    chosen = [f"{one.name}{one.specifier}" for one in required if one.marker is None or one.marker.evaluate(_PLATFORM)]
    return chosen + (root / "requirements-torch.txt").read_text(encoding="utf-8").split()


def render(packages: list[str]) -> str:
    """Returns the text of environment.yml."""
    lines = "\n".join(f"      - {package}" for package in packages)
    return (
        "# Made from requirements.lock by `python -m workflow.environment`; the same pins for conda users.\n"
        f"name: dp-image-bench\nchannels:\n  - conda-forge\n"
        f"dependencies:\n  - python={PYTHON}\n  - pip\n  - pip:\n{lines}\n"
    )


@command
def main(argv: list[str] | None = None) -> int:
    """Writes environment.yml at the repository's root, or at --out."""
    parser = Parser(prog="python -m workflow.environment", description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "environment.yml", help="default: that at the root")
    write_text(parser.parse_args(argv).out, render(pins()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
