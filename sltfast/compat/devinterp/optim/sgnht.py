"""The Nosé–Hoover thermostat as a ``torch.optim`` optimiser, as both versions of devinterp have it."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sltfast.compat.devinterp.optim.absent import Absent
from sltfast.compat.devinterp.optim.warn_of_settings import warn_of_settings

METRICS = ("noise", "dws", "localization_loss")


class Thermostat(torch.optim.Optimizer):
    """m ← m − ε nβ ∇L;  m ← (1 − ζ) m + √(2Aε) ξ;  w ← w + m;  ζ ← ζ + mean(m²) − ε, one ζ a group.

    m starts at √ε N(0, 1) and ζ at A. Where w leaves w* ± b it is put back to the edge and m changes its sign.

    Args:
        params: parameters or groups.
        lr: ε.
        diffusion_factor: A.
        bounding_box_size: b; None or 0 for none.
        save_noise: of no effect, with a warning.
        save_mala_vars: of no effect, with a warning.
        nbeta: nβ.
        metrics: names of what would be kept, ``METRICS``; of no effect, with a warning.

    Raises:
        ValueError: another metric.
        Absent: (a NotImplementedError, from ``step``) a group has a mask.

    Source: Ding et al. 2014.
    """

    mask_key = "mask"
    deprecation: str | None = None

    def __init__(
        self,
        params: Any,
        lr: float = 0.01,
        diffusion_factor: float = 0.01,
        bounding_box_size: float | None = None,
        save_noise: bool = False,
        save_mala_vars: bool = False,
        nbeta: float = 1.0,
        metrics: Sequence[str] | None = None,
    ) -> None:
        unknown = sorted(set(metrics or ()) - set(METRICS))
        if unknown:
            raise ValueError(f"Invalid metrics: {unknown}. Valid metrics are: {sorted(METRICS)}")
        if self.deprecation is not None:
            warnings.warn(self.deprecation, DeprecationWarning, stacklevel=2)
        if metrics or save_noise or save_mala_vars:
            warnings.warn("NoiseNorm and MALA not implemented for SGNHT: use SGLD for them", stacklevel=2)
        warn_of_settings(1.0, nbeta)
        defaults = {
            "lr": lr,
            "diffusion_factor": diffusion_factor,
            "bounding_box_size": bounding_box_size,
            "nbeta": nbeta,
            "save_noise": save_noise,
            "save_mala_vars": save_mala_vars,
        }
        super().__init__(params, defaults)
        for group in self.param_groups:
            group["thermostat"] = torch.tensor(diffusion_factor)
            for param in group["params"]:
                self.state[param]["momentum"] = lr**0.5 * torch.randn_like(param.data)
                self.state[param]["initial_param"] = param.data.clone().detach()

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient; ``closure`` is not called."""
        for group in self.param_groups:
            if group.get(self.mask_key) is not None:
                raise Absent("SGNHT takes no mask: use SGLD, or sltfast.sample(sampling_method='sgnht') natively")
            moved = [param for param in group["params"] if param.grad is not None]
            energy = sum(self._move(group, param) for param in moved)
            if moved:
                change = energy / sum(param.numel() for param in moved) - group["lr"]
                group["thermostat"].add_(change.to(group["thermostat"].device))

    def _move(self, group: dict[str, Any], param: Tensor) -> Any:
        """Move one parameter; returns Σ m²."""
        state, weight = self.state[param], param.data
        momentum = state["momentum"]
        momentum.sub_(group["lr"] * (param.grad.data * group["nbeta"]))  # type: ignore[union-attr]
        momentum.sub_(group["thermostat"] * momentum)
        noise = torch.normal(0.0, 1.0, momentum.size(), device=momentum.device)
        momentum.add_(noise * ((group["lr"] * 2 * group["diffusion_factor"]) ** 0.5))
        weight.add_(momentum)
        energy = torch.einsum("...,...->", momentum, momentum)
        box, start = group["bounding_box_size"], state["initial_param"]
        if box:
            inside = ((weight - start).abs() < box) * 2 - 1
            torch.clamp_(weight, min=start - box, max=start + box)
            momentum.mul_(inside)
        return energy


class SGNHT(Thermostat):
    """``Thermostat`` by the name of devinterp 2.0.1, which deprecates it."""

    deprecation = "SGNHT has been deprecated. Please use SGMCMC.sgnht instead."
