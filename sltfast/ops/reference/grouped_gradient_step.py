"""`grouped_gradient_step_` in plain PyTorch: the group's gradient in float64, then the reference step."""

from torch import Tensor

from sltfast.ops.grouped_gradient_arguments import check_grouped_gradient_step
from sltfast.ops.reference.langevin_step import langevin_step_
from sltfast.ops.tf32 import round_tf32


def operand(x: Tensor, precision: str) -> Tensor:
    """A factor of the product, rounded as the precision says."""
    if precision == "bf16":
        return x.bfloat16().to(x.dtype)
    return round_tf32(x.contiguous()) if precision == "tf32" else x


def grouped_gradient_step_(
    w: Tensor,
    left: Tensor,
    right: Tensor,
    weights: Tensor | None,
    anchor: Tensor,
    segment: Tensor,
    hyper: Tensor,
    step: Tensor,
    chains: Tensor,
    seed: int,
    stream: int,
    loss: Tensor | None,
    alive: Tensor | None,
    death_step: Tensor | None,
    precision: str,
) -> None:
    """`sltfast::reference_grouped_gradient_step_`; the equation and the shapes are in `ops.grouped_gradient_step_`."""
    check_grouped_gradient_step(
        w, left, right, weights, anchor, segment, hyper, step, chains, seed, stream, loss, alive, death_step, precision
    )
    weighted = left.to(w.dtype) if weights is None else left.to(w.dtype) * weights[..., None]
    a, b = operand(weighted, precision).double(), operand(right.to(w.dtype), precision).double()
    grad = a.transpose(1, 2) @ b  # [C, R, K]
    langevin_step_(
        w, [grad], [anchor], segment[None], hyper, step, chains, seed, stream, "sgld",
        None, None, None, [], [], loss, alive, death_step, None, [], 0.99, 0.1, 1.0, False,
    )  # fmt: skip
