"""The Langevin step of a layer, taken where its gradient is formed; and when that may be done."""

import torch
from torch import Tensor

from sltfast.ops.backend import implementation
from sltfast.ops.grouped_gradient_arguments import check_grouped_gradient_step
from sltfast.ops.running import run
from sltfast.ops.streams import STREAM_STEP, signed_seed
from sltfast.ops.tf32 import round_tf32


def grouped_gradient_step_(
    w: Tensor,
    left: Tensor,
    right: Tensor,
    anchor: Tensor,
    segment: Tensor,
    hyper: Tensor,
    step: Tensor,
    chains: Tensor,
    *,
    seed: int,
    stream: int = STREAM_STEP,
    weights: Tensor | None = None,
    loss: Tensor | None = None,
    alive: Tensor | None = None,
    death_step: Tensor | None = None,
    precision: str = "ieee",
    backend: str = "auto",
) -> None:
    r"""One SGLD step of one layer (or a slice of it) of C chains, in place, in the epilogue of its gradient's GEMM.

        G_c = Σ_n s_{c,n} · left[c,n]ᵀ right[c,n]                          # [R, K]
        w ← clamp(w − (ε/2)·(nβ·G + λ·w + γ·(w − w*)) + √ε·σ·ξ,  w* − b,  w* + b)

    It is `langevin_step_` on that gradient: the same noise (by the full model's element), the same rule for chains that
    die; but a tile of G goes from the GEMM straight into the update, and there is no buffer for the rest. For
    torch.nn.Linear left is the output gradient D and right the input X; for a Conv1D of GPT-2, whose weight is
    [in, out], left is X and right D. A slice (a head's rows or columns) is left or right restricted to its columns.

    Whoever calls it in a backward pass answers for this, and `epilogue_refusal` says what cannot be seen from here:
    plain SGLD; one micro-batch a step; the weight is used once in the forward, and the gradient of its input is
    computed before the call; nothing runs the forward again afterwards; no metrics, no exact mode.

    Args:
        w: [C, P] float32 or float64, contiguous; P coordinates of C chains, updated in place.
        left: [C, N, R], N positions of all samples; w's dtype, bfloat16 or float16, any strides.
        right: [C, N, K] likewise; what the chains share may be expanded.
        anchor: R·K values, w*, shared by the chains; w's dtype, bfloat16 or float16.
        segment: int64 [5] on the CPU: offset in a row of w | R·K | element | run | stride, as a row of the segments
            of `langevin_step_`: run = K and stride = the full row's length, or run = R·K and stride = 0.
        hyper: float64 [C, 6]: ε | nβ | γ | λ | σ | b (inf = no box).
        step: int64 [], t.
        chains: int64 [C], chain ids.
        seed: 0..2^64-1.
        stream: 0..255, which use of randomness this is.
        weights: [C, N] of w's dtype, s; None: all 1. They multiply left, before it is rounded.
        loss: float64 [C]; a chain whose loss is not finite dies and does not move.
        alive: bool or uint8 [C]; chains at 0 are not touched.
        death_step: int64 [C]; set to t for a chain that dies at this step.
        precision: how the factors are rounded before they are multiplied: "ieee" (not), "tf32" or "bf16". Sums are in
            w's dtype.
        backend: "auto", "native", "triton" or "reference" (see `ops.backend.refusals`).

    Raises:
        TypeError: a dtype that is not listed above.
        ValueError: a shape, device, segment or number that is not; the message says which and what is allowed.
        RuntimeError: `backend` names one that cannot run here.
    """
    op = implementation("grouped_gradient_step_", backend, w.device)
    arguments = (
        w, left, right, weights, anchor, segment, hyper, step, chains, signed_seed(seed), stream, loss, alive,
        death_step, precision,
    )  # fmt: skip
    run(op, check_grouped_gradient_step, arguments)


def grouped_gradient(
    left: Tensor, right: Tensor, weights: Tensor | None = None, *, dtype: torch.dtype, precision: str = "ieee"
) -> Tensor:
    """G_c = Σ_n s_{c,n} · left[c,n]ᵀ right[c,n], for `langevin_step_` where the step cannot be taken in the epilogue.

    Args:
        left: [C, N, R].
        right: [C, N, K].
        weights: [C, N], s; None: all 1.
        dtype: in which it is summed, that of w.
        precision: of the factors, as in `grouped_gradient_step_`.

    Returns:
        [C, R, K].
    """
    a, b = left.to(dtype), right.to(dtype)
    if weights is not None:
        a = a * weights[..., None]
    if precision == "bf16":
        a, b = a.bfloat16().to(dtype), b.bfloat16().to(dtype)
    elif precision == "tf32":
        a, b = round_tf32(a.contiguous()), round_tf32(b.contiguous())
    return a.transpose(1, 2) @ b


def epilogue_refusal(
    *,
    method: str,
    micro_batches: int,
    uses: int,
    recomputed: bool = False,
    masked: bool = False,
    low: bool = False,
    metrics: bool = False,
    exact: bool = False,
    given_noise: bool = False,
) -> str:
    """Why a weight cannot take its step in the epilogue of its gradient's GEMM; "" where it can.

    Where it cannot: accumulate the gradient (`grouped_gradient`) and call `langevin_step_`.

    Args:
        method: the sampler's, one of `ops.METHODS`.
        micro_batches: backward passes a step.
        uses: how often one forward uses the weight; a tied weight counts all its places.
        recomputed: does the backward run the weight's forward again (activation checkpointing)?
        masked: does an arbitrary mask say which coordinates move (not rows or columns)?
        low: does a rounded copy of w go with it?
        metrics: are the diagnostics of the step asked for?
        exact: is torch's order of operations to be kept to the bit?
        given_noise: is the noise a tensor, not Philox's?
    """
    reasons = {
        f"the method is {method!r}, and only 'sgld' needs no state beside w": method != "sgld",
        f"a step is {micro_batches} micro-batches, and the gradient is complete only after the last": micro_batches > 1,
        f"the forward uses the weight {uses} times, and its gradient is the sum of all": uses != 1,
        "the forward runs again in the backward, and would see the moved weight": recomputed,
        "a mask says which coordinates move (slices of rows or columns would do)": masked,
        "a rounded copy of the weight is kept, which is written by langevin_step_": low,
        "metrics are asked for, which langevin_step_ sums": metrics,
        "exact mode keeps torch's order of operations": exact,
        "the noise is given as a tensor": given_noise,
    }
    return next((reason for reason, holds in reasons.items() if holds), "")
