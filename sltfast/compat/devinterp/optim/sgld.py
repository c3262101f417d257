"""devinterp's older SGLD, which SGMCMC.sgld replaces."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from sltfast.compat.devinterp.optim.parts import Parts, Recording
from sltfast.compat.devinterp.optim.warn_of_settings import warn_of_settings


class SGLD(Recording):
    """w ← w − (ε/2) m (nβ ∇L + λw + γ(w − w*)) + √ε m ξ; then w ← clamp(w, w* ± b). Deprecated.

    A parameter without gradient is moved by prior and noise alone, where ``SGMCMC`` lets it stand.

    Args:
        params: parameters or groups; a group's ``mask`` is m, of its parameters' shape.
        lr: ε.
        noise_level: σ of ξ ~ N(0, σ²).
        weight_decay: λ.
        localization: γ.
        nbeta: nβ.
        bounding_box_size: b; None or 0 for none.
        save_metrics: keep norms and inner products (``get_metrics``).
        sketch_dim: keep sketches of this size (``get_sketches``).
        sketch_seed: of their hashes.

    Raises:
        ValueError: a mask of another shape than its parameter's.

    Source: Welling & Teh 2011; Lau et al. 2308.12108.
    """

    def __init__(
        self,
        params: Iterable[Any],
        *,
        lr: float = 0.01,
        noise_level: float = 1.0,
        weight_decay: float = 0.0,
        localization: float = 0.0,
        nbeta: float = 1.0,
        bounding_box_size: float | None = None,
        save_metrics: bool = False,
        sketch_dim: int | None = None,
        sketch_seed: int = 0,
    ) -> None:
        warnings.warn("SGLD has been deprecated. Please use SGMCMC.sgld instead.", DeprecationWarning, stacklevel=2)
        warn_of_settings(noise_level, nbeta)
        defaults = {
            "lr": lr,
            "noise_level": noise_level,
            "weight_decay": weight_decay,
            "localization": localization,
            "nbeta": nbeta,
            "bounding_box_size": bounding_box_size,
        }
        super().__init__(params, defaults)
        for group in self.param_groups:
            group["num_el"] = 0
            for param in group["params"]:
                mask = group.get("mask")
                if isinstance(mask, Tensor) and mask.shape != param.shape:
                    raise ValueError(
                        f"Mask shape {mask.shape} does not match parameter shape {param.shape}. "
                        "Scalar masks are not supported."
                    )
                self.state[param]["initial_param"] = param.data.clone().detach()
                group["num_el"] += param.numel()
        self.record(save_metrics, sketch_dim, sketch_seed)

    @torch.no_grad()
    def step(self, noise_generator: torch.Generator | None = None) -> None:  # type: ignore[override]
        """Move every parameter; ξ comes from ``noise_generator``, or from torch's global one."""
        if self._sketch_buf is not None:
            self._sketch_buf.zero_()
        offset = 0
        for group in self.param_groups:
            if self.save_metrics:
                group["metrics"].zero_()
            for param in group["params"]:
                self._move(group, param, noise_generator, offset)
                offset += param.numel()
            if self.save_metrics:
                group["metrics"].sqrt_norms_()

    def _move(self, group: dict[str, Any], param: Tensor, generator: torch.Generator | None, offset: int) -> None:
        weight, mask, start = param.data, group.get("mask"), self.state[param]["initial_param"]
        drift, distance = drift_and_distance(group, param, start)
        noise = torch.normal(0.0, group["noise_level"], drift.size(), device=drift.device, generator=generator)
        if mask is not None:
            drift, noise = drift * mask, noise * mask
        if self.records:
            parts = _parts(group, param, distance, noise)
            self.scatter(parts, offset)
            if self.save_metrics:
                moved = distance if mask is None else distance * mask
                self.count(group, parts, moved, param.numel() if mask is None else int(mask.bool().sum()))
        weight.add_(drift, alpha=-0.5 * group["lr"])
        weight.add_(noise, alpha=group["lr"] ** 0.5)
        box = group["bounding_box_size"]
        if box:
            torch.clamp_(weight, min=start - box, max=start + box)


def drift_and_distance(group: dict[str, Any], param: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
    """nβ ∇L + λw + γ(w − w*), where a parameter without gradient has ∇L = 0, and w − w*."""
    weight = param.data
    drift = torch.zeros_like(weight) if param.grad is None else param.grad.data * group["nbeta"]
    if group["weight_decay"] != 0:
        drift.add_(weight, alpha=group["weight_decay"])
    distance = weight - start
    if group["localization"] != 0:
        drift.add_(distance, alpha=group["localization"])
    return drift, distance


def _parts(group: dict[str, Any], param: Tensor, distance: Tensor, noise: Tensor) -> Parts:
    half, mask = 0.5 * group["lr"], group.get("mask")
    gradient = torch.zeros_like(param.data) if param.grad is None else param.grad.data
    parts = [
        half * gradient.mul(group["nbeta"]),
        half * distance.mul(group["localization"]),
        half * param.data.mul(group["weight_decay"]),
        noise * (group["lr"] ** 0.5),
    ]
    scaled, pull, decay, shaken = parts if mask is None else [part * mask for part in parts]
    return Parts(scaled, scaled, pull, decay, shaken)
