"""``susceptibilities``: sample every restriction around w*, and χ of what was recorded."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sltfast.errors import ChainDiverged
from sltfast.estimators.blocks import PhiLevel
from sltfast.estimators.susceptibility.chi import Estimator
from sltfast.estimators.susceptibility.compute import check_options, compute_susceptibilities
from sltfast.restricted import sample_restrictions
from sltfast.restriction import ParamMasks
from sltfast.restriction.components import components
from sltfast.results.computed import result_path, save, saved, source_of

if TYPE_CHECKING:
    import xarray as xr
    from torch import nn

    from sltfast.losses import LossFn
    from sltfast.observables import ObservableSpec
    from sltfast.request import Record


def susceptibilities(
    model: nn.Module,
    dataset: Any,
    observables: Mapping[str, ObservableSpec],
    weight_restrictions: Mapping[str, ParamMasks] | Sequence[str] | str,
    *,
    sampling_task: str,
    lr: float,
    n_beta: float,
    loss_fn: LossFn | None = None,
    include_sampling_task: bool = False,
    estimator: Estimator = "two_chain",
    control: bool = False,
    init_loss: PhiLevel = "paired",
    record: Record = "moments",
    num_blocks: int = 8,
    output_path: str | Path | None = None,
    **sampling: Any,
) -> xr.DataTree:
    """Sample restrictions of a model and estimate how each answers to every item of the observables.

    χ_i(C) = −Cov_C[φ, ℓ_i − L], φ = L(w) − L(w*): the response of the loss, over a posterior in which only component C
    moves, to data shifted towards item i; see ``compute_susceptibilities`` for the two estimators. Hundreds of
    restrictions share one full run, batches, noise and passes (``sltfast.sample_restrictions``), and with
    ``record="moments"`` memory does not grow with the draws.

    Args:
        model: see ``sltfast.sample``; any module with a ``loss_fn``.
        dataset: see ``sltfast.sample``; what the posterior is of.
        observables: ``{name: data set}`` or ``{name: (data set, batches_per_draw)}``: the sampling task, and the data
            sets to answer to.
        weight_restrictions: ``{name: param_masks}`` (None, masks, a name, or a list: their union); or a list of names
            of parts, each a restriction called like itself, in which "all heads" stands for every head and "all" for
            every component: embedding, unembedding (where it is not the embedding's own tensor), each head, each MLP.
            "full", the whole model, is added where it is missing and the two-chain estimator needs it.
        sampling_task: the observable whose mean loss φ is made of, a sample of the data set's own distribution.
        lr: step size ε > 0.
        n_beta: inverse temperature nβ >= 0.
        loss_fn: see ``sltfast.sample``.
        include_sampling_task: χ of the sampling task's own items too.
        estimator: see ``compute_susceptibilities``.
        control: sample everything again at nβ = 0, where the loss has no say: what the response is without it.
        init_loss: see ``compute_susceptibilities``.
        record: "moments" streams; "traces" keeps the loss of every item at every draw.
        num_blocks: blocks of draws a chain, for standard errors; of fewer draws, as many as those.
        output_path: ``runs/llm.zarr`` writes each run to ``runs/llm_<restriction>.zarr`` (of the control to
            ``runs/llm_control_<restriction>.zarr``) and the result to ``runs/llm.susceptibilities.zarr``. The same call
            resumes what was interrupted, and returns the result if it is there.
        **sampling: every other keyword of ``sltfast.sample`` but ``param_masks``.

    Returns:
        See ``compute_susceptibilities``; with control, the same nodes below ``/control``. Without token ids there is
        no ``/context``.

    Raises:
        ValueError, TypeError: as ``sltfast.sample_restrictions`` and ``compute_susceptibilities``; a sampling task that
            is no observable, no other observable, an unknown part, or a control that nothing holds back. Before the
            first step.
        OutputMismatch: ``output_path`` holds other runs, or the result's place something else.
        AllChainsDied: no chain of the full run is left (two-chain), or of no restriction.

    Source: Baker et al. 2504.18274.
    """
    check_options(estimator, init_loss)
    _check_recording(sampling, record, init_loss)
    _check_observables(observables, sampling_task, include_sampling_task)
    if control:
        _check_held(sampling)
    wanted = components(model, weight_restrictions, full=estimator == "two_chain")
    path = None if output_path is None else result_path(output_path, "susceptibilities")
    draws = sampling.get("num_draws", 200)
    settings: dict[str, Any] = {
        "include_sampling_task": include_sampling_task,
        "estimator": estimator,
        "init_loss": init_loss,
    }
    keywords: dict[str, Any] = {
        "save_token_losses": False,
        **({} if init_loss == "init_batches" else {"num_init_loss_batches": 0}),
        **sampling,
        "lr": lr,
        "loss_fn": loss_fn,
        "record": record,
        "sampling_task": sampling_task,
        "num_blocks": min(num_blocks, draws) if _counts(num_blocks) and _counts(draws) else num_blocks,
    }

    def runs(inverse_temperature: float, to: str | Path | None) -> dict[str, xr.DataTree]:
        return sample_restrictions(
            model, dataset, observables, wanted, n_beta=inverse_temperature, output_path=to, **keywords
        )

    sampled = {"": runs(n_beta, output_path)}
    if control:
        sampled["control"] = runs(0.0, _control_path(output_path))
    source = ""
    if path is not None:
        source = source_of(
            {f"{which}/{name}": tree for which, trees in sampled.items() for name, tree in trees.items()},
            {**settings, "num_blocks": num_blocks},
        )
        there = saved(path, source)
        if there is not None:
            _say_who_died(there)
            return there
    progress = bool(sampling.get("progress", True))
    result, *controls = (
        compute_susceptibilities(trees, sampling_task, **settings, num_blocks=num_blocks, progress=progress)
        for trees in sampled.values()
    )
    for one in controls:
        result["control"] = one
    if path is not None:
        save(result, path, "susceptibilities", source)
    return result


def _say_who_died(result: xr.DataTree) -> None:
    """What the estimate said when it was made, of a result that is read back."""
    for node in (result, *(result[name] for name in result.children if name == "control")):
        components, chains = node["components"].to_dataset(), int(node.attrs["num_chains"])
        alive = components["chains_alive"]
        died = {str(wr): chains - int(count) for wr, count in zip(alive["wr"].values, alive.values, strict=True)}
        died = {wr: count for wr, count in died.items() if count}
        if died:
            warnings.warn(f"chains that died are left out, of {chains}: {died}", ChainDiverged, stacklevel=3)


def _check_observables(observables: Any, task: str, include_task: bool) -> None:
    if not isinstance(observables, Mapping):
        raise TypeError(f"observables must be a mapping from name to data set, got {type(observables).__name__}")
    if task not in observables:
        raise ValueError(f"sampling_task {task!r} is none of the observables {list(observables)}: add it to them")
    if len(observables) == 1 and not include_task:
        raise ValueError(
            f"there is no observable beside the sampling task {task!r}: add one, or give include_sampling_task=True"
        )


def _check_recording(sampling: Mapping[str, Any], record: Any, init_loss: PhiLevel) -> None:
    if record == "covariances":
        raise ValueError("record='covariances' keeps no φ: give record='moments' or 'traces'")
    if init_loss == "init_batches" and sampling.get("num_init_loss_batches", 32) == 0:
        raise ValueError("init_loss='init_batches' needs num_init_loss_batches > 0, got 0")


def _counts(number: Any) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and number >= 1


def _check_held(sampling: Mapping[str, Any]) -> None:
    """Without a loss only a prior keeps the weights near w*."""
    if not any(sampling.get(name) for name in ("localization", "bounding_box_size", "llc_weight_decay")):
        raise ValueError(
            "control=True samples at n_beta=0, where nothing holds the weights near w*: give localization > 0 (or "
            "bounding_box_size), or leave the control out"
        )


def _control_path(output_path: str | Path | None) -> Path | None:
    if output_path is None:
        return None
    path = Path(output_path)
    return path.with_name(f"{path.stem}_control{path.suffix}")
