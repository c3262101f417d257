"""Which coordinates move: the whole model, named parameters, or any boolean mask over them."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

SAMPLED = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
ParamMasks = Mapping[str, Tensor | None] | Iterable[str] | str | None


@dataclass(frozen=True)
class Segment:
    """One parameter that moves, whole or under a mask.

    Attributes:
        name: its first name in ``named_parameters``.
        parameter: the caller's own tensor, w* on these coordinates.
        element: flat index of its first coordinate in the full model (``named_parameters`` order, tied weights
            once). The noise is counted by it, so it is the same under every restriction.
        mask: bool, flat [numel], True where it moves; None where all of it does.
    """

    name: str
    parameter: nn.Parameter
    element: int
    mask: Tensor | None

    @property
    def moving(self) -> int:
        """Coordinates that move."""
        return self.parameter.numel() if self.mask is None else int(self.mask.sum())


@dataclass(frozen=True)
class Restriction:
    """The coordinates that one run samples."""

    segments: tuple[Segment, ...]

    @property
    def numel(self) -> int:
        """Coordinates that move, over all segments."""
        return sum(segment.moving for segment in self.segments)

    @classmethod
    def of(cls, model: nn.Module, param_masks: ParamMasks = None) -> Restriction:
        """Resolve ``param_masks`` against a model.

        Args:
            model: the caller's.
            param_masks: None for the parameters that require gradients (all of them where none does, as in a
                model frozen for inference); a name, glob pattern or list of them
                (``"*.mlp.*"``); or a mapping from name to a mask of the parameter's shape (bool, or 0/1) or None for
                all of it. A tied weight answers to each of its names; masks given under several are united.

        Raises:
            ValueError: an unknown name, a mask of another shape or with other values than 0 and 1, nothing selected,
                or a selected weight that is NaN or infinite.
            TypeError: param_masks or a mask of another type, or a selected parameter that is not floating point.
        """
        canonical: dict[str, str] = {}
        first_name: dict[int, str] = {}
        for name, parameter in model.named_parameters(remove_duplicate=False):
            canonical[name] = first_name.setdefault(id(parameter), name)
        parameters = dict(model.named_parameters())
        if not parameters:
            raise ValueError(f"{type(model).__name__} has no parameters: there is nothing to sample")
        if param_masks is None:
            chosen: dict[str, Tensor | None] = {n: None for n, p in parameters.items() if p.requires_grad}
            if not chosen:
                chosen = {n: None for n, p in parameters.items() if p.is_floating_point()}
        else:
            chosen = _united(parameters, canonical, _as_mapping(param_masks, canonical))
        segments = []
        element = 0
        for name, parameter in parameters.items():
            if name in chosen:
                mask = chosen[name]
                if mask is None or bool(mask.any()):
                    _check_weights(name, parameter)
                    segments.append(Segment(name, parameter, element, mask))
            element += parameter.numel()
        restriction = cls(tuple(s for s in segments if s.parameter.numel() > 0))
        if restriction.numel == 0:
            raise ValueError(
                f"the restriction selects no coordinate (param_masks names {sorted(chosen) or 'nothing'}): "
                "at least one mask needs a True"
            )
        return restriction


def _as_mapping(param_masks: ParamMasks, canonical: dict[str, str]) -> Mapping[str, Tensor | None]:
    if isinstance(param_masks, Mapping):
        return param_masks
    patterns: list[object] = [param_masks]
    if isinstance(param_masks, Iterable) and not isinstance(param_masks, str):
        patterns = list(param_masks)
    if not all(isinstance(pattern, str) for pattern in patterns):
        raise TypeError(
            "param_masks must be None, a mapping from parameter name to mask, or names and glob patterns; "
            f"got {param_masks!r}"
        )
    matched: dict[str, Tensor | None] = {}
    for pattern in map(str, patterns):
        names = [name for name in canonical if fnmatch.fnmatchcase(name, pattern)]
        if not names:
            raise ValueError(_unknown(pattern, canonical))
        matched.update(dict.fromkeys(names))
    return matched


def _unknown(name: str, canonical: dict[str, str]) -> str:
    close = difflib.get_close_matches(name, canonical, n=3, cutoff=0.3) or list(canonical)[:3]
    return (
        f"param_masks names {name!r}, but the model has no such parameter; the closest are "
        f"{', '.join(map(repr, close))} (see model.named_parameters())"
    )


def _united(
    parameters: dict[str, nn.Parameter], canonical: dict[str, str], masks: Mapping[str, Tensor | None]
) -> dict[str, Tensor | None]:
    chosen: dict[str, Tensor | None] = {}
    for name, mask in masks.items():
        if name not in canonical:
            raise ValueError(_unknown(name, canonical))
        key = canonical[name]
        parameter = parameters[key]
        if not parameter.is_floating_point():
            raise TypeError(f"parameter {name!r} has dtype {parameter.dtype}: only floating-point weights move")
        flat = None if mask is None else _flat_mask(name, parameter, mask)
        if key in chosen:
            earlier = chosen[key]
            flat = None if flat is None or earlier is None else flat | earlier
        chosen[key] = flat
    return chosen


def _flat_mask(name: str, parameter: nn.Parameter, mask: Tensor) -> Tensor | None:
    if not isinstance(mask, Tensor):
        raise TypeError(f"the mask of {name!r} must be a tensor or None, got {type(mask).__name__}")
    if mask.shape != parameter.shape:
        raise ValueError(
            f"the mask of {name!r} has shape {tuple(mask.shape)}, but the parameter's is {tuple(parameter.shape)}"
        )
    flat = mask.detach().reshape(-1).cpu()
    if flat.dtype != torch.bool:
        if not bool(((flat == 0) | (flat == 1)).all()):
            raise ValueError(f"the mask of {name!r} has values other than 0 and 1: give a bool mask")
        flat = flat.bool()
    return None if bool(flat.all()) else flat


def _check_weights(name: str, parameter: nn.Parameter) -> None:
    if isinstance(parameter, nn.parameter.UninitializedParameter):
        raise ValueError(f"parameter {name!r} has no shape yet (a lazy module): run one forward first")
    if parameter.dtype not in SAMPLED:
        raise TypeError(
            f"parameter {name!r} has dtype {parameter.dtype}; float32, float64, bfloat16 and float16 weights can move "
            "(leave it out with param_masks)"
        )
    if parameter.is_meta:
        raise ValueError(f"parameter {name!r} is on the meta device: load the model's weights first")
    if not bool(torch.isfinite(parameter.detach()).all()):
        count = int((~torch.isfinite(parameter.detach())).sum())
        raise ValueError(
            f"parameter {name!r} has {count} NaN or infinite values: sampling starts from finite weights "
            "(check the checkpoint)"
        )
