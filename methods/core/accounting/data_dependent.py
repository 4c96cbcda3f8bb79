"""PATE's data-dependent privacy cost of teacher votes, in Renyi DP: computed from the true votes, so itself private.

A noisy answer that the votes leave in little doubt costs less than the worst case. The cost is bounded from q, an upper
bound on the probability that the noisy answer is not the expected one. Sources: Papernot et al., Scalable private
learning with PATE (2018), Theorem 6 and Propositions 7, 8 and 10; Papernot et al., Semi-supervised knowledge transfer
(2017), Theorem 3, whose q is here the exact tail of one Laplace draw.
"""

from __future__ import annotations

import math

import torch

ORDERS = torch.cat(
    [torch.tensor([1.1, 1.25, 1.5, 1.75]), torch.arange(2, 33) * 1.0, torch.logspace(5.1, 9, 40, base=2)]
).double()
# Answers beyond doubt: a larger q is still a bound, and keeps the arithmetic finite.
_LEAST_LOG_Q = -1e4


def log_doubt_of_sign(votes: torch.Tensor, scale: float) -> torch.Tensor:
    """Returns log q [A] of the sign of votes [A] plus Laplace noise of scale b = `scale`."""
    return -votes.double().abs() / scale - math.log(2)


def log_doubt_of_winner(counts: torch.Tensor, scale: float, threshold: float) -> torch.Tensor:
    """Returns log q [A] of the largest of counts [A, bins], each plus N(0, scale^2), or of a refusal.

    The answer is refused where the largest noisy count is below `threshold`. By union bounds, for whichever of
    the true winner and the refusal leaves less doubt.
    """
    counts = counts.double()
    top, winner = counts.max(dim=1, keepdim=True)
    beaten = torch.special.log_ndtr((counts - top) / (scale * math.sqrt(2)))
    beaten = beaten.scatter(1, winner, -math.inf).logsumexp(dim=1)
    refused = torch.special.log_ndtr((threshold - top[:, 0]) / scale)
    passed = torch.special.log_ndtr((counts - threshold) / scale).logsumexp(dim=1)
    return torch.minimum(torch.logaddexp(beaten, refused), passed)


def laplace_rdp(noise: float) -> torch.Tensor:
    """Returns the worst-case Renyi DP at ORDERS of one Laplace answer with noise multiplier `noise`."""
    up, down = ORDERS / (2 * ORDERS - 1), (ORDERS - 1) / (2 * ORDERS - 1)
    return torch.logaddexp(up.log() + (ORDERS - 1) / noise, down.log() - ORDERS / noise) / (ORDERS - 1)


def gaussian_rdp(noise: float) -> torch.Tensor:
    """Returns the worst-case Renyi DP at ORDERS of one Gaussian answer with noise multiplier `noise`."""
    return ORDERS / (2 * noise**2)


def laplace_cost(log_q: torch.Tensor, noise: float) -> torch.Tensor:
    """Returns the summed Renyi DP at ORDERS of answers with log q [A], each from Laplace noise; never above worst."""
    log_q = log_q.cpu().double().clamp(_LEAST_LOG_Q, 0.0)[:, None]
    rest = log_q.exp().clamp_max(1 - 1e-12).neg().log1p()
    inner = (1 - (log_q + 1 / noise).exp()).clamp_min(1e-300).log()
    # Where Theorem 3 does not hold, this expression is above the worst case anyway.
    holds = torch.ones_like(log_q, dtype=torch.bool)
    return _summed(log_q, rest - inner, torch.full_like(log_q, 1 / noise), holds, laplace_rdp(noise))


def gaussian_cost(log_q: torch.Tensor, noise: float) -> torch.Tensor:
    """Returns the summed Renyi DP at ORDERS of answers with log q [A], each from Gaussian noise; never above worst."""
    log_q = log_q.cpu().double().clamp(_LEAST_LOG_Q, 0.0)[:, None]
    slope = 1 / (2 * noise**2)
    second = (-log_q / slope).sqrt()
    first = second + 1
    log_limit = (second - 1) * second * slope - second * (
        (first / second).log() + (second / (second - 1).clamp_min(1e-300)).log()
    )
    holds = (second > 1) & (log_q <= log_limit) & (first >= ORDERS) & (log_q + second * slope < 0)
    rest = log_q.exp().clamp_max(1 - 1e-12).neg().log1p()
    power = ((log_q + second * slope) * (second - 1) / second.clamp_min(1e-300)).clamp_max(-1e-300)
    return _summed(log_q, rest - (-power.expm1()).log(), first * slope - log_q / second, holds, gaussian_rdp(noise))


def epsilon(total: torch.Tensor, delta: float) -> float:
    """Returns epsilon at `delta` of a summed Renyi DP at ORDERS."""
    # Here, as drawing samples loads this file and needs no accountant.
    from dp_accounting import rdp

    return float(rdp.compute_epsilon(ORDERS.tolist(), total.tolist(), delta)[0])


def _summed(
    log_q: torch.Tensor, log_a: torch.Tensor, log_b: torch.Tensor, holds: torch.Tensor, worst: torch.Tensor
) -> torch.Tensor:
    """Theorem 6: log((1 - q) A^(order - 1) + q B^(order - 1)) / (order - 1) where it holds and helps."""
    rest = log_q.exp().clamp_max(1 - 1e-12).neg().log1p()
    bound = torch.logaddexp(rest + (ORDERS - 1) * log_a, log_q + (ORDERS - 1) * log_b) / (ORDERS - 1)
    return torch.where(holds, torch.minimum(bound.clamp_min(0.0), worst), worst).sum(dim=0)
