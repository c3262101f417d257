"""``compute_susceptibilities``: χ of every item and data set from recorded runs of many restrictions."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from sltfast.errors import AllChainsDied, ChainDiverged
from sltfast.estimators.blocks import BlockReader, PhiLevel, init_batches_level
from sltfast.estimators.susceptibility.chi import Estimator, FullRun, susceptibility
from sltfast.estimators.susceptibility.components import component
from sltfast.estimators.susceptibility.response import Response
from sltfast.observables import observable_id

if TYPE_CHECKING:
    import xarray as xr


def compute_susceptibilities(
    wr_map: Mapping[str, xr.DataTree],
    sampling_task: str,
    observable_names: Sequence[str] | None = None,
    include_sampling_task: bool = False,
    *,
    estimator: Estimator = "two_chain",
    init_loss: PhiLevel = "paired",
    num_blocks: int = 8,
    progress: bool = True,
) -> xr.DataTree:
    """Susceptibilities of every component to every item of the observables, from recorded runs.

    With L the mean loss on the sampling task, ℓ_i an item's, φ = L − L(w*), C a restricted run and F the full one:

        two-chain     χ_i = E_C[φ L] − E_C[φ ℓ_i] − E_C[φ] (E_F[L] − E_F[ℓ_i]),
        single-chain  χ_i = −Cov_C[φ, ℓ_i − L],

    computed from the excesses over the losses at w*, which changes neither: constants cancel exactly. A data set's χ
    is that of its mean loss, so it is the weighted mean of its items' χ, and 0 for the sampling task itself.

    Args:
        wr_map: by name the tree of each restriction, as ``sltfast.sample_restrictions`` returns them (traces or
            moments) or devinterp's; among them "full", but for the single-chain estimator.
        sampling_task: the observable whose mean loss φ is made of.
        observable_names: observables to compute χ of; None: all but the sampling task.
        include_sampling_task: the sampling task's items too, where ``observable_names`` is None.
        estimator: which one ``sus`` is; the other's values stand beside it.
        init_loss: L(w*) in φ: "paired", on the sampling task's own rows, or "init_batches", the full run's mean
            ``init_loss``, as devinterp has it. The two-chain χ depends on it. devinterp's trees have only the latter.
        num_blocks: blocks of draws a chain, for standard errors; recorded moments have their own.
        progress: show a progress bar, if it takes long.

    Returns:
        ``xr.DataTree``. ``/susceptibilities``, a column for every restriction ("full" too, which devinterp 2.0.1 leaves
        out): ``sus``, ``se`` (the larger of ``se_chains``, NaN for one chain, and ``se_batch_means``), and the other
        estimator's value and error, ``sus_single_chain``, ``se_single_chain`` (or ``…_two_chain``; NaN without a full
        run), all (sus_flat, wr), with coordinates dataset_id, batch and target_position (from 1). NaN where an item has
        no weight (padding) and where no chain of a restriction lived. ``/context``: ``input_ids`` (ctx_flat), of token
        sequences. Both have ``dataset_id_to_name``. ``/datasets``: the same variables (wr, dataset), and
        ``density_deviation``, |mean of the items' χ − the data set's χ| over the items' root mean square (NaN where
        items have unequal weights). ``/components`` (wr): λ̂ of the restriction's run ``llc_mean``, ``llc_se``,
        ``rhat``, ``ess``, ``drift``, ``verdict``, E[φ] as ``phi_mean`` with ``phi_se``, and ``chains_alive``. χ is in
        nats², without a factor nβ. attrs: the settings and the largest ``density_deviation``.

    Raises:
        TypeError: wr_map is no mapping of trees.
        ValueError: there is no "full" for the two-chain estimator, an unknown estimator, init_loss or observable, no
            observable is left, or runs that do not belong together.
        AllChainsDied: no chain of the full run lived, or without one of any.

    Source: Baker et al. 2504.18274, Lemma 2.2 and App. C.4 (two-chain).
    """
    _check(wr_map, estimator, init_loss)
    first, reference = _reference(wr_map, sampling_task, num_blocks)
    full = reference if first == "full" else None
    names = _observables(reference, observable_names, include_sampling_task)
    level, method = _phi_level(reference, init_loss)
    items, means = (
        {name: FullRun.of(read(name)) for name in names} if full else {} for read in (reference.items, reference.means)
    )
    response = Response(list(wr_map), {name: reference.shape(name) for name in names}, reference, estimator)
    left_out: list[str] = []
    unfinished: list[str] = []
    for wr in _shown([first, *(name for name in wr_map if name != first)], progress):
        samples, reader = wr_map[wr], None
        try:
            reader = reference if wr == first else BlockReader(samples, sampling_task, num_blocks)
        except AllChainsDied:
            left_out.append(f"all of {wr!r} (its χ is NaN)")
        own = level if reader is None or method == "init_batches" else reader.phi_level
        if reader is not None:
            if reader.root.attrs.get("completed", 1) != 1:
                unfinished.append(wr)
            if reader.left_out:
                left_out.append(f"{list(reader.left_out)} of {wr!r}")
            for name in names:
                _check_together(wr, name, reader, first, reference)
                of_items = items[name].blocks if reader is full else reader.items(name)
                of_mean = means[name].blocks if reader is full else reader.means(name)
                response.put_items(wr, name, susceptibility(of_items, items.get(name), own))
                response.put_dataset(wr, name, susceptibility(of_mean, means.get(name), own))
                if reader is full:
                    items[name] = items[name].without_products()
        response.put_component(wr, component(samples, reader, own))
    if left_out:
        warnings.warn(f"chains that died are left out: {'; '.join(left_out)}", ChainDiverged, stacklevel=2)
    if unfinished:
        warnings.warn(
            f"the runs {unfinished} were interrupted: their χ are of what was recorded", UserWarning, stacklevel=2
        )
    return response.tree({"sampling_task": reference.task, "init_loss": method, "num_blocks": reference.num_blocks})


def check_options(estimator: str, init_loss: str) -> None:
    """Refuse what neither the formulas nor the runs know.

    Raises:
        ValueError: an unknown estimator or init_loss.
    """
    for name, value, known in (("estimator", estimator, Estimator), ("init_loss", init_loss, PhiLevel)):
        if value not in get_args(known):
            raise ValueError(f"{name} must be one of {', '.join(get_args(known))}, got {value!r}")


def _check(wr_map: Any, estimator: str, init_loss: str) -> None:
    check_options(estimator, init_loss)
    if not isinstance(wr_map, Mapping):
        raise TypeError(f"wr_map must be a mapping from names to trees of samples, got {type(wr_map).__name__}")
    if not wr_map:
        raise ValueError("wr_map is empty: give the tree of at least one restriction")
    if "full" not in wr_map and estimator == "two_chain":
        raise ValueError(
            f"wr_map has no 'full', the run of the unrestricted model; it has {sorted(wr_map)} "
            "(estimator='single_chain' needs none)"
        )


def _reference(wr_map: Mapping[str, Any], task: str, num_blocks: int) -> tuple[str, BlockReader]:
    """The full run, or without one the first that lived: what the others are held against."""
    names = ["full"] if "full" in wr_map else list(wr_map)
    for name in names[:-1]:
        with suppress(AllChainsDied):
            return name, BlockReader(wr_map[name], task, num_blocks)
    try:
        return names[-1], BlockReader(wr_map[names[-1]], task, num_blocks)
    except AllChainsDied as error:
        whose = "the full run, which the two-chain estimator needs" if "full" in wr_map else f"any of {list(wr_map)}"
        raise AllChainsDied(
            f"no chain lived of {whose}: lower lr, n_beta or localization; what was recorded is in .samples",
            samples=error.samples,
        ) from error


def _observables(run: BlockReader, asked: Sequence[str] | None, include_task: bool) -> list[str]:
    if isinstance(asked, str):
        raise ValueError(f"observable_names must be None or a list of names, got {asked!r} (give [{asked!r}])")
    names = [name for name in run.observables if include_task or name != run.task]
    if asked is not None:
        names = sorted({observable_id(name) for name in asked})
        unknown = [name for name in names if name not in run.observables]
        if unknown:
            raise ValueError(f"observables {unknown} were not recorded: there are {run.observables}")
    if not names:
        raise ValueError(
            f"there is no observable beside the sampling task {run.task!r}: sample with another one, or give "
            "include_sampling_task=True"
        )
    return names


def _phi_level(run: BlockReader, init_loss: PhiLevel) -> tuple[float, PhiLevel]:
    """φ₀ of a run, and how it is had."""
    if init_loss == "paired":
        return run.phi_level, run.method
    level = init_batches_level(run.root)
    if level is None:
        raise ValueError("init_loss='init_batches' needs samples taken with num_init_loss_batches > 0")
    return level, init_loss


def _check_together(wr: str, name: str, reader: BlockReader, first: str, reference: BlockReader) -> None:
    """The runs must have read the same items."""
    if name not in reader.observables:
        raise ValueError(f"the run {wr!r} has no observable {name!r}: it has {reader.observables}")
    for variable in (f"input_ids_{name}", f"init_loss_{name}"):
        if variable in reference.root and variable in reader.root and reader is not reference:
            here, there = reader.root[variable].values, reference.root[variable].values
            if here.shape != there.shape or not np.allclose(here, there, rtol=1e-3, atol=1e-3, equal_nan=True):
                raise ValueError(
                    f"the runs {wr!r} and {first!r} differ in {variable}: their χ do not compare; sample all with the "
                    "same model, observables and obs_seed"
                )


def _shown(names: list[str], progress: bool) -> Any:
    from tqdm.auto import tqdm

    return tqdm(names, desc="susceptibilities", unit="run", delay=2.0, disable=not progress, dynamic_ncols=True)
