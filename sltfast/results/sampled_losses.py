"""The losses of the sampled batches, what they are held against at w*, and the chains whose losses count."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import numpy as np

from sltfast.results.samples import sampler_of, usable_chains

if TYPE_CHECKING:
    import xarray as xr

InitLoss = Literal["paired", "dataset", "init_batches"]


def check_init_loss(init_loss: str) -> None:
    """Refuse what no run records.

    Raises:
        ValueError: ``init_loss`` is unknown.
    """
    if init_loss not in get_args(InitLoss):
        raise ValueError(f"init_loss must be one of {get_args(InitLoss)}, got {init_loss!r}")


class SampledLosses(NamedTuple):
    """Losses of the sampled mini-batches, in nats, float64.

    Attributes:
        trace: [chain, step] ℓ(w_t; b_t).
        at_init: [chain, step] what is subtracted from each: ℓ(w*; b_t), or the level.
        level: L(w*).
        method: how the level was had.
        batches: behind the level, where it is a mean over some; else 0.
    """

    trace: np.ndarray
    at_init: np.ndarray
    level: float
    method: str
    batches: int = 0

    @property
    def excess(self) -> np.ndarray:
        """[chain, step] ℓ(w_t; b_t) less its value at w*."""
        return self.trace - self.at_init


class Chains(NamedTuple):
    """[chain] the step of its death (-1: none) and whether it counts; and steps that all those have."""

    death: np.ndarray
    alive: np.ndarray
    steps: int


def sampled_losses(tree: xr.Dataset, init_loss: InitLoss = "paired") -> SampledLosses:
    """The sampled losses of a run's root.

    Raises:
        ValueError: ``init_loss`` was not recorded, or no loss was.
    """
    if "loss" not in tree:
        return _unpaired(tree, init_loss)
    trace = np.asarray(tree["loss"].values, dtype=np.float64)
    paired = np.asarray(tree["init_loss_trace"].values, dtype=np.float64)
    if init_loss == "dataset":
        if "init_loss_dataset" not in tree:
            raise ValueError("init_loss='dataset' needs samples taken with dataset_init_loss=True")
        return SampledLosses(trace, paired, float(tree["init_loss_dataset"]), init_loss)
    if init_loss == "init_batches":
        if "init_loss_mean" not in tree:
            raise ValueError("init_loss='init_batches' needs samples taken with num_init_loss_batches > 0")
        level, batches = float(tree["init_loss_mean"].mean()), int(sampler_of(tree)["num_init_loss_batches"])
        return SampledLosses(trace, paired, level, init_loss, batches)
    return SampledLosses(trace, paired, float(paired.mean()), init_loss)


def _unpaired(tree: xr.Dataset, init_loss: InitLoss) -> SampledLosses:
    """A tree of devinterp's: its initial loss is all there is to subtract."""
    if init_loss == "dataset":
        raise ValueError("init_loss='dataset' needs samples taken by sltfast with dataset_init_loss=True")
    if not {"sampling_loss_micro", "init_loss"} <= set(tree.data_vars):
        raise ValueError(
            f"the samples hold no losses of the sampled batches (variables: {sorted(map(str, tree.data_vars))})"
        )
    trace = tree["sampling_loss_micro"].mean(["batch_sampling", "token_pos"], dtype=np.float64).values
    level = float(tree["init_loss"].astype(np.float64).mean())
    return SampledLosses(trace, np.full_like(trace, level), level, "init_batches")


def sampled_chains(tree: xr.Dataset, loss: np.ndarray, start: int) -> Chains:
    """The chains whose losses [chain, step] count: whole ones, or of an interrupted run without any what all have.

    Args:
        tree: the run's root.
        loss: of the sampled batches.
        start: first step that is averaged over.

    Raises:
        AllChainsDied: no chain lived.
        ValueError: nothing is recorded from ``start`` on.
    """
    death = tree["death_step"].values if "death_step" in tree else _deaths(loss)
    counts, completed = np.isfinite(loss).sum(axis=1), tree.attrs.get("completed") == 1
    alive = usable_chains(death < 0, counts, loss.shape[1], completed=completed, samples=None)
    steps = int(counts[alive].min())
    if not completed and (steps < loss.shape[1] or (counts[death < 0] < loss.shape[1]).any()):
        warnings.warn(
            f"the run was interrupted: λ̂ is from {int(alive.sum())} of {len(alive)} chains", UserWarning, stacklevel=4
        )
    if steps <= start:
        raise ValueError(f"{steps} steps were recorded, all of them burn-in ({start}): nothing is left to average")
    return Chains(death, alive, steps)


def _deaths(loss: np.ndarray) -> np.ndarray:
    """First step without a finite loss, -1 where there is none."""
    gone = ~np.isfinite(loss)
    return np.where(gone.any(axis=1), gone.argmax(axis=1), -1)
