"""What a group of parameters was given, as the objects that a step uses."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from sltfast.compat.devinterp.optim.preconditioner import (
    CompositePreconditioner,
    IdentityPreconditioner,
    MaskPreconditioner,
    Preconditioner,
    RMSpropPreconditioner,
)
from sltfast.compat.devinterp.optim.prior import GaussianPrior, Prior


def prior_of(
    prior: Any, localization: float | None, gaussian: type[GaussianPrior] = GaussianPrior, **settings: Any
) -> Prior | None:
    """A ``Prior`` itself, or the Gaussian that a centre's name, centres, a number (γ) or γ alone stand for.

    Args:
        prior: what was given.
        localization: γ, 1 where it is 0 and a prior was given.
        gaussian: the class of a Gaussian prior.
        settings: more of its keywords.

    Raises:
        ValueError: a prior of another kind.
    """
    if prior is None and not localization:
        return None
    if isinstance(prior, Prior):
        return prior
    if prior is None or isinstance(prior, str | Iterable):
        center: Any = "initial" if prior is None else prior
        return gaussian(localization or 1.0, center=center, **settings)
    if isinstance(prior, int | float):
        return gaussian(float(prior), **settings)
    raise ValueError(f"Unsupported prior type: {type(prior)}; give a Prior, 'initial', tensors, a number or None")


def preconditioner_of(preconditioner: Any, settings: dict[str, Any], masks: Any, params: Sequence[Tensor]) -> Any:
    """A ``Preconditioner`` itself, or the one of that name, behind the group's masks.

    Args:
        preconditioner: what was given.
        settings: keywords of one that is named.
        masks: None, a mask of each parameter, or one tensor for the first.
        params: the group's.

    Raises:
        ValueError: a preconditioner of another kind, or a mask of another shape than its parameter's.
    """
    if isinstance(preconditioner, Preconditioner):
        shape = preconditioner
    elif preconditioner is None or preconditioner == "identity":
        shape = IdentityPreconditioner(**settings)
    elif preconditioner == "rmsprop":
        shape = RMSpropPreconditioner(**settings)
    else:
        raise ValueError(
            f"Unsupported preconditioner type: {preconditioner}; give 'identity', 'rmsprop' or one of the classes"
        )
    if masks is None:
        return shape
    masks = [masks] if isinstance(masks, Tensor) else masks
    placed = [_placed(mask, param) for mask, param in zip(masks, params, strict=False)]
    return CompositePreconditioner([shape, MaskPreconditioner(placed)])


def _placed(mask: Any, param: Tensor) -> Tensor:
    """The mask in float32, 1 where the parameter moves."""
    values = mask if isinstance(mask, Tensor) else torch.tensor(mask).to(param.device)
    if values.shape != param.shape:
        raise ValueError(
            f"Mask shape {values.shape} does not match parameter shape {param.shape}. Give one value a coordinate."
        )
    return values.float()
