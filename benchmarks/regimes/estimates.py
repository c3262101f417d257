"""Cases of one kind: ``llc()`` of ours, of devinterp's, and of plain loops, each judged by its λ̂."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import sltfast
from benchmarks import floors, other_ops
from benchmarks.agreement import Estimate, estimates_agree, of_ours, of_trace
from benchmarks.case import Case, Side
from benchmarks.models import Regression, Shape, language_level, neox, next_token_losses, tokens
from benchmarks.peers import devinterp_calls
from benchmarks.peers.eager_loop import eager_loop
from benchmarks.peers.vmap_loop import VmapLoop
from benchmarks.timing import Timed, repeated

Settings = dict[str, Any]


def ours(model: Any, data: Any, settings: Settings, **options: Any) -> Any:
    """Our call: the mean over every step, as the others have it."""
    return sltfast.llc(model, data, device="cpu", progress=False, include_burnin=True, **settings, **options)


def chain_steps(settings: Settings) -> int:
    """Steps of a run, over all chains."""
    return int(settings["num_chains"]) * int(settings["num_draws"])


def regression_case(
    regime: str,
    name: str,
    problem: Regression,
    settings: Settings,
    *,
    peer_chains: int,
    compiled: bool = False,
    target: str = "",
    axis: str = "",
    size: float | None = None,
) -> Timed:
    """Milliseconds a chain-step of a model with a loss function.

    Args:
        regime: its name.
        name: the case's.
        problem: model and data.
        settings: of ``llc``.
        peer_chains: chains that devinterp runs, one after another: its time a chain-step does not depend on them.
        compiled: also a compiled vmap loop; its warm-up is on record apart.
        target: of the ratio.
        axis: of a scaling curve.
        size: the point on it.
    """
    x, y = problem.data
    level, n_beta = problem.level(), settings["n_beta"]
    theirs = {**settings, "num_chains": peer_chains}
    rows, loss_fn = cache(devinterp_calls.row_numbers), devinterp_calls.by_row_number(problem.loss, x, y)

    def read(trace: Any) -> Estimate:
        return of_trace(trace, level, n_beta)

    steps = chain_steps(settings)
    peers = {
        devinterp_calls.NAME: Side(
            lambda: devinterp_calls.llc(problem.model, rows(len(x)), loss_fn=loss_fn, **theirs),
            units=chain_steps(theirs),
            read=lambda result: read(result["loss_trace"].values),
            note=f"{peer_chains} chains" if peer_chains != settings["num_chains"] else "",
        ),
        "vmap loop": Side(VmapLoop(problem.model, problem.loss, problem.data, settings), steps, read),
    }
    if compiled:
        loop = VmapLoop(problem.model, problem.loss, problem.data, settings, compiled=True)
        peers["vmap loop, compiled"] = Side(loop, steps, read, "compilation is in the warm-up")
    batch = tuple(part[: settings["batch_size"]] for part in problem.data)
    products = floors.products_of(lambda: problem.loss(problem.model, batch).mean())
    coordinates, lanes = sum(p.numel() for p in problem.model.parameters()), settings["num_chains"]
    together = tuple(part.repeat(lanes, *[1] * (part.ndim - 1)) for part in batch)
    others = other_ops.other_ops_of(lambda: problem.loss(problem.model, together).mean())
    problem.model.zero_grad(set_to_none=True)
    return Timed(
        Case(
            regime,
            name,
            "chain-step",
            Side(lambda: ours(problem.model, problem.data, settings, loss_fn=problem.loss), steps, of_ours),
            peers,
            {
                "floor: GEMMs": repeated(floors.gemms(products, lanes), lanes),
                "floor: triad": repeated(floors.triad(coordinates, lanes), lanes),
                other_ops.NAME: repeated(others.again, lanes),
            },
            estimates_agree,
            target,
            axis,
            size,
        )
    )


def language_case(
    regime: str,
    name: str,
    model: Any,
    ids: Any,
    settings: Settings,
    *,
    extra: Mapping[str, Side] | None = None,
    target: str = "",
    axis: str = "",
    size: float | None = None,
) -> Timed:
    """Milliseconds a round, one step of all chains, of a whole ``llc()`` of a language model's every weight."""
    n_beta, level = settings["n_beta"], language_level(model, ids)
    rounds, lanes = settings["num_draws"], settings["num_chains"]
    rows = devinterp_calls.token_rows(ids)

    def read(trace: Any) -> Estimate:
        return of_trace(trace, level, n_beta)

    peers = {
        devinterp_calls.NAME: Side(
            lambda: devinterp_calls.llc(model, rows, **settings),
            rounds,
            lambda result: read(result["loss_trace"].values),
        ),
        "eager loop": Side(lambda: eager_loop(model, ids, settings), rounds, read),
    }
    for other, side in (extra or {}).items():
        peers[other] = Side(side.run, side.units, read, side.note)
    batch = ids[: settings["batch_size"]]
    products = floors.products_of(lambda: next_token_losses(model, batch).mean())
    others = other_ops.other_ops_of(lambda: other_ops.hidden_states(model, batch.repeat(lanes, 1)))
    model.zero_grad(set_to_none=True)
    return Timed(
        Case(
            regime,
            name,
            "round",
            Side(lambda: ours(model, rows, settings), rounds, of_ours),
            peers,
            {
                "floor: GEMMs": repeated(floors.gemms(products, lanes)),
                "floor: triad": repeated(floors.triad(sum(p.numel() for p in model.parameters()), lanes)),
                other_ops.NAME: repeated(others.again),
            },
            estimates_agree,
            target,
            axis,
            size,
        )
    )


def shaped_case(regime: str, shape: Shape, settings: Settings, *, vmapped: bool = False, **facts: Any) -> Timed:
    """``language_case`` of a random GPT-NeoX on random tokens; `vmapped` adds a vmap loop (with eager attention)."""
    model, ids = neox(shape), tokens(shape.vocabulary, shape.tokens)
    settings = {**settings, "num_chains": shape.chains, "batch_size": shape.batch}
    extra = {}
    if vmapped:
        causal = _causal_mask(shape.tokens)
        loop = VmapLoop(
            neox(shape, eager_attention=True),
            lambda call, batch: next_token_losses(lambda rows: call(rows, attention_mask=causal), batch),
            ids,
            settings,
        )
        extra["vmap loop"] = Side(loop, settings["num_draws"], note="eager attention")
    name = facts.pop("name", str(shape))
    return language_case(regime, name, model, ids, settings, extra=extra, **facts)


def _causal_mask(positions: int) -> Any:
    """[1, 1, T, T]: under vmap transformers cannot build its own."""
    import torch

    return torch.full((positions, positions), -torch.inf).triu(1)[None, None]
