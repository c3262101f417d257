"""P7: the Bayesian influence of every token on every token, a whole ``compute_bif`` on the same recorded losses.

Correlations, as devinterp computes them. ``floor: half gemm`` is the product's tiles on and above the diagonal, written
into a matrix that is new in every call as the result is, and the rest of it written once. The kernels beneath are
measured by comoment.py, whose cases follow.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

import sltfast
from benchmarks.agreement import arrays_agree
from benchmarks.case import Case, Measurable, Plan, Side
from benchmarks.peers import devinterp_calls
from benchmarks.regimes import p07_comoment
from benchmarks.timing import Timed

POSITIONS, CHAINS, DRAWS = 127, 4, 200
TILE = 512
# a correlation is a float32 sum of n products of standardised draws: each side errs by (n + 3)·2⁻²⁴ at most
ATOL = 2 * (CHAINS * DRAWS + 3) * 2.0**-24


def losses(sequences: int) -> Tensor:
    """[chain, draw, sequence, position] float32, about a common level, with a part that all share."""
    generator = torch.Generator().manual_seed(0)
    common = torch.randn(CHAINS, DRAWS, 1, 1, generator=generator)
    own = torch.randn(CHAINS, DRAWS, sequences, POSITIONS, generator=generator)
    return 3 + 0.1 * own + 0.05 * common


def tree(values: Tensor) -> Any:
    """As a run leaves it."""
    import xarray as xr

    chains, _, sequences, positions = values.shape
    ids = torch.zeros(sequences, positions + 1, dtype=torch.int64).numpy()
    variables = {
        "loss_text": (("chain", "draw", "batch_text", "token_pos"), values.numpy()),
        "input_ids_text": (("batch_text", "token"), ids),
        "alive": ("chain", torch.ones(chains, dtype=torch.bool).numpy()),
    }
    return xr.DataTree(xr.Dataset(variables, attrs={"completed": 1}))


def half_gemm(x: Tensor) -> Tensor:
    """The products of half of the tiles, and as many writes as there are entries."""
    n = x.shape[1]
    out = torch.empty(n, n)
    for i in range(0, n, TILE):
        for j in range(i, n, TILE):
            rows, columns = slice(i, i + TILE), slice(j, j + TILE)
            torch.mm(x[:, rows].T, x[:, columns], out=out[rows, columns])
            if i != j:
                out[columns, rows].fill_(0)
    return out


def sampled(result: Any) -> Tensor:
    """Every seventh pair of sequences: comparing all of them would take their memory several times."""
    return torch.from_numpy(result["influences"].values[::7, ::7].copy())


def agree(found: Mapping[str, Tensor]) -> str:
    """Correlations equal up to their rounding.

    Raises:
        Disagreement: they are not.
    """
    return arrays_agree(found, rtol=0.0, atol=ATOL)


def case(regime: str, sequences: int, *, errors: bool) -> Timed:
    values = losses(sequences)
    samples, flat = tree(values), values.reshape(CHAINS * DRAWS, -1)
    options = {"compute_covariance": False, "device": "cpu"}

    def theirs() -> Any:
        devinterp_calls.need()
        from devinterp.slt.bif import compute_bif

        return compute_bif(samples, **options)

    def ours() -> Any:
        return sltfast.compute_bif(samples, progress=False, standard_errors=errors, **options)

    size = f"{sequences} × {POSITIONS} × {CHAINS * DRAWS}"
    return Timed(
        Case(
            regime,
            f"token BIF{' with standard errors' if errors else ''}, {size}",
            "call",
            Side(ours, read=sampled),
            {devinterp_calls.NAME: Side(theirs, read=sampled)},
            {
                "floor: half gemm": Side(lambda: half_gemm(flat)),
                "floor: gemm": Side(lambda: torch.mm(flat.T, flat)),
            },
            agree,
            "≥ 10×" if errors else "≥ 10×; ≤ 1.3× the floor",
        )
    )


def cases(plan: Plan, regime: str) -> Iterator[Measurable]:
    sequences = 4 if plan.tiny else 96
    yield case(regime, sequences, errors=False)
    yield case(regime, 4 if plan.tiny else 32, errors=True)
    yield from p07_comoment.cases(plan, regime)
