"""Random arguments of `ops.grouped_gradient_step_`, with NaN around the segment."""

import copy
import math
from dataclasses import dataclass, field
from typing import Any

import torch
from langevin_cases import EPSILON, Case, poisoned, rounding_bound
from torch import Tensor

from sltfast import ops

NORMAL_ERROR = 2e-6  # documented distance of a native normal from the exact one
LAYOUTS = ("whole", "rows", "columns")
SHAPES = [  # N, R, K: nothing to sum, single coordinates, tails of every tile
    (0, 4, 5),
    (1, 1, 1),
    (5, 3, 4),
    (7, 63, 5),
    (3, 1000, 3),
    (4, 2, 4500),
    (9, 70, 4100),
    (130, 65, 36),
    (3, 0, 4),
    (3, 4, 0),
]


@dataclass
class GroupedCase:
    """Arguments of one call; `run` leaves them alone."""

    w: Tensor
    left: Tensor
    right: Tensor
    anchor: Tensor
    segment: Tensor
    hyper: Tensor
    step: Tensor
    chains: Tensor
    keywords: dict[str, Any] = field(default_factory=dict)

    def run(self, backend: str = "native", **changes: Any) -> "GroupedCase":
        """A copy on which the op has run."""
        after = copy.deepcopy(self)
        after.keywords |= changes
        ops.grouped_gradient_step_(
            after.w, after.left, after.right, after.anchor, after.segment, after.hyper, after.step, after.chains,
            backend=backend, **after.keywords,
        )  # fmt: skip
        return after

    def positional(self) -> tuple[Any, ...]:
        """In the schema's order."""
        k = self.keywords
        return (
            self.w, self.left, self.right, k.get("weights"), self.anchor, self.segment, self.hyper, self.step,
            self.chains, k["seed"], 0, k.get("loss"), k["alive"], k["death_step"], k.get("precision", "ieee"),
        )  # fmt: skip

    def moved(self) -> Tensor:
        """[C, R·K], the coordinates of the segment."""
        offset, numel = self.segment[:2].tolist()
        return self.w[:, offset : offset + numel]

    def explicit(self, *, dtype: torch.dtype | None = None) -> Case:
        """The same step as a case of `langevin_step_`, its gradient formed by `ops.grouped_gradient`."""
        k = dict(self.keywords)
        grad = ops.grouped_gradient(
            self.left, self.right, k.pop("weights", None), dtype=dtype or self.w.dtype,
            precision=k.pop("precision", "ieee"),
        )  # fmt: skip
        return Case(
            self.w, [grad], [self.anchor], self.segment[None], self.hyper, self.step, self.chains,
            {"method": "sgld", **k},
        )  # fmt: skip

    def bound(self) -> Tensor:
        """How far two correct steps may lie apart, [C, R·K]: as two Langevin steps may, and two sums of N products.

        A product, its weight and the sum of N of them are N + 2 roundings of the sum of absolute values on each side.
        """
        explicit = self.explicit()
        (step,) = rounding_bound(explicit, NORMAL_ERROR)
        weights = self.keywords.get("weights")
        size = ops.grouped_gradient(
            self.left.double().abs(), self.right.double().abs(),
            weights.double().abs() if weights is not None else None, dtype=torch.float64,
        )  # fmt: skip
        error = (self.left.shape[1] + 2) * EPSILON[self.w.dtype] * size.flatten(1)
        return step + 0.5 * self.hyper[:, 0:1] * self.hyper[:, 1:2] * error


def make_grouped_case(
    shape: tuple[int, int, int],
    layout: str = "whole",
    *,
    chains: int = 3,
    dtype: torch.dtype = torch.float32,
    factor_dtype: torch.dtype | None = None,
    anchor_dtype: torch.dtype | None = None,
    weighted: bool = False,
    box: float = math.inf,
    precision: str = "ieee",
    seed: int = 0,
) -> GroupedCase:
    """A layer at an odd offset; "rows" and "columns" are slices of a larger layer that starts at element 6.

    Hyperparameters differ by chain.
    """
    n, r, k = shape
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
        return torch.randn(shape, generator=random, dtype=torch.float64).to(dtype)

    element, run, stride = {"whole": (6, r * k, 0), "rows": (6 + 5 * k, r * k, 0), "columns": (6 + 3, k, k + 10)}[
        layout
    ]
    anchor = normal(r * k, dtype=anchor_dtype or dtype)
    w = poisoned(chains, r * k + 4, dtype=dtype)
    w[:, 1 : 1 + r * k] = anchor.to(dtype) + 0.1 * normal(chains, r * k)
    keywords: dict[str, Any] = {
        "seed": 1234567890123 + seed,
        "alive": torch.ones(chains, dtype=torch.bool),
        "death_step": torch.full((chains,), -1),
        "precision": precision,
    }
    if weighted:
        keywords["weights"] = normal(chains, n)
    return GroupedCase(
        w=w,
        left=normal(chains, n, r, dtype=factor_dtype or dtype),
        right=normal(chains, n, k, dtype=factor_dtype or dtype),
        anchor=anchor,
        segment=torch.tensor([1, r * k, element, run, stride]),
        hyper=torch.tensor(
            [[1e-3 * (1 + c), 10.0 + c, 5.0 * c, 0.5 * c, 1.0 + 0.5 * c, box] for c in range(chains)],
            dtype=torch.float64,
        ).reshape(-1, 6),
        step=torch.tensor(7),
        chains=torch.arange(chains) * 3 + 1,
        keywords=keywords,
    )


def assert_same_step(got: GroupedCase, want: GroupedCase, before: GroupedCase) -> None:
    """Within the rounding bound, nothing outside of the segment touched, and the same chains dead."""
    error = (got.moved().double() - want.moved().double()).abs()
    bound = before.bound()
    assert got.moved().isfinite().all()
    assert not (error > bound).any(), f"{(error / bound).max():.2f} times the rounding bound"
    offset, numel = before.segment[:2].tolist()
    assert got.w[:, :offset].isnan().all()
    assert got.w[:, offset + numel :].isnan().all()
    for name in ("alive", "death_step"):
        assert torch.equal(got.keywords[name], want.keywords[name])
