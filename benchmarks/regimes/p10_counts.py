"""P10: counts of one step of all chains of a model with GPT-2-small's tensors (148 of them, small).

Between draws (a draw's records are another matter), and what a draw adds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import sltfast
from benchmarks.case import Deferred, Plan, Result, Unavailable, Variant
from benchmarks.counting import a_step
from benchmarks.models import tokens
from benchmarks.peers import devinterp_calls
from benchmarks.timing import quiet

SETTINGS = {"lr": 1e-6, "n_beta": 10.0, "localization": 100.0, "batch_size": 4}
METHODS = {
    "SGLD": {"sampling_method": "sgmcmc_sgld"},
    "RMSprop": {"sampling_method": "rmsprop_sgld"},
    "SGLD, metrics": {"sampling_method": "sgmcmc_sgld", "save_metrics": True},
}
FLOORS = {"update launches": 1.0, "host syncs": 0.0}
COUNTED = {  # and their units
    "update launches": "launches",
    "model launches": "launches",
    "host syncs": "syncs",
    "copies to the host": "copies",
    "update bytes": "bytes a coordinate",
}


def gpt2(layers: int) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    shape = {"n_embd": 24, "n_layer": layers, "n_head": 4, "n_positions": 16, "vocab_size": 64}
    quiet_layers = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}  # one side samples in train mode
    return GPT2LMHeadModel(GPT2Config(**shape, **quiet_layers, bos_token_id=0, eos_token_id=0, use_cache=False)).eval()


def runs(model: Any, options: dict[str, Any], chains: int, plan: Plan) -> dict[str, tuple[Any, Any, Any, str]]:
    """By side: a run of that many steps between two draws, a run of that many draws, the update's class and method."""
    rows = devinterp_calls.token_rows(tokens(64, 16, rows=64))
    settings = {**SETTINGS, **options, "num_chains": chains}

    def ours(**length: int) -> None:
        sltfast.sample(model, rows, device="cpu", progress=False, num_init_loss_batches=0, **settings, **length)

    def theirs(**length: int) -> None:
        devinterp_calls.sample(model, rows, {}, **settings, **length)

    def both(call: Callable[..., None]) -> tuple[Any, Any]:
        return (
            lambda steps: call(num_draws=4, num_steps_bw_draws=steps),
            lambda draws: call(num_draws=draws, num_steps_bw_draws=1),
        )

    try:
        from sltfast.sampler.transition import Transition
    except ImportError as error:
        raise Unavailable("sltfast.sampler.transition has no Transition: say here what its update is now") from error
    found = {"ours": (*both(ours), Transition, "step")}
    if devinterp_calls.NAME not in plan.without:
        devinterp_calls.need()
        from devinterp.optim import SGMCMC

        found[devinterp_calls.NAME] = (*both(theirs), SGMCMC, "step")
    return found


def measured(plan: Plan, regime: str, word: str, chains: int) -> list[Result]:
    layers = 2 if plan.tiny else 12
    model = gpt2(layers)
    coordinates = chains * sum(p.numel() for p in model.parameters())
    between: dict[str, dict[str, float]] = {}
    draws: dict[str, dict[str, float]] = {}
    with quiet():
        for side, (steps_run, draws_run, owner, update) in runs(model, METHODS[word], chains, plan).items():
            counts = a_step(steps_run, owner, update, (2, 6))
            between[side] = {key: value / 4 for key, value in counts.items()}  # there are 4 draws to step between
            draws[side] = a_step(draws_run, owner, update)
    results = []
    for quantity, unit in COUNTED.items():
        scale = coordinates if quantity == "update bytes" else 1
        values = {side: counts.get(quantity, 0.0) / scale for side, counts in between.items()}
        if quantity in FLOORS:
            values["floor"] = FLOORS[quantity]
        variants = {}
        for side, value in values.items():
            role = side if side in ("ours", "floor") else "peer"
            ratio = value / values["ours"] if values["ours"] else float("inf" if value else "nan")
            extra = draws.get(side, {}).get(quantity, 0.0) / scale
            note = f"{extra:g} in a step that draws" if side in draws else ""
            variants[side] = Variant(role, value, value, value, ratio, note=note)
        target = {"update launches": "1", "host syncs": "0"}.get(quantity, "")
        results.append(
            Result(regime, f"{word}, {chains} chains: {quantity}", unit, "step of all chains", variants, target)
        )
    return results


def cases(plan: Plan, regime: str) -> Iterator[Deferred]:
    for word in METHODS:
        name = f"{word}, 4 chains"
        yield Deferred(regime, name, lambda plan, w=word: measured(plan, regime, w, 4))  # type: ignore[misc]
