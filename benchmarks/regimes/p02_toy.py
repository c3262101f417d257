"""P2: the toy model of superposition, 512 chains; devinterp runs 4, one after another. Milliseconds a chain-step."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.case import Plan
from benchmarks.models import toy
from benchmarks.regimes.estimates import regression_case
from benchmarks.timing import Timed

SETTINGS = {"lr": 1e-3, "n_beta": 100.0, "localization": 10.0, "batch_size": 64}


def cases(plan: Plan, regime: str) -> Iterator[Timed]:
    chains, draws = (16, 20) if plan.tiny else (512, 200)
    yield regression_case(
        regime,
        f"TMS 18 parameters, {chains} chains × {draws}",
        toy(training_steps=100 if plan.tiny else 1000),
        {**SETTINGS, "num_chains": chains, "num_draws": draws},
        peer_chains=4,
        compiled=not plan.tiny,
        target="≥ 300×; vmap ≥ 1.2×, compiled ≥ 2×",
    )
