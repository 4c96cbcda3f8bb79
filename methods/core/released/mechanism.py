"""One kind of noisy answer in plain English."""

from __future__ import annotations

from methods.core.release import Release

_NORM = {"gaussian": "L2", "laplace": "L1"}


def in_words(release: Release) -> str:
    """Returns sentences with the clip, the noise, the draw and the most uses of a release with noise."""
    sentences = [_answer(release), _noise(release), _draw(release), _uses(release)]
    if release.state == "hidden":
        sentences.append("Networks that stay private may remember earlier draws, which the count allows for.")
    return f"`{release.name}`: {' '.join(sentences)}"


def _answer(release: Release) -> str:
    if release.bounded == "votes":
        return "Counts of votes; each voter has seen its own part of the records, and names one of several bins."
    if release.bounded == "moments":
        return (
            "The second moments of each class, or of each part of one, all together: sums of u u^T over at most"
            f" {release.rows} rows u, each from one record and clipped to {_NORM[release.kind]} norm"
            f" {release.clip:.6g}."
        )
    rows = f"{release.rows} row" + ("" if release.rows == 1 else "s")
    clipped = f"clipped to {_NORM[release.kind]} norm {release.clip:.6g}"
    if release.bounded == "sum":
        return f"A sum of at most {rows}, each from one record or one fixed part of them, {clipped}."
    return f"At most {rows}, each any function of the drawn records, {clipped} on its own."


def _noise(release: Release) -> str:
    scale = "standard deviation" if release.kind == "gaussian" else "scale"
    return (
        f"{release.kind.capitalize()} noise of {scale} {release.scale:.6g} is added: noise multiplier"
        f" {release.noise:.6g} times sensitivity {release.sensitivity:.6g}."
    )


def _draw(release: Release) -> str:
    if release.sampling == "all":
        return "All records take part (rate 1)."
    each = ", anew for each row" if release.draws == "per_row" else ""
    if release.sampling == "poisson":
        return f"Each record, or fixed part of them, is drawn on its own with probability {release.rate:.6g}{each}."
    parts = round(1 / release.rate)
    return f"One of {parts} fixed parts of the records is drawn at random (rate {release.rate:.6g}){each}."


def _uses(release: Release) -> str:
    answers = f", each with {release.answers} answers that are counted apart" if release.answers > 1 else ""
    return f"Uses: at most {release.max_uses}{answers}."
