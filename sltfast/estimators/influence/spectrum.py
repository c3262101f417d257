"""The smallest eigenvalue of a symmetric matrix that is known by its products alone."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

LANCZOS_STEPS = 40


def smallest_eigenvalue(
    product: Callable[[Tensor], Tensor], size: int, device: torch.device, *, steps: int = LANCZOS_STEPS, seed: int = 0
) -> float:
    """The smallest Ritz value of Lanczos from a random vector, all vectors kept orthogonal.

    It lies above the smallest eigenvalue λ_1, or on it, and comes within (λ_d − λ_1)·(ln d/m)² of it after m steps.

    Args:
        product: [1, d] ↦ [1, d], the matrix times a vector.
        size: d.
        device: of the vectors.
        steps: m, at most.
        seed: of the first vector.

    Source: Kuczyński & Woźniakowski 1992 (Lanczos from a random start).
    """
    vector = torch.randn(size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)).to(device)
    basis = (vector / vector.norm())[None]
    diagonal: list[float] = []
    beside: list[float] = []
    for step in range(min(steps, size)):
        image = product(basis[step : step + 1])[0]
        diagonal.append(float(basis[step] @ image))
        for _ in range(2):  # a second time for what the first one's rounding leaves
            image = image - basis.mT @ (basis @ image)
        length = float(image.norm())
        if step + 1 == min(steps, size) or length <= 1e-12 * max(1.0, *map(abs, diagonal)):
            break
        beside.append(length)
        basis = torch.cat([basis, (image / length)[None]])
    off = torch.tensor(beside, dtype=torch.float64)
    reduced = torch.diag(torch.tensor(diagonal, dtype=torch.float64)) + torch.diag(off, 1) + torch.diag(off, -1)
    return float(torch.linalg.eigvalsh(reduced)[0])
