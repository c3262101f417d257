"""Stochastic gradient Langevin dynamics as a ``torch.optim`` optimiser, by the name of devinterp 1.3.2."""

from __future__ import annotations

import warnings
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from sltfast.compat.devinterp.optim.sgld import drift_and_distance
from sltfast.compat.devinterp.optim.warn_of_settings import warn_of_settings

NORMS = ("noise_norm", "grad_norm", "weight_norm", "distance")
METRICS = ("noise", "dws", "localization_loss", *NORMS)


class SGLD(torch.optim.Optimizer):
    """w ← w − (ε/2)·[nβ·g + λ·w + γ·(w − w*)] + √ε·σ·ξ,  then clamped to w* ± b;  ξ ~ N(0, 1), g of the mean loss.

    A parameter without a gradient has g = 0 here: it is pulled and shaken all the same.

    Args:
        params: parameters, or groups of them; a group may have its own ``optimize_over`` and hyperparameters.
        lr: ε >= 0.
        noise_level: σ; any value but 1 samples no posterior.
        weight_decay: λ.
        localization: γ.
        nbeta: nβ.
        bounding_box_size: b, or None or 0 for no box.
        save_noise: keep ξ of the last step in ``noise``, {group: [tensor, …]}.
        save_mala_vars: keep nβ·g + λ·w + γ·(w − w*) in ``dws`` and Σ γ/2·|w − w*|² in ``localization_loss``.
        optimize_over: a mask that drift and noise are multiplied by.
        noise_norm: keep |σ·ξ|, and so on for the next three, to be read as an attribute of that name.
        grad_norm: |(ε/2)·nβ·g|.
        weight_norm: |w| after the step.
        distance: |γ·(w − w*)| before the step; with ``save_mala_vars`` |w − w*|.
        temperature: an old name of nbeta.
        metrics: names of the above that are to be kept, instead of their flags.

    Raises:
        ValueError: a metric that is none of these.

    Source: Lau et al. 2308.12108; Welling & Teh 2011.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 0.01,
        noise_level: float = 1.0,
        weight_decay: float = 0.0,
        localization: float = 0.0,
        nbeta: float = 1.0,
        bounding_box_size: float | None = None,
        save_noise: bool = False,
        save_mala_vars: bool = False,
        optimize_over: Tensor | None = None,
        noise_norm: bool = False,
        grad_norm: bool = False,
        weight_norm: bool = False,
        distance: bool = False,
        temperature: float | None = None,
        metrics: list[str] | None = None,
    ) -> None:
        asked = set(metrics or ())
        if asked - set(METRICS):
            raise ValueError(f"Invalid metrics: {sorted(asked - set(METRICS))}. Valid metrics are: {sorted(METRICS)}")
        if temperature is not None:
            nbeta = temperature
            warnings.warn("temperature is an old name: give nbeta", UserWarning, stacklevel=2)
        warn_of_settings(noise_level, nbeta)
        flags = {"noise_norm": noise_norm, "grad_norm": grad_norm, "weight_norm": weight_norm, "distance": distance}
        defaults = {
            "lr": lr,
            "noise_level": noise_level,
            "weight_decay": weight_decay,
            "localization": localization,
            "nbeta": nbeta,
            "bounding_box_size": bounding_box_size,
            "optimize_over": optimize_over,
            **{name: flag or name in asked for name, flag in flags.items()},
        }
        super().__init__(params, defaults)
        self.save_noise = save_noise or "noise" in asked
        self.save_mala_vars = save_mala_vars or bool({"dws", "localization_loss"} & asked)
        self.noise: dict[int, list[Tensor]] | None = None
        if self.save_mala_vars:
            self.dws: list[Tensor] = []
            self.localization_loss: Any = 0.0
        for group in self.param_groups:
            group["num_el"] = sum(parameter.numel() for parameter in group["params"])
            for parameter in group["params"]:
                self.state[parameter]["initial_param"] = parameter.detach().clone()
            for name in NORMS:
                if group[name] is not False:
                    group[name] = torch.zeros((), device=group["params"][0].device)

    @torch.no_grad()
    def step(self, noise_generator: torch.Generator | None = None) -> None:  # type: ignore[override]
        """One step of every parameter, by its gradient.

        Args:
            noise_generator: of ξ; None: torch's global one.
        """
        if self.save_noise:
            self.noise = defaultdict(list)
        if self.save_mala_vars:
            self.dws, self.localization_loss = [], 0.0
        for index, group in enumerate(self.param_groups):
            squares: dict[str, Any] = dict.fromkeys(NORMS, 0.0)
            for parameter in group["params"]:
                self._move(index, group, parameter, squares, noise_generator)
            for name, square in squares.items():
                if group[name] is not False:
                    group[name] = torch.as_tensor(square, device=group["params"][0].device) ** 0.5

    def _move(
        self,
        index: int,
        group: dict[str, Any],
        parameter: Tensor,
        squares: dict[str, Any],
        generator: torch.Generator | None,
    ) -> None:
        w, anchor, lr = parameter.data, self.state[parameter]["initial_param"], group["lr"]
        drift, displacement = drift_and_distance(group, parameter, anchor)
        mask = group["optimize_over"]
        if self.save_mala_vars:
            apart = ((displacement if mask is None else displacement * mask) ** 2).sum()
            self.localization_loss += apart * group["localization"] / 2
            self.dws.append(drift.clone())
            squares["distance"] = squares["distance"] + apart
        else:
            squares["distance"] = squares["distance"] + ((displacement * group["localization"]) ** 2).sum()
        # the size alone is given, so that the noise is in torch's default precision and from its stream
        noise = torch.normal(
            mean=0.0, std=group["noise_level"], size=drift.size(), device=drift.device, generator=generator
        )
        if self.noise is not None and self.save_noise:
            self.noise[index].append(noise)
        if mask is not None:
            drift, noise = drift * mask, noise * mask
        w.add_(drift, alpha=-0.5 * lr)
        w.add_(noise, alpha=lr**0.5)
        if parameter.grad is not None and group["grad_norm"] is not False:
            scaled = parameter.grad.data * group["nbeta"]
            squares["grad_norm"] = squares["grad_norm"] + ((scaled * 0.5 * lr) ** 2).sum()
        if group["noise_norm"] is not False:
            squares["noise_norm"] = squares["noise_norm"] + (noise**2).sum()
        box = group["bounding_box_size"]
        if box:
            w.clamp_(min=anchor - box, max=anchor + box)
        if group["weight_norm"] is not False:
            squares["weight_norm"] = squares["weight_norm"] + (w**2).sum()

    def __getattr__(self, name: str) -> Any:
        """A norm that is kept, of the first group."""
        groups = self.__dict__.get("param_groups")
        if groups and name in NORMS and groups[0].get(name) is not False:
            return groups[0][name]
        raise AttributeError(f"{type(self).__name__!r} object keeps no {name!r}: ask for it with metrics=[{name!r}]")
