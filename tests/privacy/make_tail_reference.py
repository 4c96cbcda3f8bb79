"""Writes tail_reference.json: epsilon of composed pairs far in the tail, by code that has nothing in common with ours.

Losses are taken at the midpoints of 200,000 cells of outcomes, tilted to the epsilon in question, and moved to a grid
that keeps their mean and variance: no bound, but right to 1e-6. `python tests/privacy/make_tail_reference.py` takes
minutes.
"""

import json
from pathlib import Path

import numpy as np
from scipy import optimize, special, stats

CELLS, POINTS = 200_000, 2**20
# pair, rate, noise multiplier, uses
PLANS = [
    ("poisson", 64 / 60_000, 1.0, 1000),
    ("poisson", 0.01, 0.6, 300),
    ("poisson", 0.2, 4.0, 2000),
    ("poisson", 1e-4, 0.8, 50),
    ("substitution", 0.02, 0.7, 500),
    ("substitution", 0.001, 0.3, 20_000),
    ("one_draw", 0.01, 1.5, 1000),
    ("one_draw", 0.001, 0.4, 100),
    ("laplace", 1.0, 50.0, 400),
    ("laplace", 1.0, 3.0, 5),
    ("revealed", 1.0, 20.0, 300),
]
DELTAS = (1e-5, 3e-10, 1e-14, 1e-30)


def gaussian_cells(centres, width):
    """Cell midpoints [n] of outcomes in units of noise, and log masses [n] of a unit normal around each centre."""
    ends = np.linspace(min(centres) - width, max(centres) + width, CELLS + 1)
    middle = (ends[1:] + ends[:-1]) / 2
    cells = []
    for centre in centres:
        low, high = ends[:-1] - centre, ends[1:] - centre
        upper = middle > centre
        mass = np.where(upper, stats.norm.sf(low) - stats.norm.sf(high), stats.norm.cdf(high) - stats.norm.cdf(low))
        with np.errstate(divide="ignore"):
            cells.append(np.log(mass))
    return middle, cells


def mixed(rate, undrawn, drawn):
    return drawn if rate == 1 else np.logaddexp(np.log1p(-rate) + undrawn, np.log(rate) + drawn)


def worlds(pair, rate, noise):
    """The pair's losses and log masses under its first distribution; one entry for each direction."""
    if pair == "laplace":
        ends = np.linspace(0, 1, 100_001)
        inside = np.log(0.5 * (np.exp(-ends[:-1] / noise) - np.exp(-ends[1:] / noise)))
        losses = np.concatenate([[1 / noise], (1 - ends[1:] - ends[:-1]) / noise, [-1 / noise]])
        return [(losses, np.concatenate([[np.log(0.5)], inside, [np.log(0.5) - 1 / noise]]))]
    if pair == "substitution":
        away = 0.5 / noise
        at, (_, middle, right) = gaussian_cells((-away, 0.0, away), 16)
        up, down = (np.log1p(rate * np.expm1(sign * away * at - away**2 / 2)) for sign in (1, -1))
        return [(up - down, mixed(rate, middle, right))]
    at, (undrawn, drawn) = gaussian_cells((0.0, 1 / noise), 16)
    losses = np.log1p(rate * np.expm1(at / noise - 0.5 / noise**2))
    if pair == "one_draw":
        # Above 0 the mixture, below 0 its mirror image, the rest at 0.
        above = losses > 0
        parts = [mixed(rate, undrawn, drawn)[above], undrawn[above]]
        rest = np.log1p(-np.exp(special.logsumexp(np.concatenate(parts))))
        return [(np.concatenate([losses[above], -losses[above], [0.0]]), np.concatenate([*parts, [rest]]))]
    return [(losses, mixed(rate, undrawn, drawn)), (-losses, undrawn)]


def log_delta(losses, logs, uses, eps):
    """log E[(1 - e^(eps - L))+] of the sum L of `uses` losses."""

    def mean(tilt):
        return float(special.softmax(logs + tilt * losses) @ losses)

    if eps >= uses * losses.max():
        return -np.inf
    high = 1.0
    while mean(high) < eps / uses and high < 1e7:
        high *= 2
    tilt = optimize.brentq(lambda t: mean(t) - eps / uses, 0, high) if mean(0) < eps / uses < mean(high) else 0.0
    scale, weights = special.logsumexp(logs + tilt * losses), special.softmax(logs + tilt * losses)
    centre = float(weights @ losses)
    spread = float(np.sqrt(uses * (weights @ (losses - centre) ** 2)))
    step = 2 * (14 * spread + 2 * float(np.abs(losses[weights > 1e-16] - centre).max())) / POINTS
    place = (losses - centre) / step
    nearest = np.rint(place).astype(np.int64)
    off = place - nearest
    masses = np.zeros(POINTS)
    # Three neighbours keep mean and variance; a mass below 0 is no fault in a value that is no bound.
    for shift, share in ((-1, off * (off - 1) / 2), (0, 1 - off**2), (1, off * (off + 1) / 2)):
        masses += np.bincount((nearest + shift) % POINTS, weights * share, POINTS)
    total = np.fft.fftshift(np.fft.irfft(np.fft.rfft(masses) ** uses, POINTS))
    sums = uses * centre + (np.arange(POINTS) - POINTS // 2) * step
    kept = sums > eps
    terms = -tilt * sums[kept] + np.log(-np.expm1(eps - sums[kept]))
    return uses * scale + float(special.logsumexp(terms, b=total[kept]))


def epsilon(pairs, uses, delta):
    """Epsilon at `delta` of `uses` uses, in the direction that costs more."""

    def excess(eps):
        return max(log_delta(*pair, uses, eps) for pair in pairs) - np.log(delta)

    if excess(1e-6) <= 0:
        return 0.0
    high = 0.25
    while excess(high) > 0:
        high *= 2
    return optimize.brentq(excess, max(high / 2, 1e-6) if high > 0.25 else 1e-6, high, xtol=1e-8, rtol=1e-7)


def main():
    rows = []
    for pair, rate, noise, uses in PLANS:
        pairs = [(losses[logs > -1e300], logs[logs > -1e300]) for losses, logs in worlds(pair, rate, noise)]
        for delta in DELTAS:
            row = {"pair": pair, "rate": rate, "noise": noise, "uses": uses, "delta": delta}
            rows.append({**row, "epsilon": round(epsilon(pairs, uses, delta), 8)})
            print(rows[-1], flush=True)
    lines = ",\n".join(json.dumps(row) for row in rows)
    Path(__file__).with_name("tail_reference.json").write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
