"""The Hessian H of the mean loss on the coordinates that move: products H·v, and the whole matrix where it is small."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from sltfast.data import Source
from sltfast.losses import LossFn
from sltfast.per_sample.items import Items, prepared
from sltfast.restriction import ParamMasks

Method = Literal["auto", "double_backward", "finite_differences"]
AGREEING = 0.1
"""Of a product, what may lie between the two methods."""
SHORTER = (1.0, 0.1, 0.01)


class Hessian:
    """H = ∇²L(w*) of the mean loss L(w) = Σ_i a_i·ℓ_i(w) / Σ_i a_i over all items (a_i: how much an item counts).

    Vectors are flat, float64, over the coordinates that move, in the order of ``named_parameters``. The graph of one
    batch is held at a time, for all vectors of a call.

    Args:
        items: the model made ready (see ``hessian_of``).
        batches: every item once.
        products: "double_backward" (exact), "finite_differences" of gradients, (g(w* + hv) − g(w* − hv))/2h at
            |hv| = ε^⅓·max(1, |w*|) (ε: the weights' rounding; the relative error is some ε^⅔), or "auto": the former,
            unless a part of the model has no second derivative, or leaves it out (seen from one random vector).

    Attributes:
        numel: d, coordinates that move.
        method: which of the two is used ("auto" until the first product).
        because: why "auto" took differences.

    Raises:
        ValueError: weights of half precision, no batch, or items that all count 0.
    """

    def __init__(self, items: Items, batches: Sequence[Any], *, products: Method = "auto") -> None:
        if products not in get_args(Method):
            raise ValueError(f"products must be one of {', '.join(get_args(Method))}, got {products!r}")
        half = [n for n, p in items.parameters.items() if p.dtype in (torch.bfloat16, torch.float16)]
        if half:
            raise ValueError(f"second derivatives need float32 or float64 weights, not {half[0]!r}: pass model.float()")
        self.items, self.numel = items, items.numel
        self.method: Method = products
        self.because = ""
        self.take(batches)

    def take(self, batches: Sequence[Any]) -> None:
        """From now on L is over the items of these batches.

        Raises:
            ValueError: all of them count 0.
        """
        self.batches = [self.items.take(batch)[0] for batch in batches]
        with torch.no_grad():
            self.total = sum(float(self.items.losses(batch)[1].sum(dtype=torch.float64)) for batch in self.batches)
        if self.total <= 0:
            raise ValueError("no item counts (every weight is 0): there is no mean loss to differentiate")

    def flat(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Coordinates that move, [d] float64, of tensors by parameter name (those not named are 0)."""
        parts = []
        for name, parameter in self.items.parameters.items():
            given = tensors.get(name)
            whole = (torch.zeros_like(parameter) if given is None else given.detach()).reshape(-1).double()
            mask = self.items.masks[name]
            parts.append(whole if mask is None else whole[mask])
        return torch.cat(parts)

    def by_name(self, vector: Tensor) -> dict[str, Tensor]:
        """The inverse of ``flat``: a tensor of each parameter's shape and dtype, 0 where nothing moves."""
        tensors, start = {}, 0
        for name, parameter in self.items.parameters.items():
            mask = self.items.masks[name]
            count = parameter.numel() if mask is None else int(mask.sum())
            part = vector[start : start + count].to(parameter.dtype)
            start += count
            if mask is not None:
                part = part.new_zeros(parameter.numel()).masked_scatter_(mask, part)
            tensors[name] = part.view(parameter.shape)
        return tensors

    def gradient(self) -> Tensor:
        """∇L at the clone's present weights, [d] float64."""
        total = torch.zeros(self.numel, dtype=torch.float64, device=self.items.device)
        for batch in self.batches:
            total += self.flat(self._first_order(batch, create_graph=False))
        return total

    def product(self, vectors: Tensor) -> Tensor:
        """H·v for each row of vectors [K, d] → [K, d] float64.

        Raises:
            RuntimeError: products="double_backward", and a part of the model that has no second derivative.
        """
        vectors = vectors.to(self.items.device, torch.float64)
        if self.method == "auto":
            self.method, self.because = self._choice()
        if self.method == "finite_differences":
            return torch.stack([self._difference(vector) for vector in vectors])
        return self._double_backward(vectors)

    def _choice(self) -> tuple[Method, str]:
        """The method, and why it is not double backward."""
        generator = torch.Generator().manual_seed(0)
        vector = torch.randn(self.numel, dtype=torch.float64, generator=generator).to(self.items.device)
        vector /= vector.norm()
        try:
            exact = self._double_backward(vector[None])[0]
        except RuntimeError as error:
            return "finite_differences", str(error).splitlines()[0]
        # a function whose backward pass is no function for autograd leaves its part out without a word; kinks, which
        # only differences see, are told from that by shorter steps
        rounding, step = self._step(vector)
        slope, apart = float(self.gradient().norm()), []
        for shorter in SHORTER:
            expected = self._difference(vector, shorter * step)
            apart.append(float((exact - expected).norm()))
            if apart[-1] <= AGREEING * float(expected.norm()) + rounding / (shorter * step) * slope:
                return "double_backward", ""
        return "finite_differences", f"a second backward pass is {min(apart):.3g} away from differences of gradients"

    def dense(self, rows: int = 64) -> Tensor:
        """H, [d, d] float64, symmetrised; ``rows`` unit vectors go together."""
        unit = torch.eye(self.numel, dtype=torch.float64, device=self.items.device)
        matrix = torch.cat([self.product(part) for part in unit.split(rows)])
        return (matrix + matrix.mT) / 2

    def _first_order(self, batch: Any, *, create_graph: bool) -> dict[str, Tensor]:
        """The batch's share of ∇L by name."""
        means, counts = self.items.losses(batch)
        self.items.refuse_constant(means)
        loss = (counts / self.total * means).sum()
        found = torch.autograd.grad(
            loss, [*self.items.parameters.values()], create_graph=create_graph, allow_unused=True
        )
        return {name: g for name, g in zip(self.items.parameters, found, strict=True) if g is not None}

    def _double_backward(self, vectors: Tensor) -> Tensor:
        with sdpa_kernel(SDPBackend.MATH):  # the fused attentions have no second derivative
            return self._by_graph(vectors)

    def _by_graph(self, vectors: Tensor) -> Tensor:
        result = torch.zeros_like(vectors)
        parameters = self.items.parameters
        directions = [self.by_name(vector) for vector in vectors]
        for batch in self.batches:
            gradients = {n: g for n, g in self._first_order(batch, create_graph=True).items() if g.requires_grad}
            if not gradients:
                continue  # the loss is linear in every weight
            for k, direction in enumerate(directions):
                found = torch.autograd.grad(
                    list(gradients.values()),
                    list(parameters.values()),
                    [direction[name] for name in gradients],
                    retain_graph=True,
                    allow_unused=True,
                )
                if all(part is None for part in found):  # what can be differentiated once passes none on
                    raise RuntimeError(
                        "no second derivative of the loss reaches the weights (a function that can be differentiated "
                        "once?): use finite_differences"
                    )
                result[k] += self.flat({n: h for n, h in zip(parameters, found, strict=True) if h is not None})
        return result

    def _difference(self, vector: Tensor, step: float | None = None) -> Tensor:
        if not bool(vector.any()):
            return torch.zeros_like(vector)
        step = self._step(vector)[1] if step is None else step
        direction = self.by_name(vector)
        with _moved(self.items.parameters, direction, step):
            ahead = self.gradient()
        with _moved(self.items.parameters, direction, -step):
            behind = self.gradient()
        return (ahead - behind) / (2 * step)

    def _step(self, vector: Tensor) -> tuple[float, float]:
        """ε of the weights, and h along a vector."""
        rounding = max(torch.finfo(parameter.dtype).eps for parameter in self.items.parameters.values())
        size = max(1.0, float(self.flat(self.items.parameters).norm()))
        return rounding, rounding ** (1 / 3) * size / float(vector.norm())


@contextmanager
def _moved(parameters: Mapping[str, nn.Parameter], direction: Mapping[str, Tensor], step: float) -> Iterator[None]:
    """The clone's parameters at w + step·v, in storage of their own: the caller's is shared, and is not written to."""
    kept = {name: parameter.data for name, parameter in parameters.items()}
    try:
        for name, parameter in parameters.items():
            parameter.data = kept[name] + step * direction[name]
        yield
    finally:
        for name, parameter in parameters.items():
            parameter.data = kept[name]


@contextmanager
def hessian_of(
    model: nn.Module,
    source: Source,
    *,
    loss_fn: LossFn | None = None,
    param_masks: ParamMasks = None,
    batch_size: int = 32,
    products: Method = "auto",
) -> Iterator[Hessian]:
    """The Hessian of a model's mean loss over a data set, with gradients on and random states private.

    Args:
        model: see ``sltfast.sample``; left alone.
        source: the data set (``sltfast.data.as_source``), every row of it.
        loss_fn: see ``sltfast.sample``.
        param_masks: which coordinates move.
        batch_size: rows that go through the model together.
        products: see ``Hessian``.

    Raises:
        ValueError, TypeError: as ``per_sample.gradient_norms``, and see ``Hessian``.
    """
    with prepared(model, loss_fn, param_masks) as items:
        yield Hessian(items, row_batches(source, batch_size), products=products)


def row_batches(source: Source, batch_size: int) -> list[Any]:
    """All rows of a data set in their own order, ``batch_size`` at a time.

    Raises:
        ValueError: ``batch_size`` is no whole number >= 1.
    """
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f"batch_size must be a whole number >= 1, got {batch_size!r}")
    import numpy as np

    return [source.fetch(np.arange(k, min(k + batch_size, len(source)))) for k in range(0, len(source), batch_size)]
