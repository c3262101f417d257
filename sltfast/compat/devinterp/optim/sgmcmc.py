"""SGLD, RMSprop-SGLD and devinterp's SGNHT as one ``torch.optim`` optimiser."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Literal

import torch
from torch import Tensor

from sltfast.compat.devinterp.optim.parts import Parts, Recording
from sltfast.compat.devinterp.optim.preconditioner import (
    CompositePreconditioner,
    IdentityPreconditioner,
    MaskPreconditioner,
    NHTPreconditioning,
    Preconditioner,
    PreconditionerCoefs,
    RMSpropPreconditioner,
    scaled,
)
from sltfast.compat.devinterp.optim.prior import CompositePrior, GaussianPrior, Prior

SamplingMethodLiteral = Literal["sgld", "rmsprop_sgld", "sgnht"]


def warn_of_settings(noise_level: float, nbeta: Any) -> None:
    """Say what devinterp says of a noise level or an inverse temperature that samples no posterior."""
    if noise_level != 1.0:
        warnings.warn(
            f"noise_level is unequal to one ({noise_level}): the chain does not sample the posterior", stacklevel=3
        )
    if nbeta == 1.0:
        warnings.warn("nbeta set to 1: give utils.default_nbeta(dataloader) unless 1 is what you mean", stacklevel=3)


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
        for group in self.param_groups:
            self._init_group(group)

    def _init_group(self, group: dict[str, Any]) -> None:
        group["prior"] = _prior(group["prior"], group.get("localization", 0.0))
        group["preconditioner"] = _preconditioner(group["preconditioner"], group.pop("preconditioner_kwargs"))
        params = list(group["params"])
        if group.get("mask") is not None:
            masks = [group["mask"]] if isinstance(group["mask"], Tensor) else group["mask"]
            placed = [_mask(mask, param) for mask, param in zip(masks, params, strict=False)]
            group["preconditioner"] = CompositePreconditioner([group["preconditioner"], MaskPreconditioner(placed)])
        kept = group["prior"].initialize(params) if group["prior"] is not None else {}
        keeps_start = group["bounding_box_size"] is not None or self.save_metrics
        for place, param in enumerate(params):
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

    def _move(self, group: dict[str, Any], param: Tensor, generator: torch.Generator | None, offset: int) -> None:
        state, weight, prior = self.state[param], param.data, group["prior"]
        coefs = group["preconditioner"].get_coefficients(param, param.grad, state)
        drift = scaled(coefs.grad_coef, param.grad.mul(group["nbeta"]))  # type: ignore[union-attr]
        pull = decay = None
        if prior is not None:
            if self.records:
                pull, decay = _pull_and_decay(prior, weight, state)
                drift.add_(scaled(coefs.prior_coef, pull + decay))
            else:
                drift.add_(scaled(coefs.prior_coef, prior.grad(weight, state)))
        drift = scaled(coefs.overall_coef, drift)
        distance = weight - state["initial_param"] if self.save_metrics else weight
        weight.add_(drift, alpha=-0.5 * group["lr"])
        noise = torch.normal(0.0, group["noise_level"], drift.size(), device=drift.device, generator=generator)
        noise = scaled(coefs.overall_coef, noise)
        weight.add_(scaled(coefs.noise_coef, noise), alpha=group["lr"] ** 0.5)
        box = group["bounding_box_size"]
        if box is not None:
            torch.clamp_(weight, min=state["initial_param"] - box, max=state["initial_param"] + box)
        if self.records:
            parts = _parts(group, param, pull, decay, noise, coefs)
            self.scatter(parts, offset)
            if self.save_metrics:
                mask = coefs.overall_coef
                moving = int(mask.count_nonzero()) if isinstance(mask, Tensor) else param.numel()
                self.count(group, parts, distance, moving)

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


def _prior(prior: Any, localization: float) -> Prior | None:
    if prior is None and not localization:
        return None
    if prior is None or isinstance(prior, str):
        return GaussianPrior(localization or 1.0, center="initial" if prior is None else prior)  # type: ignore[arg-type]
    if isinstance(prior, Prior):
        return prior
    if isinstance(prior, Iterable):
        return GaussianPrior(localization or 1.0, center=prior)
    if isinstance(prior, (int, float)):
        return GaussianPrior(float(prior))
    raise ValueError(f"Unsupported prior type: {type(prior)}; give a Prior, 'initial', tensors, a number or None")


def _preconditioner(preconditioner: Any, settings: dict[str, Any]) -> Preconditioner:
    if isinstance(preconditioner, Preconditioner):
        return preconditioner
    if preconditioner is None or preconditioner == "identity":
        return IdentityPreconditioner(**settings)
    if preconditioner == "rmsprop":
        return RMSpropPreconditioner(**settings)
    raise ValueError(
        f"Unsupported preconditioner type: {preconditioner}; give 'identity', 'rmsprop' or one of the classes"
    )


def _mask(mask: Any, param: Tensor) -> Tensor:
    placed = mask if isinstance(mask, Tensor) else torch.tensor(mask).to(param.device)
    if placed.shape != param.shape:
        raise ValueError(
            f"Mask shape {placed.shape} does not match parameter shape {param.shape}. Give one value a coordinate."
        )
    return placed.float()


def _pull_and_decay(prior: Prior, weight: Tensor, state: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """The gradients of the priors around a centre, and of those around the origin."""
    pull, decay = torch.zeros_like(weight), torch.zeros_like(weight)
    for one in prior.priors if isinstance(prior, CompositePrior) else [prior]:
        total = decay if isinstance(one, GaussianPrior) and one.center is None else pull
        total += one.grad(weight, state)
    return pull, decay


def _parts(
    group: dict[str, Any],
    param: Tensor,
    pull: Tensor | None,
    decay: Tensor | None,
    noise: Tensor,
    coefs: PreconditionerCoefs,
) -> Parts:
    half = 0.5 * group["lr"]
    gradient = param.grad.mul(group["nbeta"])  # type: ignore[union-attr]
    prior = half * coefs.prior_coef * coefs.overall_coef
    return Parts(
        scaled_grad=half * (coefs.overall_coef * (coefs.grad_coef * gradient)),
        unscaled_grad=half * gradient,
        localization=prior * (torch.zeros_like(param) if pull is None else pull),
        weight_decay=prior * (torch.zeros_like(param) if decay is None else decay),
        noise=(group["lr"] ** 0.5) * coefs.noise_coef * noise,
    )
