"""Products of a loss's Hessian with vectors, over the coordinates that move."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from sltfast.per_sample.items import Items

HessianMethod = Literal["auto", "double_backward", "finite_differences"]
METHODS: tuple[str, ...] = get_args(HessianMethod)
AGREEMENT = 0.1  # relative; what float32 differences are good for, far below what a missing term does


class HessianProducts:
    """v → H·v for H = ∇²L at w*, L the mean loss of the items of some batches, where only selected weights move.

    By double backward, H·v = ∇(∇L·v), with attention's fused kernels (which have no second derivative) replaced by
    plain products; or by central differences of gradients, H·v ≈ [∇L(w* + h·v̂) − ∇L(w* − h·v̂)]·|v|/2h, with
    h = u^{1/3}·max(|w*|, 1) and u the rounding unit.

    Args:
        items: the model made ready; its selected parameters are given storage of their own here.
        method: "auto" takes double backward where it runs and agrees with differences on one vector.
        batches: of the first product (``take`` sets others).

    Attributes:
        numel: d, coordinates that move.
        method: the one that is used.
        why: why not double backward, "" where it is.
    """

    def __init__(self, items: Items, method: str, batches: Sequence[Any]) -> None:
        self.items, self.numel = items, items.numel
        self.parameters = list(items.parameters.values())
        for parameter in self.parameters:
            parameter.data = parameter.data.clone()
        self.start = [parameter.detach().clone() for parameter in self.parameters]
        dtype = torch.float64 if all(p.dtype == torch.float64 for p in self.parameters) else torch.float32
        self.dtype = dtype
        scale = max(1.0, float(torch.cat([self._flat(w) for w in self.start]).double().norm()))
        self.distance = float(torch.finfo(dtype).eps) ** (1 / 3) * scale
        self._moving = torch.cat(
            [
                torch.ones(p.numel(), dtype=torch.bool, device=items.device) if mask is None else mask.reshape(-1)
                for p, mask in zip(self.parameters, items.masks.values(), strict=True)
            ]
        )
        self.take(batches)
        self.method, self.why = method, ""
        if method == "auto":
            self.method, self.why = self._chosen()

    def take(self, batches: Sequence[Any]) -> None:
        """From now on L is over the items of these batches."""
        self.batches = [self.items.take(batch)[0] for batch in batches]

    def vector(self, generator: torch.Generator) -> Tensor:
        """Independent signs over the coordinates that move, 0 elsewhere; |v|² = d."""
        signs = torch.randint(0, 2, self._moving.shape, generator=generator, dtype=torch.int8)
        return (2 * signs - 1).to(self._moving.device, self.dtype) * self._moving

    def __call__(self, vector: Tensor) -> Tensor:
        """H·v, flat over the selected parameters, 0 on what does not move."""
        product = self._by_double_backward(vector) if self.method == "double_backward" else self._by_differences(vector)
        return product * self._moving

    def _chosen(self) -> tuple[str, str]:
        """Double backward, or why not."""
        v = self.vector(torch.Generator().manual_seed(0))
        plain = self._by_differences(v) * self._moving
        try:
            double = self._by_double_backward(v) * self._moving
        except (RuntimeError, NotImplementedError) as error:
            return "finite_differences", str(error).splitlines()[0]
        apart = float((double - plain).norm()) / max(float(plain.norm()), torch.finfo(self.dtype).tiny)
        noise = self._gradient_norm() * torch.finfo(self.dtype).eps * float(v.norm()) / self.distance
        if float((double - plain).norm()) > AGREEMENT * float(plain.norm()) + 10 * noise:
            return "finite_differences", f"double backward is {apart:.0%} away from differences of gradients"
        return "double_backward", ""

    def _gradient_norm(self) -> float:
        return float(self._gradient().norm())

    def _gradient(self) -> Tensor:
        total: Tensor | float = 0.0
        weight: Tensor | float = 0.0
        for batch in self.batches:
            means, counts = self.items.losses(batch)
            self.items.refuse_constant(means)
            found = torch.autograd.grad((counts * means).sum(), self.parameters, allow_unused=True)
            total = total + self._joined(found)
            weight = weight + counts.sum()
        return torch.as_tensor(total) / weight

    def _by_differences(self, vector: Tensor) -> Tensor:
        norm = float(vector.norm())
        if norm == 0:
            return torch.zeros_like(vector)
        step = vector * (self.distance / norm)
        ends = []
        try:
            for sign in (1.0, -1.0):
                self._place(sign * step)
                ends.append(self._gradient())
        finally:
            self._place(None)
        return (ends[0] - ends[1]) * (norm / (2 * self.distance))

    def _by_double_backward(self, vector: Tensor) -> Tensor:
        total: Tensor | float = 0.0
        weight: Tensor | float = 0.0
        with sdpa_kernel(SDPBackend.MATH):
            for batch in self.batches:
                means, counts = self.items.losses(batch)
                self.items.refuse_constant(means)
                gradient = torch.autograd.grad(
                    (counts * means).sum(), self.parameters, create_graph=True, allow_unused=True
                )
                along = (self._joined(gradient) * vector).sum()
                weight = weight + counts.sum()
                if along.requires_grad:  # else the loss is linear in the weights
                    found = torch.autograd.grad(along, self.parameters, allow_unused=True)
                    if all(part is None for part in found):  # what can be differentiated once passes none on
                        raise RuntimeError(
                            "no second derivative of the loss reaches the weights (a function that can be "
                            "differentiated once?): use hessian='finite_differences'"
                        )
                    total = total + self._joined(found)
        return torch.as_tensor(total, dtype=self.dtype) / weight + torch.zeros_like(vector)

    @torch.no_grad()
    def _place(self, move: Tensor | None) -> None:
        """The weights at w* + move."""
        sizes = [parameter.numel() for parameter in self.parameters]
        parts = [None] * len(sizes) if move is None else list(move.split(sizes))
        for parameter, start, part in zip(self.parameters, self.start, parts, strict=True):
            parameter.copy_(start if part is None else start + part.view_as(start))

    def _joined(self, tensors: Sequence[Tensor | None]) -> Tensor:
        return torch.cat(
            [
                self._flat(torch.zeros_like(p) if tensor is None else tensor)
                for p, tensor in zip(self.parameters, tensors, strict=True)
            ]
        )

    def _flat(self, tensor: Tensor) -> Tensor:
        return tensor.reshape(-1).to(self.dtype)
