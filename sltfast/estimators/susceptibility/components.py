"""What each restriction's run says of itself: its refined learning coefficient, its φ, its chains."""

from __future__ import annotations

import math
from typing import Any

from sltfast.estimators.blocks import BlockReader
from sltfast.estimators.collection import estimate_of
from sltfast.estimators.susceptibility.chi import mean_phi
from sltfast.results.samples import root_of

ESTIMATE = ("llc_mean", "llc_se", "rhat", "ess", "drift")


def component(samples: Any, reader: BlockReader | None, phi_level: float) -> dict[str, Any]:
    """λ̂ of one run, with E[φ] and how many chains are behind both.

    Args:
        samples: the run.
        reader: of its blocks; None where no chain lived.
        phi_level: φ₀.
    """
    root = root_of(samples)
    facts: dict[str, Any] = dict.fromkeys(ESTIMATE, math.nan)
    facts |= {"verdict": "", "phi_mean": math.nan, "phi_se": math.nan, "chains_alive": 0}
    if "metadata" in root.attrs and ("loss" in root or "sampling_loss_micro" in root):
        # devinterp's trees have no paired losses: compute_llc takes init_loss there
        estimate = estimate_of(samples, include_burnin=False, init_loss="paired")
        facts |= {name: float(estimate[name]) for name in ESTIMATE}
        facts["verdict"] = str(estimate.attrs["verdict"])
    if reader is not None:
        phi = mean_phi(reader.means(reader.task), phi_level)
        facts |= {"phi_mean": float(phi.value), "phi_se": float(phi.se), "chains_alive": len(reader.chains)}
    return facts
