"""Inner products of a layer's per-sample gradients, none of which is stored."""

from torch import Tensor

from sltfast.ops.backend import implementation
from sltfast.ops.grouped_gradient_arguments import check_grouped_gradient_inner, check_grouped_gradient_products
from sltfast.ops.running import run


def grouped_gradient_products(
    left_a: Tensor,
    right_a: Tensor,
    left_b: Tensor,
    right_b: Tensor,
    *,
    algorithm: str = "auto",
    backend: str = "auto",
) -> Tensor:
    r"""Inner products ⟨g_i^a, g_i^b⟩ of per-sample gradients g_i = Σ_t left[i,t]ᵀ right[i,t], without storing one.

        ⟨g_i^a, g_i^b⟩ = Σ_{t,u} (left_a[i,t]·left_b[i,u]) (right_a[i,t]·right_b[i,u])

    The same tensors twice give squared norms (and half the work); two uses of one weight give the cross term of a tied
    or reused one. For torch.nn.Linear left is the output gradient and right the input; for a Conv1D of GPT-2, whose
    weight is [in, out], the other way round (the products are the same).

    The ghost form (Goodfellow 2015; Li et al. 2021) sums two Gram matrices, [T, T'] tiles of them at a time; the other
    forms g_i, tile by tile. Memory does not grow with samples, positions or R·K.

    Args:
        left_a: [B, T, R] float32 or float64; B samples, T positions.
        right_a: [B, T, K].
        left_b: [B, T', R].
        right_b: [B, T', K].
        algorithm: "ghost", "formed", or "auto": the one with fewer multiplications.
        backend: "auto", "native", "triton" or "reference" (see `ops.backend.refusals`).

    Returns:
        [B] float64. Tiles are formed in the inputs' precision, and multiplied and summed in float64.

    Raises:
        TypeError: a dtype that is not listed above.
        ValueError: a shape, device or name that is not; the message says which and what is allowed.
        RuntimeError: `backend` names one that cannot run here.
    """
    op = implementation("grouped_gradient_products", backend, left_a.device)
    products: Tensor = run(op, check_grouped_gradient_products, (left_a, right_a, left_b, right_b, algorithm))
    return products


def grouped_gradient_inner(left: Tensor, right: Tensor, v: Tensor, *, backend: str = "auto") -> Tensor:
    r"""Inner products ⟨g_i, V⟩ of per-sample gradients g_i = Σ_t left[i,t]ᵀ right[i,t] with one matrix.

        ⟨g_i, V⟩ = Σ_t left[i,t]·(V right[i,t])

    Args:
        left: [B, T, R] float32 or float64; B samples, T positions.
        right: [B, T, K].
        v: [R, K].
        backend: "auto", "native", "triton" or "reference" (see `ops.backend.refusals`).

    Returns:
        [B] float64.

    Raises:
        TypeError: a dtype that is not listed above.
        ValueError: a shape or device that is not; the message says which and what is allowed.
        RuntimeError: `backend` names one that cannot run here.
    """
    op = implementation("grouped_gradient_inner", backend, left.device)
    products: Tensor = run(op, check_grouped_gradient_inner, (left, right, v))
    return products
