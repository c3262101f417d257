"""From checked keywords to recorded chains: one restriction or several over the same model and data."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import nn

from sltfast.batches import BatchStream
from sltfast.clone import structural_clone, unwrap
from sltfast.contract import Contract
from sltfast.data import as_source
from sltfast.devices import usable_device
from sltfast.errors import AllChainsDied
from sltfast.isolation import alone, surroundings
from sltfast.losses import ItemLoss, check_tokens, item_loss
from sltfast.observables import Observable, ObservableSpec, resolve_observables
from sltfast.request import Request
from sltfast.restriction import ParamMasks, Restriction
from sltfast.results.computed import results_beside
from sltfast.results.full_disk import telling
from sltfast.results.identity import loss_source, restriction_digest, run_identity
from sltfast.results.layout import ArraySpec, layout
from sltfast.results.lock import locked
from sltfast.results.loss_values import loss_values
from sltfast.results.place import place_of
from sltfast.results.record import attributes, start_values
from sltfast.results.replacing import delete_results, tell
from sltfast.results.store import MemoryStore, Store, ZarrStore
from sltfast.results.tree import Existing, existing_run, open_run, tree_from_memory
from sltfast.results.writer import Writer
from sltfast.sampler.baseline import Baseline
from sltfast.sampler.config import CELL_SETTINGS, SamplerConfig
from sltfast.sampler.engines.build import EngineBuilder
from sltfast.sampler.feed import PinnedCopies
from sltfast.sampler.lanes import Cell
from sltfast.sampler.memory import copied_bytes, lane_record_bytes, record_bytes
from sltfast.sampler.plan import Plan, Planner
from sltfast.sampler.precision import check_precision, compute_dtype, computed_in, computing
from sltfast.sampler.problem import Problem
from sltfast.sampler.progress import Progress
from sltfast.sampler.recording import Recording
from sltfast.sampler.room import check_counts, check_records
from sltfast.sampler.run import Run
from sltfast.sampler.shortage import no_room_for
from sltfast.sampler.sizing import Sizing
from sltfast.sampler.trial import trial
from sltfast.sampler.unchanged import unchanged
from sltfast.sampler.weight_reading import chosen_weights, weight_elements, weight_names, weight_specs
from sltfast.stacking.prefix import Memo

if TYPE_CHECKING:
    import xarray as xr


class Wanted(NamedTuple):
    """One restriction that is asked for: which coordinates move, and where its run goes (None: memory)."""

    param_masks: ParamMasks
    output_path: str | Path | None


@alone()
def run_chains(
    model: nn.Module,
    dataset: Any,
    observables: Mapping[str, ObservableSpec] | None,
    wanted: Mapping[str, Wanted],
    config: SamplerConfig,
    request: Request,
    contract: Contract | None = None,
) -> dict[str, xr.DataTree]:
    """Sample every restriction over the same batches; see ``sltfast.sample``.

    Args:
        model: as ``sltfast.sample``.
        dataset: as ``sltfast.sample``.
        observables: as ``sltfast.sample``.
        wanted: restrictions by name.
        config: settings of the sampler, those of every restriction.
        request: everything else.
        contract: what a face of another package fixes.

    Returns:
        By name, the tree that ``sltfast.sample`` returns.

    Raises:
        As ``sltfast.sample``.
    """
    model = unwrap(model)
    paths = {name: place_of(one.output_path) for name, one in wanted.items()}
    check_counts(config, list(paths.values()))
    source = as_source(dataset, buffer_size=request.buffer_size)
    check_precision(config.precision, model)
    restrictions = {name: Restriction.of(model, one.param_masks) for name, one in wanted.items()}
    weights = chosen_weights(model, request.record_weights, restrictions)
    loss = item_loss(model, request.loss_fn)
    told = loss_source(loss) if any(paths.values()) else ""  # before it is called: its state may count calls
    where = pick_device(model, request.device)
    lanes = 1 if config.match_sampling_input_ids_across_chains else config.chains_per_cell
    orders = [None] * lanes if contract is None else contract.orders
    streams = [
        BatchStream(source, config.batch_size, config.init_seed, shuffle=config.shuffle, lane=lane, order=orders[lane])
        for lane in range(lanes)
    ]
    if request.loss_fn is None:
        check_tokens(model, source.sample())
    if contract is None or contract.warns:
        _warn(config)
    told_of_memory = no_room_for("what is set up first: the model's copy, observables, the plan, losses at w*")
    with told_of_memory, surroundings(config.init_seed, where), computing(config.precision, where), ExitStack() as held:
        seen = _observables(observables, model, config, request, where)
        recording = Recording.of(request, config, seen)
        clone = structural_clone(model, where, compute_dtype(config.precision)).train(config.mode == "train")
        sizing = Sizing(config, request, where)
        sizing.expect(clone, list(restrictions.values()), streams[0])
        with sizing.watched():
            no_logits = _without_logits(loss, clone, restrictions, streams[0], config.precision)
        one = "a forward and backward of one chain at w*"
        with unchanged(clone, loss.name), sizing.watched(one_chain=True), no_room_for(one):
            shapes = trial(clone, restrictions, loss, streams[0], seen, where, language_model=request.loss_fn is None)
        recording.check_sizes([len(one.rows) for one in seen], shapes.observable_positions)
        specs = layout(config, seen, shapes, recording, save_token_losses=request.save_token_losses)
        if request.dataset_init_loss:
            specs.append(ArraySpec("init_loss_dataset", (), (), "float64"))
        if weights is not None:
            specs += weight_specs(config, weights)
        check_records(config, specs, list(paths.values()))
        places: list[_Place] = []
        identity: dict[str, Any] = {}
        for name, restriction in restrictions.items():
            attrs, path = attributes(config, seen, recording, restriction, where), paths[name]
            if contract is not None:
                attrs["metadata"] = contract.metadata
            if weights is not None:
                attrs["sltfast"]["weights"] = weight_names(model, weights)
            existing = Existing("", {})
            if path is not None:  # reading every weight and row is worth it only where runs could be mixed up
                if not identity:  # the same for all restrictions
                    values = loss_values(shapes.first, where, computed_in(clone, config.precision, where))
                    identity = {**run_identity(model, source, seen), "loss": told, "loss_values": values}
                arrays = ", ".join(spec.name for spec in specs)
                attrs["sltfast"]["identity"] = {
                    **identity,
                    "restriction": restriction_digest(restriction),
                    **recording.identity,
                    "arrays": arrays,
                }
                if weights is not None:
                    attrs["sltfast"]["identity"]["record_weights"] = restriction_digest(weights)
                if contract is not None:
                    attrs["sltfast"]["identity"]["order"] = contract.digest
                held.enter_context(locked(path))
                existing = existing_run(path, attrs, model, overwrite=request.overwrite)
            places.append(_Place(name, restriction, path, attrs, existing))
        left = [place for place in places if place.existing.state != "complete"]
        stores: dict[str, Store] = {}
        if left:
            memo = Memo(sizing.budget)
            moving = [place.restriction for place in left]
            builder = EngineBuilder(
                config, clone, loss, streams, where, moving, memo, seen, request.compile, shapes.outline
            )
            on_disk = any(place.path is not None for place in left)
            kept = record_bytes(config, specs, seen, runs=len(left), on_disk=on_disk)
            kept = {"model": copied_bytes(model, clone), **kept}
            sizing.use(builder, seen, kept, lane_record_bytes(specs, on_disk=on_disk))
            planner = Planner(config, request, builder, sizing, no_logits)
            plan = planner.plan({cell: p.existing.plan for cell, p in enumerate(left) if p.existing.plan})
            for cell, place in enumerate(left):
                place.attrs["sltfast"] |= {"plan": plan.record(cell, place.restriction), "deaths": {}}
            if request.plan:
                print(plan.text())  # noqa: T201  (what was asked for)
            with Progress(config.num_steps * config.num_chains * len(left), shown=request.progress) as bar:
                recorded = shapes.positions if request.save_token_losses or config.num_init_loss_batches else None
                baseline = Baseline(clone, loss, streams, config, where, bar.baseline, recorded, shapes.first)
                at_init = baseline.step_losses(config.num_steps)
                observed = {one.id: baseline.observed(one) for one in seen}
                start = start_values(baseline, at_init, config, seen, observed, dataset_loss=request.dataset_init_loss)
                if weights is not None:
                    start["element"] = weight_elements(model, weights)
                _replace(left)
                held.enter_context(telling([place.path for place in left if place.path is not None], specs))
                stores = {place.name: _store(place, specs, recording, start) for place in left}
                problem = Problem(
                    config=config,
                    loss=loss,
                    streams=streams,
                    observables=seen,
                    cells=[Cell(place.name, place.restriction, stores[place.name]) for place in left],
                    init_losses=at_init,
                    recording=recording,
                    observed=observed,
                    device=where,
                    save_token_losses=request.save_token_losses,
                    weights=weights,
                    tokens=any(spec.name == "sampling_input_ids_micro" for spec in specs),
                    writer=Writer(threaded=on_disk or where.type == "cuda"),
                    progress=bar,
                    planner=planner,
                    copies=PinnedCopies(where) if where.type == "cuda" else None,
                    not_captured=plan.not_captured,
                    plans=[place.attrs["sltfast"]["plan"] for place in left],
                    deaths=[place.attrs["sltfast"]["deaths"] for place in left],
                )
                _run(problem, plan)
    return _checked({place.name: _tree(place, stores) for place in places})


def _observables(
    specs: Mapping[str, ObservableSpec] | None,
    model: nn.Module,
    config: SamplerConfig,
    request: Request,
    device: torch.device,
) -> list[Observable]:
    seen = resolve_observables(
        specs,
        batches_per_draw=request.batches_per_draw,
        batch_size=config.batch_size,
        seed=request.obs_seed,
        device=device,
        buffer_size=request.buffer_size,
    )
    if request.loss_fn is None:
        for observable in seen:
            check_tokens(model, observable.source.sample())
    return seen


def _run(problem: Problem, plan: Plan) -> None:
    completed = False
    try:
        Run(problem).chains(plan.groups)
        problem.writer.drain()
        completed = True
    finally:
        problem.writer.close()
        _close(problem, completed)


def _close(problem: Problem, completed: bool) -> None:
    """Close every store, whichever of them fails; after a failure, that one is told and not what follows from it."""
    failed: OSError | None = None
    for cell in problem.cells:
        try:
            cell.store.close(completed)
        except OSError as error:
            failed = failed or error
    if completed and failed is not None:
        raise failed


class _Place(NamedTuple):
    """A restriction and where it is recorded."""

    name: str
    restriction: Restriction
    path: Path | None
    attrs: dict[str, Any]
    existing: Existing


def _store(place: _Place, specs: Sequence[ArraySpec], recording: Recording, start: Mapping[str, np.ndarray]) -> Store:
    store: Store = MemoryStore(specs if place.path is None else [])
    if place.path is not None:
        resume = place.existing.state == "interrupted"
        store = ZarrStore(place.path, specs, place.attrs, recording.step_of, resume=resume)
    for name, values in start.items():
        store.put_whole(name, values)
    return store


def _replace(places: Sequence[_Place]) -> None:
    """Say which runs are about to be deleted, and delete what was computed from them; they go as they are laid out."""
    replaced = [place for place in places if place.existing.replaced]
    if replaced:
        results = dict.fromkeys(
            one for place in replaced if place.path is not None for one in results_beside(place.path)
        )
        tell([place.existing.replaced for place in replaced], list(results))
        delete_results(list(results))


def _tree(place: _Place, stores: Mapping[str, Store]) -> xr.DataTree:
    if place.path is not None:
        return open_run(place.path)
    store = stores[place.name]
    assert isinstance(store, MemoryStore)
    return tree_from_memory(store, place.attrs, completed=True)


def _without_logits(
    loss: ItemLoss,
    clone: nn.Module,
    restrictions: Mapping[str, Restriction],
    stream: BatchStream,
    precision: str | None,
) -> str:
    """Let a language model's losses come from hidden states, where it proves that they can; returns why not."""
    device = next(clone.parameters()).device
    parameters = dict(clone.named_parameters())
    moving = [parameters[s.name] for restriction in restrictions.values() for s in restriction.segments]
    for parameter in moving:
        parameter.requires_grad_()
    try:
        return loss.without_logits(clone, stream.batch(0, device), precision)
    except Exception as error:  # whatever a model raises: the trial that comes next runs it as it is, and tells
        return f"{type(error).__name__}: {error}"
    finally:
        for parameter in moving:
            parameter.requires_grad_(False)


def _warn(config: SamplerConfig) -> None:
    levels = {config.hyper(chain)[CELL_SETTINGS.index("noise_level")] for chain in range(config.num_chains)} - {1.0}
    if levels:
        told = ", ".join(f"{level:g}" for level in sorted(levels))
        warnings.warn(
            f"noise_level {told} is not 1: the chains sample no posterior, so λ̂ is no LLC",
            UserWarning,
            stacklevel=4,
        )
    if config.mode == "train":
        warnings.warn(
            "mode='train' samples a randomised loss (dropout) or one that depends on the batch (batch norm): λ̂ then "
            "measures that loss; mode='eval' is the model as it is used",
            UserWarning,
            stacklevel=4,
        )


def pick_device(model: nn.Module, device: str | torch.device | None) -> torch.device:
    """Where to sample.

    Raises:
        ValueError: a device that does not exist here.
    """
    if device is None:
        own = next(model.parameters()).device
        return own if own.type != "cpu" else torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return usable_device(device)


def _checked(trees: dict[str, xr.DataTree]) -> dict[str, xr.DataTree]:
    if not any(bool(tree.dataset["alive"].any()) for tree in trees.values()):
        steps = [int(step) for tree in trees.values() for step in tree.dataset["death_step"].values.ravel()]
        raise AllChainsDied(
            f"every chain diverged (at steps {steps}): lower lr, n_beta or localization; what was recorded is in the "
            "error's .samples",
            samples=next(iter(trees.values())) if len(trees) == 1 else trees,
        )
    return trees
