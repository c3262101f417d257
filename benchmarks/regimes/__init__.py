"""The registry: every regime by name, and where its cases are made."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module

from benchmarks.case import Measurable, Plan


@dataclass(frozen=True)
class Regime:
    """A regime of the design's table of targets.

    Attributes:
        title: in a few words.
        module: of this package; its ``cases(plan, name)`` yields the cases.
        long: minutes a case: measured only when named, or with --full.
    """

    title: str
    module: str
    long: bool = False


REGIMES = {
    "P1": Regime("update step alone", "p01_step"),
    "P2": Regime("toy model, many chains", "p02_toy"),
    "P3": Regime("MLP", "p03_mlp"),
    "P4": Regime("small transformer, llc()", "p04_small_transformer"),
    "P5": Regime("Pythia-14M shape, llc()", "p05_pythia_shape"),
    "P6": Regime("per-token losses", "p06_token_loss"),
    "P7": Regime("Bayesian influence of tokens", "p07_bif"),
    "P8": Regime("every attention head", "p08_heads"),
    "P9": Regime("peak memory", "p09_memory"),
    "P10": Regime("counts a step", "p10_counts"),
    "P11": Regime("per-sample gradient norms", "p11_per_sample"),
    "P12": Regime("hyperparameter grid", "p12_grid"),
    "P13": Regime("SmolLM2-135M", "p13_smollm2", long=True),
}


def chosen(names: list[str] | None, *, full: bool) -> list[str]:
    """The regimes asked for, in the order of the registry.

    Raises:
        ValueError: one that is not in the registry.
    """
    if names is None:
        return [name for name, regime in REGIMES.items() if full or not regime.long]
    wanted = {name.upper() for name in names}
    unknown = sorted(wanted - set(REGIMES))
    if unknown:
        table = ", ".join(f"{name} ({regime.title})" for name, regime in REGIMES.items())
        raise ValueError(f"unknown regime {', '.join(unknown)}: there are {table}")
    return [name for name in REGIMES if name in wanted]


def cases(name: str, plan: Plan) -> Iterator[Measurable]:
    """The cases of a regime, made one at a time, so that one's memory is free before the next.

    Raises:
        Unavailable: what all of them need is missing.
    """
    made: Iterator[Measurable] = import_module(f"benchmarks.regimes.{REGIMES[name].module}").cases(plan, name)
    yield from made
