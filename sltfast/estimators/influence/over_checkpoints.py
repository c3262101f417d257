"""``influence_over_checkpoints``: Bayesian influence along a training run."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import nn

from sltfast.data import as_source
from sltfast.errors import AllChainsDied, ChainDiverged
from sltfast.estimators.bif.compute import check_options, compute_bif
from sltfast.estimators.bif.group_influence import group_influence
from sltfast.estimators.collection import estimate_of
from sltfast.estimators.over_checkpoints import runs_of
from sltfast.inputs.checkpoints import list_checkpoints
from sltfast.inputs.skeleton import Skeleton
from sltfast.isolation import alone
from sltfast.losses import LossFn
from sltfast.observables import Observable, ObservableSpec, resolve_observables
from sltfast.request import resolve

if TYPE_CHECKING:
    import xarray as xr

OF_THE_LLC = ("llc_mean", "llc_se", "rhat", "ess")


def influence_over_checkpoints(
    checkpoints: Any,
    dataset: Any,
    observables: Mapping[str, ObservableSpec],
    *,
    lr: float,
    n_beta: float,
    labels: Mapping[str, Sequence[Any]] | None = None,
    loss_keys_1: Sequence[str] | None = None,
    loss_keys_2: Sequence[str] | None = None,
    exclude_self: bool = False,
    normalize: bool = False,
    num_blocks: int = 8,
    model: nn.Module | None = None,
    dtype: str = "float32",
    loss_fn: LossFn | None = None,
    output_path: str | Path | None = None,
    progress: bool = True,
    **sampling: Any,
) -> xr.Dataset:
    """Estimate at every checkpoint of a training run how its items influence each other, with one setting for all.

        BIF_τ(i, j) = −Cov_β[ℓ_i, ℓ_j],  w ~ p(w) ∝ exp(−nβ·L(w) − γ/2·|w − w_τ|²),

    ℓ the mean loss of an item (a sequence's over its tokens). Influence rises and falls as what the items share is
    learned, and changes sign where a stage of training ends. All checkpoints see the same batches and the same noise.

    Args:
        checkpoints: see ``sltfast.over_checkpoints``.
        dataset: see ``sltfast.sample``.
        observables: see ``sltfast.sample``: the data sets whose rows are queries and items.
        lr: step size ε > 0.
        n_beta: inverse temperature nβ >= 0.
        labels: ``{observable: one label a row of its data set}``: mean influence of groups in place of items (None as
            a label: in no group).
        loss_keys_1: observables whose rows are queries; None: all.
        loss_keys_2: observables whose rows are items; None: all.
        exclude_self: with ``labels``, leave out influence of an item on itself.
        normalize: correlations in place of covariances.
        num_blocks: blocks of consecutive draws a chain, for standard errors.
        model: see ``sltfast.over_checkpoints``.
        dtype: see ``sltfast.over_checkpoints``.
        loss_fn: see ``sltfast.sample``.
        output_path: a folder for one run a checkpoint, ``step-000100.zarr`` and so on. The same call resumes an
            interrupted one and does not sample again what is complete.
        progress: show a progress bar over the checkpoints.
        **sampling: every other keyword of ``sltfast.sample``.

    Returns:
        ``xr.Dataset``: ``influences`` and ``influences_se`` (checkpoint, query, item), in nats² or, normalised,
        dimensionless, with coordinates ``query_observable``, ``query_row``, ``item_observable``, ``item_row`` (the row
        of the observable's data set, ascending); with ``labels`` (checkpoint, group_1, group_2) and ``group_size``
        (group_2). Of the same chains, by checkpoint, ``llc_mean``, ``llc_se``, ``rhat``, ``ess``, ``verdict``,
        ``chains_alive``. Coordinates ``checkpoint``, its name, and ``step``, ascending. A checkpoint without a living
        chain is NaN and "diverged". attrs: the settings.

    Raises:
        ValueError, TypeError: observables, names or labels that do not fit, before the first step; else as
            ``sltfast.over_checkpoints``.
        FileNotFoundError, OutputMismatch: as ``sltfast.over_checkpoints``.
        AllChainsDied: no chain of any checkpoint lived.

    Source: Lee et al. 2510.12071.
    """
    found = list_checkpoints(checkpoints)
    check_options(
        correlation_method="sequence",
        reduce_chain_dimension_method="stack",
        top_k=None,
        top_k_by="absolute",
        sign=-1,
        normalize=normalize,
        compute_covariance=None,
        batch_size=1,
        num_blocks=num_blocks,
    )
    needed = {"save_token_losses": False, "num_init_loss_batches": 0, "progress": False}
    keywords = {**needed, **sampling, "lr": lr, "n_beta": n_beta, "loss_fn": loss_fn}
    seen = _rows(dataset, observables, keywords)
    wanted = _Wanted.of(seen, labels, loss_keys_1, loss_keys_2, exclude_self, normalize, num_blocks)
    from tqdm.auto import tqdm

    results: list[xr.Dataset | None] = []
    estimates = []
    with tqdm(total=len(found), unit="checkpoint", disable=not progress, dynamic_ncols=True) as bar:
        bar.set_description(f"step {found[0].step}")
        runs = runs_of(found, Skeleton(model, dtype), dataset, observables, keywords, output_path=output_path)
        for index, (_, samples) in enumerate(runs, start=1):
            estimates.append(estimate_of(samples, include_burnin=False, init_loss="paired"))
            alive = bool(estimates[-1]["alive"].any())
            results.append(wanted.influence(samples) if alive else None)
            bar.set_description(f"step {found[min(index, len(found) - 1)].step}", False)
            bar.update()
    return _together(results, estimates).assign_coords(
        checkpoint=[one.name for one in found], step=("checkpoint", [one.step for one in found])
    )


def _rows(dataset: Any, observables: Any, keywords: Mapping[str, Any]) -> list[Observable]:
    """The observables, for the rows that are read of each.

    Raises:
        ValueError: none is given, or too few rows.
    """
    if not isinstance(observables, Mapping) or not observables:
        raise ValueError(f"influence needs observables, {{name: data set}} with at least one, got {observables!r}")
    rest = {name: value for name, value in keywords.items() if name != "param_masks"}
    config, request = resolve(dataset, rest)
    if request.record != "traces":
        raise ValueError(f"influence is made of traces of losses: leave record='traces', got {request.record!r}")
    as_source(dataset, buffer_size=request.buffer_size)
    return resolve_observables(
        observables,
        batches_per_draw=request.batches_per_draw,
        batch_size=config.batch_size,
        seed=request.obs_seed,
        device=torch.device("cpu"),
        buffer_size=request.buffer_size,
    )


class _Wanted(NamedTuple):
    """What is read off every run.

    Attributes:
        places: by observable's id, its recorded items in the order of their rows, as numbers among those of it.
        names: by id, as the caller calls it.
        rows: by id, rows of its data set, ascending.
        labels: by id, labels of its items as they are recorded; None: single items are wanted.
        sides: ids of the observables of queries, and of items.
    """

    places: dict[str, np.ndarray]
    names: dict[str, str]
    rows: dict[str, np.ndarray]
    labels: dict[str, list[Any]] | None
    sides: tuple[list[str], list[str]]
    exclude_self: bool
    normalize: bool
    num_blocks: int

    @classmethod
    def of(
        cls,
        seen: Sequence[Observable],
        labels: Any,
        loss_keys_1: Sequence[str] | None,
        loss_keys_2: Sequence[str] | None,
        exclude_self: bool,
        normalize: bool,
        num_blocks: int,
    ) -> _Wanted:
        """From the caller's arguments.

        Raises:
            ValueError: names of observables that are not there, or labels that do not fit their rows.
        """
        ids = {one.name: one.id for one in seen}
        sides = []
        for keyword, keys in (("loss_keys_1", loss_keys_1), ("loss_keys_2", loss_keys_2)):
            asked = list(ids) if keys is None else keys
            if isinstance(asked, str) or not asked or not set(asked) <= set(ids):
                raise ValueError(f"{keyword} must be a list of the observables {list(ids)}, got {keys!r}")
            sides.append([ids[name] for name in asked])
        if labels is not None and (loss_keys_1 is not None or loss_keys_2 is not None):
            raise ValueError("labels say which items make a group: leave loss_keys_1 and loss_keys_2 away (label None)")
        if exclude_self and labels is None:
            raise ValueError("exclude_self is about means over groups: give labels, or read off the diagonal")
        order = {one.id: np.argsort(one.rows) for one in seen}
        return cls(
            order,
            {one.id: one.name for one in seen},
            {one.id: one.rows[order[one.id]] for one in seen},
            None if labels is None else {one.id: _labels(one, ids, labels) for one in seen},
            (sides[0], sides[1]),
            exclude_self,
            normalize,
            num_blocks,
        )

    def influence(self, samples: xr.DataTree) -> xr.Dataset:
        """``influences`` and ``influences_se`` of one run."""
        common: dict[str, Any] = {"normalize": self.normalize, "num_blocks": self.num_blocks}
        with alone(), warnings.catch_warnings():
            # told with the checkpoint's name
            warnings.filterwarnings("ignore", ".*left out of every mean", ChainDiverged)
            if self.labels is not None:
                return group_influence(samples, self.labels, exclude_self=self.exclude_self, **common)
            pairs = compute_bif(
                samples,
                correlation_method="sequence",
                loss_keys_1=self.sides[0],
                loss_keys_2=self.sides[1],
                standard_errors=True,
                progress=False,
                **common,
            )
        numbers = [self._numbers(side) for side in self.sides]
        return (
            pairs[["influences", "influences_se"]]
            .drop_vars(["batch_1", "batch_2", "observable"], errors="ignore")
            .isel(batch_1=numbers[0], batch_2=numbers[1])
            .rename(batch_1="query", batch_2="item")
            .assign_coords({**self._coords("query", self.sides[0]), **self._coords("item", self.sides[1])})
        )

    def _numbers(self, side: Sequence[str]) -> np.ndarray:
        """Items of one side in the order of their rows, as they stand in the run's."""
        counts = [len(self.places[one]) for one in side]
        starts = np.cumsum([0, *counts[:-1]])
        return np.concatenate([start + self.places[one] for start, one in zip(starts, side, strict=True)])

    def _coords(self, dim: str, side: Sequence[str]) -> dict[str, Any]:
        names = np.array([self.names[one] for one in side for _ in self.rows[one]], dtype=object)
        rows = np.concatenate([self.rows[one] for one in side])
        return {dim: np.arange(len(rows)), f"{dim}_observable": (dim, names), f"{dim}_row": (dim, rows)}


def _labels(one: Observable, ids: Mapping[str, str], labels: Any) -> list[Any]:
    """Labels of an observable's items, in the order in which they are recorded.

    Raises:
        ValueError: labels of no such observable, or of another number of rows.
    """
    if not isinstance(labels, Mapping) or set(labels) != set(ids):
        got = sorted(map(str, labels)) if isinstance(labels, Mapping) else type(labels).__name__
        raise ValueError(f"labels must be {{observable: one label a row}} for each of {sorted(ids)}, got {got}")
    given = list(labels[one.name])
    if len(given) != len(one.source):
        raise ValueError(f"labels of {one.name!r} are {len(given)}, but its data set has {len(one.source)} rows")
    return [given[row] for row in one.rows]


def _together(results: Sequence[xr.Dataset | None], estimates: Sequence[xr.Dataset]) -> xr.Dataset:
    """One data set of all checkpoints, NaN where no chain lived.

    Raises:
        AllChainsDied: no chain of any lived.
    """
    import xarray as xr

    living = [result for result in results if result is not None]
    if not living:
        raise AllChainsDied("no chain of any checkpoint lived: lower lr, n_beta or localization")
    first = living[0]
    variables: dict[str, Any] = {}
    for name in ("influences", "influences_se"):
        empty = np.full(first[name].shape, np.nan)
        values = np.stack([empty if result is None else result[name].values for result in results])
        variables[name] = (("checkpoint", *first[name].dims), values)
    if "group_size" in first:
        variables["group_size"] = first["group_size"]
    for name in OF_THE_LLC:
        variables[name] = ("checkpoint", np.array([float(estimate[name]) for estimate in estimates]))
    variables["verdict"] = ("checkpoint", np.array([one.attrs["verdict"] for one in estimates], dtype=object))
    variables["chains_alive"] = ("checkpoint", np.array([int(one["alive"].sum()) for one in estimates]))
    attrs = {name: value for name, value in first.attrs.items() if name not in ("chains", "chains_left_out")}
    return xr.Dataset(variables, coords=first.coords, attrs=attrs)
