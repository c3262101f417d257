"""The scripts that drop_in.py runs with both packages, as a user writes them, and the sizes of the regimes."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchmarks.models import Shape, mlp, neox, tokens, toy
from benchmarks.peers.devinterp_calls import INIT_LOSS_BATCHES, by_row_number, row_numbers, token_rows
from benchmarks.regimes import p02_toy, p03_mlp, p04_small_transformer, p05_pythia_shape, p07_bif, p08_heads

LLC = """
from devinterp.slt.llc import llc

result = llc(model, dataset, {}, loss_fn=loss_fn, device="cpu", **settings).load()
"""
BIF = """
from devinterp.slt.bif import compute_bif

result = compute_bif(samples, compute_covariance=False, device="cpu")
"""
SUSCEPTIBILITIES = """
from devinterp.slt.susceptibilities import susceptibilities
from devinterp.slt.weight_restrictions import create_param_masks

masks = {name: create_param_masks(model, part) for name, part in restrictions.items()}
result = susceptibilities(
    model, dataset, observables, masks, sampling_task="seen0", device="cpu", **settings
)
"""
ULP = 2.0**-24
Names = dict[str, Any]


@dataclass(frozen=True)
class DropIn:
    """A script, what it is given, and how its results compare.

    Attributes:
        regime: whose sizes these are.
        name: model and run.
        per: what a time is divided into.
        script: the text.
        names: what it finds defined, with our package.
        read: the array that both must agree on.
        allowed: how far apart the arrays may be, given devinterp's.
        work: units in a run of ours, and of devinterp.
        noiseless: what changes in `names` for the run with noise 0.
        theirs: what changes in `names` for devinterp, with the weight of its time; several are added up.
        target: of the ratio.
        note: what devinterp's side is.
    """

    regime: str
    name: str
    per: str
    script: str
    names: Names
    read: Callable[[Any], np.ndarray]
    allowed: Callable[[np.ndarray], float]
    work: tuple[float, float]
    noiseless: Names
    theirs: list[tuple[Names, float]] = field(default_factory=lambda: [({}, 1.0)])
    target: str = ""
    note: str = ""

    def __str__(self) -> str:
        return f"{self.regime} {self.name}"

    def without_noise(self) -> Names:
        return {**self.names, **self.noiseless}

    def parts(self, package: str) -> Iterator[tuple[Names, float]]:
        """What the script is given, and the weight of its time."""
        for changes, weight in self.theirs if package == "devinterp" else [({}, 1.0)]:
            yield {**self.names, **changes}, weight

    def units(self, package: str) -> float:
        return self.work[package == "devinterp"]


@dataclass(frozen=True)
class Recipe:
    """How to make a case, and the seconds of a round of both packages on one AVX-512 core."""

    make: Callable[..., DropIn]
    seconds: float


def _trace(result: Any) -> np.ndarray:
    return np.asarray(result["loss_trace"].values, dtype=np.float64)


def _trace_rounding(terms: int) -> Callable[[np.ndarray], float]:
    """Stored losses are float32, and so is the running sum of `terms` of them: terms·2⁻²⁴ of the mean, on each side."""
    return lambda trace: 2 * (terms + 1) * ULP * float(np.abs(trace).max())


def _settings(settings: Mapping[str, Any], chains: int, draws: int, batch: int) -> Names:
    run = {"num_chains": chains, "num_draws": draws, "batch_size": batch, "num_init_loss_batches": INIT_LOSS_BATCHES}
    return {**settings, **run}


def _still(settings: Names) -> Names:
    return {**settings, "num_chains": 2, "num_draws": 4, "noise_level": 0.0}


def _regression(regime: str, name: str, problem: Any, settings: Names, *, peer_chains: int, target: str) -> DropIn:
    x, y = problem.data
    chains, draws, batch = settings["num_chains"], settings["num_draws"], settings["batch_size"]
    names = {"model": problem.model, "dataset": row_numbers(len(x)), "loss_fn": by_row_number(problem.loss, x, y)}
    double = by_row_number(problem.loss, x.double(), y.double())
    return DropIn(
        regime,
        f"llc, {name}, {chains} chains × {draws}",
        "chain-step",
        LLC,
        {**names, "settings": settings},
        _trace,
        _trace_rounding(batch),
        (chains * draws, peer_chains * draws),
        {"model": copy.deepcopy(problem.model).double(), "loss_fn": double, "settings": _still(settings)},
        [({"settings": {**settings, "num_chains": peer_chains}}, 1.0)],
        target,
        f"{peer_chains} chains" if peer_chains != chains else "",
    )


def toy_llc(*, small: bool) -> DropIn:
    chains, draws = (16, 20) if small else (512, 200)
    settings = {key: value for key, value in p02_toy.SETTINGS.items() if key != "batch_size"}
    problem = toy(training_steps=100 if small else 1000)
    run = _settings(settings, chains, draws, 64)
    return _regression("P2", "TMS 18 parameters", problem, run, peer_chains=4, target="≥ 300×")


def mlp_llc(*, small: bool) -> DropIn:
    draws = 20 if small else 200
    settings = {key: value for key, value in p03_mlp.SETTINGS.items() if key != "batch_size"}
    problem = mlp((8, 16, 4), 128) if small else mlp()
    weights = sum(p.numel() for p in problem.model.parameters())
    run = _settings(settings, 8, draws, 64)
    return _regression("P3", f"MLP {weights:,} parameters", problem, run, peer_chains=8, target="≥ 10×")


def _language(regime: str, shape: Shape, settings: Mapping[str, Any], draws: int, target: str) -> DropIn:
    model = neox(shape)
    run = _settings(settings, shape.chains, draws, shape.batch)
    names = {"model": model, "dataset": token_rows(tokens(shape.vocabulary, shape.tokens)), "loss_fn": None}
    return DropIn(
        regime,
        f"llc, {shape}",
        "round",
        LLC,
        {**names, "settings": run},
        _trace,
        _trace_rounding(shape.batch * (shape.tokens - 1)),
        (draws, draws),
        {"model": copy.deepcopy(model).double(), "settings": _still(run)},
        target=target,
    )


def small_transformer_llc(*, small: bool) -> DropIn:
    shape, draws = (p04_small_transformer.TINY, 10) if small else (p04_small_transformer.SHAPE, 100)
    return _language("P4", shape, p04_small_transformer.SETTINGS, draws, "≥ 4×")


def pythia_llc(*, small: bool) -> DropIn:
    shape = p05_pythia_shape.TINY if small else p05_pythia_shape.SHAPE
    return _language("P5", shape, p05_pythia_shape.SETTINGS, 8, "≥ 1.8×")


def token_bif(*, small: bool) -> DropIn:
    sequences = 4 if small else 96
    size = f"{sequences} × {p07_bif.POSITIONS} × {p07_bif.CHAINS * p07_bif.DRAWS}"
    return DropIn(
        "P7",
        f"compute_bif of a tree, {size}",
        "call",
        BIF,
        {"samples": p07_bif.tree(p07_bif.losses(sequences))},
        lambda result: result["influences"].values[::7, ::7].astype(np.float64),
        lambda _: p07_bif.ATOL,
        (1, 1),
        {},  # there is no run: both read the same losses
        target="≥ 10×",
    )


def heads(*, small: bool) -> DropIn:
    shape, draws = (p08_heads.TINY, 4) if small else (p08_heads.SMALL, 4)
    problem = p08_heads.problem_of(shape)
    seen = {name: (token_rows(ids), 1) for name, ids in problem.observables.items()}
    names = [f"l{layer}h{head}" for layer in range(shape.layers) for head in range(shape.heads)]
    ends = [names[0], names[-1]]
    settings = _settings(p08_heads.SETTINGS, shape.chains, draws, shape.batch)
    given = {"model": problem.model, "dataset": token_rows(problem.ids), "observables": seen, "settings": settings}
    still = {"model": copy.deepcopy(problem.model).double(), "settings": _still(settings)}
    # χ is four means of products of two losses, each within 2 roundings of float32; as much again for their sums
    level = 2 * math.log(shape.vocabulary)
    everything = {"full": "full", **{name: name for name in names}}
    return DropIn(
        "P8",
        f"susceptibilities of all {len(names)} heads, {shape} × {draws}",
        "round",
        SUSCEPTIBILITIES,
        {**given, "restrictions": everything},
        lambda result: result["susceptibilities"].dataset["sus"].values.astype(np.float64),
        lambda _: 32 * ULP * level**2,
        (draws, draws),
        {**still, "restrictions": {"full": "full", **{name: name for name in ends}}},
        # to devinterp every restriction is the same work; full's, which moves more weights, is counted as a head's
        [({"restrictions": {"full": ends[0], ends[1]: ends[1]}}, len(everything) / 2)],
        "≥ 5×",
        f"{' and '.join(ends)} timed, × {len(everything) / 2:g}",
    )


CASES = {
    "P2": Recipe(toy_llc, 4.5),
    "P3": Recipe(mlp_llc, 8.5),
    "P4": Recipe(small_transformer_llc, 20),
    "P5": Recipe(pythia_llc, 60),
    "P7": Recipe(token_bif, 26),
    "P8": Recipe(heads, 45),
}
