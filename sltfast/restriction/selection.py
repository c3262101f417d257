"""From what a caller asks for, names, patterns and masks, to the blocks of coordinates that move."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sltfast.restriction.names import closest, parts_of
from sltfast.restriction.region import Rectangle, Region, plane_of
from sltfast.restriction.segment import Segment
from sltfast.shown import shown

SAMPLED = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
GLOB = re.compile(r"[*?\[]")
ParamMasks = Mapping[str, Tensor | None] | Iterable[str] | str | None


@dataclass(frozen=True)
class Restriction:
    """The coordinates that one run samples."""

    segments: tuple[Segment, ...]  # in named_parameters order, then by row and column

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
                model frozen for inference); the name of a parameter, of a part of a language model (``"l0h1"``,
                see ``create_param_masks``), a glob pattern over either (``"*.mlp.*"``, ``"l0h*"``) or a list of them;
                or a mapping from name to a mask of the parameter's shape (bool, or 0/1) or None for
                all of it. A tied weight answers to each of its names; masks given under several are united.

        Raises:
            ValueError: an unknown name, a mask of another shape or with other values than 0 and 1, nothing selected,
                or a selected weight that is NaN or infinite.
            NotUnderstood: (a ValueError) a part that cannot be told in a model built like this one.
            TypeError: param_masks or a mask of another type, or a selected parameter that is not floating point.
        """
        chosen = select(model, param_masks)
        segments: list[Segment] = []
        element = 0
        for name, parameter in model.named_parameters():
            if name in chosen:
                segments += _segments(name, parameter, element, chosen[name])
            element += parameter.numel()
        return cls(tuple(segments))

    def dense(self) -> Restriction:
        """The same coordinates, with one segment a parameter: whole, under a mask where only a part moves."""
        by_name: dict[str, list[Segment]] = {}
        for segment in self.segments:
            by_name.setdefault(segment.name, []).append(segment)
        return Restriction(tuple(_as_one(parts) for parts in by_name.values()))


def select(model: nn.Module, param_masks: ParamMasks) -> dict[str, Region]:
    """First name of every parameter of which something moves → its coordinates, in ``named_parameters`` order.

    Raises:
        ValueError, TypeError: see ``Restriction.of``.
    """
    canonical: dict[str, str] = {}
    first_name: dict[int, str] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        canonical[name] = first_name.setdefault(id(parameter), name)
    parameters = dict(model.named_parameters())
    if not parameters:
        raise ValueError(f"{type(model).__name__} has no parameters: there is nothing to sample")
    if param_masks is None:
        moving = [n for n, p in parameters.items() if p.requires_grad]
        param_masks = dict.fromkeys(moving or [n for n, p in parameters.items() if p.is_floating_point()])
    chosen = _chosen(model, canonical, param_masks)
    selected = {name: chosen[name] for name in parameters if name in chosen and chosen[name].numel > 0}
    if not selected:
        raise ValueError(
            f"the restriction selects no coordinate (param_masks names {sorted(chosen) or 'nothing'}): "
            "at least one mask needs a True"
        )
    return selected


def _segments(name: str, parameter: nn.Parameter, element: int, region: Region) -> list[Segment]:
    """The blocks of one parameter, whose first coordinate is ``element`` of the full model."""
    rows, columns = region.plane
    if region.mask is not None:
        segments = [Segment(name, parameter, element, region.mask, (0, rows), (0, columns))]
    else:
        segments = [
            Segment(name, parameter, element + r.rows[0] * columns + r.columns[0], None, r.rows, r.columns)
            for r in region.rectangles
        ]
    for segment in segments:
        _check_finite(segment)
    return segments


def _as_one(parts: list[Segment]) -> Segment:
    first = parts[0]
    if first.whole:
        return first
    plane = plane_of(first.parameter.shape)
    region = Region.of_rectangles(plane, [Rectangle(part.rows, part.columns) for part in parts])
    element = first.element - first.rows[0] * plane[1] - first.columns[0]
    return Segment(first.name, first.parameter, element, region.dense(), (0, plane[0]), (0, plane[1]))


def _chosen(model: nn.Module, canonical: dict[str, str], param_masks: ParamMasks) -> dict[str, Region]:
    """First name of every parameter that ``param_masks`` selects → its coordinates."""
    if isinstance(param_masks, Mapping):
        asked: Iterable[tuple[str, Tensor | Region | None]] = param_masks.items()
    else:
        asked = _by_name(model, canonical, param_masks)
    parameters = dict(model.named_parameters())
    chosen: dict[str, Region] = {}
    for name, mask in asked:
        if not isinstance(name, str):
            raise TypeError(f"param_masks must map names of parameters to masks, got the key {shown(name)}")
        if name not in canonical:
            raise ValueError(_unknown(name, canonical))
        key = canonical[name]
        parameter = parameters[key]
        if not parameter.is_floating_point():
            raise TypeError(f"parameter {name!r} has dtype {parameter.dtype}: only floating-point weights move")
        _check_kind(name, parameter)
        region = mask if isinstance(mask, Region) else _region(name, parameter, mask)
        chosen[key] = region.union(chosen[key]) if key in chosen else region
    return chosen


def _by_name(model: nn.Module, canonical: dict[str, str], names: object) -> Iterator[tuple[str, Region | None]]:
    """What names, globs over parameters and names of parts select."""
    patterns: list[object] = [names]
    if isinstance(names, Iterable) and not isinstance(names, str | Tensor):
        patterns = list(names)
    if not all(isinstance(pattern, str) for pattern in patterns):
        raise TypeError(
            "param_masks must be None, a mapping from parameter name to mask, or names and glob patterns; "
            f"got {shown(names)}"
        )
    for pattern in map(str, patterns):
        matched = [name for name in canonical if fnmatch.fnmatchcase(name, pattern)]
        if matched:
            yield from dict.fromkeys(matched).items()
            continue
        parts = parts_of(model)
        named = fnmatch.filter(parts.names(model), pattern) if GLOB.search(pattern) else [pattern]
        for name in named:
            region = parts.regions(model, name)
            if region is None:
                raise ValueError(_unknown(pattern, canonical))
            yield from region.items()
        if not named:
            raise ValueError(_unknown(pattern, canonical))


def _unknown(name: str, canonical: dict[str, str]) -> str:
    told = f"param_masks names {shown(name)}, but the model has no such parameter or part"
    return f"{told}; {closest(name, list(canonical))}"


def _region(name: str, parameter: nn.Parameter, mask: Tensor | None) -> Region:
    if mask is None:
        return Region.whole(plane_of(parameter.shape))
    if not isinstance(mask, Tensor):
        raise TypeError(f"the mask of {name!r} must be a tensor or None, got {type(mask).__name__}")
    if mask.shape != parameter.shape:
        raise ValueError(
            f"the mask of {name!r} has shape {tuple(mask.shape)}, but the parameter's is {tuple(parameter.shape)}"
        )
    if mask.is_meta or mask.layout != torch.strided:
        raise ValueError(
            f"the mask of {name!r} is {'on the meta device' if mask.is_meta else 'sparse'}: give a dense one"
        )
    flat = mask.detach().reshape(-1).cpu()
    if flat.dtype != torch.bool:
        if not bool(((flat == 0) | (flat == 1)).all()):
            raise ValueError(f"the mask of {name!r} has values other than 0 and 1: give a bool mask")
        flat = flat.bool()
    return Region.of_mask(plane_of(parameter.shape), flat)


def _check_kind(name: str, parameter: nn.Parameter) -> None:
    if isinstance(parameter, nn.parameter.UninitializedParameter):
        raise ValueError(f"parameter {name!r} has no shape yet (a lazy module): run one forward first")
    if parameter.dtype not in SAMPLED:
        raise TypeError(
            f"parameter {name!r} has dtype {parameter.dtype}; float32, float64, bfloat16 and float16 weights can move "
            "(leave it out with param_masks)"
        )
    if parameter.is_meta:
        raise ValueError(f"parameter {name!r} is on the meta device: load the model's weights first")


def _check_finite(segment: Segment) -> None:
    values = segment.of(segment.parameter.detach())
    if bool(torch.isfinite(values.sum(dtype=torch.float64))):  # one read, no copy: what is not finite stays so in a sum
        return
    finite = torch.isfinite(values)
    if not bool(finite.all()):
        raise ValueError(
            f"parameter {segment.name!r} has {int((~finite).sum())} NaN or infinite values: sampling starts from "
            "finite weights (check the checkpoint)"
        )
