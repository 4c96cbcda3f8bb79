"""`python -m workflow.datasets NAME --out DIR`: makes DIR/{train,test}.npz and DIR/card.json."""

from __future__ import annotations

import argparse
from pathlib import Path

from workflow.common.errors import UserError, command
from workflow.datasets import sources
from workflow.datasets.store import Dataset, save


def load(name: str, given: list[Path], cache: Path, test_split: str) -> Dataset:
    """Returns data set `name`. Raises UserError for an unknown name or where its files are missing or wrong."""
    if name == "digits":
        from workflow.datasets import digits

        return digits.load()
    if name == "image_folder":
        from workflow.datasets import image_folder

        return image_folder.load(given)
    if name in sources.CELEBA_SIZES:
        from workflow.datasets import celeba

        return celeba.load(name, given, cache, test_split)
    from workflow.datasets import mnist

    return mnist.load(name, given, cache)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m workflow.datasets", description=__doc__)
    parser.add_argument("name", metavar="NAME", help=", ".join(sources.NAMES))
    parser.add_argument("--out", type=Path, help="folder for train.npz, test.npz and card.json")
    parser.add_argument("--source", type=Path, action="append", default=[], help="a folder with raw files; repeatable")
    parser.add_argument("--cache", type=Path, help="folder for downloads (default: the user's cache folder)")
    parser.add_argument("--test-split", default="test", help="CelebA only: test (default) or valid, as DP-GAN-DPAC")
    parser.add_argument("--check", action="store_true", help="only say whether the data are at hand: exit 0 or 1")
    return parser


@command
def main(argv: list[str] | None = None) -> int:
    arguments = _parser().parse_args(argv)
    name = sources.check_name(arguments.name)
    if arguments.check:
        available = sources.available(name, arguments.source)
        print("available" if available else "missing")
        return 0 if available else 1
    if arguments.out is None:
        raise UserError("--out DIR is required")
    # Imported late: --check must stay cheap, and downloads is the only user of the torchvision guard.
    from workflow.datasets.downloads import default_cache

    dataset = load(name, arguments.source, arguments.cache or default_cache(), arguments.test_split)
    save(dataset, arguments.out)
    print(f"{name}: {len(dataset.train)} train, {len(dataset.test)} test, from {dataset.source}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
