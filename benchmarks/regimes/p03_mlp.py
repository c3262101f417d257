"""P3: an MLP of 26 thousand weights, 8 chains. Milliseconds a chain-step."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.case import Plan
from benchmarks.models import mlp
from benchmarks.regimes.estimates import regression_case
from benchmarks.timing import Timed

SETTINGS = {"lr": 1e-4, "n_beta": 100.0, "localization": 500.0, "batch_size": 64}


def cases(plan: Plan, regime: str) -> Iterator[Timed]:
    widths, rows, draws = ((8, 16, 4), 128, 20) if plan.tiny else ((64, 128, 128, 10), 1024, 200)
    problem = mlp(widths, rows)
    weights = sum(p.numel() for p in problem.model.parameters())
    yield regression_case(
        regime,
        f"MLP {weights:,} parameters, 8 chains × {draws}",
        problem,
        {**SETTINGS, "num_chains": 8, "num_draws": draws},
        peer_chains=8,
        target="≥ 10×; vmap ≥ 1.5×",
    )
