"""What a run records of itself: its attributes, and the values that stand before the first step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from sltfast.observables import Observable
from sltfast.restriction import Restriction
from sltfast.results.identity import provenance
from sltfast.sampler.baseline import Baseline
from sltfast.sampler.config import SamplerConfig
from sltfast.sampler.observed import Observed
from sltfast.sampler.recording import Recording


def attributes(
    config: SamplerConfig,
    observables: Sequence[Observable],
    recording: Recording,
    restriction: Restriction,
    device: torch.device,
) -> dict[str, Any]:
    """Root attributes: devinterp's metadata, and what sltfast adds."""
    sampler = {
        **config.as_dict(),
        "epoch_mode": "once",
        "scheduler_type": "constant",
        "scheduler_kwargs": None,
        "cores": 1,
        "online": False,
    }
    seen = [
        {"type": "ObserveDifferentDataset", "obs_id": o.id, "batches_per_draw": o.batches_per_draw} for o in observables
    ]
    return {
        "metadata": {"config": {"sampler": sampler, "observables": seen}},
        "metrics_numel": restriction.numel,
        "sltfast": {"provenance": provenance(device), **recording.as_dict()},
    }


def start_values(
    baseline: Baseline,
    at_init: np.ndarray,
    config: SamplerConfig,
    observables: Sequence[Observable],
    observed: Mapping[str, Observed],
    *,
    dataset_loss: bool,
) -> dict[str, np.ndarray]:
    """What is recorded before the first step, by array.

    Args:
        baseline: losses at w*.
        at_init: float64 [streams, steps], those of the mini-batches.
        config: the run's.
        observables: the run's.
        observed: their losses at w*, by identifier, of one lane.
        dataset_loss: whether L(w*) over the whole data set is among them.
    """

    def for_chains(values: np.ndarray) -> np.ndarray:
        return np.repeat(values, config.num_chains, axis=0) if len(values) == 1 else np.tile(values, (cells, *ones))

    cells, ones = max(1, len(config.cells)), [1] * (at_init.ndim - 1)
    values = {"init_loss_trace": for_chains(at_init)}
    if config.num_init_loss_batches:
        batches = config.num_init_loss_batches * config.gradient_accumulation_steps
        by_position, means = baseline.init_loss(batches)
        values |= {"init_loss": for_chains(by_position), "init_loss_mean": for_chains(means[:, None])[:, 0]}
    if dataset_loss:
        values["init_loss_dataset"] = np.asarray(baseline.dataset_loss())
    for observable in observables:
        ids = observable.token_ids()
        if ids is not None:
            values[f"input_ids_{observable.id}"] = ids.numpy()
        values[f"rows_{observable.id}"] = observable.rows
        losses = observed[observable.id]
        values[f"init_loss_{observable.id}"] = losses.values[0].double().cpu().numpy()
        values[f"init_mean_loss_{observable.id}"] = losses.mean()[0].cpu().numpy()
    return values
