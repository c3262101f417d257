"""What is compared with what: the items of both sides, and the variables that they are made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from sltfast.estimators.bif.groups import GroupPairs, Groups
from sltfast.estimators.bif.pairs import DrawPairs, Pairs
from sltfast.estimators.bif.recorded import Recorded, identifiers
from sltfast.estimators.bif.side import Side
from sltfast.estimators.blocks_of_draws import BlocksOfDraws

Range = Literal["all"] | Sequence[int]


def items_of(observables: np.ndarray, index_range: Range, keys: Sequence[str] | None, side: int) -> np.ndarray:
    """Numbers of the items on one side, among all that were concatenated.

    Args:
        observables: [N] of which observable each item is.
        index_range: "all", or their numbers.
        keys: instead, observables whose items are meant.
        side: 1 or 2, for messages.

    Raises:
        ValueError: numbers that are not there or not different, an unknown observable, or both ways used.
    """
    every = np.arange(len(observables))
    if keys is not None:
        if not (isinstance(index_range, str) and index_range == "all"):
            raise ValueError(f"give batch_index_range_{side} or loss_keys_{side}, not both")
        named = identifiers(keys)
        if not named or not set(named) <= set(observables):
            raise ValueError(f"loss_keys_{side} must be a list of {sorted(set(observables))}, got {keys!r}")
        return np.concatenate([every[observables == key] for key in dict.fromkeys(named)])
    if isinstance(index_range, str):
        if index_range != "all":
            raise ValueError(f"batch_index_range_{side} must be 'all' or row numbers, got {index_range!r}")
        return every
    given = np.asarray(list(index_range) if isinstance(index_range, Iterable) else index_range)
    whole = given.ndim == 1 and given.size > 0 and given.dtype.kind in "iu"
    if not whole or given.min() < 0 or given.max() >= len(every) or len(set(given.tolist())) < given.size:
        raise ValueError(
            f"batch_index_range_{side} must be different row numbers in 0 … {len(every) - 1}, got {index_range!r}"
        )
    return given


def own_columns(rows: np.ndarray, columns: np.ndarray) -> Tensor:
    """[len(rows)] where each item stands among the columns, −1 where it does not."""
    places = {item: place for place, item in enumerate(columns.tolist())}
    return torch.tensor([places.get(item, -1) for item in rows.tolist()], dtype=torch.int64)


def losses_at(recorded: Recorded, method: str, reduction: str, num_blocks: int) -> tuple[Tensor, BlocksOfDraws]:
    """Losses [n, N, T], or [n, N, 1] of whole sequences, and the blocks that their draws are in.

    A sequence's loss is the mean over the positions that it has; one that is NaN at some draws only stays NaN.
    """
    losses, chains = recorded.losses, recorded.chains
    if method == "sequence":
        absent = losses.isnan().all(0)
        if absent.any():
            total = losses.masked_fill(absent, 0.0).sum(2, dtype=torch.float64)
            losses = (total / (~absent).sum(1))[:, :, None]  # 0/0 is NaN for an item without weight
        else:
            losses = losses.mean(2, dtype=torch.float64)[:, :, None]
    if reduction == "mean":
        losses = losses.unflatten(0, (chains, -1)).mean(0, dtype=torch.float64).to(losses.dtype)
        chains = 1
    return losses, BlocksOfDraws.of(chains, losses.shape[0] // chains, num_blocks)


def pairs_of(
    losses: Tensor,
    blocks: BlocksOfDraws,
    items: tuple[np.ndarray, np.ndarray],
    *,
    normalize: bool,
    average: bool,
    device: torch.device,
) -> Pairs:
    """Pairs of single variables, or of items whose variables are averaged over.

    Args:
        losses: [n, N, T].
        blocks: of the draws.
        items: numbers of both sides' items.
        normalize: correlations.
        average: over the T variables of each item.
        device: where products are formed.
    """
    positions = losses.shape[2]
    single = positions > 1 and not average
    dtype = torch.float32 if single and losses.dtype == torch.float32 else torch.float64  # float64 where it is cheap
    symmetric = np.array_equal(*items)
    sides = []
    for chosen in items[: 1 if symmetric else 2]:
        part = losses if len(chosen) == losses.shape[1] and (chosen == np.arange(len(chosen))).all() else None
        part = losses[:, torch.from_numpy(chosen)] if part is None else part
        sides.append(Side.of(part.flatten(1).to(device), blocks, normalize=normalize, dtype=dtype))
    left, right = sides[0], sides[-1]
    own = own_columns(*items).to(device)
    if not average or positions == 1:
        each = torch.arange(positions, device=device)
        of_variables = torch.where(own[:, None] < 0, -1, own[:, None] * positions + each).flatten()
        return DrawPairs(left, right, of_variables, symmetric=symmetric)
    groups = [
        Groups.of(torch.arange(len(chosen)).repeat_interleave(positions), len(chosen), side)
        for chosen, side in zip(items, (left, right), strict=True)
    ]
    return GroupPairs(left, right, groups[0], groups[1], own, symmetric=symmetric)
