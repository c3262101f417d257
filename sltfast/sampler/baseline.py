"""Losses at w*, the other half of every paired difference ℓ(w_t; b_t) − ℓ(w*; b_t)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sltfast.batches import BatchStream, fetch
from sltfast.losses import ItemLoss, ItemLosses
from sltfast.observables import Observable
from sltfast.sampler.config import SamplerConfig
from sltfast.sampler.observed import Observed

SPLIT_TOLERANCE = 1e-3  # relative; far above fp rounding, far below what batch statistics do to a loss


class Baseline:
    """Losses at w* for every batch that the chains will see, each row forwarded once.

    In eval mode a row's loss does not depend on its batch, so the forward passes are over distinct rows and shared by
    all steps and chains. Where losses do depend on the batch (batch statistics, contrastive losses) every batch is
    forwarded as it will be drawn.

    Args:
        model: the clone, at w*.
        loss: the run's loss.
        streams: the chains' batch streams (one, where they share their batches).
        config: the run's settings.
        device: where the model is.
        tick: called after every batch.
        positions: losses per item that are recorded, refused where they differ; None where none are.
        first: losses of the first batch.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: ItemLoss,
        streams: Sequence[BatchStream],
        config: SamplerConfig,
        device: torch.device,
        tick: Callable[[], None],
        positions: int | None,
        first: ItemLosses,
    ) -> None:
        self.positions, self._first = positions, first
        self._batches = config.num_steps * config.gradient_accumulation_steps
        self.model, self.loss, self.config, self.device, self.tick = model, loss, config, device, tick
        self.streams = streams
        self._sums = np.zeros((len(streams[0].source), 2))
        self.by_rows = config.mode == "eval" and self._splits()

    @torch.no_grad()
    def _splits(self) -> bool:
        """Whether rows of the first batch have the same losses among other rows, which need theirs as well."""
        stream = self.streams[0]
        rows = stream.rows(0)
        if len(rows) < 2:
            return True
        half = (len(rows) + 1) // 2
        ahead = [stream.rows(k) for k in range(1, min(stream.batches_per_epoch, self._batches))]
        others = np.concatenate([*ahead, np.repeat(rows[:1], len(rows))])[: len(rows) - half]
        mixed = np.concatenate([rows[:half], others])
        losses = self._forward(mixed)
        whole, parted = (one.recorded()[:half].double() for one in (self._first, losses))
        if whole.shape != parted.shape:
            return False
        apart = (whole - parted).nan_to_num(0.0).abs().max()
        same = bool(apart <= SPLIT_TOLERANCE * max(1e-6, float(whole.nan_to_num(0.0).abs().max())))
        if same:
            self._keep(rows, self._first)
            self._keep(mixed[half:], losses, half)
        return same

    def _forward(self, rows: np.ndarray) -> ItemLosses:
        losses = self._losses(fetch(self.streams[0].source, rows, self.device), rows, "the data set")
        if self.positions is not None and losses.values.shape[1] != self.positions:
            raise ValueError(
                f"{self.loss.name} gives {losses.values.shape[1]} losses an item on rows {rows[:4].tolist()}… and "
                f"{self.positions} on others: pad all rows to one length, or give save_token_losses=False"
            )
        return losses

    def _losses(self, batch: Any, rows: np.ndarray, whose: str) -> ItemLosses:
        try:
            return self.loss(self.model, batch)
        except (IndexError, RuntimeError) as error:
            error.add_note(f"{self.loss.name} failed on rows {rows[:8].tolist()} of {whose}: check its labels or ids")
            raise

    @torch.no_grad()
    def step_losses(self, num_steps: int) -> np.ndarray:
        """ℓ(w*; b_t), float64 [streams, num_steps].

        Raises:
            ValueError: a loss at w* is NaN or infinite.
        """
        micro = self.config.gradient_accumulation_steps
        result = np.zeros((len(self.streams), num_steps))
        if self.by_rows:
            wanted = [stream.rows(k) for stream in self.streams for k in _batches_until(stream, num_steps * micro)]
            self._fill(np.unique(np.concatenate(wanted)) if wanted else np.zeros(0, dtype=np.int64))
        for lane, stream in enumerate(self.streams):
            for step in range(num_steps):
                means = [self._mean(stream.rows(k)) for k in range(step * micro, (step + 1) * micro)]
                result[lane, step] = np.mean(means)
        return result

    def _mean(self, rows: np.ndarray) -> float:
        if not self.by_rows:
            mean = float(self._forward(rows).mean(torch.float64))
            self.tick()
            _check_finite(np.array([mean]), rows[:1])
            return mean
        sums, weights = self._sums[rows].sum(0)
        return float(sums / weights) if weights else 0.0

    def _fill(self, rows: np.ndarray) -> None:
        """Forward rows not met yet; keep Σ weight·loss and Σ weight of each."""
        missing = rows[self._sums[rows, 1] == 0]
        size = self.config.batch_size
        for start in range(0, len(missing), size):
            part = missing[start : start + size]
            full = np.concatenate([part, np.repeat(part[:1], size - len(part))])  # batches of one size only
            losses = self._forward(full)
            self._keep(part, losses)
            self.tick()

    def _keep(self, rows: np.ndarray, losses: ItemLosses, start: int = 0) -> None:
        """The sums of these rows, those that the losses are of from ``start`` on."""
        values = losses.values.double()
        weights = torch.ones_like(values) if losses.weights is None else losses.weights.double()
        totals = torch.stack([torch.where(weights != 0, weights * values, 0).sum(1), weights.sum(1)], dim=1)
        numbers = totals.cpu().numpy()[start : start + len(rows)]
        _check_finite(numbers[:, 0], rows)
        self._sums[rows] = numbers

    @torch.no_grad()
    def init_loss(self, num_batches: int) -> tuple[np.ndarray, np.ndarray]:
        """Loss at w* over the first batches of each stream: by position [streams, T], and their mean [streams]."""
        by_position, means = [], []
        for stream in self.streams:
            sums: Tensor | float = 0.0
            weights: Tensor | float = 0.0
            total = 0.0
            for k in range(num_batches):
                losses = self._forward(stream.rows(k))
                values = losses.values.double()
                weight = torch.ones_like(values) if losses.weights is None else losses.weights.double()
                sums = sums + torch.where(weight != 0, weight * values, 0).sum(0)
                weights = weights + weight.sum(0)
                total += float(losses.mean(torch.float64))
                self.tick()
            by_position.append(np.asarray((torch.as_tensor(sums) / torch.as_tensor(weights)).cpu()))
            means.append(total / num_batches)
        return np.stack(by_position), np.array(means)

    @torch.no_grad()
    def observed(self, observable: Observable) -> Observed:
        """Losses of an observable at w*, of one lane, on the batches that every draw reads and in the run's mode: where
        losses depend on the batch they are those that draws compare with; with dropout they are one sample of it.

        Raises:
            ValueError: a loss that counts is NaN or infinite, a weight is negative or infinite, or nothing counts.
        """
        batches = []
        for k, data in enumerate(observable.batches):
            rows = observable.rows[k * observable.batch_size :]
            batches.append(self._losses(data, rows, f"observable {observable.name!r}"))
            self.tick()
        found = Observed.of(batches, 1)
        weights = torch.ones_like(found.values) if found.weights is None else found.weights
        if bool((weights < 0).any()) or not bool(torch.isfinite(weights).all()) or not bool((weights > 0).any()):
            raise ValueError(
                f"{self.loss.name} gives observable {observable.name!r} weights that are negative, infinite or all 0: "
                "a weight is how much an entry counts, >= 0"
            )
        lost = ((weights != 0) & ~torch.isfinite(found.values)).any(2)[0].cpu().numpy()
        if lost.any():
            raise ValueError(
                f"the loss at w* is NaN or infinite on rows {observable.rows[lost][:5].tolist()} of observable "
                f"{observable.name!r}: check those rows, and the precision of the model"
            )
        return found

    @torch.no_grad()
    def dataset_loss(self) -> float:
        """L(w*) over every row once: the mean over consecutive batches, as the chains' losses are means of batches'."""
        length, size = len(self.streams[0].source), self.config.batch_size
        if self.by_rows:
            self._fill(np.arange(length))
        else:
            length -= length % size
        parts = [np.arange(start, min(start + size, length)) for start in range(0, length, size)]
        return float(np.average([self._mean(part) for part in parts], weights=[len(part) for part in parts]))


def _batches_until(stream: BatchStream, count: int) -> range:
    """Batches whose rows cover the first ``count`` of the stream: one epoch covers all that any later one draws,
    but for the rows that each epoch's last partial batch leaves out.
    """
    whole = len(stream.source) % stream.batch_size == 0 or not stream.shuffle
    return range(min(count, stream.batches_per_epoch) if whole else count)


def _check_finite(values: np.ndarray, rows: np.ndarray) -> None:
    bad = rows[~np.isfinite(values)]
    if len(bad):
        raise ValueError(
            f"the loss at w* is NaN or infinite on rows {bad[:5].tolist()} of the data set: the model diverges before "
            "the first step (check those rows, and the precision of the model)"
        )
