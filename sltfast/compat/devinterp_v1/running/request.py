"""What one call of ``sample`` asks for, checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from sltfast.compat.devinterp_v1.utils import EvaluateFn, default_nbeta


def plain_forward(model: nn.Module, data: Any) -> Any:
    """What stands in where no ``evaluate`` is given: the model's own output, which must hold the loss."""
    return model(data)


@dataclass
class Request:
    """A run: C chains of ``num_draws`` draws of ``model`` over ``loader``.

    Attributes:
        optimizer_kwargs: the caller's, copied, with nbeta.
        seeds: one for each chain, or None.
        device: where.
        the others: as in ``sample``.
    """

    model: nn.Module
    loader: Any
    evaluate: EvaluateFn
    sampling_method: Any
    optimizer_kwargs: dict[str, Any]
    callbacks: list[Any]
    num_draws: int
    num_chains: int
    num_burnin_steps: int
    num_steps_bw_draws: int
    grad_accum_steps: int
    seeds: list[int | None]
    device: torch.device
    init_loss: Any
    verbose: bool = True
    optimize_over_per_model_param: Mapping[str, Tensor] | None = None
    use_amp: bool = False

    def __post_init__(self) -> None:
        for name in ("num_draws", "num_chains", "num_steps_bw_draws", "grad_accum_steps"):
            _whole(self, name, 1)
        _whole(self, "num_burnin_steps", 0)
        if not isinstance(self.model, nn.Module):
            raise TypeError(f"model must be a torch.nn.Module, got {type(self.model).__name__}")
        masks = self.optimize_over_per_model_param
        if masks:
            shapes = {name: parameter.shape for name, parameter in self.model.named_parameters()}
            if set(masks) != set(shapes):
                raise ValueError(
                    f"optimize_over_per_model_param needs a mask for every parameter: missing "
                    f"{sorted(set(shapes) - set(masks)) or 'none'}, unknown {sorted(set(masks) - set(shapes))}"
                )
            for name, mask in masks.items():
                if torch.as_tensor(mask).shape != shapes[name]:
                    raise ValueError(
                        f"the mask of {name!r} must have the parameter's shape {list(shapes[name])}, got "
                        f"{list(torch.as_tensor(mask).shape)}"
                    )

    @property
    def num_steps(self) -> int:
        """Steps of a chain."""
        return self.num_burnin_steps + self.num_draws * self.num_steps_bw_draws

    def draw_at(self, step: int) -> int | None:
        """The draw whose loss is that of this step: the last of each block of ``num_steps_bw_draws``, else None."""
        draw, rest = divmod(step + 1 - self.num_burnin_steps, self.num_steps_bw_draws)
        return draw - 1 if draw > 0 and rest == 0 else None


def with_nbeta(kwargs: Mapping[str, Any] | None, loader: Any, grad_accum_steps: int) -> dict[str, Any]:
    """A copy of ``optimizer_kwargs`` in which nβ has its name, and where it is not given its default.

    Raises:
        NoBatchSize: (a NotImplementedError) nβ is not given, and the loader has no batch size.
        ValueError: it is given under both names.
        TypeError: no mapping.
    """
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise TypeError(f"optimizer_kwargs must be a dict, got {type(kwargs).__name__}")
    own = dict(kwargs or {})
    if "temperature" in own:
        if "nbeta" in own:
            raise ValueError(
                "Found temperature and nbeta in optimizer_kwargs: temperature is nbeta's old name, give nbeta alone"
            )
        own["nbeta"] = own.pop("temperature")
    if "nbeta" not in own:
        own["nbeta"] = default_nbeta(loader, grad_accum_steps)
    return own


def in_order(callbacks: Mapping[str, Any] | Sequence[Any]) -> list[Any]:
    """Callbacks as a list."""
    return list(callbacks.values()) if isinstance(callbacks, Mapping) else list(callbacks)


def _whole(request: Request, name: str, least: int) -> None:
    value = getattr(request, name)
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name} must be a whole number >= {least}, got {value!r}")
