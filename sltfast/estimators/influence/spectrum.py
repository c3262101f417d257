"""The smallest eigenvalue of a Hessian that is known by its products alone."""

from __future__ import annotations

import torch

from sltfast.diagnostics.lanczos import lanczos
from sltfast.hessian import Hessian

LANCZOS_STEPS = 40


def smallest_eigenvalue(hessian: Hessian, *, steps: int = LANCZOS_STEPS, seed: int = 0) -> float:
    """The smallest Ritz value of Lanczos from a random vector.

    It lies above the smallest eigenvalue λ_1, or on it, and comes within (λ_d − λ_1)·(ln d/m)² of it after m steps.

    Args:
        hessian: of d coordinates.
        steps: m, at most.
        seed: of the first vector.

    Source: Kuczyński & Woźniakowski 1992 (Lanczos from a random start).
    """
    start = torch.randn(hessian.numel, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    found = lanczos(lambda v: hessian.product(v[None])[0], start.to(hessian.items.device), min(steps, hessian.numel))
    return float(found.nodes[0])
