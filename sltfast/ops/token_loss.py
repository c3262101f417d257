"""`token_loss`: cross-entropy of each token from hidden states and an unembedding, without logits in memory."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from sltfast.ops.arguments import MASTER_DTYPES
from sltfast.ops.backend import implementation, native_ops
from sltfast.ops.registration import LIBRARY
from sltfast.ops.running import run
from sltfast.ops.token_loss_arguments import check_rows, check_shapes, check_token_loss, computed_dtype

DENSE_LOGITS = {False: 1 << 17, True: 1 << 20}
"""Up to how many logits PyTorch's own cross-entropy of all of them is the faster on a CPU without `token_weights`, by
whether a gradient is asked for: then it saves the product that forms the logits again, 4 MiB of logits at most. With
`token_weights` the op is the faster but for some 50 µs a call."""


class WeightedTokenLoss(NamedTuple):
    """``total`` [], Σ ρ·ℓ over all tokens, differentiable; ``losses`` ℓ per token, detached."""

    total: Tensor
    losses: Tensor


def token_loss(
    hidden: Tensor,
    unembedding: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    ignore_index: int = -100,
    scale: float = 1.0,
    softcap: float | None = None,
    token_weights: Tensor | None = None,
    precision: str = "fp32",
    backend: str = "auto",
) -> Tensor | WeightedTokenLoss:
    r"""Cross-entropy of each token, differentiable by hidden states, unembedding and bias.

        z_nv = s·tanh(κ·(⟨h_n, w_v⟩ + b_v)/s)   (without softcap: κ·(⟨h_n, w_v⟩ + b_v))
        ℓ_n  = ln Σ_v exp(z_nv) − z_{n,y_n}

    Logits exist a tile at a time, so memory does not grow with N·V; the backward forms them again and is exact. Where
    the weights ρ of the loss are known beforehand (a mean: 1/N), `token_weights` forms the gradients with the losses:
    three matrix products instead of four, at the price of holding the gradients from then on.

    Args:
        hidden: [N, d] or [C, N, d], h; float32, float64, bfloat16 or float16. Chains C.
        unembedding: [V, d], or [C, V, d] for one a chain, w; hidden's dtype. A transposed [d, V] is read in place.
        targets: int64 [N] or [C, N], y; [N] is shared by the chains.
        bias: [V] or [C, V], b; hidden's dtype.
        ignore_index: a token with this target has ℓ = 0 and no gradient.
        scale: κ, of the logits.
        softcap: s > 0, or None.
        token_weights: ρ, [N] or [C, N]; a token with ρ = 0 is left out of the total and has no gradient.
        precision: of the matrix products' operands; sums are in float32 in any case. "fp32"; "tf32", where the device
            has it; "bf16": rounded to bfloat16.
        backend: "auto", "native", "triton" or "reference" (see `ops.backend.refusals`). On a CPU "auto" leaves few
            logits (`DENSE_LOGITS`) to PyTorch's own cross-entropy, unless there are token_weights.

    Returns:
        ℓ, [N] or [C, N], float32 (float64 for float64 inputs); with `token_weights` a `WeightedTokenLoss` whose
        `total` alone may be differentiated: the gradients are those of this weighting, and ℓ comes detached.

    Raises:
        TypeError: a dtype that is not listed above.
        ValueError: a shape, device or number that is not, token_weights that ask for a gradient; on a CPU a target
            out of range (on a GPU, where asking would wait for the device, its loss is NaN).
        RuntimeError: `backend` names one that cannot run here; a second derivative is asked for.
    """
    if softcap is not None and not softcap > 0:
        raise ValueError(f"softcap must be finite and > 0, got {softcap} (None: no cap)")
    given = hidden.shape[:-1]
    if hidden.dim() == 2:
        hidden = hidden[None]
    if unembedding.dim() == 2:
        unembedding = unembedding[None]
    if bias is not None and bias.dim() == 1:
        bias = bias[None]
    targets, token_weights = (_of_every_chain(t, hidden) for t in (targets, token_weights))
    rest: tuple[Any, ...] = (ignore_index, float(scale), float(softcap or 0.0), precision)
    if hidden.dim() == 3 and len(unembedding) == 1 and (bias is None or len(bias) == 1):
        # chains that share all weights are one longer chain
        hidden = hidden.reshape(1, -1, hidden.shape[-1])
        targets = targets.reshape(1, -1)
        token_weights = None if token_weights is None else token_weights.reshape(1, -1)
    if token_weights is None:
        if backend == "auto" and _dense_is_faster(hidden, unembedding, bias, precision):
            return _dense(hidden, unembedding, bias, targets, *rest).view(given)
        op = implementation("token_loss", backend, hidden.device)
        return run(op, check_token_loss, (hidden, unembedding, bias, targets, *rest))[0].view(given)
    if token_weights.requires_grad:
        raise ValueError(
            "token_weights must not require a gradient (weigh the losses of token_loss(...) without token_weights)"
        )
    op = implementation("token_loss_with_gradient", backend, hidden.device)
    weights = token_weights.to(computed_dtype(hidden.dtype))
    asked = torch.is_grad_enabled()
    needs = (asked and unembedding.requires_grad, asked and bias is not None and bias.requires_grad)
    if not (needs[0] or needs[1] or (asked and hidden.requires_grad)):
        op = implementation("token_loss", backend, hidden.device)
        losses = run(op, check_token_loss, (hidden, unembedding, bias, targets, *rest))[0]
        return WeightedTokenLoss(torch.where(weights != 0, weights * losses, 0).sum(), losses.view(given))
    arguments = (hidden, unembedding, bias, targets, weights, *rest, *needs)
    if torch.compiler.is_compiling():
        total, losses, *_ = op(*arguments)
    else:
        total, losses = _Weighted.apply(op, *arguments)
    return WeightedTokenLoss(total, losses.view(given))


class _Weighted(torch.autograd.Function):
    """`token_loss_with_gradient`, whose gradients go on to the leaves as they are, without a copy as large as they."""

    @staticmethod
    def forward(ctx: Any, op: Callable[..., Any], *arguments: Any) -> tuple[Tensor, Tensor]:
        total, losses, *ctx.gradients = run(op, _check_weighted, arguments)
        ctx.op, ctx.rest = op, arguments[5:]
        ctx.save_for_backward(*arguments[:5])
        ctx.mark_non_differentiable(losses)
        return total, losses

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, dtotal: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        gradients, ctx.gradients = ctx.gradients, None
        if gradients is None:  # a retained graph, run again: the first gradients are the leaves' now
            gradients = ctx.op(*ctx.saved_tensors, *ctx.rest)[2:]
        # on a GPU asking would wait for the device
        is_one = dtotal.device.type == "cpu" and float(dtotal.numpy()) == 1.0
        if not is_one:
            gradients = [g.mul_(dtotal) for g in gradients]
        needs = ctx.needs_input_grad[1:4]
        return None, *(g if need else None for g, need in zip(gradients, needs, strict=True)), *[None] * 8


def _dense_is_faster(hidden: Tensor, unembedding: Tensor, bias: Tensor | None, precision: str) -> bool:
    if hidden.device.type != "cpu" or hidden.dim() != 3 or hidden.dtype not in MASTER_DTYPES or precision == "bf16":
        return False
    moving = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (hidden, unembedding, bias))
    return hidden.shape[0] * hidden.shape[1] * unembedding.shape[1] <= DENSE_LOGITS[moving]


def _dense(
    hidden: Tensor,
    unembedding: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    ignore_index: int,
    scale: float,
    softcap: float,
    precision: str,
) -> Tensor:
    check_shapes(hidden, unembedding, bias, targets, scale, softcap, precision)
    z = hidden @ unembedding.transpose(1, 2)
    if bias is not None:
        z = z + bias[:, None]
    if scale != 1.0:
        z = scale * z
    if softcap:
        z = softcap * torch.tanh(z / softcap)
    flat, y = z.flatten(0, 1), targets.flatten()
    if torch.compiler.is_compiling():
        return F.cross_entropy(flat, y, ignore_index=ignore_index, reduction="none")
    try:
        return F.cross_entropy(flat, y, ignore_index=ignore_index, reduction="none")
    except (IndexError, RuntimeError):
        check_token_loss(hidden, unembedding, bias, targets, ignore_index, scale, softcap, precision)
        raise


def _of_every_chain(rows: Any, hidden: Tensor) -> Any:
    """[N] as [C, N]."""
    if rows is None or rows.dim() != 1 or hidden.dim() != 3:
        return rows
    return rows.expand(hidden.shape[0], -1)


def _check_weighted(
    hidden: Tensor,
    unembedding: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    token_weights: Tensor,
    *rest: Any,
) -> None:
    """The rules of `token_loss_with_gradient`; its last two arguments say which gradients are needed."""
    check_token_loss(hidden, unembedding, bias, targets, *rest[:-2])
    check_rows("token_weights", token_weights, targets, computed_dtype(hidden.dtype))


def _keep_for_backward(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    hidden, unembedding, bias, targets, *ctx.rest = inputs
    ctx.save_for_backward(hidden, unembedding, bias, targets, output[1])
    ctx.mark_non_differentiable(output[1])


def _backward(backend: str) -> Callable[..., Any]:
    def backward(ctx: Any, dloss: Tensor, _: Any) -> tuple[Tensor | None, ...]:
        hidden, unembedding, bias, targets, lse = ctx.saved_tensors
        needs = tuple(ctx.needs_input_grad[:3])
        op = getattr(torch.ops.sltfast, f"{backend}_token_loss_backward").default
        gradients = op(dloss, hidden, unembedding, bias, targets, lse, *ctx.rest, *needs)
        return *(g if need else None for g, need in zip(gradients, needs, strict=True)), *[None] * 5

    return backward


def _keep_gradients(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*output[2:])
    ctx.mark_non_differentiable(*output[1:])


def _scale_gradients(ctx: Any, dtotal: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
    scaled = (
        g * dtotal.to(g.dtype) if need else None
        for g, need in zip(ctx.saved_tensors, ctx.needs_input_grad[:3], strict=True)
    )
    return *scaled, *[None] * 8


def _no_second_derivative(ctx: Any, *_: Any) -> None:
    raise RuntimeError(
        "token_loss has no second derivative: use torch.nn.functional.cross_entropy on logits where one is needed"
    )


def _keep_nothing(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    return None


for _backend_name in ("reference", "triton", *(["native"] if "token_loss" in native_ops() else [])):
    for _op_name, _formula, _setup in (
        ("token_loss", _backward(_backend_name), _keep_for_backward),
        ("token_loss_with_gradient", _scale_gradients, _keep_gradients),
        ("token_loss_backward", _no_second_derivative, _keep_nothing),
    ):
        torch.library.register_autograd(
            f"sltfast::{_backend_name}_{_op_name}", _formula, setup_context=_setup, lib=LIBRARY
        )
