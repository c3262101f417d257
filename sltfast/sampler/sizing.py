"""How many chains go through the model together: as many as memory allows, and of those the fastest."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from time import perf_counter, process_time
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import nn

from sltfast.batches import BatchStream, fetch
from sltfast.errors import PassShrunk
from sltfast.observables import Observable
from sltfast.restriction import Restriction
from sltfast.sampler.budget import memory_budget
from sltfast.sampler.config import SamplerConfig
from sltfast.sampler.engines.build import EngineBuilder
from sltfast.sampler.engines.engine import LaneBatch
from sltfast.sampler.footprint import LiveBytes
from sltfast.sampler.grouping import congruent
from sltfast.sampler.memory import Weights, activations_at_most, weight_bytes
from sltfast.sampler.pace import Candidate, candidates, fastest, seconds_of
from sltfast.sampler.shortage import first_line, give_back, ran_out_of_memory
from sltfast.sampler.transition import Transition

if TYPE_CHECKING:
    from sltfast.request import Request

MATTERS = 8  # what may take less than this part of the budget is not measured
FITS = 2  # nor what takes less than this part by what one chain was seen to take,
LANE = 2  # times this: folding copies some of it


class PassBytes(NamedTuple):
    """Expected peak of a pass: its weights, what its lanes hold of their records, and the rest of a step at its
    height, measured or bounded.
    """

    weights: Weights
    records: int
    rest: int
    measured: bool

    @property
    def state(self) -> int:
        """What is held between steps."""
        return self.weights.state + self.records

    @property
    def step(self) -> int:
        """What a step needs beside what is held between steps."""
        return self.weights.gradients + self.rest

    @property
    def peak(self) -> int:
        """All of it."""
        return self.state + self.step


class Sizing:
    """Memory and time of passes.

    Args:
        config: the run's.
        request: what was asked for.
        device: where.
    """

    def __init__(self, config: SamplerConfig, request: Request, device: torch.device) -> None:
        self.config, self.request, self.device = config, request, device
        self.budget = memory_budget(request.memory_budget, device)
        self.at_most = 0
        self.kept: dict[str, int] = {}
        self.lane_bytes = 0
        self.observables: Sequence[Observable] = ()
        self._live: LiveBytes | None = None
        self._rest: dict[tuple[tuple[int, ...], str], tuple[float, float]] = {}
        self._tried = 0
        self.most = config.num_chains
        self.shortages: list[dict[str, Any]] = []

    def expect(self, clone: nn.Module, restrictions: Sequence[Restriction], stream: BatchStream) -> None:
        """Decide whether memory is worth measuring: whether, by its bound, the run may need much of the budget."""
        row = fetch(stream.source, stream.rows(0)[:1], self.device)
        self.at_most = activations_at_most(clone, row, self.config.batch_size)
        read_as = {name: parameter.dtype for name, parameter in clone.named_parameters()}
        chains, method = self.config.num_chains, self.config.method
        weights = [weight_bytes([one], read_as, chains, method) for one in restrictions]
        self._weights = sum(one.state + one.gradients for one in weights)
        self._lanes = chains * max(len(cells) for cells in congruent(restrictions))
        if self.request.plan or self._needed > self.budget // MATTERS:
            self._live = LiveBytes()

    @property
    def _needed(self) -> int:
        return self._weights + self._lanes * self.at_most

    @contextmanager
    def watched(self, *, one_chain: bool = False) -> Iterator[None]:
        """What happens within counts for the peak before the first step.

        Args:
            one_chain: it is a forward and backward of one chain: where many of them fit, passes are not measured.
        """
        live = self._live
        if live is None or self.request.compile:
            yield
            return
        before, held = live.peak, live.now
        live.restart()
        with live:
            yield
        if one_chain and not self.request.plan:
            self.at_most = min(self.at_most, LANE * (live.peak - held))
            self._live = live if self._needed > self.budget // FITS else None
        live.peak = max(before, live.peak)

    @property
    def plenty(self) -> bool:
        """Whether the run needs so little of the budget that it was not worth measuring."""
        return self._live is None

    @property
    def before(self) -> int:
        """The peak of everything watched so far."""
        return 0 if self._live is None else self._live.peak

    def ran_out(self, chains: int, why: str) -> None:
        """Memory ran out for so many chains: from now on half of them are the most."""
        self.most = min(self.most, max(1, chains // 2))
        self.shortages.append({"step": None, "before": f"{chains} chains per pass", "after": self.most, "error": why})
        warnings.warn(
            f"out of memory while {chains} chains per pass were tried ({why}): going on with at most {self.most}",
            PassShrunk,
            stacklevel=2,
        )
        give_back(self.device)

    def use(
        self, builder: EngineBuilder, observables: Sequence[Observable], kept: Mapping[str, int], lane_bytes: int
    ) -> None:
        """Take what is only known after the first forward: engines, observables, bytes kept by part, and bytes that
        each lane of a pass holds of its records.
        """
        self.builder, self.observables, self.kept, self.lane_bytes = builder, observables, dict(kept), lane_bytes

    @property
    def left(self) -> int:
        """What the budget leaves to passes."""
        return self.budget - sum(self.kept.values())

    def pass_bytes(self, cells: Sequence[int], engine: str, chains: int) -> PassBytes:
        """Expected peak of a pass of ``chains`` chains of each of these cells; engine "": of the weights alone."""
        restrictions = [self.builder.restrictions[cell] for cell in cells]
        if engine not in ("stacked", ""):
            restrictions = [restriction.dense() for restriction in restrictions]
        read_as = {name: parameter.dtype for name, parameter in self.builder.clone.named_parameters()}
        weights = weight_bytes(restrictions, read_as, chains, self.config.method)
        lanes = chains * len(cells)
        records = self.lane_bytes * lanes
        if self._live is None or not engine:
            return PassBytes(weights, records, self.at_most * lanes if engine else 0, False)
        key = (tuple(cells), engine)
        if key not in self._rest:
            self._rest[key] = self._measure(key[0], engine)
        shared, each = self._rest[key]
        return PassBytes(weights, records, int(shared + each * chains), True)

    def _measure(self, cells: tuple[int, ...], engine: str) -> tuple[float, float]:
        """(a, b): a step of c chains needs a + b·c beside weights and gradients; from one chain and from two."""
        one = self._step(cells, engine, 1)
        if engine == "sequential" or self.config.num_chains == 1 or self.request.chains_per_pass == 1:
            return one, 0.0
        self._rest[cells, engine] = (0.0, one)
        all_fit = self.pass_bytes(cells, engine, self.config.num_chains).peak <= self.left
        enough = (all_fit and not self.request.plan) or self.most == 1
        if enough or self.pass_bytes(cells, engine, 2).peak > self.left:
            return 0.0, one  # so many times one chain is all that has to be known
        try:
            two = self._step(cells, engine, 2)
        except Exception as error:
            if not ran_out_of_memory(error):
                raise
            self.ran_out(2, first_line(error))
            return 0.0, one
        return max(0.0, 2 * one - two), max(two - one, two / 2)

    def _step(self, cells: tuple[int, ...], name: str, chains: int) -> int:
        """What one step holds at its height, beside weights and gradients."""
        live = self._live
        assert live is not None
        before, compiled = live.peak, self.builder.compiled
        self.builder.compiled = False  # op by op, where memory is seen; a compiled step needs no more
        with live:
            try:
                engine = self.builder.build(name, cells, chains)
            finally:
                self.builder.compiled = compiled
            live.restart()
            held = live.now
            for _ in range(min(2, self.config.gradient_accumulation_steps)):
                total, losses = engine.objective(self._batch(engine.arena.lanes), 1.0)
                engine.arena.backward(total)
                del total, losses
            gradients = [gradient for block in engine.arena.take_gradients() for gradient in block]
            size = sum(gradient.nbytes for gradient in gradients if gradient is not None)
            del gradients
            peak = live.peak - held - size
            for observable in self.observables:
                live.restart()
                with torch.no_grad():
                    engine.losses(LaneBatch(observable.batches[0], True, ("observable", observable.id, 0)))
                peak = max(peak, live.peak - held - size)
            engine.close()
        live.peak = max(before, live.peak)
        return max(0, peak)

    def _batch(self, lanes: int) -> LaneBatch:
        """The first batch, for every lane."""
        stream = self.builder.streams[0]
        shared = len(self.builder.streams) == 1
        rows = stream.rows(0) if shared else np.tile(stream.rows(0), lanes)
        return LaneBatch(fetch(stream.source, rows, self.device), shared)

    def largest(self, cells: Sequence[int], engine: str, chains: int) -> int:
        """The most chains, up to ``chains``, whose pass fits the budget; 1 even where that does not."""
        fits, over = 1, chains + 1
        if self.pass_bytes(cells, engine, chains).peak <= self.left:
            fits = chains
        while over - fits > 1:
            middle = (fits + over) // 2
            fits, over = (middle, over) if self.pass_bytes(cells, engine, middle).peak <= self.left else (fits, middle)
        return min(fits, self.most)  # which measuring may have lowered

    def taken(
        self, cells: Sequence[int], engine: str, *, clocked: bool, others: bool
    ) -> tuple[Candidate, dict[str, Any]]:
        """Engine and chains of a pass, and what was measured for it.

        Args:
            cells: restrictions that share it.
            engine: what many chains would take.
            clocked: whether the fastest counts, and not the largest.
            others: whether one chain after another may be faster.

        Raises:
            ValueError: ``chains_per_pass`` chains, or a single one under a ``memory_budget``, need more than there is.
        """
        asked, all_of_them = self.request.chains_per_pass, self.config.num_chains
        wanted = all_of_them if asked is None else min(asked, all_of_them)
        if engine == "sequential":
            wanted = 1
        largest = self.largest(cells, engine, wanted)
        self._check(cells, engine, largest, min(wanted, self.most) if asked is not None else 1)
        if asked is not None or not clocked or self.device.type != "cpu":
            return Candidate(engine, largest), {}
        options = candidates(engine, largest, others=others)
        try:
            pace = fastest(options, all_of_them * self.config.num_steps, lambda one, n: self._seconds(cells, one, n))
        except Exception as error:
            if not ran_out_of_memory(error) or largest == 1:
                raise
            self.ran_out(largest, first_line(error))
            return self.taken(cells, engine, clocked=clocked, others=others)
        for option in pace.milliseconds:
            self._tried = max(self._tried, self.pass_bytes(cells, *option).peak)
        measured = {f"{one.engine} {one.chains}": time for one, time in pace.milliseconds.items()}
        facts: dict[str, Any] = {"chains_per_pass_reason": pace.why}
        if measured:
            expected = 1e-3 * pace.milliseconds[pace.taken] * all_of_them * self.config.num_steps
            facts |= {"milliseconds_per_chain_step": measured, "expected_seconds": expected}
        return pace.taken, facts

    def _check(self, cells: Sequence[int], engine: str, largest: int, least: int) -> None:
        expected = self.pass_bytes(cells, engine, least)
        if largest >= least and expected.peak <= self.left:
            return
        needed, own = expected.peak + sum(self.kept.values()), self.request.memory_budget is not None
        what = f"{least} chains per pass" if least > 1 else "a single chain"
        budget = f"memory_budget is {self.budget:,}" if own else f"80 % of what is free are {self.budget:,}"
        message = f"{what} of engine {engine!r} would need about {needed:,} bytes, and {budget}"
        if own or least > 1:
            fewer = f"give chains_per_pass of at most {largest}, or more memory" if least > largest else "give it more"
            raise ValueError(f"{message} ({fewer}; a smaller batch_size needs less)")
        warnings.warn(f"{message}: it is tried all the same", UserWarning, stacklevel=2)

    def _seconds(self, cells: Sequence[int], option: Candidate, count: int) -> list[float]:
        """Seconds of steps at w* and after; the engine is dropped with its weights."""
        engine = self.builder.build(option.engine, cells, option.chains)
        chains = list(range(option.chains)) * len(cells)
        transition = Transition(self.config, engine.arena, chains, self.device)
        transition.reset()

        def step() -> None:
            total, losses = engine.objective(self._batch(engine.arena.lanes), 1.0)
            engine.arena.backward(total)
            transition.step(engine.arena.take_gradients(), losses.lane_means(engine.arena.lanes, torch.float64))

        try:
            # on one thread the processor's time is the run's, whatever else the machine does meanwhile
            return seconds_of(step, count, process_time if torch.get_num_threads() == 1 else perf_counter)
        finally:
            engine.close()

    def trial_chains(self, cells: Sequence[int], most: int) -> int:
        """Chains that an engine is tried with: as many as go together, as far as they fit."""
        asked = self.request.chains_per_pass or self.config.num_chains
        return self.largest(cells, "", min(most, asked, self.config.num_chains))

    def fit(self, group: Sequence[PassBytes]) -> bool:
        """Whether passes that go step by step beside each other have room: only one is amid a step."""
        return _together(group) <= self.left

    def facts(self, groups: Sequence[Sequence[PassBytes]]) -> dict[str, Any]:
        """The memory of a run whose passes are these, for the record; what remains goes to the memo."""
        largest = max(groups, key=_together)
        run = max(self._tried, _together(largest))
        memo = self.builder.memo
        memo.budget = max(0, self.left - run) // 2
        facts: dict[str, Any] = {"budget_bytes": self.budget, "memo_budget_bytes": memo.budget}
        if self._live is None:
            return facts | {"expected_peak_bytes": None}
        step = max(largest, key=lambda one: one.step)
        parts = {
            **self.kept,
            "weights": sum(one.weights.weights for one in largest),
            "moments": sum(one.weights.moments for one in largest),
            "copies": sum(one.weights.copies for one in largest),
            "lane_records": sum(one.records for one in largest),
            "gradients": step.weights.gradients,
            "activations": step.rest,
            "kept_activations": self._memo_bytes(memo.budget),
        }
        peak = sum(self.kept.values()) + max(self.before, run + parts["kept_activations"])
        return facts | {
            "expected_peak_bytes": peak,
            "peak_by_part_bytes": parts,
            "before_the_first_step_bytes": self.before,
        }

    def _memo_bytes(self, budget: int) -> int:
        """What the memo will hold: of one batch of each observable it knows already."""
        memo, seen = self.builder.memo, self.observables
        if not seen:
            return 0
        batches = sum(len(observable.batches) for observable in seen)
        return min(budget, memo.bytes // len(seen) * batches)


def _together(group: Sequence[PassBytes]) -> int:
    return sum(one.state for one in group) + max(one.step for one in group)
