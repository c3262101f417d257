"""SGLD, RMSprop-SGLD and devinterp's SGNHT as one ``torch.optim`` optimiser."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor

from sltfast.compat.defects import warn_once
from sltfast.compat.devinterp.optim.given import preconditioner_of, prior_of
from sltfast.compat.devinterp.optim.parts import Parts, Recording, pull_and_decay
from sltfast.compat.devinterp.optim.preconditioner import (
    NHTPreconditioning,
    Preconditioner,
    PreconditionerCoefs,
    scaled,
)
from sltfast.compat.devinterp.optim.prior import CompositePrior, GaussianPrior, Prior
from sltfast.compat.devinterp.optim.warn_of_settings import warn_of_settings

SamplingMethodLiteral = Literal["sgld", "rmsprop_sgld", "sgnht"]


def gaussians(weight_decay: float, localization: float) -> CompositePrior:
    """λw + γ(w − w*)."""
    priors: list[Prior] = []
    if weight_decay > 0:
        priors.append(GaussianPrior(weight_decay, center=None))
    if localization > 0:
        priors.append(GaussianPrior(localization, center="initial"))
    return CompositePrior(priors)


class SGMCMC(Recording):
    """w ← w − (ε/2) m (G nβ ∇L + G ∇(−log p)) + √ε m √G ξ, ξ ~ N(0, σ²); then w ← clamp(w, w* ± b).

    Groups may have ``lr``, ``noise_level``, ``nbeta``, ``prior``, ``preconditioner``, ``bounding_box_size``, ``mask``
    and ``localization`` of their own. A parameter without gradient stands still and draws no noise.

    Args:
        params: parameters or groups, as of any ``torch.optim`` optimiser.
        lr: ε.
        noise_level: σ.
        nbeta: nβ.
        prior: a ``Prior``, ``"initial"``, tensors (centres) or a number (γ).
        preconditioner: ``"identity"``, ``"rmsprop"`` or a ``Preconditioner``: G.
        preconditioner_kwargs: of a preconditioner that is named.
        bounding_box_size: b.
        mask: m, one tensor a parameter of the group (or one tensor, for its first).
        save_metrics: keep norms and inner products of each step (``get_metrics``).
        sketch_dim: keep sketches of this size (``get_sketches``).
        sketch_seed: of their hashes.

    Raises:
        ValueError: a prior or preconditioner of another kind, or a mask of another shape than its parameter's.

    Source: Welling & Teh 2011; Li et al. 1512.07666; Ding et al. 2014; Lau et al. 2308.12108.
    """

    def __init__(
        self,
        params: Any,
        *,
        lr: float = 0.01,
        noise_level: float = 1.0,
        nbeta: float = 1.0,
        prior: Prior | Literal["initial"] | Iterable[Tensor] | float | None = None,
        preconditioner: Preconditioner | Literal["identity", "rmsprop"] | None = "identity",
        preconditioner_kwargs: dict[str, Any] | None = None,
        bounding_box_size: float | None = None,
        mask: Tensor | None = None,
        save_metrics: bool = False,
        sketch_dim: int | None = None,
        sketch_seed: int = 0,
    ) -> None:
        defaults = {
            "lr": lr,
            "noise_level": noise_level,
            "nbeta": nbeta,
            "prior": prior,
            "preconditioner": preconditioner,
            "preconditioner_kwargs": preconditioner_kwargs or {},
            "bounding_box_size": bounding_box_size,
            "mask": mask,
        }
        given: Any = [params] if isinstance(params, (Tensor, dict)) else params
        super().__init__(given, defaults)
        self.record(save_metrics, sketch_dim, sketch_seed)
        self._init_groups()

    def _init_groups(self) -> None:
        for group in self.param_groups:
            self._init_group(group)
        if any(param.dtype in (torch.bfloat16, torch.float16) for param in self.get_params()):
            warn_once("half-precision optimiser", stacklevel=4)

    def _init_group(self, group: dict[str, Any]) -> None:
        group["prior"] = prior_of(group["prior"], group.get("localization", 0.0))
        settings, params = group.pop("preconditioner_kwargs"), group["params"]
        group["preconditioner"] = preconditioner_of(group["preconditioner"], settings, group.get("mask"), params)
        self._init_state(group, keeps_start=group["bounding_box_size"] is not None or self.save_metrics)

    def _init_state(self, group: dict[str, Any], *, keeps_start: bool) -> None:
        kept = group["prior"].initialize(list(group["params"])) if group["prior"] is not None else {}
        for place, param in enumerate(group["params"]):
            start = param.data.clone().detach() if keeps_start else None
            self.state[param] |= {**kept.get(param, {}), "param_idx": place, "initial_param": start}

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None, noise_generator: torch.Generator | None = None) -> Any:
        """Move every parameter that has a gradient.

        Args:
            closure: evaluates the loss and its gradient anew.
            noise_generator: where ξ comes from; torch's global generator otherwise.

        Returns:
            The closure's loss, or None.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if self._sketch_buf is not None:
            self._sketch_buf.zero_()
        offset = 0
        for group in self.param_groups:
            if self.save_metrics:
                group["metrics"].zero_()
            for param in group["params"]:
                if param.grad is not None:
                    self._move(group, param, noise_generator, offset)
                offset += param.numel()
            if self.save_metrics:
                group["metrics"].sqrt_norms_()
        return loss

    def _move(
        self, group: dict[str, Any], param: Tensor, generator: torch.Generator | None, offset: int
    ) -> tuple[Tensor, Tensor]:
        """Move one parameter, whose coordinates begin at ``offset`` of all; returns its masked drift and noise."""
        state, weight = self.state[param], param.data
        coefs = group["preconditioner"].get_coefficients(param, param.grad, state)
        around = pull_and_decay(group["prior"], weight, state) if self.records else None
        drift = scaled(coefs.overall_coef, self._drift(group, param, coefs, around))
        distance = weight - state["initial_param"] if self.save_metrics else None
        weight.add_(drift, alpha=-0.5 * group["lr"])
        # the size alone is given, so that the noise is in torch's default precision and from its stream
        noise = torch.normal(0.0, group["noise_level"], drift.size(), device=drift.device, generator=generator)
        noise = scaled(coefs.overall_coef, noise)
        weight.add_(scaled(coefs.noise_coef, noise), alpha=group["lr"] ** 0.5)
        box = group["bounding_box_size"]
        if box is not None:
            torch.clamp_(weight, min=state["initial_param"] - box, max=state["initial_param"] + box)
        if around is not None:
            parts = _parts(group, param, around, noise, coefs)
            self.scatter(parts, offset)
            if distance is not None:
                mask = coefs.overall_coef
                moving = int(mask.count_nonzero()) if isinstance(mask, Tensor) else param.numel()
                self.count(group, parts, distance, moving)
        return drift, noise

    def _drift(
        self, group: dict[str, Any], param: Tensor, coefs: PreconditionerCoefs, around: tuple[Tensor, Tensor] | None
    ) -> Tensor:
        """G nβ ∇L + G ∇(−log p), before the mask; ``around`` has the prior's two gradients where they are known."""
        drift = scaled(coefs.grad_coef, param.grad.mul(group["nbeta"]))  # type: ignore[union-attr]
        prior = group["prior"]
        if prior is not None:
            pull = prior.grad(param.data, self.state[param]) if around is None else around[0] + around[1]
            drift.add_(scaled(coefs.prior_coef, pull))
        return drift

    def get_params(self) -> Iterator[Tensor]:
        """All parameters."""
        for group in self.param_groups:
            yield from group["params"]

    @property
    def device(self) -> torch.device:
        """Of the first parameter."""
        return next(self.get_params()).device

    @classmethod
    def sgld(
        cls,
        params: Any,
        lr: float = 0.01,
        noise_level: float = 1.0,
        weight_decay: float = 0.0,
        localization: float = 0.0,
        nbeta: float = 1.0,
        bounding_box_size: float | None = None,
        mask: Tensor | None = None,
        save_metrics: bool = False,
        sketch_dim: int | None = None,
        sketch_seed: int = 0,
    ) -> SGMCMC:
        """SGLD: G = 1, the prior λw + γ(w − w*) (Lau et al. 2308.12108)."""
        warn_of_settings(noise_level, nbeta)
        return cls(
            params,
            lr=lr,
            noise_level=noise_level,
            nbeta=nbeta,
            prior=gaussians(weight_decay, localization),
            bounding_box_size=bounding_box_size,
            mask=mask,
            save_metrics=save_metrics,
            sketch_dim=sketch_dim,
            sketch_seed=sketch_seed,
        )

    @classmethod
    def rmsprop_sgld(
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
        mask: Tensor | None = None,
        save_metrics: bool = False,
        sketch_dim: int | None = None,
        sketch_seed: int = 0,
    ) -> SGMCMC:
        """RMSprop-SGLD: G = 1/(√V + eps), the prior λw + γ(w − w*) (Li et al. 1512.07666)."""
        warn_of_settings(noise_level, nbeta)
        return cls(
            params,
            lr=lr,
            noise_level=noise_level,
            nbeta=nbeta,
            prior=gaussians(weight_decay, localization),
            preconditioner="rmsprop",
            preconditioner_kwargs={"alpha": alpha, "eps": eps, "add_grad_correction": add_grad_correction},
            bounding_box_size=bounding_box_size,
            mask=mask,
            save_metrics=save_metrics,
            sketch_dim=sketch_dim,
            sketch_seed=sketch_seed,
        )

    @classmethod
    def sgnht(
        cls,
        params: Any,
        lr: float = 0.01,
        diffusion_factor: float = 0.01,
        nbeta: float = 1.0,
        bounding_box_size: float | None = None,
        save_metrics: bool = False,
        sketch_dim: int | None = None,
        sketch_seed: int = 0,
    ) -> SGMCMC:
        """Devinterp's SGNHT, whose friction is not applied; ``sltfast.sample(sampling_method="sgnht")`` has one."""
        warn_of_settings(1.0, nbeta)
        warn_once("thermostat without friction")
        return cls(
            params,
            lr=lr,
            nbeta=nbeta,
            preconditioner=NHTPreconditioning(diffusion_factor),
            bounding_box_size=bounding_box_size,
            save_metrics=save_metrics,
            sketch_dim=sketch_dim,
            sketch_seed=sketch_seed,
        )

    @classmethod
    def get_method(cls, method: SamplingMethodLiteral) -> Callable[..., SGMCMC]:
        """The constructor of a method by its name."""
        if method not in ("sgld", "rmsprop_sgld", "sgnht"):
            raise ValueError(f"`method` should be one of 'sgld', 'rmsprop_sgld', or 'sgnht'. Got {method}")
        return getattr(cls, method)


def _parts(
    group: dict[str, Any], param: Tensor, around: tuple[Tensor, Tensor], noise: Tensor, coefs: PreconditionerCoefs
) -> Parts:
    half = 0.5 * group["lr"]
    gradient = param.grad.mul(group["nbeta"])  # type: ignore[union-attr]
    prior = half * coefs.prior_coef * coefs.overall_coef
    return Parts(
        scaled_grad=half * (coefs.overall_coef * (coefs.grad_coef * gradient)),
        unscaled_grad=half * gradient,
        localization=prior * around[0],
        weight_decay=prior * around[1],
        noise=(group["lr"] ** 0.5) * coefs.noise_coef * noise,
    )
