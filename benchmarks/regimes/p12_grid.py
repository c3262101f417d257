"""P12: a grid of 3 × 3 × 3 hyperparameters in one call, against 27 calls of our own ``llc()``. Milliseconds a grid."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import sltfast
from benchmarks.agreement import Estimate, of_ours, tables_agree
from benchmarks.case import Case, Plan, Side, Unavailable
from benchmarks.models import neox, tokens, toy
from benchmarks.regimes.p04_small_transformer import SETTINGS, SHAPE, TINY
from benchmarks.timing import Timed

AXES = ("lr", "n_beta", "localization")
TOY = {"lr": 1e-3, "n_beta": 100.0, "localization": 10.0, "batch_size": 64}
Cell = tuple[float, ...]


def grid_around(settings: dict[str, Any]) -> dict[str, list[float]]:
    """Half, once and twice each of AXES."""
    return {axis: [factor * settings[axis] for factor in (0.5, 1.0, 2.0)] for axis in AXES}


def cells_of(result: Any) -> dict[str, Estimate]:
    """λ̂ and SE of every cell of ``sltfast.sweep``, by its settings."""
    mean, error = (result[name].transpose(*AXES) for name in ("llc_mean", "llc_se"))
    places = itertools.product(*(range(mean.sizes[axis]) for axis in AXES))
    found = {}
    for place in places:
        cell = mean[place]
        found[named(tuple(float(cell[axis]) for axis in AXES))] = Estimate(float(cell), float(error[place]))
    return found


def named(cell: Cell) -> str:
    return ", ".join(f"{axis} {value:g}" for axis, value in zip(AXES, cell, strict=True))


def case(regime: str, name: str, model: Any, data: Any, settings: dict[str, Any], target: str, **options: Any) -> Timed:
    grid = grid_around(settings)
    rest = {key: value for key, value in settings.items() if key not in AXES}
    rest |= {"device": "cpu", "progress": False, **options}

    def one_by_one() -> dict[str, Any]:
        return {
            named(cell): sltfast.llc(model, data, **dict(zip(AXES, cell, strict=True)), **rest)
            for cell in itertools.product(*grid.values())
        }

    return Timed(
        Case(
            regime,
            name,
            "grid",
            Side(lambda: sltfast.sweep(model, data, **grid, **rest), read=cells_of),
            {"27 calls": Side(one_by_one, read=lambda runs: {cell: of_ours(run) for cell, run in runs.items()})},
            {},
            tables_agree,
            target,
        )
    )


def cases(plan: Plan, regime: str) -> Iterator[Timed]:
    if not hasattr(sltfast, "sweep"):
        raise Unavailable("this version of sltfast has no sweep(): there is nothing to compare 27 calls with")
    chains, draws = (2, 8) if plan.tiny else (4, 100)
    problem = toy(training_steps=100 if plan.tiny else 1000)
    lengths = {"num_chains": chains, "num_draws": draws}
    settings: dict[str, Any] = {**TOY, **lengths}
    name = f"TMS 18 parameters, {chains} chains × {draws}"
    yield case(regime, name, problem.model, problem.data, settings, "≥ 5×", loss_fn=problem.loss)
    shape = TINY if plan.tiny else SHAPE
    settings = {**SETTINGS, "batch_size": shape.batch, "num_chains": 2, "num_draws": 8 if plan.tiny else 20}
    name = f"GPT-NeoX {shape.layers} × {shape.width}, 2 chains × {settings['num_draws']}"
    yield case(regime, name, neox(shape), tokens(shape.vocabulary, shape.tokens), settings, "≥ 1.5×")
