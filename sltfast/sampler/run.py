"""The loop: passes, steps, draws. It knows batches and weights, and nothing of estimators."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from sltfast.sampler.capture import CudaGraphs, StepCapture
from sltfast.sampler.engines.engine import Engine
from sltfast.sampler.flight import Flight
from sltfast.sampler.lanes import Lanes
from sltfast.sampler.problem import Problem
from sltfast.sampler.transition import Transition


class Run:
    """Runs groups of passes; those of a group go through each step together, so that they can share its work."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self._last: tuple[tuple[int, ...], int, Engine, Transition, StepCapture] | None = None

    def chains(self, groups: Sequence[Sequence[Lanes]]) -> None:
        """Run every pass that an earlier call did not finish."""
        config, progress = self.problem.config, self.problem.progress
        for group in groups:
            left = [lanes for lanes in group if not self._done(lanes)]
            progress.skip(config.num_steps * (sum(map(len, group)) - sum(map(len, left))))
            if left:
                self._together(left)

    def _done(self, lanes: Lanes) -> bool:
        return all(self.problem.cells[part.cell].store.is_done(part.chains) for part in lanes.parts)

    def _together(self, group: Sequence[Lanes]) -> None:
        steps = self.problem.config.num_steps
        flights = [self._flight(lanes, alone=len(group) == 1) for lanes in group]
        self.problem.progress.starts(self._name(group))
        try:
            starts = [flight.begin() for flight in flights]
            for step in range(min(starts), steps):
                ahead = [f for f, start in zip(flights, starts, strict=True) if start <= step and not f.over]
                for flight in ahead:
                    flight.step(step)
                if all(flight.over for flight in flights):
                    break
        except BaseException:
            for flight in flights:
                with suppress(Exception):  # what went wrong first is told
                    flight.interrupt()
            raise
        for flight in flights:
            flight.finish()

    def _flight(self, lanes: Lanes, *, alone: bool) -> Flight:
        """A pass ready to begin; one that is alone takes over the engine of the one before, if it fits."""
        if alone and self._last is not None and self._last[:2] == (lanes.cells, len(lanes)):
            return Flight(self.problem, lanes, *self._last[2:], alone=True)
        if self._last is not None:
            self._last[2].close()
            self._last = None
        engine = self.problem.engine_for(lanes)
        transition = Transition(self.problem.config, engine.arena, lanes.chains, self.problem.device)
        capture = self._capture(lanes, engine)
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
