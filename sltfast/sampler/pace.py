"""How many lanes go through a model fastest, by the clock, for a small part of the time that the run will take."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

SHARE = 0.025  # of the run, spent on measuring at most
SHORT_SECONDS = 2.0  # a run this short gains less than it costs to look
GAIN, NOISE = 0.05, 0.10  # a step this much faster counts; one this much slower ends the search
WARM, REPEATS = 1, 2  # steps before the clock is read, and steps of which the fastest counts


class Candidate(NamedTuple):
    """An engine's name, and chains of each restriction that go together."""

    engine: str
    chains: int


class Pace(NamedTuple):
    """What was taken, and why; ``milliseconds`` a chain-step of everything that was measured."""

    taken: Candidate
    why: str
    milliseconds: dict[Candidate, float]


def candidates(engine: str, largest: int, *, others: bool) -> list[Candidate]:
    """The largest pass that memory allows, halves of it down to one chain, and one chain alone.

    Args:
        engine: the one chosen for many chains.
        largest: chains.
        others: whether the engine that runs one chain after another may be taken instead.
    """
    sizes = [largest]
    while sizes[-1] > 1:
        sizes.append(sizes[-1] // 2)
    alone = [Candidate("sequential", 1)] if others and engine != "sequential" else []
    return [Candidate(engine, size) for size in sizes] + alone


def fastest(options: Sequence[Candidate], chain_steps: int, measure: Callable[[Candidate, int], list[float]]) -> Pace:
    """Measure candidates in order while that is cheap against the run, and take the fastest.

    Sizes are halved until a chain-step gets slower; ties go to the larger pass, measured first.

    Args:
        options: candidates, the one to take without a clock first.
        chain_steps: steps of all chains of the run.
        measure: seconds of ``n`` consecutive steps of a candidate, the first of them cold.
    """
    first = options[0]
    known: dict[Candidate, float] = {}
    if len(options) < 2 or (WARM + 1) * first.chains + (WARM + REPEATS) * options[1].chains > SHARE * chain_steps:
        return Pace(first, "too few steps to measure others", known)
    best, spent, halving = first, 0.0, True
    for option in options:
        if option.engine == first.engine and not halving:
            continue
        if known:
            left = SHARE * chain_steps * known[best] - spent
            if (WARM + REPEATS) * option.chains * known[best] > left:
                break
        seconds = measure(option, WARM + (REPEATS if known else 1))
        spent += sum(seconds)
        each = min(seconds[WARM:]) / option.chains
        known[option] = each
        if option is first and each * chain_steps < SHORT_SECONDS:
            return Pace(first, "a short run", _milliseconds(known))
        if each < (1.0 - GAIN) * known[best]:
            best = option
        halving = halving and each <= (1.0 + NOISE) * known[best]
    return Pace(best, "measured fastest", _milliseconds(known))


def _milliseconds(known: dict[Candidate, float]) -> dict[Candidate, float]:
    return {option: 1e3 * seconds for option, seconds in known.items()}


def seconds_of(step: Callable[[], object], count: int, clock: Callable[[], float]) -> list[float]:
    """How long each of ``count`` steps takes."""
    seconds = []
    for _ in range(count):
        begun = clock()
        step()
        seconds.append(clock() - begun)
    return seconds
