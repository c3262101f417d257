"""What no code on this machine can do without: the model's matrix products alone, and moving the weights' bytes.

The products are collected from one forward and backward pass and run again by ``torch.mm(out=)`` or ``torch.bmm(out=)``
into memory that is there already. Those inside fused attention are not among them, so the floor is a little low.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


class Product(NamedTuple):
    """[b, m, k] × [b, k, n]; whether an operand lies transposed in memory."""

    b: int
    m: int
    k: int
    n: int
    left_transposed: bool
    right_transposed: bool

    @property
    def values(self) -> int:
        """In both operands and the result."""
        return self.b * (self.m * self.k + self.k * self.n + self.m * self.n)

    @property
    def flops(self) -> int:
        return 2 * self.b * self.m * self.k * self.n


Products = Counter[Product]
LONG_ENOUGH = 0.1  # seconds spent on one way to form a product before it is judged
MOST_VALUES = 1 << 27  # of a product for all chains at once; above, one after another runs at the same rate
OPERANDS = {"mm": (0, 1), "addmm": (1, 2), "bmm": (0, 1), "baddbmm": (1, 2)}


class Collector(TorchDispatchMode):
    """Counts the matrix products of what runs inside it into ``products``, which may be exchanged at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.products: Products = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None) -> Any:
        operands = OPERANDS.get(func._schema.name.removeprefix("aten::"))
        if operands is not None:
            left, right = args[operands[0]], args[operands[1]]
            b = left.shape[0] if left.ndim == 3 else 1
            shape = (b, left.shape[-2], left.shape[-1], right.shape[-1])
            self.products[Product(*shape, left.stride(-1) != 1, right.stride(-1) != 1)] += 1
        return func(*args, **(kwargs or {}))


def products_of(run: Callable[[], Tensor]) -> Products:
    """The products of a forward pass to a scalar and of its backward pass."""
    collector = Collector()
    with collector:
        run().backward()
    return collector.products


def _laid_out(b: int, rows: int, columns: int, transposed: bool) -> Tensor:
    return torch.randn(b, columns, rows).mT if transposed else torch.randn(b, rows, columns)


def _once(product: Product) -> Callable[[], object]:
    left = _laid_out(product.b, product.m, product.k, product.left_transposed)
    right = _laid_out(product.b, product.k, product.n, product.right_transposed)
    out = torch.empty(product.b, product.m, product.n)
    if product.b == 1:
        return lambda: torch.mm(left[0], right[0], out=out[0])
    return lambda: torch.bmm(left, right, out=out)


def _many(run: Callable[[], object], times: int) -> Callable[[], object]:
    def repeat() -> None:
        for _ in range(times):
            run()

    return repeat


def _fastest(ways: Iterable[Callable[[], object]]) -> Callable[[], object]:
    def seconds(way: Callable[[], object]) -> float:
        taken: list[float] = []
        while len(taken) < 3 and sum(taken) < LONG_ENOUGH:
            start = time.perf_counter()
            way()
            taken.append(time.perf_counter() - start)
        return min(taken)

    return min(ways, key=seconds)


def gemms(products: Mapping[Product, int], lanes: int, *, shared: bool = False) -> Callable[[], None]:
    """Run the products of one chain for `lanes` chains: the faster of one after another and all in one batched product.

    Args:
        products: of one chain.
        lanes: chains.
        shared: the weights do not move, so all chains' rows go through one wide product as well.
    """
    runs = []
    for product, count in products.items():
        ways = [_many(_once(product), lanes)]
        together = [product._replace(b=product.b * lanes)]
        if shared and product.b == 1:
            together.append(product._replace(m=product.m * lanes))
        ways += [_once(all_lanes) for all_lanes in together if lanes > 1 and all_lanes.values <= MOST_VALUES]
        runs.append(_many(_fastest(ways), count))

    def floor() -> None:
        for run in runs:
            run()

    return floor


def flops(products: Mapping[Product, int]) -> int:
    """Floating-point operations of the products."""
    return sum(product.flops * count for product, count in products.items())


def triad(coordinates: int, lanes: int) -> Callable[[], None]:
    """Read weights, gradients and w*, write weights: what a step of each of `lanes` chains must move, in place."""
    from sltfast import _C

    w, g, anchor = (torch.randn(coordinates).numpy() for _ in range(3))

    def floor() -> None:
        for _ in range(lanes):
            _C.touch_operands(w, g, anchor, None)

    return floor
