"""`token_loss_backward` in Triton, a slab of D = ρ·(softmax − onehot)·dz/da at a time.

    dH += D·W,  dW += Dᵀ·H,  db += Dᵀ·1

Logits are formed again in registers. A slab of D is bounded; holding none would form the logits once for each block of
the depth.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from sltfast.triton_kernels.ahead import Ahead
from sltfast.triton_kernels.token_loss import CHOICES, COLUMNS, OPERANDS, ROWS, SIZES
from sltfast.triton_kernels.token_loss_tiles import chain, constants_of, logits, rule_of

SLAB_ROWS, SLAB_VALUES = 4096, 1 << 23


@triton.jit(do_not_specialize=["tokens", "vocabulary", "ignore_index", "first", "columns"])
def dlogits_kernel(
    hidden, unembedding, bias, rule, targets, lse, weights, out,
    tokens, vocabulary, depth, w_row, w_column, ignore_index, first, columns,
    PRECISION: tl.constexpr, LOW: tl.constexpr, BIASED: tl.constexpr, CAPPED: tl.constexpr, SUM: tl.constexpr,
    DEPTH: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """A tile of D for entries first .. first + columns − 1, into `out` [tokens, columns]."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    at = tl.program_id(1).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)
    column = first + at
    z, slope = logits(
        hidden, unembedding, bias, rule, row, column, tokens, vocabulary, depth, w_row, w_column,
        PRECISION, LOW, BIASED, CAPPED, SUM, DEPTH, WIDE,
    )  # fmt: skip
    target = tl.load(targets + row, mask=row < tokens, other=ignore_index)
    exact = tl.load(lse + row, mask=row < tokens, other=0.0)
    rho = tl.load(weights + row, mask=row < tokens, other=0.0)
    rho = tl.where((target != ignore_index) & (target >= 0) & (target < vocabulary), rho, 0.0)
    # lse in two values: z − high is exact near the maximum, and low mends high
    high = exact.to(SUM)
    low = tl.where(tl.abs(high) < float("inf"), (exact - high.to(tl.float64)).to(SUM), 0.0)
    p = tl.exp((z - high[:, None]) - low[:, None])
    d = rho[:, None] * (p - tl.where(column[None, :] == target[:, None], 1.0, 0.0)) * slope
    d = tl.where(rho[:, None] == 0.0, 0.0, d)
    inside = (row[:, None] < tokens) & (at[None, :] < columns)
    tl.store(out + row[:, None] * columns + at[None, :], d.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["m", "n", "k"])
def accumulate_kernel(
    a, b, out, m, n, k, a_row, a_column, b_row, b_column,
    PRECISION: tl.constexpr, SUM: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
    DEPTH: tl.constexpr,
):  # fmt: skip
    """A [ROWS, COLUMNS] tile of out += A·B; B takes A's dtype."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.program_id(1).to(tl.int64) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    inside = (row < m) & (column < n)
    total = tl.load(out + row * n + column, mask=inside, other=0.0)
    for start in range(0, k, DEPTH):
        across = start + tl.arange(0, DEPTH)[None, :].to(tl.int64)
        down = start + tl.arange(0, DEPTH)[:, None].to(tl.int64)
        left = tl.load(a + row * a_row + across * a_column, mask=(row < m) & (across < k), other=0.0)
        right = tl.load(b + down * b_row + column * b_column, mask=(down < k) & (column < n), other=0.0)
        right = right.to(left.dtype)
        if WIDE:
            left, right = left.to(SUM), right.to(SUM)
        total = tl.dot(left, right, total, input_precision=PRECISION, out_dtype=SUM)
    tl.store(out + row * n + column, total, mask=inside)


def _depth(kind: torch.dtype) -> int:
    """Of a step of the products: 32 deep spills with float32 operands on sm_80."""
    return 32 if kind == torch.bfloat16 else 16


def accumulate(a: Tensor, b: Tensor, out: Tensor, constants: dict[str, object]) -> None:
    """`out` += a·b for a contiguous `out`."""
    (m, k), n = a.shape, b.shape[1]
    if out.numel() and k:
        accumulate_kernel[triton.cdiv(m, ROWS), triton.cdiv(n, COLUMNS)](
            a, b, out, m, n, k, *a.stride(), *b.stride(), PRECISION=constants["PRECISION"], SUM=constants["SUM"],
            WIDE=constants["WIDE"], ROWS=ROWS, COLUMNS=COLUMNS, DEPTH=_depth(a.dtype), num_warps=8,
        )  # fmt: skip


def token_loss_backward(
    dloss: Tensor,
    hidden: Tensor,
    unembedding: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    lse: Tensor,
    ignore_index: int,
    scale: float,
    softcap: float,
    precision: str,
    needs_hidden: bool,
    needs_unembedding: bool,
    needs_bias: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """`sltfast::triton_token_loss_backward`; a target out of range has no gradient."""
    chains, tokens, depth = hidden.shape
    vocabulary = unembedding.shape[1]
    hidden, targets, dloss, lse = (t.contiguous() for t in (hidden, targets, dloss, lse))
    bias = None if bias is None else bias.contiguous()
    constants = constants_of(hidden, bias, softcap, precision)
    rule = rule_of(scale, softcap, hidden.device)
    sums = [
        torch.zeros(t.shape if need and t is not None else 0, dtype=dloss.dtype, device=hidden.device)
        for t, need in zip((hidden, unembedding, bias), (needs_hidden, needs_unembedding, needs_bias), strict=True)
    ]
    rows = max(1, min(tokens, SLAB_ROWS))
    columns = max(COLUMNS, SLAB_VALUES // rows // COLUMNS * COLUMNS)
    # as torch's own backward does for bfloat16; float16 could not hold D
    kind = torch.bfloat16 if constants["LOW"] or hidden.dtype == torch.bfloat16 else dloss.dtype
    slab = torch.empty(rows * min(columns, max(vocabulary, 1)), dtype=kind, device=hidden.device)
    ones = torch.ones(1, rows, dtype=kind, device=hidden.device)
    for c in range(chains):
        w = chain(unembedding, c, hidden)
        for n in range(0, tokens, rows):
            h, count = hidden[c, n : n + rows], min(rows, tokens - n)
            for v in range(0, vocabulary, columns):
                width = min(columns, vocabulary - v)
                d = slab[: count * width].view(count, width)
                dlogits_kernel[triton.cdiv(count, ROWS), triton.cdiv(width, COLUMNS)](
                    h, w, chain(bias, c, hidden), rule, targets[c, n:], lse[c, n:], dloss[c, n:], d,
                    count, vocabulary, depth, *w.stride(), ignore_index, v, width,
                    **constants, ROWS=ROWS, COLUMNS=COLUMNS, num_warps=8,
                )  # fmt: skip
                if needs_hidden:
                    accumulate(d, w[v : v + width], sums[0][c, n : n + count], constants)
                if needs_unembedding:
                    accumulate(d.T, h, chain(sums[1], c, hidden)[v : v + width], constants)
                if needs_bias:
                    accumulate(ones[:, :count], d, chain(sums[2], c, hidden)[None, v : v + width], constants)
    dhidden, dunembedding, dbias = (t.to(hidden.dtype) for t in sums)
    return dhidden, dunembedding, dbias


AHEAD = tuple(
    Ahead(
        f"D {name}",
        dlogits_kernel,
        {"hidden": kind, "unembedding": kind, "bias": kind, **OPERANDS, "lse": "*fp64", "weights": "*fp32",
         "out": kind, **SIZES, "ignore_index": "i32", "first": "i32", "columns": "i32"},
        {**CHOICES, "ROWS": ROWS, "COLUMNS": COLUMNS, **own},
        num_warps=8,
    )
    for name, kind, own in (("fp32", "*fp32", {}), ("bf16", "*bf16", {"BIASED": True, "CAPPED": True, "DEPTH": 32}))
) + tuple(
    Ahead(
        f"product {name}",
        accumulate_kernel,
        {"a": kind, "b": kind, "out": "*fp32", "m": "i32", "n": "i32", "k": "i32", "a_row": "i32", "a_column": "i32",
         "b_row": "i32", "b_column": "i32"},
        {"PRECISION": "ieee", "SUM": tl.float32, "WIDE": False, "ROWS": ROWS, "COLUMNS": COLUMNS, **own},
        num_warps=8,
    )
    for name, kind, own in (
        ("fp32", "*fp32", {"DEPTH": _depth(torch.float32)}),
        ("tf32", "*fp32", {"DEPTH": _depth(torch.float32), "PRECISION": "tf32"}),
        ("bf16", "*bf16", {"DEPTH": _depth(torch.bfloat16)}),
    )
)  # fmt: skip
