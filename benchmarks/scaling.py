"""How cost grows: curves over chains, draws, heads and parameters, each point a case like those of the regimes.

Sub-linear in chains until the cores are full; linear in draws; heads of a layer share what lies below; parameters at
the machine's bandwidth. Times are per chain-step, but of heads per round.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

from benchmarks.case import Measurable, Plan
from benchmarks.models import mlp
from benchmarks.regimes.estimates import regression_case
from benchmarks.regimes.p03_mlp import SETTINGS
from benchmarks.regimes.p08_heads import SMALL, TINY, heads_case, problem_of
from benchmarks.timing import Timed

NAME = "scaling"
TINY_WIDTHS, WIDTHS = (8, 16, 4), (64, 128, 128, 10)
PEER_STEPS = 400  # devinterp's chain-steps of a point: its time a chain-step does not depend on how many there are


def _point(axis: str, size: int, widths: tuple[int, ...], chains: int, draws: int) -> Timed:
    problem = mlp(widths)
    settings: dict[str, Any] = {**SETTINGS, "num_chains": chains, "num_draws": draws}
    settings["lr"] = min(SETTINGS["lr"], 0.1 / sum(p.numel() for p in problem.model.parameters()))
    peer_chains = max(1, min(chains, PEER_STEPS // draws))
    name = f"MLP {'-'.join(map(str, widths))}, {chains} chains × {draws}"
    return regression_case(NAME, name, problem, settings, peer_chains=peer_chains, axis=axis, size=size)


def over_chains(plan: Plan) -> Iterator[Timed]:
    widths, counts, draws = (TINY_WIDTHS, (2, 4), 12) if plan.tiny else (WIDTHS, (1, 2, 4, 8, 16, 32, 64), 100)
    for chains in counts[::2] if plan.small else counts:
        yield _point("chains", chains, widths, chains, draws)


def over_draws(plan: Plan) -> Iterator[Timed]:
    widths, lengths = (TINY_WIDTHS, (12, 24)) if plan.tiny else (WIDTHS, (50, 100, 200, 400, 800))
    for draws in lengths[::2] if plan.small else lengths:
        yield _point("draws", draws, widths, 4, draws)


def over_parameters(plan: Plan) -> Iterator[Timed]:
    sizes = (8, 16) if plan.tiny else (16, 64, 256, 1024, 2048)
    for width in sizes[:-1] if plan.small else sizes:
        widths = (16, width, width, 4)
        parameters = sum((inner + 1) * outer for inner, outer in pairwise(widths))
        yield _point("parameters", parameters, widths, 4, 12 if plan.tiny else 60)


def over_heads(plan: Plan) -> Iterator[Timed]:
    shape, draws = (TINY, 8) if plan.tiny else (SMALL, 4 if plan.small else 30)
    problem = problem_of(shape)
    for layer in (0, shape.layers - 1):
        for count in (1, 2) if plan.tiny else (1, 2, 4) if plan.small else (1, 2, 3, 4):
            name = f"{count} heads of layer {layer} of {shape.layers}"
            axis = f"heads, layer {layer}"
            yield heads_case(NAME, name, problem, shape, [layer], range(count), draws, axis=axis, size=count)


def curves(plan: Plan) -> Iterator[tuple[str, Iterable[Measurable]]]:
    """The curves by name."""
    yield "over chains", over_chains(plan)
    yield "over draws", over_draws(plan)
    yield "over parameters", over_parameters(plan)
    yield "over heads", over_heads(plan)
