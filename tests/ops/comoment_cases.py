"""Random draws, their moments in extended precision, and how far an op may be from them."""

import numpy as np
import torch
from torch import Tensor

from sltfast import ops

BACKENDS = ("native", "reference")
U64, U32 = 2.0**-53, 2.0**-24
# what losses look like at their worst: (offset, scale) of the draws of each variable
SHAPES = {"plain": (0.0, 1.0), "shifted": (1e4, 1e-3), "large": (-3e8, 5.0), "tiny": (1e-30, 1e-33)}


def make_draws(groups: int, k: int, n: int, kind: str = "plain", *, seed: int = 0, dtype=torch.float64) -> Tensor:
    """[G, k, N]: correlated draws, whose offset and scale differ by variable."""
    generator = torch.Generator().manual_seed(seed)
    offset, scale = SHAPES[kind]
    shared = torch.randn(groups, k, 1, generator=generator, dtype=torch.float64)
    own = torch.randn(groups, k, n, generator=generator, dtype=torch.float64)
    factor = torch.rand(n, generator=generator, dtype=torch.float64) + 0.5
    return (offset * factor + scale * factor * (0.7 * shared + own)).to(dtype)


class Truth:
    """Two-pass moments of one group in extended precision (64 bits of mantissa)."""

    def __init__(self, x: Tensor, y: Tensor | None = None, valid: Tensor | None = None) -> None:
        rows = slice(None) if valid is None else valid.bool().numpy()
        a = x.numpy().astype(np.longdouble)[rows]
        b = a if y is None else y.numpy().astype(np.longdouble)[rows]
        self.n = len(a)
        self.mean_x, self.mean_y = (c.sum(0) / max(self.n, 1) for c in (a, b))
        self.cx, self.cy = a - self.mean_x, b - self.mean_y
        self.m2_x, self.m2_y = (self.cx**2).sum(0), (self.cy**2).sum(0)
        self.block = self.cx.T @ self.cy
        self._draws = a, b

    def mean_error(self, batches: int, k: int) -> tuple[np.ndarray, np.ndarray]:
        """E of the means of x and y: (batches + 2) roundings of a value up to max|x|, and k of one up to max|x − mean|.

        The latter is the sum of what the first mean of a batch left.
        """
        if self.n == 0:
            return self.mean_x * 0, self.mean_y * 0
        draws, centred = self._draws, (self.cx, self.cy)
        ex, ey = (
            U64 * ((batches + 2) * np.abs(d).max(0) + 2 * k * np.abs(c).max(0))
            for d, c in zip(draws, centred, strict=True)
        )
        return ex, ey

    def bound(self, batches: int, *, k: int, unit: float = U64) -> np.ndarray:
        """By how much a block may err: sums of at most k products in `unit`, then `batches` merges in float64.

        A merge multiplies δx by δy, which err by E, with a weight w ≤ m; Σ w·δ² ≤ M2, so by Cauchy the merges err by
        √(n·M2x)·Ey + √(n·M2y)·Ex + n·Ex·Ey. Centred draws (two roundings), products and sums: (k + 4)·unit·√(M2x·M2y),
        by Cauchy again.
        """
        root_x, root_y = np.sqrt(self.m2_x), np.sqrt(self.m2_y)
        ex, ey = self.mean_error(batches, k)
        sums = ((k + 4) * unit + (self.n + batches) * U64) * np.outer(root_x, root_y)
        root_n = np.sqrt(self.n)
        return sums + root_n * (np.outer(root_x, ey) + np.outer(ex, root_y)) + self.n * np.outer(ex, ey)


def check_state(state: ops.Comoments, truths: list[Truth], batches: int, *, k: int, unit: float = U64) -> None:
    """Are the moments of every group within their bounds of the truth?"""
    for g, truth in enumerate(truths):
        assert state.draws[g] == truth.n
        assert np.all(np.abs(state.mean_x[g].numpy() - truth.mean_x) <= truth.mean_error(batches, k)[0])
        if state.symmetric:
            assert np.all(np.abs(state.m2_x[g].numpy() - truth.m2_x) <= np.diagonal(truth.bound(batches, k=k)))
        if state.block is not None:
            error = np.abs(state.block[g].numpy() - truth.block)
            assert np.all(error <= truth.bound(batches, k=k, unit=unit))


def joined(
    x: Tensor, y: Tensor | None = None, *, chunk: int | None = None, backend: str = "native", valid=None, **options
) -> ops.Comoments:
    """The state after all draws, `chunk` at a time."""
    groups, k, n = x.shape
    state = ops.comoments(groups, n, None if y is None else y.shape[2], **options.pop("made", {}))
    step = chunk or max(k, 1)
    for start in range(0, k, step):
        cut = slice(start, start + step)
        ops.comoment_(
            state,
            x[:, cut],
            None if y is None else y[:, cut],
            valid=None if valid is None else valid[:, cut].contiguous(),
            backend=backend,
            **options,
        )
    return state


def truths(x: Tensor, y: Tensor | None = None, valid: Tensor | None = None) -> list[Truth]:
    """One a group."""
    return [Truth(x[g], None if y is None else y[g], None if valid is None else valid[g]) for g in range(x.shape[0])]
