"""The learning coefficient as the exponent by which the volume of good parameters vanishes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

PIECES = 10  # of the sample, each fitted alone for the error


class VolumeExponent(NamedTuple):
    """A fit of log V(ε) against log ε.

    Attributes:
        exponent: λ.
        se: its standard error, by batches of the sample.
        thresholds: ε [K] at which the volume was read.
        volumes: V(ε) [K], shares of the prior.
    """

    exponent: float
    se: float
    thresholds: np.ndarray
    volumes: np.ndarray


def volume_exponent(
    excess: ArrayLike, *, multiplicity: int = 1, smallest: float = 1e-4, largest: float = 1e-2
) -> VolumeExponent:
    """Fit λ to the volume of parameters below a loss, from losses of independent draws of the prior.

        V(ε) = P(L(w) − L* < ε) ~ c·ε^λ·(−log ε)^(m−1),  ε → 0,

    so that λ is the slope of log V − (m − 1)·log(−log ε) against log ε, by least squares over twenty volumes between
    ``smallest`` and ``largest``. For models of few parameters: a volume that no draw falls into cannot be measured, and
    V = ε^λ is small where λ is large.

    Args:
        excess: L(w) − L* >= 0 [N] of N independent draws w from the prior.
        multiplicity: m >= 1, where it is known.
        smallest: V of the smallest threshold; 100 draws must fall below it in each tenth of the sample.
        largest: V of the largest threshold.

    Returns:
        The exponent with its error and the points it was fitted to.

    Raises:
        ValueError: losses below 0 or not finite, m < 1, volumes out of order, too few draws, or a threshold of 1 and
            more with m > 1.

    Source: Watanabe, "Algebraic Geometry and Statistical Learning Theory" (2009), §7; Lau et al. 2308.12108, §3.
    """
    losses = np.asarray(excess, dtype=np.float64).ravel()
    if not (np.isfinite(losses).all() and (losses >= 0).all()):
        raise ValueError("excess must be finite and >= 0: subtract the least loss L*, and leave out draws without one")
    if multiplicity < 1:
        raise ValueError(f"multiplicity must be >= 1, got {multiplicity!r}")
    if not 0 < smallest < largest <= 1:
        raise ValueError(f"volumes must be 0 < smallest < largest <= 1, got {smallest!r} and {largest!r}")
    if len(losses) * smallest < 100 * PIECES:
        raise ValueError(
            f"{len(losses)} draws are too few for volumes of {smallest:g}: give {int(100 * PIECES / smallest)} draws, "
            "or a larger smallest"
        )
    volumes = np.geomspace(smallest, largest, 20)
    exponent, thresholds = _slope(losses, volumes, multiplicity)
    pieces = [_slope(piece, volumes, multiplicity)[0] for piece in np.array_split(losses, PIECES)]
    return VolumeExponent(exponent, float(np.std(pieces, ddof=1) / PIECES**0.5), thresholds, volumes)


def _slope(losses: np.ndarray, volumes: np.ndarray, multiplicity: int) -> tuple[float, np.ndarray]:
    """λ of one sample and the thresholds of its volumes: its quantiles."""
    thresholds = np.quantile(losses, volumes)
    if thresholds[0] <= 0 or (multiplicity > 1 and thresholds[-1] >= 1):
        raise ValueError(
            f"thresholds of these volumes run from {thresholds[0]:.3g} to {thresholds[-1]:.3g}; they must be > 0, and "
            "below 1 with a multiplicity above 1: give other volumes"
        )
    x = np.log(thresholds)
    y = np.log(volumes) - ((multiplicity - 1) * np.log(-x) if multiplicity > 1 else 0.0)
    return float(np.polyfit(x, y, 1)[0]), thresholds
