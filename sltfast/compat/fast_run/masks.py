"""devinterp's ``param_masks``, checked: which of them the engine can sample, and which move at all."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

ParamMasks = Mapping[str, Tensor | None]


class UnknownParameter(KeyError, ValueError):
    """``param_masks`` names a parameter that the model does not have (a KeyError, as devinterp raises)."""

    def __str__(self) -> str:
        return str(self.args[0])


def moving(model: nn.Module, param_masks: ParamMasks | None) -> dict[str, Tensor | None]:
    """The masks of the parameters that move: those named, but for frozen ones, which get no gradient.

    Raises:
        UnknownParameter: a name that the model does not have.
        ValueError: a mask of another shape, or nothing that can move.
    """
    every = dict(model.named_parameters(remove_duplicate=False))
    asked = dict.fromkeys(dict(model.named_parameters())) if param_masks is None else dict(param_masks)
    unknown = [name for name in asked if name not in every]
    if unknown:
        raise UnknownParameter(
            f"param_masks names {unknown[0]!r}, and the model has no such parameter: see model.named_parameters()"
        )
    for name, mask in asked.items():
        if mask is not None and tuple(mask.shape) != tuple(every[name].shape):
            raise ValueError(
                f"Mask shape {tuple(mask.shape)} does not match parameter shape {tuple(every[name].shape)} of {name!r}"
            )
    thawed = {name: mask for name, mask in asked.items() if every[name].requires_grad}
    moved = {name: mask for name, mask in thawed.items() if mask is None or bool(mask.count_nonzero())}
    if not moved:
        why = "it is empty" if not asked else "all of them are frozen (requires_grad=False) or masked out"
        raise ValueError(
            f"optimizer got an empty parameter list: param_masks selects nothing that moves ({why}): name at least one "
            "parameter (a tied or renamed weight? see preview_weight_restriction)"
        )
    return moved


def scales(masks: ParamMasks) -> bool:
    """Whether a mask has values other than 0 and 1, by which devinterp scales drift and noise."""
    return any(
        mask is not None and mask.dtype != torch.bool and not bool(((mask == 0) | (mask == 1)).all())
        for mask in masks.values()
    )


def selected(model: nn.Module, param_masks: ParamMasks | None) -> int:
    """Coordinates that the masks name, as devinterp counts them (``metrics_numel``)."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    if param_masks is None:
        return sum(parameter.numel() for parameter in model.parameters())
    return sum(
        parameters[name].numel() if mask is None else int(mask.count_nonzero()) for name, mask in param_masks.items()
    )
