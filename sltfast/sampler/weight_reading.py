"""What is read of the weights themselves at a draw: w − w* on chosen coordinates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from sltfast.arena import Arena
from sltfast.restriction import ParamMasks, Restriction
from sltfast.results.layout import ArraySpec
from sltfast.sampler.config import SamplerConfig


def chosen_weights(
    model: nn.Module, record_weights: ParamMasks, restrictions: Mapping[str, Restriction]
) -> Restriction | None:
    """The coordinates to record, None for none.

    Raises:
        ValueError: some of them do not move, under some restriction; or as ``Restriction.of``.
        TypeError: as ``Restriction.of``.
    """
    if record_weights is None:
        return None
    chosen = Restriction.of(model, record_weights)
    asked = _masks(chosen)
    for name, restriction in restrictions.items():
        moving = _masks(restriction)
        still = {
            key: int((mask & ~moving[key]).sum()) if key in moving else int(mask.sum()) for key, mask in asked.items()
        }
        if any(still.values()):
            whose = f" of {name!r}" if name else ""
            counts = ", ".join(f"{count} of {key}" for key, count in still.items() if count)
            raise ValueError(
                f"record_weights names coordinates that the restriction{whose} does not move ({counts}): choose among "
                "those that move, or let them move with param_masks"
            )
    return chosen


def weight_specs(config: SamplerConfig, chosen: Restriction) -> list[ArraySpec]:
    """The arrays of chosen coordinates: ``displacement``, w − w*, and ``element``, their flat indices in the model."""
    shape = (config.num_chains, config.num_draws, chosen.numel)
    return [
        ArraySpec("displacement", ("chain", "draw", "coordinate"), shape, "float32", "draw"),
        ArraySpec("element", ("coordinate",), shape[2:], "int64"),
    ]


def weight_elements(model: nn.Module, chosen: Restriction) -> np.ndarray:
    """[n] flat indices of the chosen coordinates in the full model, ascending."""
    first = _first_elements(model)
    masks = _masks(chosen)
    return torch.cat([mask.nonzero().flatten() + first[name] for name, mask in masks.items()]).numpy()


def weight_names(model: nn.Module, chosen: Restriction) -> dict[str, Any]:
    """For the record: of each parameter with chosen coordinates, its first element in the full model and its shape."""
    first, parameters = _first_elements(model), dict(model.named_parameters())
    return {name: {"element": first[name], "shape": list(parameters[name].shape)} for name in _masks(chosen)}


def _first_elements(model: nn.Module) -> dict[str, int]:
    first, element = {}, 0
    for name, parameter in model.named_parameters():
        first[name] = element
        element += parameter.numel()
    return first


def _masks(restriction: Restriction) -> dict[str, Tensor]:
    """By parameter, flat bool: where it moves."""
    segments = restriction.dense().segments
    return {s.name: torch.ones(s.numel, dtype=torch.bool, device="cpu") if s.mask is None else s.mask for s in segments}


class _Part(NamedTuple):
    """Chosen coordinates of one segment in the lanes of one restriction."""

    weights: Tensor  # [lanes, P], the block's
    columns: Tensor  # int64 [n], where they lie in it
    anchor: Tensor  # [n], w*
    places: Tensor  # int64 [n], where they lie among the chosen


class WeightReading:
    """Reads w − w* on chosen coordinates from an arena.

    Args:
        chosen: which, all of them moving in every lane.
        arena: the weights of the lanes.
    """

    def __init__(self, chosen: Restriction, arena: Arena) -> None:
        self.shape = (arena.lanes, chosen.numel)
        self._parts: list[tuple[slice, _Part]] = []
        masks, places, before = _masks(chosen), {}, 0
        for name, mask in masks.items():
            places[name] = mask.cumsum(0) - 1 + before
            before += int(mask.sum())
        for block in arena.blocks:
            for k, share in enumerate(block.shares):
                for index, leaf in enumerate(block.leaves):
                    segment = leaf.segments[k]
                    if segment.name not in masks:
                        continue
                    shape = segment.parameter.shape
                    inside = segment.of(masks[segment.name].view(shape)).reshape(-1).nonzero().flatten()
                    if len(inside):
                        place = segment.of(places[segment.name].view(shape)).reshape(-1)[inside]
                        device = block.w.device
                        part = _Part(
                            block.w[share.lanes],
                            (inside + block.offsets[index]).to(device),
                            share.anchors[index][inside.to(device)],
                            place.to(device),
                        )
                        self._parts.append((share.lanes, part))
        self._device = arena.blocks[0].w.device

    def read(self) -> Tensor:
        """[L, n] float32 w − w* at the present weights, coordinates in the order of the full model."""
        values = torch.empty(self.shape, dtype=torch.float32, device=self._device)
        for lanes, part in self._parts:
            apart = part.weights.index_select(1, part.columns) - part.anchor
            values[lanes].index_copy_(1, part.places, apart.float())
        return values
