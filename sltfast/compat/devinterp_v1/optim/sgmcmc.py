"""SGLD, RMSprop-SGLD and devinterp's SGNHT as one optimiser, by the name of devinterp 1.3.2."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from sltfast.compat.defects import warn_once
from sltfast.compat.devinterp.optim import sgmcmc as newer
from sltfast.compat.devinterp.optim.given import preconditioner_of, prior_of
from sltfast.compat.devinterp.optim.preconditioner import NHTPreconditioning, PreconditionerCoefs
from sltfast.compat.devinterp.optim.warn_of_settings import warn_of_settings
from sltfast.compat.devinterp_v1.optim.prior import CompositePrior, GaussianPrior, Prior

NORMS = ("grad_norm", "weight_norm", "noise_norm", "distance")
LISTS = ("noise", "dws")
METRICS = (*NORMS, *LISTS, "localization_loss")


class SGMCMC(newer.SGMCMC):
    """w ← w − (ε/2) m (G nβ ∇L + G ∇(−log p) + λw) + √ε m √G ξ, ξ ~ N(0, σ²); then w ← clamp(w, w* ± b).

    Args:
        params: parameters or groups.
        lr: ε.
        noise_level: σ.
        nbeta: nβ.
        prior: a ``Prior``, ``"initial"``, tensors (centres) or a number (γ).
        prior_kwargs: of a prior that is not a ``Prior``.
        localization: γ of such a prior.
        preconditioner: ``"identity"``, ``"rmsprop"`` or a ``Preconditioner``: G.
        preconditioner_kwargs: of a preconditioner that is named.
        bounding_box_size: b.
        optimize_over: m, one tensor a parameter of the group (or one tensor, for its first).
        metrics: what to keep of each step until ``zero_grad``: norms |(ε/2) nβ ∇L| (``grad_norm``), |w| after the step,
            |m ξ|, ``distance`` from the prior's centre before the step; ``localization_loss`` = γ distance²/2, with
            ``distance`` asked for too; lists ``noise`` and ``dws`` (drifts), a tensor a parameter.
        weight_decay: λ.

    Raises:
        ValueError: a metric, prior or preconditioner of another kind, or a mask of another shape than its parameter's.

    Source: Welling & Teh 2011; Li et al. 1512.07666; Ding et al. 2014; Lau et al. 2308.12108.
    """

    def __init__(
        self,
        params: Any,
        lr: float = 0.01,
        noise_level: float = 1.0,
        nbeta: float = 1.0,
        prior: Any = None,
        prior_kwargs: dict[str, Any] | None = None,
        localization: float | None = None,
        preconditioner: Any = "identity",
        preconditioner_kwargs: dict[str, Any] | None = None,
        bounding_box_size: float | None = None,
        optimize_over: Any = None,
        metrics: Sequence[str] | None = None,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {
            "lr": lr,
            "noise_level": noise_level,
            "nbeta": nbeta,
            "weight_decay": weight_decay,
            "prior": prior,
            "prior_kwargs": prior_kwargs or {},
            "localization": localization,
            "preconditioner": preconditioner,
            "preconditioner_kwargs": preconditioner_kwargs or {},
            "bounding_box_size": bounding_box_size,
            "optimize_over": optimize_over,
            "metrics": list(metrics or ()),
        }
        given: Any = [params] if isinstance(params, Tensor | dict) else params
        torch.optim.Optimizer.__init__(self, given, defaults)
        self.record(save_metrics=False, sketch_dim=None, sketch_seed=0)
        self._init_groups()

    def _init_group(self, group: dict[str, Any]) -> None:
        unknown = sorted(set(group["metrics"]) - set(METRICS))
        if unknown:
            raise ValueError(f"Invalid metrics {unknown}. Choose from: {sorted(METRICS)}")
        device = group["params"][0].device
        group["metrics"] = {name: [] if name in LISTS else torch.zeros((), device=device) for name in group["metrics"]}
        group["prior"] = prior_of(group["prior"], group["localization"], GaussianPrior, **group.pop("prior_kwargs"))
        settings, masks = group.pop("preconditioner_kwargs"), group.pop("optimize_over")
        group["preconditioner"] = preconditioner_of(group["preconditioner"], settings, masks, group["params"])
        self._init_state(group, keeps_start=group["bounding_box_size"] is not None)

    def reset_metrics(self) -> None:
        """Forget what was kept."""
        for group in self.param_groups:
            for value in group["metrics"].values():
                value.clear() if isinstance(value, list) else value.zero_()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients, and what was kept of the last step."""
        self.reset_metrics()
        super().zero_grad(set_to_none)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None, noise_generator: torch.Generator | None = None) -> Any:
        """Move every parameter that has a gradient, and keep what was asked for; returns the closure's loss."""
        loss = super().step(closure, noise_generator)
        for group in self.param_groups:
            kept = group["metrics"]
            for name in kept.keys() & set(NORMS):
                kept[name] = kept[name].sqrt()
            if "localization_loss" in kept and group["prior"] is not None:
                kept["localization_loss"] = kept["distance"] ** 2 * group["prior"].localization / 2
        return loss

    def _drift(
        self, group: dict[str, Any], param: Tensor, coefs: PreconditionerCoefs, around: tuple[Tensor, Tensor] | None
    ) -> Tensor:
        if group["prior"] is not None and "distance" in group["metrics"]:
            group["metrics"]["distance"] += group["prior"].distance_sq(param.data, self.state[param])
        drift = super()._drift(group, param, coefs, around)
        if group["weight_decay"] != 0:
            drift.add_(group["weight_decay"] * param.data)
        return drift

    def _move(
        self, group: dict[str, Any], param: Tensor, generator: torch.Generator | None, offset: int
    ) -> tuple[Tensor, Tensor]:
        drift, noise = super()._move(group, param, generator, offset)
        kept = group["metrics"]
        if "dws" in kept:
            kept["dws"].append(drift.clone())
        if "noise" in kept:
            kept["noise"].append(noise)
        if "grad_norm" in kept:
            gradient = param.grad.data * group["nbeta"]  # type: ignore[union-attr]
            kept["grad_norm"] += ((gradient * 0.5 * group["lr"]) ** 2).sum()
        if "weight_norm" in kept:
            kept["weight_norm"] += (param.data**2).sum()
        if "noise_norm" in kept:
            kept["noise_norm"] += (noise**2).sum()
        return drift, noise

    @classmethod
    def sgld(  # type: ignore[override]
        cls,
        params: Any,
        lr: float = 0.01,
        noise_level: float = 1.0,
        weight_decay: float = 0.0,
        localization: float = 0.0,
        nbeta: float = 1.0,
        bounding_box_size: float | None = None,
        optimize_over: Any = None,
        metrics: Sequence[str] | None = None,
    ) -> SGMCMC:
        """SGLD: G = 1, the prior λw + γ(w − w*) (Lau et al. 2308.12108)."""
        warn_of_settings(noise_level, nbeta)
        return cls(
            params,
            lr=lr,
            noise_level=noise_level,
            nbeta=nbeta,
            prior=_gaussians(weight_decay, localization),
            bounding_box_size=bounding_box_size,
            optimize_over=optimize_over,
            metrics=metrics,
        )

    @classmethod
    def rmsprop_sgld(  # type: ignore[override]
        cls,
        params: Any,
        lr: float = 0.01,
        noise_level: float = 1.0,
        weight_decay: float = 0.0,
        localization: float = 0.0,
        nbeta: float = 1.0,
        alpha: float = 0.99,
        eps: float = 0.1,
        add_grad_correction: bool = False,
        bounding_box_size: float | None = None,
        optimize_over: Any = None,
        metrics: Sequence[str] | None = None,
    ) -> SGMCMC:
        """RMSprop-SGLD: G = 1/(√V + eps), the prior λw + γ(w − w*) (Li et al. 1512.07666)."""
        warn_of_settings(noise_level, nbeta)
        return cls(
            params,
            lr=lr,
            noise_level=noise_level,
            nbeta=nbeta,
            prior=_gaussians(weight_decay, localization),
            preconditioner="rmsprop",
            preconditioner_kwargs={"alpha": alpha, "eps": eps, "add_grad_correction": add_grad_correction},
            bounding_box_size=bounding_box_size,
            optimize_over=optimize_over,
            metrics=metrics,
        )

    @classmethod
    def sgnht(  # type: ignore[override]
        cls,
        params: Any,
        lr: float = 0.01,
        diffusion_factor: float = 0.01,
        nbeta: float = 1.0,
        bounding_box_size: float | None = None,
        metrics: Sequence[str] | None = None,
    ) -> SGMCMC:
        """Devinterp's SGNHT, whose friction is not applied; ``optim.SGNHT`` has one."""
        warn_of_settings(1.0, nbeta)
        warn_once("thermostat without friction")
        return cls(
            params,
            lr=lr,
            nbeta=nbeta,
            preconditioner=NHTPreconditioning(diffusion_factor),
            bounding_box_size=bounding_box_size,
            metrics=metrics,
        )

    @property
    def metrics(self) -> dict[str, Any]:
        """What the first group keeps."""
        if len(self.param_groups) > 1:
            warnings.warn("metrics is the first group's: read param_groups for the others", stacklevel=2)
        return self.param_groups[0]["metrics"]

    @property
    def tracked_metrics(self) -> set[str]:
        """Names of what is kept."""
        return set(self.param_groups[0]["metrics"])

    def __getattr__(self, name: str) -> Any:
        """A setting, or something kept, of the first group."""
        groups = self.__dict__.get("param_groups")
        if groups and name in groups[0]:
            return groups[0][name]
        if groups and name in groups[0].get("metrics", ()):
            return groups[0]["metrics"][name]
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


def _gaussians(weight_decay: float, localization: float) -> Prior:
    """λw + γ(w − w*), the second also where γ = 0."""
    priors: list[Prior] = [GaussianPrior(weight_decay, center=None)] if weight_decay > 0 else []
    return CompositePrior([*priors, GaussianPrior(localization, center="initial")])
