"""`token_loss` in Triton: products and logsumexp in one kernel, no logit leaves the registers.

The vocabulary is split among programs, so that few tokens still fill a GPU; the parts are merged by `finish`.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from sltfast.ops.token_loss_arguments import computed_dtype
from sltfast.triton_kernels.ahead import Ahead
from sltfast.triton_kernels.token_loss_tiles import chain, constants_of, logits, rule_of

ROWS, COLUMNS = 64, 64  # 16 sums for each of 256 threads: with 128, float32 products spill
SPLIT = 2048  # entries of the vocabulary a program goes through


@triton.jit(do_not_specialize=["tokens", "vocabulary", "splits", "split"])
def reduce_kernel(
    hidden, unembedding, bias, rule, targets, largest, sums, at_target,
    tokens, vocabulary, depth, w_row, w_column, splits, split,
    PRECISION: tl.constexpr, LOW: tl.constexpr, BIASED: tl.constexpr, CAPPED: tl.constexpr, SUM: tl.constexpr,
    DEPTH: tl.constexpr, WIDE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """max_v z and Σ_v exp(z − max) of ROWS tokens over `split` entries, and the target's logit if among them."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    part = tl.program_id(1).to(tl.int64)
    target = tl.load(targets + row, mask=row < tokens, other=-1)
    m = tl.full((ROWS,), float("-inf"), SUM)
    s = tl.zeros((ROWS,), SUM)
    found = tl.zeros((ROWS,), SUM)
    for start in range(0, split, COLUMNS):
        column = part * split + start + tl.arange(0, COLUMNS).to(tl.int64)
        z, _ = logits(
            hidden, unembedding, bias, rule, row, column, tokens, vocabulary, depth, w_row, w_column,
            PRECISION, LOW, BIASED, CAPPED, SUM, DEPTH, WIDE,
        )  # fmt: skip
        found += tl.sum(tl.where(column[None, :] == target[:, None], z, 0.0), 1)
        z = tl.where(column[None, :] < vocabulary, z, float("-inf"))
        # NaN is left to the sum
        new = tl.maximum(m, tl.max(tl.where(z == z, z, float("-inf")), 1))
        # where nothing is finite yet, 0 stands in for −∞, whose difference with itself is NaN
        shift = tl.where(tl.abs(new) < float("inf"), new, 0.0)
        s = s * tl.exp(tl.where(s == 0.0, 0.0, m - shift)) + tl.sum(tl.exp(z - shift[:, None]), 1)
        m = new
    here = row * splits + part
    tl.store(largest + here, m, mask=row < tokens)
    tl.store(sums + here, s, mask=row < tokens)
    mine = (target >= part * split) & (target < (part + 1) * split) & (target < vocabulary)
    tl.store(at_target + row, found, mask=(row < tokens) & mine)


def token_loss(
    hidden: Tensor,
    unembedding: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    ignore_index: int,
    scale: float,
    softcap: float,
    precision: str,
) -> tuple[Tensor, Tensor]:
    """`sltfast::triton_token_loss`; a target out of range has loss NaN."""
    chains, tokens, depth = hidden.shape
    vocabulary = unembedding.shape[1]
    hidden, targets = hidden.contiguous(), targets.contiguous()
    bias = None if bias is None else bias.contiguous()
    splits = max(1, triton.cdiv(vocabulary, SPLIT))
    dtype = computed_dtype(hidden.dtype)
    largest, sums = (torch.empty(chains, tokens, splits, dtype=dtype, device=hidden.device) for _ in range(2))
    at_target = torch.full((chains, tokens), torch.nan, dtype=dtype, device=hidden.device)
    split = min(SPLIT, triton.cdiv(max(vocabulary, 1), COLUMNS) * COLUMNS)
    rule = rule_of(scale, softcap, hidden.device)
    constants = constants_of(hidden, bias, softcap, precision)
    for c in range(chains if tokens else 0):
        w = chain(unembedding, c, hidden)
        reduce_kernel[triton.cdiv(tokens, ROWS), splits](
            hidden[c], w, chain(bias, c, hidden), rule, targets[c], largest[c], sums[c], at_target[c],
            tokens, vocabulary, depth, *w.stride(), splits, split,
            **constants, ROWS=ROWS, COLUMNS=COLUMNS, num_warps=8,
        )  # fmt: skip
    return finish(largest, sums, at_target, targets != ignore_index, dtype)


def finish(
    largest: Tensor, sums: Tensor, at_target: Tensor, counts: Tensor, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    """(ℓ, lse) from the parts of a logsumexp, [C, N, splits]; 0 where a token does not count."""
    m, s = largest.double(), sums.double()
    shift = m.amax(-1, keepdim=True)
    shift = torch.where(torch.isfinite(shift), shift, 0)
    logarithm = torch.log((s * torch.exp(torch.where(s == 0, 0, m - shift))).sum(-1))
    shift = shift[..., 0]
    # the logits are subtracted first: their difference is exact where the size of lse would round
    loss = (shift - at_target.double() + logarithm).to(dtype)
    return torch.where(counts, loss, 0), torch.where(counts, shift + logarithm, 0)


SIZES = dict.fromkeys(("tokens", "vocabulary", "depth", "w_row", "w_column"), "i32")
CHOICES = {
    "BIASED": False,
    "CAPPED": False,
    "LOW": False,
    "PRECISION": "ieee",
    "SUM": tl.float32,
    "DEPTH": 16,
    "WIDE": False,
}
OPERANDS = {"rule": "*fp64", "targets": "*i64"}
AHEAD = tuple(
    Ahead(
        f"forward {name}",
        reduce_kernel,
        {"hidden": kind, "unembedding": kind, "bias": kind, **OPERANDS, "largest": "*fp32", "sums": "*fp32",
         "at_target": "*fp32", **SIZES, "splits": "i32", "split": "i32"},
        {**CHOICES, "ROWS": ROWS, "COLUMNS": COLUMNS, **own},
        num_warps=8,
    )
    for name, kind, own in (
        ("fp32", "*fp32", {}),
        ("tf32", "*fp32", {"PRECISION": "tf32"}),
        ("bf16", "*bf16", {"BIASED": True, "CAPPED": True, "DEPTH": 32}),
    )
)  # fmt: skip
