"""The loop: passes, steps, draws. It knows batches and weights, and nothing of estimators."""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from sltfast.errors import NotEnoughMemory, PassShrunk
from sltfast.results.store import State
from sltfast.sampler.capture import CudaGraphs, StepCapture
from sltfast.sampler.engines.engine import Engine
from sltfast.sampler.flight import Flight
from sltfast.sampler.handover import hand_over, saved_state, whose
from sltfast.sampler.lanes import Lanes
from sltfast.sampler.problem import Problem
from sltfast.sampler.shortage import LESS, first_line, give_back, ran_out_of_memory
from sltfast.sampler.shrinking import Limit, size_of, smaller, within
from sltfast.sampler.transition import Transition


class Run:
    """Runs groups of passes; those of a group go through each step together, so that they can share its work.

    Where memory runs out, a group's place is taken by smaller ones (``shrinking``), which go on from where it was; so
    are the groups after it.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self._last: tuple[tuple[int, ...], int, Engine, Transition, StepCapture] | None = None
        self._lost: list[State | None] = []

    def chains(self, groups: Sequence[Sequence[Lanes]]) -> None:
        """Run every pass that an earlier call did not finish.

        Raises:
            NotEnoughMemory: one chain alone has no room.
        """
        waiting = deque(groups)
        while waiting:
            group = waiting.popleft()
            left = [lanes for lanes in group if not self._done(lanes)]
            self.problem.progress.skip(self.problem.config.num_steps * (sum(map(len, group)) - sum(map(len, left))))
            if left and (why := self._together(left)):
                waiting = self._shrunk(left, why, waiting)

    def _done(self, lanes: Lanes) -> bool:
        return all(self.problem.cells[part.cell].store.is_done(part.chains) for part in lanes.parts)

    def _together(self, group: Sequence[Lanes]) -> str:
        """Run a group to its end; where memory ran out, what was said of it, and in ``_lost`` each pass's state."""
        flights: list[Flight] = []
        why = ""
        try:
            for lanes in group:
                flights.append(self._flight(lanes, alone=len(group) == 1))
            self.problem.progress.starts(self._name(group))
            self._steps(flights)
        except BaseException as error:
            if not ran_out_of_memory(error) or self.problem.writer.failed:
                for flight in flights:
                    with suppress(Exception):  # what went wrong first is told
                        flight.interrupt()
                raise
            why = first_line(error)
        if not why:
            for flight in flights:
                flight.finish()
            return ""
        give_back(self.problem.device)  # what the step that failed had made
        self._lost = [self._broken_off(flight) for flight in flights]
        self._drop_engine()
        flights.clear()
        give_back(self.problem.device)
        return why

    def _broken_off(self, flight: Flight) -> State | None:
        state = flight.broken_off()
        self.problem.progress.skip(-flight.counted)
        if self._last is None or flight.engine is not self._last[2]:
            flight.engine.close()
        return state

    def _steps(self, flights: Sequence[Flight]) -> None:
        starts = [flight.begin() for flight in flights]
        for step in range(min(starts), self.problem.config.num_steps):
            ahead = [f for f, start in zip(flights, starts, strict=True) if start <= step and not f.over]
            for flight in ahead:
                flight.step(step)
            if all(flight.over for flight in flights):
                break

    def _shrunk(self, group: Sequence[Lanes], why: str, waiting: Sequence[Sequence[Lanes]]) -> deque[Sequence[Lanes]]:
        """What is left to run, in smaller passes, each with what it goes on from."""
        problem = self.problem
        cells = sorted({cell for lanes in group for cell in lanes.cells})
        engine = str(problem.plans[cells[0]]["engine"])
        size = size_of(group, sequential=engine == "sequential")
        limit = smaller(size)
        if limit is None or (limit.sequential and not problem.planner.fall_back(cells[0], why)):
            raise NotEnoughMemory(
                f"out of memory with {size.text()} of engine {engine!r} ({why}): give {LESS}; what was recorded is "
                "kept at output_path, if there is one, and the same call goes on from it"
            )
        problem.planner.make_room()
        states = [*self._lost, *[None] * (len(group) - len(self._lost))]
        self._lost = []
        steps = []
        for lanes, lost in zip(group, states, strict=True):
            state = lost or saved_state(
                [problem.cells[part.cell].store.section(part.chains) for part in lanes.parts],
                whose(problem.cells, lanes),
            )
            if limit.sequential and not problem.planner.same_layout(lanes.cells[0]):
                state = None  # kept as rectangles; one chain alone holds whole tensors
            steps.append(0 if state is None else int(state["step"]))
            hand_over(problem.cells, lanes, [one for few in within([lanes], limit) for one in few], state)
        warnings.warn(
            f"out of memory at step {max(steps)} with {size.text()} ({why}): going on from there with {limit.text()}",
            PassShrunk,
            stacklevel=2,
        )
        left = [*within(group, limit), *(few for later in waiting for few in self._like(later, cells, limit))]
        self._put_plans(left, limit, {"step": max(steps), "before": size.text(), "after": limit.text(), "error": why})
        return deque(left)

    def _like(self, group: Sequence[Lanes], cells: Sequence[int], limit: Limit) -> list[list[Lanes]]:
        """A later group in passes no larger; of other restrictions, which may need less, the chains alone count."""
        own = any(cell in cells for lanes in group for cell in lanes.cells)
        size = size_of(group, sequential=False)
        chains = min(size.chains, limit.chains)
        return within(group, Limit(chains, limit.cells if own else size.cells, limit.beside if own else size.beside))

    def _put_plans(self, left: Sequence[Sequence[Lanes]], limit: Limit, event: Mapping[str, Any]) -> None:
        """Record with every restriction that is affected how it goes on, for a reader and for a call that resumes."""
        problem = self.problem
        for group in left:
            for lanes in group:
                for part in lanes.parts:
                    plan = problem.plans[part.cell]
                    plan["restrictions_per_pass"] = len(lanes.parts)
                    plan["beside_others"] = len(group) > 1
        for cell in {cell for group in left for lanes in group for cell in lanes.cells}:
            plan = problem.plans[cell]
            runs = [part.chains for group in left for lanes in group for part in lanes.parts if part.cell == cell]
            ahead = min(chains.start for chains in runs)
            before = [span for span in plan["passes"] if span[1] <= ahead]
            plan["passes"] = before + [[chains.start, chains.stop] for chains in sorted(runs, key=lambda r: r.start)]
            plan["chains_per_pass"] = max(map(len, runs))
            if limit.sequential:
                plan["engine"], plan["engine_reason"] = "sequential", f"out of memory: {event['error']}"
            plan["out_of_memory"] = [*plan.get("out_of_memory", ()), dict(event)]
            problem.cells[cell].store.put_plan(plan)

    def _drop_engine(self) -> None:
        if self._last is not None:
            self._last[2].close()
            self._last = None

    def _flight(self, lanes: Lanes, *, alone: bool) -> Flight:
        """A pass ready to begin; one that is alone takes over the engine of the one before, if it fits."""
        if alone and self._last is not None and self._last[:2] == (lanes.cells, len(lanes)):
            return Flight(self.problem, lanes, *self._last[2:], alone=True)
        self._drop_engine()
        engine = self.problem.planner.engine_for(lanes)
        transition = Transition(self.problem.config, engine.arena, lanes.chains, self.problem.device)
        capture = self._capture(lanes, engine)
        if alone and self.problem.keeps_gradients:
            engine.arena.keep_gradients()
        if alone:
            self._last = (lanes.cells, len(lanes), engine, transition, capture)
        return Flight(self.problem, lanes, engine, transition, capture, alone=alone)

    def _capture(self, lanes: Lanes, engine: Engine) -> StepCapture:
        problem = self.problem

        def told(reason: str) -> None:
            for cell in lanes.cells:
                problem.plans[cell]["step_capture"] = reason
                problem.cells[cell].store.put_plan(problem.plans[cell])

        graphs = None if problem.not_captured else CudaGraphs(problem.device)
        return StepCapture(graphs, problem.not_captured, abandon=engine.arena.take_gradients, told=told)

    def _name(self, group: Sequence[Lanes]) -> str:
        names = list(dict.fromkeys(self.problem.cells[p.cell].name for lanes in group for p in lanes.parts))
        if names != [""]:
            return names[0] if len(names) == 1 else f"{names[0]} … {names[-1]}"
        chains = [chain for lanes in group for chain in lanes.chains]
        total = self.problem.config.num_chains
        if len(chains) < total:
            return f"chains {chains[0] + 1}–{chains[-1] + 1} of {total}"
        return "1 chain" if total == 1 else f"{total} chains"
