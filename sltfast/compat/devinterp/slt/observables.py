"""Probe data sets: fixed rows whose per-token losses are read at every draw."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler

from sltfast.compat.devinterp.slt.lm_loss import LossFn, compute_per_token_loss
from sltfast.observables import observable_id


class TooFewRows(AssertionError, ValueError):
    """A data set has fewer rows than were asked for (an AssertionError, as devinterp raises)."""


def to_obs_id(task_name: str) -> str:
    """A name as it stands in variable names: anything but letters, digits and _ becomes _; no digit leads."""
    return observable_id(task_name)


class DeterministicShuffledSampler(Sampler[int]):
    """``num_samples`` row indices of a data set, in an order that the seed alone decides.

    Raises:
        TooFewRows: the data set has fewer rows.
    """

    def __init__(self, data_source: Any, num_samples: int, seed: int = 42) -> None:
        if len(data_source) < num_samples:
            raise TooFewRows(
                f"Dataset size ({len(data_source)}) must be >= num_samples ({num_samples}): give (data set, k) with a "
                "smaller k, or a smaller batch_size"
            )
        self.data_source, self.num_samples = data_source, num_samples
        self.indices = random.Random(seed).sample(range(len(data_source)), num_samples)

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)

    def __len__(self) -> int:
        return self.num_samples


class Observable:
    """Some rows of a data set, and their losses at a model's present weights.

    Args:
        dataset: rows with ``input_ids``, formatted for torch.
        task_name: what it is called; ``obs_id`` is the name in variables.
        batches_per_draw: batches k read at a draw.
        batch_size: rows B of each; ``n_samples`` = k·B rows are fixed by the seed.
        context_length: predicted positions T a row; rows have T + 1 tokens.
        device: where ``input_ids`` [k·B, T + 1] is held.
        seed: picks the rows.
        loss_fn: per-token losses; None: ``compute_per_token_loss``.

    Raises:
        TooFewRows: the data set has fewer than k·B rows.
        ValueError: its rows have another length than T + 1.
    """

    def __init__(
        self,
        *,
        dataset: Any,
        task_name: str,
        batches_per_draw: int,
        batch_size: int,
        context_length: int,
        device: torch.device,
        seed: int = 1337,
        loss_fn: LossFn | None = None,
    ) -> None:
        self.obs_id, self.device = to_obs_id(task_name), device
        self.batch_size, self.batches_per_draw = batch_size, batches_per_draw
        self.n_samples, self.context_length = batch_size * batches_per_draw, context_length
        self.loss_fn: LossFn = compute_per_token_loss if loss_fn is None else loss_fn
        order = DeterministicShuffledSampler(dataset, self.n_samples, seed=seed)
        loader: DataLoader[Any] = DataLoader(dataset, batch_size=batch_size, sampler=order, drop_last=True)
        rows = torch.cat([batch["input_ids"] for batch in loader])
        if rows.shape[1] != context_length + 1:
            raise ValueError(
                f"observable {task_name!r} has rows of {rows.shape[1]} tokens, the sampling data set's have "
                f"{context_length + 1}: pad or cut them to one length"
            )
        self.input_ids = rows.to(device, torch.int64)

    def compute_loss(self, model: nn.Module) -> Tensor:
        """Losses of all rows, float32 [n_samples, context_length]; gradients must be off."""
        assert not torch.is_grad_enabled(), "an observable is read under torch.no_grad()"
        losses = [self.loss_fn(model, rows).float() for rows in self.input_ids.split(self.batch_size)]
        return torch.cat(losses)
