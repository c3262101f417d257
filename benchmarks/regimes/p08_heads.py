"""P8: the sampling behind the susceptibilities of every attention head. Milliseconds a round.

A round is one step of every chain of every head, its draw's observables included. devinterp samples one restriction
after another; one head of each of a few layers is timed and scaled to all, as the heads of a layer are the same work.
Without --full a chain makes 16 draws instead of 100, and the Pythia-14M shape is left out.
The floor: the products up to the last of the layers once, and behind each layer's output those of every chain of
every head (forward and back), and of its observables (forward). The other ops are those behind each layer's output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from benchmarks import floors, other_ops
from benchmarks.case import Case, Plan, Side
from benchmarks.models import Shape, neox, tokens
from benchmarks.peers import devinterp_calls
from benchmarks.regimes.restrictions import Sampling, compared, floor_products, masks_of, other_ops_behind, sample_all
from benchmarks.timing import Timed, repeated

SMALL = Shape(layers=6, width=128, heads=4, vocabulary=512, tokens=64, batch=8, chains=4)
PYTHIA = Shape(layers=6, width=128, heads=4, vocabulary=50_304, tokens=128, batch=4, chains=4)
TINY = Shape(layers=2, width=16, heads=2, vocabulary=64, tokens=8, batch=4, chains=2)
SETTINGS = {"lr": 1e-3, "n_beta": 30.0, "localization": 100.0}
OBSERVABLES = 3


@dataclass(frozen=True)
class Problem:
    """A model, its tokens and what is read at every draw."""

    model: Any
    ids: Tensor
    observables: dict[str, Tensor]


def problem_of(shape: Shape) -> Problem:
    rows = max(64, 4 * shape.batch)
    seen = {f"seen{k}": tokens(shape.vocabulary, shape.tokens, rows, seed=10 + k) for k in range(OBSERVABLES)}
    return Problem(neox(shape), tokens(shape.vocabulary, shape.tokens), seen)


def heads_case(
    regime: str,
    name: str,
    problem: Problem,
    shape: Shape,
    layers: Sequence[int],
    heads: Sequence[int],
    draws: int,
    *,
    timed: Sequence[int] | None = None,
    stem: str = "gpt_neox.layers",
    settings: Mapping[str, float] = SETTINGS,
    target: str = "",
    axis: str = "",
    size: float | None = None,
) -> Timed:
    """All `heads` of `layers` together.

    Args:
        regime: its name.
        name: the case's.
        problem: from ``problem_of``.
        shape: of the model and the run.
        layers: whose heads move, one head at a time.
        heads: of each layer.
        draws: of every chain.
        timed: layers of which devinterp samples one head each (default: the first and the last).
        stem: where the model keeps its layers.
        settings: lr, n_beta and localization.
        target: of the ratio.
        axis: of a scaling curve.
        size: the point on it.
    """
    timed = timed if timed is not None else sorted({layers[0], layers[-1]})
    masks = masks_of(problem.model, [f"l{layer}h{head}" for layer in layers for head in heads])
    settings = {**settings, "num_draws": draws, "num_chains": shape.chains, "batch_size": shape.batch}
    run = Sampling(problem.model, problem.ids, problem.observables, settings)
    samples = [f"l{layer}h{heads[0]}" for layer in timed]
    scale = len(layers) * len(heads) / len(samples)
    lanes = shape.chains * len(heads)
    floor = []
    others: list[Any] = []
    for layer in layers:
        prefix, suffix, seen = floor_products(problem.model, f"{stem}.{layer}", problem.ids[: shape.batch])
        floor += [
            floors.gemms(suffix, lanes, shared=True),
            floors.gemms(seen, lanes * len(problem.observables), shared=True),
        ]
        rows = problem.ids[: shape.batch].repeat(lanes, 1)
        step, seen_only = other_ops_behind(problem.model, f"{stem}.{layer}", rows)
        others += [step.again, *[seen_only.again] * len(problem.observables)]
    floor.append(floors.gemms(prefix, 1))  # of the last layer, which has passed all the others

    def run_all(parts: Sequence[Callable[[], None]]) -> None:
        for part in parts:
            part()

    ours_note, ours = sample_all(run, masks)
    return Timed(
        Case(
            regime,
            name,
            "round",
            Side(ours, draws, run.estimates, ours_note),
            {
                devinterp_calls.NAME: Side(
                    lambda: {head: run.by_devinterp(masks[head]) for head in samples},
                    draws / scale,
                    run.estimates,
                    f"{', '.join(samples)} timed, × {scale:g}",
                )
            },
            {
                "floor: GEMMs": repeated(lambda: run_all(floor)),
                other_ops.NAME: repeated(lambda: run_all(others)),
            },
            compared,
            target,
            axis,
            size,
        )
    )


def cases(plan: Plan, regime: str) -> Iterator[Timed]:
    shape, draws = (TINY, 8) if plan.tiny else (SMALL, 100 if plan.full else 16)
    problem, heads = problem_of(shape), range(shape.heads)
    some = range(shape.layers) if plan.full or plan.tiny else (0, shape.layers // 2, shape.layers - 1)
    words = f"6 × {shape.width}, V {shape.vocabulary}" if not plan.tiny else "tiny"
    yield heads_case(regime, f"{words}: every head", problem, shape, range(shape.layers), heads, draws, target="≥ 5×")
    for layer in some:
        yield heads_case(regime, f"{words}: heads of layer {layer}", problem, shape, [layer], heads, draws)
    if not plan.full:  # half an hour
        return
    del problem
    problem = problem_of(PYTHIA)
    yield heads_case(
        regime, "Pythia-14M shape: every head", problem, PYTHIA, range(PYTHIA.layers), heads, 8, target="≥ 2×"
    )
