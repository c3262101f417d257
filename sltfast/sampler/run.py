"""The loop: chains, steps, draws. It knows losses, batches and weights, and nothing of estimators."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from sltfast.arena import Arena
from sltfast.batches import BatchStream
from sltfast.errors import ChainDiverged
from sltfast.isolation import reseed
from sltfast.losses import ItemLoss, token_ids
from sltfast.observables import Observable
from sltfast.results.store import State, Store
from sltfast.sampler.config import SamplerConfig
from sltfast.sampler.progress import Progress
from sltfast.sampler.transition import METRICS, Transition

STATE_SECONDS = 10.0  # between two saved states,
STATE_COST = 20  # and at least this many times what saving one takes


@dataclass
class Run:
    """Everything that one run needs, resolved and checked.

    Attributes:
        clone: the structural clone whose parameters the arena moves.
        streams: one per chain, or a single one that all share.
        init_losses: float64 [streams, steps], losses at w* of every batch (for the progress bar).
    """

    config: SamplerConfig
    clone: nn.Module
    arena: Arena
    transition: Transition
    loss: ItemLoss
    streams: Sequence[BatchStream]
    observables: Sequence[Observable]
    store: Store
    init_losses: np.ndarray
    device: torch.device
    save_token_losses: bool
    tokens: bool

    def chains(self, progress: Progress) -> None:
        """Run every chain that an earlier call did not finish."""
        for chain in range(self.config.num_chains):
            if self.store.is_done(chain):
                progress.skip(self.config.num_steps)
                continue
            self._chain(chain, progress)

    def _chain(self, chain: int, progress: Progress) -> None:
        self.transition.chains.fill_(chain)
        self.arena.attach(0)
        self.transition.reset()
        start = self._take_up(chain)
        progress.skip(start)
        lane = chain if len(self.streams) > 1 else 0
        excess = np.full(self.config.num_steps, np.nan)
        saved, interval = time.monotonic(), STATE_SECONDS
        died = -1
        for step in range(start, self.config.num_steps):
            if self.config.mode == "train":
                reseed(hash((self.config.init_seed, chain, step)) % 2**63, self.device)
            if time.monotonic() - saved > interval:
                begun = time.monotonic()
                self.store.save_state(chain, self._state(step))
                saved = time.monotonic()
                interval = max(STATE_SECONDS, STATE_COST * (saved - begun))
            loss = self._step(chain, lane, step)
            died = int(self.transition.death_step[0])
            if died >= 0:
                self._report_death(chain, died, loss)
                progress.skip(self.config.num_steps - step)
                break
            excess[step] = loss - self.init_losses[lane, step]
            progress.step(chain, excess, step + 1, self.config.num_burnin_steps)
        self.store.put_whole("alive", np.asarray(died < 0), chain)
        self.store.put_whole("death_step", np.asarray(died), chain)
        self.store.finish_chain(chain)

    def _step(self, chain: int, lane: int, step: int) -> float:
        """Gradient at w_t, transition to w_{t+1}, records; returns the mini-batch loss at w_t."""
        micro = self.config.gradient_accumulation_steps
        stream = self.streams[lane]
        total = torch.zeros(1, dtype=torch.float64, device=self.device)
        recorded: list[Tensor] = []
        for k in range(step * micro, (step + 1) * micro):
            batch = stream.batch(k, self.device)
            losses = self.loss(self.clone, batch)
            mean = losses.mean()
            self.arena.backward(mean if micro == 1 else mean / micro)
            total += losses._replace(values=losses.values.detach()).mean(torch.float64) / micro
            if self.save_token_losses:
                recorded.append(losses.recorded())
        self.transition.step(self.arena.take_gradients(), total)
        value = float(total)
        if int(self.transition.death_step[0]) < 0:
            self._record(chain, lane, step, value, recorded)
        return value

    def _record(self, chain: int, lane: int, step: int, value: float, recorded: list[Tensor]) -> None:
        draw = self.config.draw_at(step)
        put = self.store.put
        put("loss", chain, step, np.asarray(value))
        if recorded:
            put("sampling_loss_micro", chain, step, torch.cat(recorded).cpu().numpy())
            if self.tokens:
                put("sampling_input_ids_micro", chain, step, self._token_ids(lane, step))
            if draw is not None:
                mean = recorded[0] if len(recorded) == 1 else torch.stack(recorded).nanmean(0)
                put("sampling_loss", chain, draw, mean.cpu().numpy())
        if self.config.save_metrics:
            values = self.transition.metrics()[0].cpu().numpy()
            for name, metric in zip(METRICS, values, strict=True):
                put(f"metrics_{name}", chain, step, np.asarray(metric))
        if draw is not None:
            for observable in self.observables:
                put(
                    f"loss_{observable.id}",
                    chain,
                    draw,
                    observable.evaluate(self.clone, self.loss)[0].cpu().numpy(),
                )

    def _token_ids(self, lane: int, step: int) -> np.ndarray:
        micro = self.config.gradient_accumulation_steps
        stream = self.streams[lane]
        rows = np.concatenate([stream.rows(k) for k in range(step * micro, (step + 1) * micro)])
        return np.asarray(cast(Tensor, token_ids(stream.source.fetch(rows))).cpu())

    def _report_death(self, chain: int, step: int, loss: float) -> None:
        what = f"its loss was {loss}" if not np.isfinite(loss) else "its gradient or update was not finite"
        warnings.warn(
            f"chain {chain} diverged at step {step} ({what}): it was stopped and is excluded from every mean; lower "
            f"lr, n_beta or localization (lr={self.config.lr:g}, n_beta={self.config.n_beta:g}, "
            f"localization={self.config.localization:g})",
            ChainDiverged,
            stacklevel=2,
        )

    def _state(self, step: int) -> State:
        state: State = {"step": step}
        for index, block in enumerate(self.arena.blocks):
            state.update({f"{name}{index}": tensor for name, tensor in block.state.items()})
        if self.config.mode == "train":
            state["buffers"] = dict(self.clone.named_buffers())
        return state

    def _take_up(self, chain: int) -> int:
        """Go on from a saved state, if the store has one; returns the step to go on at."""
        state = self.store.restore(chain)
        if state is None:
            return 0
        for index, block in enumerate(self.arena.blocks):
            for name, tensor in block.state.items():
                tensor.copy_(state[f"{name}{index}"])
            block.refresh_low()
        buffers = dict(self.clone.named_buffers())
        for name, value in state.get("buffers", {}).items():
            buffers[name].copy_(value)
        self.transition.step_index.fill_(state["step"])
        return int(state["step"])
