"""What a run keeps in memory, from its shapes; activations are bounded, until they are measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from sltfast.arena import ALIGNMENT, LOW_PRECISION, master_dtype
from sltfast.data import leaves
from sltfast.observables import Observable
from sltfast.ops.langevin_arguments import MOMENTUM_METHODS, RMSPROP_METHODS
from sltfast.restriction import Restriction
from sltfast.results.layout import ArraySpec
from sltfast.results.writer import QUEUED_BYTES
from sltfast.sampler.config import SamplerConfig
from sltfast.sampler.recorder import FLUSH_BYTES, FLUSH_STEPS

UNIT_BYTES = 16  # of an output of a layer, at most: it, what is made of it, and their gradients, in float32


class Weights(NamedTuple):
    """Bytes that the lanes of a pass hold of the coordinates that move.

    Attributes:
        weights: the masters.
        moments: second moments or momenta.
        copies: what the model reads where that is not the master, masks, and w* where it is no view of the caller's.
        gradients: one of every weight, in the precision that the model reads.
    """

    weights: int
    moments: int
    copies: int
    gradients: int

    @property
    def state(self) -> int:
        """What is held between steps."""
        return self.weights + self.moments + self.copies


def weight_bytes(
    restrictions: Sequence[Restriction], read_as: Mapping[str, torch.dtype], num_chains: int, method: str
) -> Weights:
    """Of an arena and the state of its transition.

    Args:
        restrictions: congruent ones that share the arena, ``dense()`` ones for engines that take whole parameters.
        read_as: the dtype that the model holds each parameter in, by name.
        num_chains: of each restriction.
        method: the transition's name in ``ops.langevin_step_``.
    """
    lanes = len(restrictions) * num_chains
    masters = copies = gradients = 0
    for segment in restrictions[0].segments:
        read = read_as[segment.name]
        masters += lanes * -(-segment.numel // ALIGNMENT) * ALIGNMENT * master_dtype(segment.parameter.dtype).itemsize
        gradients += lanes * segment.numel * read.itemsize
        copies += lanes * segment.numel * read.itemsize if read in LOW_PRECISION else 0
    for restriction in restrictions:
        for segment in restriction.segments:
            parameter = segment.parameter
            copies += 0 if segment.mask is None else segment.numel
            columns = segment.columns[1] - segment.columns[0]
            strided = not segment.whole and columns * parameter.shape[0] != parameter.numel() and parameter.ndim > 1
            copies += segment.numel * parameter.element_size() if strided else 0
    moments = masters * (int(method in RMSPROP_METHODS) + int(method in MOMENTUM_METHODS))
    return Weights(masters, moments, copies, gradients)


def activations_at_most(model: nn.Module, row: Any, rows: int) -> int:
    """A bound on what one lane's forward and backward over ``rows`` rows hold, from the widths of the layers.

    Every layer gives ``shape[0]`` numbers for each number (token, pixel, feature) of a row: far above what a row needs
    where positions are few or pooled. It decides whether measuring is worth it, and nothing else.

    Args:
        model: any.
        row: a batch of one row.
        rows: of a mini-batch.
    """
    width = sum(max(parameter.shape, default=1) for parameter in model.parameters())
    return rows * max(leaf.numel() for leaf in leaves(row)) * width * UNIT_BYTES


def record_bytes(
    config: SamplerConfig, specs: Sequence[ArraySpec], observables: Sequence[Observable], *, runs: int, on_disk: bool
) -> dict[str, int]:
    """What results and their way there hold, and the data of observables, whichever pass is in flight.

    Args:
        config: the run's.
        specs: the arrays of each run.
        observables: the run's.
        runs: how many are recorded.
        on_disk: whether they are written as they grow, or kept.
    """
    arrays = sum(_bytes(spec) for spec in specs if not (on_disk and spec.rows)) * runs
    step = sum(_row_bytes(spec) for spec in specs if spec.rows in ("step", "draw"))
    step *= config.num_chains * runs
    buffered = min(FLUSH_BYTES + step, min(FLUSH_STEPS, config.num_steps) * step)
    queued = min(QUEUED_BYTES + buffered, config.num_steps * step) if on_disk else 0
    batches = [tensor.nbytes for observable in observables for batch in observable.batches for tensor in leaves(batch)]
    return {
        "results": arrays,
        "records_on_their_way": 2 * buffered + queued,  # rows, and the block that they are stacked into
        "observables": sum(batches),
    }


def lane_record_bytes(specs: Sequence[ArraySpec], *, on_disk: bool) -> int:
    """What each lane of a pass holds of its records.

    Moments of the present block, those of the last one on their way (a row, and what it is stacked into), and the draw
    that ``ops.comoment_`` centres, in float64 and beside the product's other row; on disk, the rows that wait for their
    chunks to fill.

    Args:
        specs: the arrays of each run.
        on_disk: whether they are written as they grow.
    """
    moments = sum(_row_bytes(spec) for spec in specs if spec.rows == "block")
    of_tokens = max((_row_bytes(spec) for spec in specs if spec.name.startswith("moment_mean_")), default=0)
    of_items = max((_row_bytes(spec) for spec in specs if spec.name == "moment_items_mean"), default=0)
    staged = sum(spec.chunks[1] * _row_bytes(spec) for spec in specs if spec.rows) if on_disk else 0
    return 3 * moments + 2 * of_tokens + 3 * of_items + staged  # of items M2 is kept too, the co-moment's diagonal


def _row_bytes(spec: ArraySpec) -> int:
    """One row of one chain."""
    return int(np.prod(spec.shape[2:])) * np.dtype(spec.dtype).itemsize


def _bytes(spec: ArraySpec) -> int:
    shape = spec.shape[1:] if spec.shared else spec.shape
    return int(np.prod(shape)) * np.dtype(spec.dtype).itemsize


def copied_bytes(model: nn.Module, clone: nn.Module) -> int:
    """What a structural clone holds of its own: buffers, and parameters on another device or in another precision."""
    own = {parameter.data_ptr() for parameter in model.parameters()}
    moved = sum(p.nbytes for p in clone.parameters() if p.data_ptr() not in own)
    return moved + sum(buffer.nbytes for buffer in clone.buffers())
