"""How figures are written: png beside a pdf whose fonts are embedded, the same bytes for the same content."""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextPath

from workflow.common.files import atomic

# Type 42: letters stay letters, which journals ask for and which can be searched.
STYLE = {"font.family": "DejaVu Sans", "font.size": 8, "pdf.fonttype": 42, "svg.hashsalt": "report"}
# Not of a colour alone: words say the same. Vermilion and blue are told apart by all common colour vision.
WARNING, INK, FAINT = "#B03A00", "#1B4F8A", "0.35"
_DPI = 200
# Dates and versions out of the files: equal images give equal bytes.
_METADATA = {"png": {"Software": None}, "pdf": {"CreationDate": None, "ModDate": None, "Producer": None}}


def save(figure: Figure, stem: Path) -> list[Path]:
    """Writes `stem`.png (200 dpi) and `stem`.pdf; returns the paths. Raises UserError for a disk that refuses."""
    written = []
    for suffix, metadata in _METADATA.items():
        written.append(stem.with_name(f"{stem.name}.{suffix}"))
        with atomic(written[-1]) as temporary:
            figure.savefig(temporary, dpi=_DPI, metadata=metadata)
    return written


def message(text: str) -> Figure:
    """Returns a figure that says in one line why there is none."""
    figure = Figure(figsize=(6, 0.6))
    figure.text(0.5, 0.5, text, ha="center", va="center")
    return figure


def text_width(text: str, size: float) -> float:
    """Returns how wide a text is, in inches at a size in points; a `$` is no formula."""
    if not text.strip():
        return 0.0
    font = FontProperties(family=STYLE["font.family"])
    return TextPath((0, 0), text.replace("$", r"\\$"), size=size, prop=font, usetex=False).get_extents().width / 72
