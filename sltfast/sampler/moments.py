"""Moments of what a pass observes, a block of draws at a time: joined on the device, flat in draws."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from sltfast.ops import Comoments, comoment_, comoments
from sltfast.sampler.observed import Observed
from sltfast.sampler.recording import Recording


class Draw(NamedTuple):
    """What was observed at a draw: of each observable, its losses and their mean, float64 [L]."""

    losses: Mapping[str, Observed]
    means: Mapping[str, Tensor]


class BlockMoments(ABC):
    """Moments of the present block of draws, of L lanes; means and accumulators are float64.

    Nothing of it reaches the host before the block is recorded, and one block's moments are all that is held.

    Args:
        recording: the run's.
        at_start: the losses of each observable at w*, of one lane, on the device.
        lanes: L.
    """

    def __init__(self, recording: Recording, at_start: Mapping[str, Observed], lanes: int) -> None:
        self.recording, self.at_start, self.lanes = recording, at_start, lanes
        self.states = self._empty()

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The accumulators by name: what an interrupted run needs to go on amid a block; they are written in place."""
        return {
            f"moments {name} {field}": tensor
            for name, state in self.states.items()
            for field, tensor in state._asdict().items()
            if tensor is not None
        }

    def add(self, number: int, draw: Draw) -> dict[str, Tensor]:
        """Join draw ``number`` to its block; if it is the last one, the block's row of every array, [L, …] each."""
        block = self.recording.block_of(number)
        if number == self.recording.first_draw(block):
            for tensor in self.tensors.values():
                tensor.zero_()
        self._join(draw)
        return self._rows() if number == self.recording.last_draw(block) else {}

    @abstractmethod
    def _empty(self) -> dict[str, Comoments]:
        """The states of no draws."""

    @abstractmethod
    def _join(self, draw: Draw) -> None:
        """Join a draw to every state."""

    @abstractmethod
    def _rows(self) -> dict[str, Tensor]:
        """The block's row of every array; later draws do not change it."""


class TokenMoments(BlockMoments):
    """φ against the losses of every token: φ_t = L_task(w_t) − L_task(w*), y_t = ℓ(w_t) − ℓ(w*).

    Levels are taken off at the end: co-moments do not see them, and float64 means lose nothing by them. A token without
    weight is NaN in every draw, and so are its moments.
    """

    def _empty(self) -> dict[str, Comoments]:
        return {
            name: comoments(self.lanes, 1, losses.values.numel(), device=losses.values.device)
            for name, losses in self.at_start.items()
        }

    def _join(self, draw: Draw) -> None:
        phi = draw.means[self.recording.task].reshape(self.lanes, 1, 1)
        for name, state in self.states.items():
            comoment_(state, phi, draw.losses[name].values.reshape(self.lanes, 1, -1).contiguous())

    def _rows(self) -> dict[str, Tensor]:
        task = self.recording.task
        phi = self.states[task]
        rows = {
            "moment_draws": phi.draws.clone(),
            "moment_phi": phi.mean_x[:, 0] - self.at_start[task].mean(),
            "moment_phi_m2": phi.m2_x[:, 0].clone(),
        }
        for name, state in self.states.items():
            level = self.at_start[name].values
            shape = (self.lanes, *level.shape[1:])
            assert state.mean_y is not None
            assert state.m2_y is not None
            assert state.block is not None
            rows[f"moment_mean_{name}"] = state.mean_y.reshape(shape) - level
            rows[f"moment_m2_{name}"] = state.m2_y.reshape(shape).clone()
            rows[f"moment_comoment_{name}"] = state.block.reshape(shape).clone()
        return rows


class SequenceCovariances(BlockMoments):
    """All pairs of sequences: x_i = ℓ_i(w_t) − ℓ_i(w*), ℓ_i the mean loss of a sequence over its positions with weight.

    Sequences of all observables follow one another in the order of the observables' identifiers; one without weight has
    NaN moments, and so has every pair with it.
    """

    def _empty(self) -> dict[str, Comoments]:
        levels = _items(self.at_start)
        return {"items": comoments(self.lanes, levels.shape[1], device=levels.device)}

    def _join(self, draw: Draw) -> None:
        comoment_(self.states["items"], _items(draw.losses)[:, None])

    def _rows(self) -> dict[str, Tensor]:
        state = self.states["items"]
        assert state.block is not None
        return {
            "moment_draws": state.draws.clone(),
            "moment_items_mean": state.mean_x - _items(self.at_start),
            "moment_items_comoment": state.block.clone(),
        }


def _items(losses: Mapping[str, Observed]) -> Tensor:
    """[L, N] float64 mean losses of all sequences."""
    return torch.cat([losses[name].row_means() for name in sorted(losses)], dim=1)


def block_moments_of(recording: Recording, at_start: Mapping[str, Observed], lanes: int) -> BlockMoments | None:
    """What accumulates the moments that a run records, None where it records traces."""
    if recording.record == "traces":
        return None
    kind = TokenMoments if recording.record == "moments" else SequenceCovariances
    return kind(recording, at_start, lanes)
