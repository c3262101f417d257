"""What all passes of a run share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from sltfast.batches import BatchStream
from sltfast.losses import ItemLoss
from sltfast.observables import Observable
from sltfast.restriction import Restriction
from sltfast.results.writer import Writer
from sltfast.sampler.config import SamplerConfig
from sltfast.sampler.feed import Copies
from sltfast.sampler.lanes import Cell
from sltfast.sampler.observed import Observed
from sltfast.sampler.plan import Planner
from sltfast.sampler.progress import Progress
from sltfast.sampler.recording import Recording


@dataclass
class Problem:
    """A run's settings, data and places for results, resolved and checked.

    Attributes:
        streams: one per chain of a cell, or a single one that all share.
        cells: the restrictions, with their stores.
        init_losses: float64 [streams, steps], losses at w* of every batch.
        recording: what is kept of the observables.
        observed: their losses at w*, by identifier, of one lane.
        planner: builds the engine of a pass, and is told where memory runs out.
        save_token_losses: record the sampling batches' losses per item.
        tokens: and their token ids.
        copies: how batches reach the device; None: they are used where they are.
        not_captured: why steps are taken one launch after another, "" where they are captured.
        plans: of each cell, what is on record of how it runs.
        deaths: of each cell, what is known of chains that were stopped, by chain.
        weights: coordinates that are recorded at draws, None for none.
    """

    config: SamplerConfig
    loss: ItemLoss
    streams: Sequence[BatchStream]
    observables: Sequence[Observable]
    cells: Sequence[Cell]
    init_losses: np.ndarray
    recording: Recording
    observed: Mapping[str, Observed]
    device: torch.device
    save_token_losses: bool
    tokens: bool
    writer: Writer
    progress: Progress
    planner: Planner
    copies: Copies | None = None
    not_captured: str = ""
    plans: Sequence[dict[str, Any]] = ()
    deaths: Sequence[dict[str, Any]] = ()
    weights: Restriction | None = None

    @property
    def keeps_gradients(self) -> bool:
        """Whether the memory of gradients stays between steps: where there is plenty, and nothing else needs it."""
        plenty = self.device.type == "cpu" and self.planner.sizing.plenty and not self.observables
        return plenty and self.config.gradient_accumulation_steps == 1
