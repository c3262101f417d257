"""One pass in flight: its lanes' weights, steps, records, health and saved states."""

from __future__ import annotations

import time
import warnings
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sltfast.data import map_leaves
from sltfast.errors import ChainDiverged
from sltfast.isolation import reseed
from sltfast.losses import token_ids
from sltfast.observables import Observable
from sltfast.results.store import State
from sltfast.sampler.capture import StepCapture
from sltfast.sampler.divergence import death
from sltfast.sampler.engines.engine import Engine, LaneBatch
from sltfast.sampler.feed import Feed
from sltfast.sampler.handover import of_part, saved_state, whose
from sltfast.sampler.lanes import Lanes
from sltfast.sampler.moments import Draw, block_moments_of
from sltfast.sampler.observed import Observed
from sltfast.sampler.problem import Problem
from sltfast.sampler.recorder import Recorder, Target
from sltfast.sampler.transition import METRICS, Transition
from sltfast.sampler.weight_reading import WeightReading


class Taken(NamedTuple):
    """What a step of all lanes computed: ``totals`` float64 [L], mini-batch losses; of every mini-batch ``recorded``
    [L, B, T] float32, where they are recorded, and ``ids`` [1 or L, B, tokens]; ``metrics`` [L, 9] or None.
    """

    totals: Tensor
    recorded: list[Tensor]
    ids: list[Tensor]
    metrics: Tensor | None


STATE_SECONDS = 10.0  # between two saved states,
STATE_COST = 20  # and at least this many times what saving one takes


class Flight:
    """The lanes of one pass, step by step.

    Args:
        problem: what all passes share.
        lanes: the chains that fly.
        engine: theirs, perhaps used by an earlier flight of as many lanes.
        transition: likewise.
        capture: takes their steps, likewise.
        alone: no other flight takes the same steps beside it.
    """

    def __init__(
        self,
        problem: Problem,
        lanes: Lanes,
        engine: Engine,
        transition: Transition,
        capture: StepCapture,
        *,
        alone: bool,
    ) -> None:
        self.problem, self.lanes, self.engine, self.transition = problem, lanes, engine, transition
        self.alone = alone
        self.config = problem.config
        self.chains = lanes.chains
        own = [self.config.noise_chain(chain) if len(problem.streams) > 1 else 0 for chain in self.chains]
        self.streams, self.lane_streams = own, [problem.streams[k] for k in own]
        self._shares_rows = all(stream is self.lane_streams[0] for stream in self.lane_streams)
        self.targets: list[Target] = []
        for part in lanes.parts:
            section = problem.cells[part.cell].store.section(part.chains)
            first = self.targets[-1].lanes.stop if self.targets else 0
            at = slice(first, first + len(part.chains))
            self.targets.append(Target(section, part.chains.start, at, part.cell))
        self._n_beta = np.array([[self.config.hyper(chain)[1]] for chain in self.chains])
        self.steps = capture
        self._micro = self.config.gradient_accumulation_steps
        self._weights = None if problem.weights is None else WeightReading(problem.weights, engine.arena)
        self.feed = Feed(self._fetch, problem.copies, 2 * self._micro)
        self.deaths = np.full(len(lanes), -1)
        self._death_losses: dict[int, float] = {}
        self._reported: set[int] = set()
        self.at, self.counted = 0, 0  # the next step; steps of lanes that the progress bar was told of
        self._begun = self._whole = False

    def begin(self) -> int:
        """Put every lane at its start, or where a saved state left off; returns the step to go on at."""
        self.transition.assign(self.chains)
        self.transition.reset()
        self.moments = block_moments_of(self.problem.recording, self.problem.observed, len(self.lanes))
        start = self._take_up()
        self.recorder = Recorder(self.targets, self.problem.writer, self.transition.death_step, self._seen)
        self.at, self.counted = start, start * len(self.lanes)
        self.problem.progress.skip(self.counted)
        self._saved, self._interval = time.monotonic(), STATE_SECONDS
        self._begun = self._whole = True
        return start

    def step(self, step: int) -> None:
        """Gradients at w_t, transition to w_{t+1}, records."""
        config = self.config
        if config.mode == "train":
            reseed(hash((config.init_seed, config.noise_chain(self.chains[0]), step)) % 2**63, self.problem.device)
        if time.monotonic() - self._saved > self._interval:
            self._save(step)
        first = step * self._micro
        taken: Taken = self.steps(self._take, [self._batch(k) for k in range(first, first + self._micro)])
        self._whole = False  # a replayed graph has moved the weights
        if step + 1 < config.num_steps:
            self.feed.prepare(range(first + self._micro, first + 2 * self._micro))
        self._record(step, taken)
        self.at, self._whole = step + 1, True
        self.recorder.step_done()
        self._report_deaths()

    def _take(self, batches: list[LaneBatch]) -> Taken:
        """One step of all lanes on these mini-batches; nothing of it is on the host."""
        lanes, micro = len(self.lanes), self._micro
        totals: Tensor | None = None
        recorded: list[Tensor] = []
        ids: list[Tensor] = []
        for batch in batches:
            total, losses = self.engine.objective(batch, 1.0 / micro)
            self.engine.arena.backward(total)
            means = losses.lane_means(lanes, torch.float64)
            means = means if micro == 1 else means / micro
            totals = means if totals is None else totals + means
            if self.problem.save_token_losses:
                recorded.append(losses.recorded().unflatten(0, (lanes, -1)))
                if self.problem.tokens:
                    ids.append(_token_ids(batch, lanes))
        assert totals is not None
        self._whole = False  # from here the weights move
        self.transition.step(self.engine.arena.take_gradients(), totals)
        metrics = self.transition.metrics().clone() if self.config.save_metrics else None
        return Taken(totals, recorded, ids, metrics)

    def _fetch(self, k: int) -> Any:
        shared = self.lane_streams[0]
        rows = shared.rows(k) if self._shares_rows else np.concatenate([s.rows(k) for s in self.lane_streams])
        return shared.source.fetch(rows)

    def _batch(self, k: int) -> LaneBatch:
        data = map_leaves(lambda part: part.to(self.problem.device, non_blocking=True), self.feed.batch(k))
        if not self._shares_rows:
            return LaneBatch(data, False)
        return LaneBatch(data, True, None if self.alone else ("step", k))

    def _record(self, step: int, taken: Taken) -> None:
        totals, recorded, ids, metrics = taken
        draw = self.config.draw_at(step)
        of_step, of_draw = {"loss": totals}, {}
        if recorded:
            of_step["sampling_loss_micro"] = torch.cat(recorded, dim=1)
            if ids:
                of_step["sampling_input_ids_micro"] = torch.cat(ids, dim=1)
            if draw is not None:
                of_draw["sampling_loss"] = recorded[0] if len(recorded) == 1 else torch.stack(recorded).nanmean(0)
        if metrics is not None:
            of_step |= {f"metrics_{name}": metrics[:, k] for k, name in enumerate(METRICS)}
        self.recorder.add(step, step, of_step)
        if draw is not None:
            losses = {observable.id: self._observe(observable) for observable in self.problem.observables}
            means = {name: one.mean() for name, one in losses.items()}
            of_draw |= {f"mean_loss_{name}": mean for name, mean in means.items()}
            if self.problem.recording.record == "traces":
                of_draw |= {f"loss_{name}": one.values.float() for name, one in losses.items()}
            if self._weights is not None:
                of_draw["displacement"] = self._weights.read()
            self.recorder.add(draw, step, of_draw)
            if self.moments is not None:
                ended = self.moments.add(draw, Draw(losses, means))
                self.recorder.add(self.problem.recording.block_of(draw), step, ended)

    @torch.no_grad()
    def _observe(self, observable: Observable) -> Observed:
        """Losses of an observable at the present weights."""
        batches = [
            self.engine.losses(LaneBatch(data, True, ("observable", observable.id, k)))
            for k, data in enumerate(observable.batches)
        ]
        return Observed.of(batches, len(self.lanes))

    def _seen(self, first: int, losses: np.ndarray, deaths: np.ndarray) -> None:
        """A block of steps reached the host."""
        steps = np.arange(first, first + losses.shape[1])
        excess = losses - self.problem.init_losses[self.streams][:, steps]
        counted = (steps >= self.config.num_burnin_steps) & ((deaths[:, None] < 0) | (steps < deaths[:, None]))
        with np.errstate(over="ignore"):  # of a chain about to die
            self.counted += losses.size
            self.problem.progress.steps(np.where(counted, self._n_beta * excess, np.nan))
        for lane in np.flatnonzero((deaths >= first) & (deaths <= steps[-1])).tolist():
            self._death_losses[lane] = float(losses[lane, deaths[lane] - first])
        self.deaths = np.array(deaths)

    @property
    def over(self) -> bool:
        """Whether no lane is left alive, as far as the host knows."""
        return bool((self.deaths >= 0).all())

    def finish(self) -> None:
        """Hand over the last rows; the chains are complete."""
        self.recorder.flush()
        self.problem.writer.drain()
        self._report_deaths()
        for target in self.targets:
            deaths = self.deaths[target.lanes]
            chains = slice(target.chain, target.chain + len(deaths))
            store = self.problem.cells[target.cell].store
            store.put_whole("alive", deaths < 0, chains)
            store.put_whole("death_step", deaths, chains)
            target.section.finish()
        del self.recorder  # it calls back: the weights of a pass would outlive it until cycles are collected
        self.moments = None

    def interrupt(self) -> None:
        """Hand over what was recorded so far."""
        self.recorder.flush()
        self.problem.writer.drain()

    def broken_off(self) -> State | None:
        """The state to go on from after a step that failed, on the host; None where the last saved one has to do.

        A step that failed before the weights moved leaves them, and all that was recorded, as they were before it.
        """
        if not self._begun:
            return None
        if self._whole:
            self.interrupt()
            self._report_deaths()
            return of_part(self._state(self.at), self.lanes, self.lanes, self._whose())
        self.problem.writer.drain()
        return None

    def _report_deaths(self) -> None:
        for lane in np.flatnonzero(self.deaths >= 0).tolist():
            if lane in self._reported or lane not in self._death_losses:
                continue
            self._reported.add(lane)
            loss, chain = self._death_losses[lane], self.chains[lane]
            target = next(target for target in self.targets if target.lanes.start <= lane < target.lanes.stop)
            cell = self.problem.cells[target.cell]
            whose = f"chain {chain}" + (f" of {cell.name}" if cell.name else "")
            what = f"its loss was {loss}" if not np.isfinite(loss) else "its gradient or update was not finite"
            facts = death(self.config, self.engine.arena, lane, chain, int(self.deaths[lane]), loss)
            self.problem.deaths[target.cell][str(chain)] = facts
            cell.store.put_deaths(self.problem.deaths[target.cell])
            warnings.warn(
                f"{whose} diverged at step {self.deaths[lane]} ({what}), farthest {facts['where']}: it was stopped "
                f"and is excluded from every mean; {facts['advice']}",
                ChainDiverged,
                stacklevel=2,
            )

    def _save(self, step: int) -> None:
        begun = time.monotonic()
        self.interrupt()
        for target in self.targets:
            target.section.flush()
        for target in self.targets[1:]:  # what stands in the first one holds as long as this does
            target.section.save_state({"step": step, "lanes": self._whose()})
        self.targets[0].section.save_state(self._state(step))
        self._saved = time.monotonic()
        self._interval = max(STATE_SECONDS, STATE_COST * (self._saved - begun))

    def _whose(self) -> list[list[object]]:
        return whose(self.problem.cells, self.lanes)

    def _state(self, step: int) -> State:
        state: State = {"step": step, "lanes": self._whose()}
        state |= {"alive": self.transition.alive, "death_step": self.transition.death_step}
        for index, block in enumerate(self.engine.arena.blocks):
            state.update({f"{name}{index}": tensor for name, tensor in block.state.items()})
        if self.moments is not None:
            state |= self.moments.tensors
        if self.config.mode == "train":
            state["buffers"] = self.engine.buffers()
        return state

    def _take_up(self) -> int:
        """Go on from a saved state, if there is one of these very lanes; returns the step to go on at."""
        state = saved_state([target.section for target in self.targets], self._whose())
        step = 0 if state is None else int(state["step"])
        for target in self.targets:
            target.section.cut_back(step)
        if state is None:
            return 0
        for index, block in enumerate(self.engine.arena.blocks):
            for name, tensor in block.state.items():
                tensor.copy_(state[f"{name}{index}"])
            block.refresh_low()
        for name, buffer in self.engine.buffers().items():
            if name in state.get("buffers", {}):
                buffer.copy_(state["buffers"][name])
        for name, tensor in ({} if self.moments is None else self.moments.tensors).items():
            tensor.copy_(state[name])
        self.transition.alive.copy_(state["alive"])
        self.transition.death_step.copy_(state["death_step"])
        self.transition.step_index.fill_(step)
        self.deaths = self.transition.death_step.cpu().numpy().copy()
        return step


def _token_ids(batch: LaneBatch, lanes: int) -> Tensor:
    """[1, B, tokens] or [L, B, tokens]: the token ids of a batch."""
    ids = token_ids(batch.data)
    assert ids is not None
    return ids.long().unflatten(0, (1 if batch.shared else lanes, -1))
