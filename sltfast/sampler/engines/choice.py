"""Which engine a run takes, and why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from torch import nn

from sltfast.sampler.config import SamplerConfig
from sltfast.sampler.engines.engine import Engine
from sltfast.sampler.shortage import ran_out_of_memory

LADDER = ("stacked", "vmap", "sequential")
"""From doing most together to asking least of the model."""
COMPILED = "compiled"
"""Asked for: the engine that can be compiled, before the others."""


class EngineChoice(NamedTuple):
    """``name`` of an engine; ``why`` not one further up the ladder, "" where it is the first; ``facts`` about it."""

    name: str
    why: str
    facts: dict[str, Any]


def ladder(requested: str, config: SamplerConfig, model: nn.Module) -> tuple[tuple[str, ...], str]:
    """The engines to try, and what rules out the others already."""
    rescaled = [name for name, m in model.named_modules() if getattr(m, "max_norm", None) is not None]
    reason = f"{rescaled[0]!r} rescales its weights in every forward (max_norm)" if rescaled else ""
    if config.mode == "train":
        reason = "mode='train' draws dropout and batch statistics chain by chain"
    elif config.precision == "tf32":
        reason = "precision='tf32' rounds the operands of each chain's products by itself"
    if not reason:
        if requested == COMPILED:
            return ("vmap", "stacked", "sequential"), ""
        return (LADDER if requested == "auto" else (requested,)), ""
    if requested not in ("auto", COMPILED, "sequential"):
        raise ValueError(f"engine={requested!r} cannot be used here: {reason} (engine='auto' picks one that can)")
    return ("sequential",), reason


def choose(
    requested: str,
    config: SamplerConfig,
    model: nn.Module,
    build: Callable[[str], Engine],
    disagreement: Callable[[Engine], str | None],
    *,
    fewest: bool = True,
) -> EngineChoice:
    """Try engines from the top of the ladder and take the first that agrees with one chain.

    Args:
        requested: "auto", COMPILED or an engine's name.
        config: the run's.
        model: the run's.
        build: makes an engine of a few lanes by name.
        disagreement: says how it differs from one chain (``agreement.disagreement``).
        fewest: no fewer lanes can be tried: an engine for which memory runs out is passed over.

    Raises:
        ValueError: the engine that was asked for cannot be used; the message says why.
        Exception: memory ran out, where fewer lanes can be tried.
    """
    names, reason = ladder(requested, config, model)
    reasons = [reason] if reason else []
    for name in names:
        if name == "sequential":
            return EngineChoice(name, "; ".join(reasons), {})
        try:
            engine = build(name)
            refusal = disagreement(engine)
            facts = engine.facts()
            engine.close()
        except Exception as error:
            if not fewest and ran_out_of_memory(error):
                raise
            refusal = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
        if refusal is None:
            return EngineChoice(name, "; ".join(reasons), facts)
        reasons.append(f"{name}: {refusal}")
    raise ValueError(f"engine={requested!r} cannot be used here: {reasons[-1]} (engine='auto' picks one that can)")
