"""Plan the passes over chains that are left, lay out their stores, run them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack

import numpy as np

from sltfast.chains.asked import Asked
from sltfast.chains.places import Place, replace
from sltfast.chains.prepared import Prepared
from sltfast.results.full_disk import telling
from sltfast.results.record import start_values
from sltfast.results.store import Store
from sltfast.results.writer import Writer
from sltfast.sampler.baseline import Baseline
from sltfast.sampler.engines.build import EngineBuilder
from sltfast.sampler.feed import PinnedCopies
from sltfast.sampler.lanes import Cell
from sltfast.sampler.memory import copied_bytes, lane_record_bytes, record_bytes
from sltfast.sampler.observed import Observed
from sltfast.sampler.plan import Plan, Planner
from sltfast.sampler.problem import Problem
from sltfast.sampler.progress import Progress
from sltfast.sampler.run import Run
from sltfast.sampler.weight_reading import weight_elements
from sltfast.stacking.prefix import Memo


def run_passes(asked: Asked, prepared: Prepared, left: Sequence[Place], held: ExitStack) -> dict[str, Store]:
    """Sample the restrictions that are not complete.

    Args:
        asked: the call.
        prepared: its set-up.
        left: what is to be sampled; their attributes get the plan and the deaths.
        held: what is open until the run has ended.

    Returns:
        Stores by name.
    """
    config, request = asked.config, asked.request
    planner = _planner(asked, prepared, left)
    plan = planner.plan({cell: place.existing.plan for cell, place in enumerate(left) if place.existing.plan})
    for cell, place in enumerate(left):
        place.attrs["sltfast"] |= {"plan": plan.record(cell, place.restriction), "deaths": {}}
    if request.plan:
        print(plan.text())  # noqa: T201  (what was asked for)
    with Progress(config.num_steps * config.num_chains * len(left), shown=request.progress) as bar:
        at_init, observed, start = _losses_at_start(asked, prepared, bar)
        replace(left)
        held.enter_context(telling([place.path for place in left if place.path is not None], prepared.specs))
        stores = {place.name: place.store(prepared, start) for place in left}
        problem = Problem(
            config=config,
            loss=asked.loss,
            streams=asked.streams,
            observables=prepared.observables,
            cells=[Cell(place.name, place.restriction, stores[place.name]) for place in left],
            init_losses=at_init,
            recording=prepared.recording,
            observed=observed,
            device=asked.device,
            save_token_losses=request.save_token_losses,
            weights=asked.weights,
            tokens=any(spec.name == "sampling_input_ids_micro" for spec in prepared.specs),
            writer=Writer(threaded=_on_disk(left) or asked.device.type == "cuda"),
            progress=bar,
            planner=planner,
            copies=PinnedCopies(asked.device) if asked.device.type == "cuda" else None,
            not_captured=plan.not_captured,
            plans=[place.attrs["sltfast"]["plan"] for place in left],
            deaths=[place.attrs["sltfast"]["deaths"] for place in left],
        )
        _run(problem, plan)
    return stores


def _on_disk(left: Sequence[Place]) -> bool:
    return any(place.path is not None for place in left)


def _planner(asked: Asked, prepared: Prepared, left: Sequence[Place]) -> Planner:
    config, clone, seen, sizing = asked.config, prepared.clone, prepared.observables, prepared.sizing
    builder = EngineBuilder(
        config,
        clone,
        asked.loss,
        asked.streams,
        asked.device,
        [place.restriction for place in left],
        Memo(sizing.budget),
        seen,
        asked.request.compile,
        prepared.shapes.outline,
    )
    on_disk = _on_disk(left)
    kept = {
        "model": copied_bytes(asked.model, clone),
        **record_bytes(config, prepared.specs, seen, runs=len(left), on_disk=on_disk),
    }
    sizing.use(builder, seen, kept, lane_record_bytes(prepared.specs, on_disk=on_disk))
    return Planner(config, asked.request, builder, sizing, prepared.no_logits)


def _losses_at_start(
    asked: Asked, prepared: Prepared, bar: Progress
) -> tuple[np.ndarray, dict[str, Observed], Mapping[str, np.ndarray]]:
    """Losses at w* of mini-batches and of observables, and the arrays that stand before the first step."""
    config, request, seen, shapes = asked.config, asked.request, prepared.observables, prepared.shapes
    recorded = shapes.positions if request.save_token_losses or config.num_init_loss_batches else None
    baseline = Baseline(
        prepared.clone, asked.loss, asked.streams, config, asked.device, bar.baseline, recorded, shapes.first
    )
    at_init = baseline.step_losses(config.num_steps)
    observed = {one.id: baseline.observed(one) for one in seen}
    start = start_values(baseline, at_init, config, seen, observed, dataset_loss=request.dataset_init_loss)
    if asked.weights is not None:
        start["element"] = weight_elements(asked.model, asked.weights)
    return at_init, observed, start


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
