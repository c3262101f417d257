"""Means and co-moments of draws as they come, and what is read from them.

The posterior covariance of losses, Cov[ℓ_i, ℓ_j], is what the Bayesian influence function (its negative), the loss
kernel and susceptibilities are made of.
"""

import torch
from torch import Tensor

from sltfast.ops.backend import implementation
from sltfast.ops.comoment_arguments import (
    Comoments,
    check_comoment,
    check_correlation,
    check_merge,
    check_standardise,
    check_top_k,
)
from sltfast.ops.running import run


def rounds_products(device: torch.device) -> bool:
    """Has the process allowed float32 products in TF32 there? Ours keep their bound: they turn to float64."""
    return device.type == "cuda" and torch.backends.cuda.matmul.allow_tf32


def comoments(
    groups: int, n: int, m: int | None = None, *, block: bool = True, device: torch.device | str = "cpu"
) -> Comoments:
    """The state of no draws: of G groups, N variables x and M variables y (None: y is x).

    With `block=False` only counts, means and second moments are kept: O(N + M), not O(N·M).
    """
    if min(groups, n, 0 if m is None else m) < 0:
        raise ValueError(f"groups, n and m must be >= 0, got {groups}, {n} and {m}")

    def zeros(*shape: int) -> Tensor:
        return torch.zeros(shape, dtype=torch.float64, device=device)

    mean_y, m2_y = (None, None) if m is None else (zeros(groups, m), zeros(groups, m))
    matrix = zeros(groups, n, n if m is None else m) if block else None
    return Comoments(zeros(groups), zeros(groups, n), zeros(groups, n), mean_y, m2_y, matrix)


def comoment_(
    state: Comoments,
    x: Tensor,
    y: Tensor | None = None,
    *,
    valid: Tensor | None = None,
    precision: str = "fp64",
    backend: str = "auto",
) -> None:
    r"""Join k draws to the moments of each group, in place, by Chan's rule.

        n' = n + m,  δ = x̄ − mean,  mean ← mean + δ·m/n'
        S ← S + Σ_t (x_t − x̄)(y_t − ȳ) + δ_x·δ_y·n·m/n'

    x̄ is the mean of the batch's m draws that count. Means, centring and accumulators are float64, so an offset common
    to all draws costs nothing. The product is one GEMM of k + 1 rows, the last of which is √(n·m/n')·δ; where y is x,
    half of it. Threads do not change a bit. The draws of a chain that died are left out, never averaged in.

    Args:
        state: from `comoments`; written in place.
        x: [G, k, N] float32 or float64, rows contiguous: a slice of columns needs no copy.
        y: [G, k, M] likewise; None where the state was made without m: y is x.
        valid: bool or uint8 [G, k], which draws count; stays on the device. Values of draws that do not count are not
            looked at; a NaN in one that does makes its variable's moments NaN.
        precision: of the products alone. "fp32" rounds centred draws to float32 and sums the batch in float32: it adds
            at most (k + 3)·2⁻²⁴·√(M2_x·M2_y) to a co-moment, where M2 is the batch's, usually √k of that; deviations
            from the mean must lie within 1e±18. "fp64" adds (k + 3)·2⁻⁵³, and is what runs where the process has
            allowed TF32.
        backend: "auto", "native", "triton" or "reference" (see `ops.backend.refusals`).

    Raises:
        TypeError: a dtype that is not listed above.
        ValueError: a shape, device or word that is not; the message says which and what is allowed.
        RuntimeError: `backend` names one that cannot run here.

    Source: Chan, Golub and LeVeque (1983), "Algorithms for computing the sample variance".
    """
    if precision == "fp32" and rounds_products(x.device):
        precision = "fp64"
    op = implementation("comoment_", backend, state.draws.device)
    run(op, lambda *_: check_comoment(state, x, y, valid, precision), (*state, x, y, valid, precision))


def comoment_merge_(state: Comoments, other: Comoments, *, backend: str = "auto") -> None:
    """Join the draws counted in `other` to `state`, in place, group by group; the same equation, S_other for its sum.

    Raises:
        ValueError: the states differ in G, N, M, in whether y is x, or in whether a block is kept.
    """
    op = implementation("comoment_merge_", backend, state.draws.device)
    run(op, lambda *_: check_merge(state, other), (*state, *other))


def comoment_covariance(state: Comoments, *, ddof: int = 1, out: Tensor | None = None) -> Tensor:
    """S / (n − ddof), [G, N, M] float64; not finite for a group of `ddof` draws.

    Raises:
        ValueError: the state keeps no block.
    """
    return torch.div(_block(state), (state.draws - ddof)[:, None, None], out=out)


def comoment_correlation(state: Comoments, *, out: Tensor | None = None, backend: str = "auto") -> Tensor:
    """S_ij / √(M2_i·M2_j) in [−1, 1], [G, N, M]; 0 where a variable does not vary.

    Where y is x the diagonal is exactly 1, or 0 for a variable that does not vary.

    Args:
        state: with a block.
        out: [G, N, M] float32 or float64, rows contiguous: a tile of a larger matrix will do. By default a new float64.
        backend: as in `comoment_`.

    Raises:
        ValueError: the state keeps no block, or `out` has another shape.
    """
    block = _block(state)
    r = torch.empty_like(block) if out is None else out
    op = implementation("comoment_correlation_", backend, block.device)
    run(op, check_correlation, (r, block, state.m2_x, state.m2_y))
    return r


def _block(state: Comoments) -> Tensor:
    if state.block is None:
        raise ValueError("this state keeps no block: make it with comoments(..., block=True)")
    return state.block


def comoment_standardise_(
    z: Tensor, x: Tensor, mean: Tensor, scale: Tensor, *, valid: Tensor | None = None, backend: str = "auto"
) -> None:
    """Z = (x − mean)·scale, in float64 and rounded once; 0 for draws that do not count.

    Args:
        z: [G, k, N] float32 or float64, rows contiguous; overwritten.
        x: [G, k, N] likewise.
        mean: float64 [G, N].
        scale: float64 [G, N].
        valid: bool or uint8 [G, k].
        backend: as in `comoment_`.
    """
    op = implementation("comoment_standardise_", backend, x.device)
    run(op, check_standardise, (z, x, mean, scale, valid))


def comoment_top_k_(
    values: Tensor,
    indices: Tensor,
    block: Tensor,
    *,
    column: int = 0,
    row: int | None = None,
    absolute: bool = True,
    backend: str = "auto",
) -> None:
    """Merge the columns of one tile into the K best of each row, in place; tiles may come in any order.

    Best means the largest value, or absolute value; of equals the lower index. NaN is never taken. Places are filled
    from the left; one whose index is −1 is empty, whatever its value: start from `indices.fill_(-1)`.

    Args:
        values: [N, K], the block's dtype.
        indices: int64 [N, K], columns of the whole matrix.
        block: [N, M] float32 or float64, rows contiguous.
        column: index of the tile's first column in the whole matrix.
        row: index of its first row; given, the entry of a variable with itself is left out.
        absolute: rank by |value|.
        backend: as in `comoment_`.
    """
    op = implementation("comoment_top_k_", backend, block.device)
    arguments = (values, indices, block, column, row, absolute)
    run(op, lambda *_: check_top_k(values, indices, block, column, row), arguments)
