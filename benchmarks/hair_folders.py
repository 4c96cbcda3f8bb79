"""`python -m benchmarks.hair_folders`: two folders of faces by hair colour, as a person's own pictures would come.

Of CelebA's faces that have one of three colours alone, in an order that the seed decides, the first --count go into
OUT/pictures and the next --tests into OUT/test, in folders `black`, `blond` and `brown`, half of them JPEG and half
PNG, and each at a size of its own, 0.8 to 1.5 of the original's. What docs/your-own-images.md measures was made of
them.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from workflow.common.errors import UserError, command
from workflow.common.options import Parser, whole
from workflow.datasets.celeba import opener, read_attribute, read_face

COLOURS = {"black": "Black_Hair", "blond": "Blond_Hair", "brown": "Brown_Hair"}
SCALES = (0.8, 1.5)


def one_colour(attributes: Path) -> dict[str, str]:
    """Returns image name -> colour, of the faces that have exactly one; UserError as `read_attribute` raises it."""
    marked = {colour: read_attribute(attributes, name) for colour, name in COLOURS.items()}
    found = {}
    for image in next(iter(marked.values())):
        colours = [colour for colour, marks in marked.items() if marks[image]]
        if len(colours) == 1:
            found[image] = colours[0]
    return found


def write_faces(
    names: Sequence[str], colours: dict[str, str], read: Callable[[str], bytes], folder: Path, rng: np.random.Generator
) -> None:  # fmt: skip
    """Writes the named faces into `folder`, one folder per colour; the formats take turns, the sizes are drawn.

    Raises UserError naming a face that is missing or broken, and where nothing can be written there.
    """
    for number, name in enumerate(names):
        suffix, options = (("jpg", {"quality": 95}), ("png", {}))[number % 2]
        path = folder / colours[name] / f"{number:05}.{suffix}"
        image, scale = read_face(name, read, folder.name), rng.uniform(*SCALES)
        face = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            face.save(path, **options)
        except OSError as error:
            # Else it would be blamed on the file that `read` reads.
            raise UserError(f"cannot write {path}: {error.strerror or error}; name another --out") from None


@command
def main(argv: list[str] | None = None) -> None:
    """Writes both folders. Raises UserError for a folder without CelebA's files, or with too few such faces."""
    parser = Parser(prog="python -m benchmarks.hair_folders", description=__doc__)
    parser.add_argument("--celeba", type=Path, required=True, help="folder with CelebA's images and attributes")
    parser.add_argument("--count", type=whole("--count"), default=500, help="faces in pictures/ (default %(default)s)")
    parser.add_argument("--tests", type=whole("--tests"), default=2000, help="faces in test/ (default %(default)s)")
    parser.add_argument("--seed", type=whole("--seed", 0), default=0, help="default %(default)s")
    parser.add_argument("--out", type=Path, required=True, help="folder that does not exist yet")
    options = parser.parse_args(argv)
    if options.out.exists():
        raise UserError(f"--out {options.out} exists: name a new folder")
    colours = one_colour(options.celeba / "list_attr_celeba.txt")
    rng = np.random.default_rng(options.seed)
    names = [str(name) for name in rng.permutation(sorted(colours))]
    if len(names) < options.count + options.tests:
        raise UserError(
            f"{options.celeba} has {len(names)} faces of one colour, and --count {options.count} with --tests"
            f" {options.tests} needs {options.count + options.tests}: lower one of them"
        )
    parts = {"pictures": names[: options.count], "test": names[options.count :][: options.tests]}
    try:
        with opener(options.celeba) as read:
            for part, chosen in parts.items():
                write_faces(chosen, colours, read, options.out / part, rng)
    except BaseException:
        # A part of the faces would look like all, and be in the way of the next call.
        shutil.rmtree(options.out, ignore_errors=True)
        raise


if __name__ == "__main__":
    raise SystemExit(main())
