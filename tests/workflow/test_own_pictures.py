"""Every kind of picture a user may have becomes the right pixels, or is refused by name."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from made_pictures import RAMP, SIDE, chunk, classes, make, png_bytes, refusal, tiff_bytes, write_picture
from PIL import Image

from workflow.datasets import pictures
from workflow.datasets.look import Look

LEVELS = RAMP // 4  # 0..195
DEEP = (RAMP * 83).astype(np.uint16)  # 0..64989
LUMINANCE = {1: [1.0], 3: [0.299, 0.587, 0.114]}
GREY = Look(SIDE, True, "crop", None, (255, 255, 255))


def seen(path: Path, look: Look | None = None, **changes: object) -> np.ndarray:
    """Returns uint8 [C, H, W] of one picture, grey if its own mode is."""
    grey = pictures.probe([str(path)], "heads").all_grey
    fields = {"size": SIDE, "grey": grey, "fit": "crop", "window": None, "background": (255, 255, 255)} | changes
    images, _ = pictures.decode([str(path)], look or Look(**fields), "decode")
    return images[0]


def stored(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("name", "content", "values"),
    [
        ("p.png", png_bytes(DEEP.astype(">u2"), 16, 0), DEEP / 257),
        ("little.tif", tiff_bytes(DEEP), DEEP / 257),
        ("big.tif", tiff_bytes(DEEP, ">"), DEEP / 257),
        ("zero_is_white.tif", tiff_bytes(DEEP, white=0), 255 - DEEP / 257),
        ("signed.tif", tiff_bytes((DEEP.astype(int) - 32768).astype(np.int16), sample_format=2), DEEP / 257),
        ("p.pgm", b"P5 28 28 65535\n" + DEEP.astype(">u2").tobytes(), DEEP / 257),
        ("twelve.pgm", b"P5 28 28 4095\n" + (RAMP * 5).astype(">u2").tobytes(), RAMP * 5 * 255 / 4095),
        ("float.tif", tiff_bytes((RAMP / 783).astype(np.float32), sample_format=3), RAMP * 255 / 783),
        ("big_float.tif", tiff_bytes((RAMP / 783).astype(np.float32), ">", sample_format=3), RAMP * 255 / 783),
    ],
)
def test_deep_pictures_are_scaled_by_their_types_range(
    tmp_path: Path, name: str, content: bytes, values: np.ndarray
) -> None:
    image = seen(stored(tmp_path / name, content))
    assert image.shape == (1, SIDE, SIDE)
    # PGM passes through Pillow's own stretching to 16 bits, which may tip a rounding.
    assert np.abs(image[0] - values).max() <= 0.51


@pytest.mark.parametrize(
    ("name", "content", "window", "values"),
    [
        ("p.png", png_bytes(DEEP.astype(">u2"), 16, 0), (1000, 5000), (DEEP - 1000.0) * 255 / 4000),
        ("p.pgm", b"P5 28 28 4095\n" + (RAMP * 5).astype(">u2").tobytes(), (0, 2000), RAMP * 5 * 255 / 2000),
        ("signed.tif", tiff_bytes((RAMP * 10).astype(np.int32), sample_format=2), (0, 7830), RAMP * 255 / 783),
        ("wide.tif", tiff_bytes((RAMP * 5_000_000).astype(np.uint32)), (0, 783 * 5e6), RAMP * 255 / 783),
        ("float.tif", tiff_bytes((RAMP / 10 - 20).astype(np.float32), sample_format=3), (-20, 58.3), RAMP * 255 / 783),
    ],
)
def test_a_window_says_what_is_black_and_white_and_cuts_the_rest(
    tmp_path: Path, name: str, content: bytes, window: tuple[float, float], values: np.ndarray
) -> None:
    image = seen(stored(tmp_path / name, content), window=window)
    assert np.abs(image[0] - values.clip(0, 255)).max() <= 0.51


def test_a_16_bit_sources_histogram_is_kept(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for index in range(2):
            values = np.roll(DEEP, index, axis=0)
            write_picture(tmp_path / f"in/{name}/{index}.png", values)
    train, test, card = make(tmp_path / "in", tmp_path / "out")
    expected = np.bincount(np.rint(DEEP.ravel() / 257).astype(int), minlength=256)
    for image in (*train.images, *test.images):
        assert np.array_equal(np.bincount(image.ravel(), minlength=256), expected)
    assert card["mode"] == "grey" and card["window"] is None


def test_deep_pictures_are_rounded_once_after_the_filter(tmp_path: Path) -> None:
    """Three rows at 100.45 and one at 101.45 are 100.7, so 101; each rounded first, they would be 100.25, so 100."""
    fine = np.full((4 * SIDE, 4 * SIDE), round(100.45 * 257), np.uint16)
    fine[::4] = round(101.45 * 257)
    assert set(np.unique(seen(write_picture(tmp_path / "p.png", fine))[0, 4:-4])) == {101}


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
@pytest.mark.parametrize(("orientation", "corner"), [(1, 0), (2, 1), (3, 3), (4, 2), (5, 0), (6, 1), (7, 3), (8, 2)])
def test_exif_orientation_is_applied(tmp_path: Path, suffix: str, orientation: int, corner: int) -> None:
    """The stored white corner is the upper left; corners are numbered row by row."""
    values = np.zeros((SIDE, SIDE, 3), np.uint8)
    values[:8, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = seen(write_picture(tmp_path / f"p.{suffix}", values, exif=exif))[0]
    corners = [image[2, 2], image[2, -3], image[-3, 2], image[-3, -3]]
    assert corners[corner] > 235 and sorted(corners)[2] < 20


def test_a_picture_on_its_side_is_turned_before_it_is_cropped(tmp_path: Path) -> None:
    values = np.zeros((20, 60, 3), np.uint8)
    values[:10] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    image = seen(write_picture(tmp_path / "p.png", values, exif=exif))[0]
    assert image[:, -8:].min() == 255 and image[:, :8].max() == 0


def _transparent(mode: str) -> Image.Image:
    image = Image.new("RGBA", (SIDE, SIDE), (200, 200, 200, 255))
    image.paste((9, 9, 9, 0), (0, 0, SIDE, 14))
    return image.convert(mode)


@pytest.mark.parametrize(("mode", "suffix"), [("RGBA", "png"), ("RGBA", "webp"), ("RGBA", "tif"), ("LA", "png")])
def test_alpha_is_composed_on_the_background(tmp_path: Path, mode: str, suffix: str) -> None:
    path = write_picture(
        tmp_path / f"p.{suffix}", _transparent(mode), **({"lossless": True} if suffix == "webp" else {})
    )
    image = seen(path, grey=False, background=(10, 20, 30))
    assert image[:, 3, 3].tolist() == [10, 20, 30] and image[:, -3, 3].tolist() == [200, 200, 200]


@pytest.mark.parametrize(
    ("values", "depth", "colour", "transparent"),
    [
        (LEVELS.astype(np.uint8), 8, 0, struct.pack(">H", LEVELS[14, 14])),
        (DEEP.astype(">u2"), 16, 0, struct.pack(">H", DEEP[14, 14])),
        (np.repeat(LEVELS[..., None], 3, 2).astype(np.uint8), 8, 2, struct.pack(">HHH", *[LEVELS[14, 14]] * 3)),
    ],
)
def test_a_pngs_transparent_colour_becomes_the_background(
    tmp_path: Path, values: np.ndarray, depth: int, colour: int, transparent: bytes
) -> None:
    path = stored(tmp_path / "p.png", png_bytes(values, depth, colour, chunk(b"tRNS", transparent)))
    image = seen(path, grey=False, background=(250, 1, 2))
    assert image[:, 14, 14].tolist() == [250, 1, 2] and image[:, 0, 0].tolist() == [0, 0, 0]


def test_a_transparent_palette_entry_becomes_the_background(tmp_path: Path) -> None:
    image = Image.new("P", (SIDE, SIDE), 1)
    image.putpalette([0, 0, 0, 200, 200, 200])
    image.paste(0, (0, 0, 5, 5))
    for suffix in ("png", "gif"):
        found = seen(write_picture(tmp_path / f"p.{suffix}", image, transparency=1), background=(77, 77, 77))
        assert found[0, 10, 10] == 77 and found[0, 2, 2] == 0, suffix


@pytest.mark.parametrize(
    ("image", "suffix", "pixel"),
    [
        (Image.new("CMYK", (SIDE, SIDE), (0, 255, 255, 0)), "tif", [255, 0, 0]),
        (Image.new("CMYK", (SIDE, SIDE), (0, 255, 255, 0)), "jpg", [255, 0, 0]),
        (Image.new("YCbCr", (SIDE, SIDE), (100, 128, 128)), "jpg", [100, 100, 100]),
        (Image.new("LAB", (SIDE, SIDE), (255, 128, 128)), "tif", [255, 255, 255]),
        (Image.new("1", (SIDE, SIDE), 1), "png", [255]),
        (Image.new("L", (SIDE, SIDE), 90).convert("P"), "bmp", [90]),
        (Image.new("L", (SIDE, SIDE), 90).convert("P"), "png", [90]),
        (Image.new("RGB", (SIDE, SIDE), (5, 6, 7)).convert("P", palette=Image.Palette.ADAPTIVE), "png", [5, 6, 7]),
        (Image.new("RGB", (SIDE, SIDE), (5, 6, 7)), "ppm", [5, 6, 7]),
    ],
)
def test_other_colour_spaces_are_converted(tmp_path: Path, image: Image.Image, suffix: str, pixel: list[int]) -> None:
    found = seen(write_picture(tmp_path / f"p.{suffix}", image))
    assert found.shape[0] == len(pixel) and np.abs(found[:, 9, 9].astype(int) - pixel).max() <= 1
    grey = seen(tmp_path / f"p.{suffix}", grey=True)
    assert grey.shape[0] == 1 and abs(int(grey[0, 9, 9]) - np.dot(found[:, 9, 9], LUMINANCE[len(pixel)])) <= 1


@pytest.mark.parametrize(
    ("image", "suffix", "grey"),
    [
        (Image.new("L", (SIDE, SIDE), 9), "png", True),
        (Image.new("LA", (SIDE, SIDE), (9, 255)), "png", True),
        (Image.new("1", (SIDE, SIDE)), "tif", True),
        (Image.new("L", (SIDE, SIDE), 9), "jpg", True),
        (Image.new("RGB", (SIDE, SIDE), (9, 9, 9)), "png", False),
        (Image.new("RGB", (SIDE, SIDE), (9, 9, 9)), "jpg", False),
    ],
)
def test_a_set_is_grey_if_every_pictures_own_mode_is(
    tmp_path: Path, image: Image.Image, suffix: str, grey: bool
) -> None:
    write_picture(tmp_path / f"in/b/9.{suffix}", image)
    train, _, card = make(classes(tmp_path / "in"), tmp_path / "out")
    assert (train.image_shape[0], card["mode"]) == ((1, "grey") if grey else (3, "rgb"))
    assert card["deduced"] == ["size", "mode"]
    coloured, _, _ = make(tmp_path / "in", tmp_path / "red", "--background", "red")
    assert coloured.image_shape[0] == 3


def test_a_stated_mode_is_obeyed(tmp_path: Path) -> None:
    for name in ("a", "b"):
        for index in range(2):
            write_picture(tmp_path / f"in/{name}/{index}.png", Image.new("RGB", (SIDE, SIDE), (255, 0, 0)))
    train, _, card = make(tmp_path / "in", tmp_path / "out", "--mode", "grey")
    assert train.images.shape == (2, 1, SIDE, SIDE) and set(np.unique(train.images)) == {76}
    assert card["deduced"] == ["size"]
    assert make(classes(tmp_path / "grey"), tmp_path / "rgb", "--mode", "rgb")[0].image_shape == (3, SIDE, SIDE)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp", "tif"])
def test_the_first_of_several_frames_is_read_with_one_notice(tmp_path: Path, capsys, suffix: str) -> None:
    frames = [Image.new("RGB", (SIDE, SIDE), colour) for colour in ((250, 0, 0), (0, 250, 0), (0, 0, 250))]
    classes(tmp_path / "in")
    for name in ("a", "b"):
        write_picture(tmp_path / f"in/{name}/x.{suffix}", frames[0], save_all=True, append_images=frames[1:])
    red = seen(tmp_path / f"in/a/x.{suffix}")
    assert red[0].min() > 240 and red[1:].max() < 10
    _, _, card = make(tmp_path / "in", tmp_path / "out")
    assert card["several_frames"] == 2
    assert capsys.readouterr().out.count("of 2 files with several frames or pages the first was read") == 1


@pytest.mark.parametrize(("fit", "edge", "middle"), [("crop", 200, 200), ("pad", 40, 200)])
def test_another_aspect_is_cropped_or_padded(tmp_path: Path, fit: str, edge: int, middle: int) -> None:
    values = np.full((56, 112), 200, np.uint8)
    values[:, :28] = values[:, 84:] = 0 if fit == "crop" else 200
    image = seen(write_picture(tmp_path / "p.png", values), fit=fit, background=(40, 40, 40))[0]
    assert image[3, 14] == edge and image[14, 14] == middle and image[14, 3] == 200
    if fit == "pad":
        assert (image == 40).all(axis=1).sum() == 14 and (image[7:21] == 200).all()


def test_padding_is_coloured_around_a_grey_picture_too(tmp_path: Path) -> None:
    deep = write_picture(tmp_path / "p.png", np.full((28, 56), 65535, np.uint16))
    image = seen(deep, grey=False, fit="pad", background=(1, 2, 3))
    assert image[:, 0, 0].tolist() == [1, 2, 3] and image[:, 14, 14].tolist() == [255, 255, 255]


def test_the_filter_averages_when_it_makes_smaller(tmp_path: Path) -> None:
    """A chessboard of single pixels, which nearest neighbour or bilinear without antialiasing would keep or alias."""
    board = (np.indices((8 * SIDE, 8 * SIDE)).sum(axis=0) % 2 * 255).astype(np.uint8)
    image = seen(write_picture(tmp_path / "p.png", board))
    assert image.min() >= 120 and image.max() <= 135


def test_a_large_jpeg_keeps_its_place_and_levels(tmp_path: Path) -> None:
    """It is decoded at a fraction of its size, which must not be seen."""
    values = np.zeros((1200, 1600, 3), np.uint8)
    values[:600, :800] = 180
    image = seen(write_picture(tmp_path / "p.jpg", values, quality=95))[0].astype(int)
    assert np.abs(image[:12, :12] - 180).max() <= 4 and image[16:, :].max() <= 4 and image[:, 16:].max() <= 4


@pytest.mark.parametrize(
    ("sides", "size"),
    [
        ([(28, 28), (28, 28)], 28), ([(32, 32)] * 2, 32), ([(64, 64)] * 2, 64), ([(64, 65)] * 2, 32),
        ([(28, 28), (32, 32), (32, 32)], 32), ([(200, 31), (200, 31), (99, 99)], 28), ([(10, 10)] * 2, 28),
    ],
)  # fmt: skip
def test_the_size_is_deduced_from_the_short_sides(sides: list[tuple[int, int]], size: int) -> None:
    from workflow.common.own_set import OwnSet

    look = Look.decide(OwnSet(folder="x"), np.array(sides), all_grey=True, deep=False)
    assert (look.size, look.grey, look.deduced) == (size, True, ("size", "mode"))
    assert Look.decide(OwnSet(folder="x", size=64), np.array(sides), all_grey=True, deep=False).size == 64


def test_pictures_that_use_little_of_their_range_are_told_about_once(tmp_path: Path, capsys) -> None:
    for name in ("a", "b"):
        for index in range(2):
            write_picture(tmp_path / f"in/{name}/{index}.png", (RAMP * 5).astype(np.uint16))
    make(tmp_path / "in", tmp_path / "out")
    assert capsys.readouterr().out.count("use 6.0% of the range of grey: state window=LOW,HIGH") == 1
    make(tmp_path / "in", tmp_path / "out", "--window", "0,4095")
    assert "window=" not in capsys.readouterr().out


def test_threads_give_the_same_arrays(tmp_path: Path) -> None:
    paths = [str(path) for path in sorted(classes(tmp_path / "in", count=100).rglob("*.png"))]
    one, many = (pictures.decode(paths, GREY, "decode", workers)[0] for workers in (1, 3))
    assert np.array_equal(one, many) and one[:100, 0, 0, 0].min() < one[100:, 0, 0, 0].min()


GOOD = png_bytes(LEVELS.astype(np.uint8), 8, 0)
_CUT = io.BytesIO()
Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 60, 3), np.uint8)).save(_CUT, "JPEG")
BAD_FILES = {
    "zero.png": (b"", "is empty (0 bytes); replace it or remove it"),
    "text.png": (b"quota exceeded", "is no picture, whatever its name says"),
    "postscript.png": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is no picture, whatever its name says"),
    "cut.png": (GOOD[: len(GOOD) // 2], "is damaged or cut short"),
    "cut.jpg": (_CUT.getvalue()[: len(_CUT.getvalue()) // 2], "is damaged or cut short"),
    "cut.tif": (tiff_bytes(DEEP)[:-200], "is "),
    "flipped.png": (
        GOOD[:33] + chunk(b"IDAT", GOOD[41:60]) + struct.pack(">I", 50) + b"\xe0\xafAT" + GOOD[60:],
        "is damaged or cut short",
    ),
    "garbled.png": (GOOD[:60] + b"\xff\xff\xff\xff" + GOOD[64:], "is damaged or cut short"),
    "text_chunk.png": (
        GOOD[:33] + chunk(b"zTXt", b"k\0\0" + zlib.compress(b"a" * (65 << 20))) + GOOD[33:],
        "is damaged or cut short (Decompressed data too large",
    ),
    "dot.png": (png_bytes(LEVELS[:1, :1].astype(np.uint8), 8, 0), "is 1x1 pixels; at least 8 on each side are needed"),
    "strip.png": (png_bytes(LEVELS[:7].astype(np.uint8), 8, 0), "is 28x7 pixels; at least 8 on each side"),
    "bomb.png": (png_bytes(LEVELS, 8, 0, size=(20000, 20000)), "has more pixels than 89,478,485; make it smaller"),
    "large.png": (png_bytes(LEVELS, 8, 0, size=(10000, 9000)), "is 9000x10000, 90,000,000 pixels; at most 89,478,485"),
    "nan.tif": (tiff_bytes(np.full((9, 9), np.nan, np.float32), sample_format=3), "holds NaN or infinity"),
    "float.tif": (
        tiff_bytes(np.full((9, 9), 3, np.float32), sample_format=3),
        "holds floats outside 0..1 (3 to 3); state window: LOW,HIGH",
    ),
    "int.tif": (tiff_bytes(np.full((9, 9), 3, np.int32), sample_format=2), "holds int32 integers (3 to 3); state win"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_file_is_named_with_its_mend_and_nothing_is_written(tmp_path: Path, capsys, name: str) -> None:
    content, message = BAD_FILES[name]
    stored(classes(tmp_path / "in") / "b" / name, content)
    assert f"error: {tmp_path}/in/b/{name} {message}" in refusal(capsys, tmp_path / "in")


def test_a_window_is_refused_where_the_lower_bits_are_lost_and_where_nothing_is_deep(tmp_path: Path, capsys) -> None:
    classes(tmp_path / "in")
    assert "leave window out" in refusal(capsys, tmp_path / "in", "--window", "0,9")
    values = np.repeat(DEEP[..., None], 3, 2).astype(">u2")
    write_picture(tmp_path / "in/a/deep.png", DEEP)
    stored(tmp_path / "in/b/colour.png", png_bytes(values, 16, 2))
    assert "b/colour.png has 16 bits in several channels, so that window" in refusal(
        capsys, tmp_path / "in", "--window", "0,9"
    )
    assert seen(tmp_path / "in/b/colour.png")[:, 14, 14].tolist() == [DEEP[14, 14] >> 8] * 3


@pytest.mark.parametrize("kind", [ValueError, struct.error, EOFError, zlib.error, MemoryError, SyntaxError, KeyError])
def test_whatever_a_decoder_raises_names_the_file(tmp_path: Path, capsys, monkeypatch, kind: type) -> None:
    classes(tmp_path / "in")

    def stumble(*_: object) -> None:
        raise kind("odd")

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load_prepare", stumble)
    error = refusal(capsys, tmp_path / "in")
    assert f"error: {tmp_path}/in/a/" in error and "odd" in error


def test_an_unreadable_file_is_named(tmp_path: Path, capsys, monkeypatch) -> None:
    """The root user may read everything, so that open itself has to refuse."""
    classes(tmp_path / "in")

    def closed(path: str, *rest: object) -> io.BufferedReader:
        if str(path).endswith("b/1.png"):
            raise PermissionError(13, "Permission denied")
        return open(path, *rest)

    monkeypatch.setattr(pictures, "open", closed, raising=False)
    assert "in/b/1.png may not be read; change its permissions" in refusal(capsys, tmp_path / "in")


def test_a_bad_picture_leaves_no_traceback_in_a_process_of_its_own(tmp_path: Path) -> None:
    stored(classes(tmp_path / "in") / "b/large.png", png_bytes(LEVELS, 8, 0, size=(10000, 9000)))
    command = [sys.executable, "-m", "workflow.datasets", "mine", "--folder", "in", "--out", "out"]
    root = Path(pictures.__file__).parents[2]
    done = subprocess.run(command, cwd=tmp_path, env={"PYTHONPATH": str(root)}, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == "" and not (tmp_path / "out").exists()
    assert done.stderr.startswith("error: in/b/large.png is 9000x10000") and done.stderr.count("\n") == 1
