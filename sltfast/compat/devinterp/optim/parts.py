"""What a step is made of, kept as norms (``Metrics``) and as sketches (``SketchBuffer``)."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sltfast.compat.devinterp.optim.metrics import Metrics
from sltfast.compat.devinterp.optim.prior import CompositePrior, GaussianPrior, Prior, State
from sltfast.compat.devinterp.optim.sketch import SKETCH_QUANTITIES, CountSketch, SketchBuffer


class Parts(NamedTuple):
    """Of one parameter's step, as they were added to it (``Metrics`` has their equations)."""

    scaled_grad: Tensor
    unscaled_grad: Tensor
    localization: Tensor
    weight_decay: Tensor
    noise: Tensor


def pull_and_decay(prior: Prior | None, weight: Tensor, state: State) -> tuple[Tensor, Tensor]:
    """The gradients of the priors around a centre, and of those around the origin."""
    pull, decay = torch.zeros_like(weight), torch.zeros_like(weight)
    for one in prior.priors if isinstance(prior, CompositePrior) else [] if prior is None else [prior]:
        total = decay if isinstance(one, GaussianPrior) and one.center is None else pull
        total += one.grad(weight, state)
    return pull, decay


class Recording(torch.optim.Optimizer):
    """An optimiser that can keep the parts of its steps.

    Attributes:
        save_metrics: every group has ``Metrics``.
        save_sketches: there is a ``SketchBuffer`` for all groups.
    """

    def record(self, save_metrics: bool, sketch_dim: int | None, sketch_seed: int) -> None:
        """Make room for what is kept."""
        self.save_metrics, self.save_sketches = save_metrics, sketch_dim is not None
        self._sketch: CountSketch | None = None
        self._sketch_buf: SketchBuffer | None = None
        if save_metrics:
            for group in self.param_groups:
                group["metrics"] = Metrics().to(group["params"][0].device)
        if sketch_dim is not None:
            device = self.param_groups[0]["params"][0].device
            size = sum(p.numel() for group in self.param_groups for p in group["params"])
            self._sketch = CountSketch.create(size, sketch_dim, sketch_seed).to(device)
            self._sketch_buf = SketchBuffer.create(sketch_dim, device)

    @property
    def records(self) -> bool:
        """Whether a step's parts are needed."""
        return self.save_metrics or self.save_sketches

    def scatter(self, parts: Parts, offset: int) -> None:
        """Add one parameter's parts, which begin at coordinate ``offset`` of all, to the sketches."""
        if self._sketch is not None:
            for name in SKETCH_QUANTITIES:
                self._sketch.scatter_into_(getattr(self._sketch_buf, name), getattr(parts, name), offset)

    def count(self, group: dict[str, Any], parts: Parts, distance: Tensor, numel: int) -> None:
        """Add one parameter's parts to its group's norms."""
        metrics = group["metrics"]
        metrics.add_sum_squared_(**parts._asdict(), distance=distance)
        metrics.add_dot_products_(parts.scaled_grad, parts.localization + parts.weight_decay, parts.noise)
        metrics.numel += numel

    def get_sketches(self) -> SketchBuffer:
        """A copy of the last step's sketches on the CPU.

        Raises:
            RuntimeError: none were asked for.
        """
        if self._sketch_buf is None:
            raise RuntimeError("Sketches not enabled. Give sketch_dim.")
        return SketchBuffer(
            **{name: getattr(self._sketch_buf, name).detach().cpu().clone() for name in SKETCH_QUANTITIES}
        )

    def iter_group_metrics(self) -> Iterator[Metrics]:
        """Each group's metrics of the last step.

        Raises:
            RuntimeError: none were asked for.
        """
        if not self.save_metrics:
            raise RuntimeError("Metrics not enabled. Set save_metrics=True.")
        for group in self.param_groups:
            yield group["metrics"]

    def get_metrics(self) -> Metrics:
        """The last step's metrics over all groups, on the CPU."""
        return Metrics.aggregate(self.iter_group_metrics())
