"""Influence between groups of items: means over the pairs of two groups, with errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sltfast.estimators.bif.before import device_for_products
from sltfast.estimators.bif.compute import CorrelationMethod, check_options
from sltfast.estimators.bif.definition import Definition
from sltfast.estimators.bif.groups import GroupPairs, Groups
from sltfast.estimators.bif.moment_pairs import GroupedMoments
from sltfast.estimators.bif.others import OtherPairs
from sltfast.estimators.bif.pairs import Pairs
from sltfast.estimators.bif.recorded import Keys
from sltfast.estimators.bif.side import Side
from sltfast.estimators.bif.sources import Covariances, Traces, source_of
from sltfast.estimators.bif.tiles import matrix
from sltfast.observables import observable_id
from sltfast.results.samples import plain_settings, root_of

if TYPE_CHECKING:
    import xarray as xr

Labels = Sequence[Any] | np.ndarray | Mapping[str, Any] | None


def group_influence(
    samples: xr.DataTree | xr.Dataset,
    labels: Labels = None,
    *,
    per_query: bool = False,
    exclude_self: bool = False,
    correlation_method: CorrelationMethod = "sequence",
    loss_keys: Keys = "all",
    sign: int = -1,
    normalize: bool = False,
    standard_errors: bool = True,
    separate_chains: bool = False,
    num_blocks: int = 8,
    device: str | torch.device | None = None,
) -> xr.Dataset:
    """Mean influence of the items of one group on those of another.

        mean_{i∈g, j∈h} BIF(i, j) = −Cov[ℓ̄_g, ℓ̄_h],   ℓ̄_g the mean loss of the group,

    so that no pair of items is formed; of correlations, with standardised losses in place of losses.

    Args:
        samples: from ``sltfast.sample``, ``sltfast.open``, or devinterp's tree; or a result of ``compute_bif`` with all
            pairs of sequences.
        labels: of the items, [items] in the order of ``compute_bif``'s ``batch``, or with "token" [items, positions];
            or {observable: such an array}. None as a label: in no group. None: an observable is a group.
        per_query: single items in place of groups in the rows.
        exclude_self: leave out an item's influence on itself, which in small groups outweighs the rest.
        correlation_method: "sequence": items are sequences; "token": they are tokens.
        loss_keys: see ``compute_bif``.
        sign: see ``compute_bif``.
        normalize: see ``compute_bif``.
        standard_errors: of every mean.
        separate_chains: see ``compute_bif``.
        num_blocks: see ``compute_bif``.
        device: see ``compute_bif``.

    Returns:
        ``xr.Dataset``: ``influences`` (group_1, group_2), or (batch_1[, target_position], group_2); ``influences_se``;
        ``group_size`` (group_2). Groups are sorted. Of a result of ``compute_bif``, whose entries have no joint error,
        ``influences_se`` is the mean of theirs, which the error of the mean does not exceed (attrs ``se_kind``).

    Raises:
        ValueError: labels of another number than items, or no group; else as ``compute_bif``.
        AllChainsDied: no chain lived.

    Source: Lee et al. 2510.12071 (influence of groups of tokens).
    """
    dataset = root_of(samples)
    if "influences" in dataset:
        given = (correlation_method, loss_keys, sign, normalize, standard_errors, separate_chains, num_blocks, device)
        if given != ("sequence", "all", -1, False, True, False, 8, None):
            raise ValueError(
                "a result of compute_bif has settled what is averaged: beside labels give per_query and exclude_self "
                "only, or give the samples"
            )
        return _of_entries(dataset, labels, per_query=per_query, exclude_self=exclude_self)
    check_options(
        correlation_method=correlation_method,
        reduce_chain_dimension_method="stack",
        top_k=None,
        top_k_by="absolute",
        sign=sign,
        normalize=normalize,
        compute_covariance=None,
        batch_size=1,
        num_blocks=num_blocks,
    )
    where = device_for_products(device)
    source = source_of(
        samples,
        loss_keys,
        correlation_method=correlation_method,
        reduce_chain_dimension_method="stack",
        num_blocks=num_blocks,
    )
    shape = (len(source.observables), source.positions)
    names, numbers = numbered(labels_of(labels, source.observables, shape))
    if separate_chains and source.chains < 2:
        raise ValueError(f"separate_chains needs at least two chains, there are {source.chains}")
    options = {"normalize": normalize, "per_query": per_query, "exclude_self": exclude_self}
    if isinstance(source, Covariances):
        pairs, sizes = _from_covariances(source, numbers.ravel(), len(names), **options)
    else:
        pairs, sizes = _from_traces(source, numbers.ravel(), len(names), device=where, **options)
    found = matrix(pairs, sign=sign, errors=standard_errors, between=separate_chains)
    parts = {"influences": found.values, "influences_se": found.errors, "between": found.between}
    if found.between is not None:
        parts["within"] = found.values - found.between
    values = {name: part.numpy() for name, part in parts.items() if part is not None}
    table = _table(values, names, sizes, shape if per_query else None, tokens=correlation_method == "token")
    settings = {
        "definition": Definition(sign, normalize).words,
        "exclude_self": int(exclude_self),
        "correlation_method": correlation_method,
        "loss_keys": source.keys,
        "chains": source.chains,
        "chains_left_out": list(source.left_out),
        "draws": source.draws,
        "se_kind": "the larger of batch means and between chains",
    }
    return table.assign_attrs(**plain_settings(dataset), **settings)


def _from_traces(
    source: Traces,
    numbers: np.ndarray,
    count: int,
    *,
    normalize: bool,
    per_query: bool,
    exclude_self: bool,
    device: torch.device,
) -> tuple[Pairs, np.ndarray]:
    """Pairs of groups, by their mean losses, and the groups' sizes."""
    losses = source.losses.flatten(1).to(device)
    side = Side.of(losses, source.blocks, normalize=normalize, dtype=torch.float64)
    columns = Groups.of(torch.from_numpy(numbers), count, side)
    rows = Groups.of(torch.arange(numbers.size), numbers.size, side) if per_query else columns
    own = torch.full((len(rows),), -1, device=device)
    every = GroupPairs(side, side, rows, columns, own, symmetric=not per_query)
    return OtherPairs(every) if exclude_self else every, np.diff(columns.starts)


def _from_covariances(
    source: Covariances, numbers: np.ndarray, count: int, *, normalize: bool, per_query: bool, exclude_self: bool
) -> tuple[Pairs, np.ndarray]:
    """The same, by means over the pairs that are on record."""
    member = torch.from_numpy(numbers[:, None] == np.arange(count))
    rows = torch.eye(len(numbers), dtype=torch.bool) if per_query else member
    pairs = GroupedMoments(source.all_pairs(normalize=normalize), rows, member, exclude_self=exclude_self)
    return pairs, (member & ~pairs.absent[:, None]).sum(0).numpy()


def labels_of(labels: Labels, observables: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """[items, positions] labels as objects; positions is 1 for sequences.

    Raises:
        ValueError: another number of labels than items.
    """
    if labels is None:
        labels = observables
    if isinstance(labels, Mapping):
        labels = {observable_id(key): of_key for key, of_key in labels.items()}
        absent = [key for key in dict.fromkeys(observables) if key not in labels]
        if absent:
            raise ValueError(f"labels must have an entry for each observable, {absent} are missing")
        labels = [label for key in dict.fromkeys(observables) for label in labels[key]]
    rows = list(labels)
    result = np.full(shape, None, dtype=object)
    per_token = shape[1] > 1 and any(not isinstance(row, str) and np.ndim(row) == 1 for row in rows)
    widths = {len(row) for row in rows} if per_token else {shape[1]}
    if len(rows) != shape[0] or max(widths, default=0) > shape[1]:
        raise ValueError(
            f"labels must be one for each of {shape[0]} items, or [items, positions] up to {shape}, got {len(rows)}"
            + (f" rows of {sorted(widths)}" if per_token else "")
        )
    for number, row in enumerate(rows):
        if per_token:
            result[number, : len(row)] = list(row)
        else:
            result[number] = row.item() if isinstance(row, np.generic) else row
    return result


def numbered(labels: np.ndarray) -> tuple[list[Any], np.ndarray]:
    """The groups, sorted, and the number of each label's group, −1 for None.

    Raises:
        ValueError: no label at all.
    """
    names = {label for label in labels.ravel().tolist() if label is not None}
    if not names:
        raise ValueError("labels name no group: all of them are None")
    ordered = sorted(names, key=lambda name: (str(type(name)), name))
    places = {name: number for number, name in enumerate(ordered)} | {None: -1}
    numbers = [places[label] for label in labels.ravel().tolist()]
    return ordered, np.array(numbers, dtype=np.int64).reshape(labels.shape)


def _table(
    values: dict[str, np.ndarray], names: list[Any], sizes: np.ndarray, rows: tuple[int, int] | None, *, tokens: bool
) -> xr.Dataset:
    import xarray as xr

    group = np.array(names) if not isinstance(names[0], str) else np.array(names, dtype=object)
    coords: dict[str, Any] = {"group_2": group}
    dims: tuple[str, ...] = ("group_1", "group_2")
    shape: tuple[int, ...] = (len(names), len(names))
    if rows is None:
        coords["group_1"] = group
    else:
        coords["batch_1"] = np.arange(rows[0])
        dims, shape = ("batch_1", "group_2"), (rows[0], len(names))
        if tokens:
            coords["target_position"] = np.arange(1, rows[1] + 1)
            dims, shape = ("batch_1", "target_position", "group_2"), (*rows, len(names))
    variables: dict[str, Any] = {name: (dims, part.reshape(shape)) for name, part in values.items()}
    variables["group_size"] = ("group_2", sizes)
    return xr.Dataset(variables, coords=coords)


def _of_entries(dataset: xr.Dataset, labels: Labels, *, per_query: bool, exclude_self: bool) -> xr.Dataset:
    """Means of the entries that a result of `compute_bif` has."""
    entries = dataset["influences"]
    every = np.arange(dataset.sizes["batch"])
    complete = entries.dims == ("batch_1", "batch_2")
    if not complete or not all(np.array_equal(dataset[side].values, every) for side in entries.dims):
        raise ValueError(
            f"influences must be of all pairs of sequences (batch_1, batch_2), got {entries.dims} {entries.shape}: "
            "give the samples instead"
        )
    shape = (entries.shape[0], 1)
    names, numbers = numbered(labels_of(labels, dataset["observable"].values, shape))
    member = (numbers[:, 0] == np.arange(len(names))[:, None]).astype(np.float64)  # [G, N]
    left = np.eye(len(entries)) if per_query else member
    values = {}
    for name in ("influences", "influences_se"):
        if name in dataset:
            array = dataset[name].values.astype(np.float64)
            counted = np.isfinite(array)
            if exclude_self:
                counted &= ~np.eye(len(entries), dtype=bool)
            with np.errstate(invalid="ignore"):  # 0/0: a group without such a pair
                total = left @ np.where(counted, array, 0.0) @ member.T
                values[name] = total / (left @ counted.astype(np.float64) @ member.T)
    table = _table(values, names, member.sum(1).astype(int), shape if per_query else None, tokens=False)
    return table.assign_attrs(
        **dataset.attrs, exclude_self=int(exclude_self), se_kind="the mean of the entries' errors, an upper bound"
    )
