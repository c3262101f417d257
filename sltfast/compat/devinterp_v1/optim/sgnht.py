"""The Nosé–Hoover thermostat as a ``torch.optim`` optimiser, by the name of devinterp 1.3.2."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from typing import Any

import torch

METRICS = ("noise", "dws", "localization_loss")


class UnmaskedOnly(NotImplementedError):
    """A mask was given to a sampler that has none."""


class SGNHT(torch.optim.Optimizer):
    """m ← m − ε·nβ·g,  m ← (1 − ζ)·m + √(2·A·ε)·ξ,  w ← w + m,  ζ ← ζ + mean(m²) − ε over all of a group.

    Starts from m ~ √ε·N(0, 1) and ζ = A. Where w leaves w* ± b it is put back to the edge and m changes its sign.

    Args:
        params: parameters, or groups of them.
        lr: ε.
        diffusion_factor: A.
        bounding_box_size: b, or None for no box.
        save_noise: taken for devinterp's sake; nothing is kept.
        save_mala_vars: likewise.
        nbeta: nβ.
        metrics: names of what would be kept.

    Raises:
        ValueError: a metric that is none.
        UnmaskedOnly: (a NotImplementedError, at the first step) a group has a mask.

    Source: Ding et al. 2014.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.01,
        diffusion_factor: float = 0.01,
        bounding_box_size: float | None = None,
        save_noise: bool = False,
        save_mala_vars: bool = False,
        nbeta: float = 1.0,
        metrics: list[str] | None = None,
    ) -> None:
        unknown = sorted(set(metrics or ()) - set(METRICS))
        if unknown:
            raise ValueError(f"Invalid metrics: {unknown}. Valid metrics are: {sorted(METRICS)}")
        if metrics or save_noise or save_mala_vars:
            warnings.warn("SGNHT keeps neither noise nor MALA's terms: use SGLD for them", UserWarning, stacklevel=2)
        if nbeta == 1.0:
            warnings.warn("nbeta is 1: see default_nbeta for one that fits the batch", UserWarning, stacklevel=2)
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
            for parameter in group["params"]:
                self.state[parameter]["momentum"] = math.sqrt(lr) * torch.randn_like(parameter)
                self.state[parameter]["initial_param"] = parameter.detach().clone()

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One step of every parameter that has a gradient."""
        for group in self.param_groups:
            if group.get("optimize_over") is not None:
                raise UnmaskedOnly("SGNHT moves whole parameters: use SGLD with optimize_over_per_model_param")
            energy, count = torch.zeros(()), 0
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state, w = self.state[parameter], parameter.data
                m = state["momentum"]
                m.sub_(group["lr"] * (parameter.grad.data * group["nbeta"]))
                m.sub_(group["thermostat"] * m)
                noise = torch.normal(mean=0.0, std=1.0, size=m.size(), device=m.device)
                m.add_(noise * (group["lr"] * 2 * group["diffusion_factor"]) ** 0.5)
                w.add_(m)
                energy = energy.to(m.device) + torch.einsum("...,...->", m, m)
                count += m.numel()
                box = group["bounding_box_size"]
                if box:
                    inside = (w - state["initial_param"]).abs() < box
                    w.clamp_(min=state["initial_param"] - box, max=state["initial_param"] + box)
                    m.mul_(inside * 2 - 1)
            if count:
                group["thermostat"].add_((energy / count - group["lr"]).to(group["thermostat"].device))
