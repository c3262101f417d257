"""What lanes go on from: their state as it is saved, read back, and shared out among smaller passes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sltfast.results.store import Section, State
from sltfast.sampler.lanes import Cell, Lanes


def whose(cells: Sequence[Cell], lanes: Lanes) -> list[list[object]]:
    """Names and chains of the lanes that a state is of."""
    return [[cells[part.cell].name, list(part.chains)] for part in lanes.parts]


def saved_state(sections: Sequence[Section], owners: list[list[object]]) -> State | None:
    """The state that these sections hold of these very lanes; None where another call has begun some of them anew.

    Args:
        sections: of each part of the lanes.
        owners: from ``whose``.
    """
    states = [section.load_state() for section in sections]
    state = states[0]
    if state is None or any(one is None or one["lanes"] != owners or one["step"] < state["step"] for one in states):
        return None
    return state


def of_part(state: State, lanes: Lanes, part: Lanes, owners: list[list[object]]) -> State:
    """The state of some of the lanes, on the host.

    Args:
        state: of all of them; every tensor in it counts the lanes first, but for ``buffers``.
        lanes: they.
        part: some.
        owners: of the part, from ``whose``.
    """
    where, place = {}, 0
    for cell, chains in lanes.parts:
        for chain in chains:
            where[cell, chain] = place
            place += 1
    index = torch.tensor([where[cell, chain] for cell, chains in part.parts for chain in chains])

    def taken(value: object) -> object:
        return value.index_select(0, index.to(value.device)).cpu() if isinstance(value, Tensor) else value

    return {name: taken(value) for name, value in state.items()} | {"lanes": owners}


def hand_over(cells: Sequence[Cell], lanes: Lanes, parts: Sequence[Lanes], state: State | None) -> None:
    """Let smaller passes go on where a larger one was: their rows and states in sections of their own.

    Args:
        cells: of the run.
        lanes: of the pass that is given up; nothing of it waits to be written.
        parts: lanes of those that take its place.
        state: of all lanes; None: they start anew, and what was recorded is forgotten.
    """
    for part in lanes.parts:
        ranges = dict.fromkeys(one.chains for sub in parts for one in sub.parts if one.cell == part.cell)
        cells[part.cell].store.divide(part.chains, list(ranges), forget=state is None)
    if state is None:
        return
    for sub in parts:
        owners = whose(cells, sub)
        own = of_part(state, lanes, sub, owners)
        sections = [cells[part.cell].store.section(part.chains) for part in sub.parts]
        for section in sections[1:]:
            section.hand_over({"step": own["step"], "lanes": owners})
        sections[0].hand_over(own)
