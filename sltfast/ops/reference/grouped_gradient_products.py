"""`grouped_gradient_products` and `grouped_gradient_inner` in plain PyTorch, in float64, one sample at a time."""

import torch
from torch import Tensor

from sltfast.ops.grouped_gradient_arguments import check_grouped_gradient_inner, check_grouped_gradient_products


def grouped_gradient_products(
    left_a: Tensor, right_a: Tensor, left_b: Tensor, right_b: Tensor, algorithm: str
) -> Tensor:
    """`sltfast::reference_grouped_gradient_products`; the equation is in `ops.grouped_gradient_products`."""
    check_grouped_gradient_products(left_a, right_a, left_b, right_b, algorithm)
    samples, positions, rows = left_a.shape
    columns = right_a.shape[2]
    ghost = positions * left_b.shape[1] * (rows + columns) < (positions + left_b.shape[1]) * rows * columns
    if algorithm != "auto":
        ghost = algorithm == "ghost"
    out = left_a.new_zeros(samples, dtype=torch.float64)
    for i in range(samples):
        la, ra, lb, rb = (x[i].double() for x in (left_a, right_a, left_b, right_b))
        out[i] = ((la @ lb.T) * (ra @ rb.T) if ghost else (la.T @ ra) * (lb.T @ rb)).sum()
    return out


def grouped_gradient_inner(left: Tensor, right: Tensor, v: Tensor) -> Tensor:
    """`sltfast::reference_grouped_gradient_inner`; the equation is in `ops.grouped_gradient_inner`."""
    check_grouped_gradient_inner(left, right, v)
    out = left.new_zeros(left.shape[0], dtype=torch.float64)
    for i in range(left.shape[0]):
        out[i] = (left[i].double() * (right[i].double() @ v.double().T)).sum()
    return out
