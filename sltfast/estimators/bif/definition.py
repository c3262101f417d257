"""Which number an influence is: sign and scale of a covariance of losses."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Definition(NamedTuple):
    """sign × Cov, or sign × Corr."""

    sign: int
    normalize: bool

    @classmethod
    def of(cls, sign: int, normalize: bool, compute_covariance: bool | None) -> Definition:
        """From the keywords of `compute_bif`; `compute_covariance` given is devinterp's: +Cov, or +Corr.

        Raises:
            ValueError: sign is neither 1 nor −1, no truth value, or both ways to say it are used.
        """
        if not isinstance(normalize, bool | np.bool_) or not isinstance(compute_covariance, bool | np.bool_ | None):
            raise ValueError(
                f"normalize must be True or False, and compute_covariance also None, got {normalize!r} and "
                f"{compute_covariance!r}"
            )
        if sign not in (1, -1):
            raise ValueError(f"sign must be -1 (the definition, −Cov) or 1, got {sign!r}")
        if compute_covariance is None:
            return cls(sign, normalize)
        if sign != -1 or normalize:
            raise ValueError(
                f"compute_covariance={compute_covariance} is devinterp's convention and settles sign and normalize: "
                f"leave these out, got sign={sign}, normalize={normalize}"
            )
        return cls(1, not compute_covariance)

    @property
    def words(self) -> str:
        """As a formula."""
        return f"{'−' if self.sign < 0 else '+'}{'Corr' if self.normalize else 'Cov'}[ℓ_i, ℓ_j]"
