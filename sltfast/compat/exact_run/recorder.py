"""What a chain of the exact loop records, in devinterp's arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sltfast.compat.devinterp.optim.sgmcmc import SGMCMC
from sltfast.compat.devinterp.slt.config import SamplerConfig
from sltfast.compat.devinterp.slt.observables import Observable
from sltfast.ops import METRICS
from sltfast.results.layout import ArraySpec
from sltfast.results.store import Store


def arrays(config: SamplerConfig, tokens: int, observables: Mapping[str, int]) -> list[ArraySpec]:
    """Every array of a run.

    Args:
        config: the run's.
        tokens: of a row, T + 1.
        observables: rows of each, by identifier.
    """
    chains, draws, steps = config.num_chains, config.num_draws, config.num_sgld_steps
    batch, positions = config.batch_size, tokens - 1
    rows, micro = config.gradient_accumulation_steps * batch, ("chain", "step", "batch_sampling")
    drawn = ("chain", "draw", "batch", "token_pos")
    specs = [
        ArraySpec("init_loss", ("chain", "token_pos"), (chains, positions), "float32"),
        ArraySpec("sampling_loss", drawn, (chains, draws, batch, positions), "float32", "draw"),
        ArraySpec("sampling_loss_micro", (*micro, "token_pos"), (chains, steps, rows, positions), "float32", "step"),
        ArraySpec("sampling_input_ids_micro", (*micro, "token"), (chains, steps, rows, tokens), "int64", "step"),
    ]
    for name, count in observables.items():
        seen = ("chain", "draw", f"batch_{name}", "token_pos")
        specs.append(ArraySpec(f"loss_{name}", seen, (chains, draws, count, positions), "float32", "draw"))
        specs.append(ArraySpec(f"input_ids_{name}", (f"batch_{name}", "token"), (count, tokens), "int64"))
    if config.save_metrics:
        specs += [
            ArraySpec(f"metrics_{name}", ("chain", "step"), (chains, steps), "float32", "step") for name in METRICS
        ]
    specs.append(ArraySpec("alive", ("chain",), (chains,), "bool", unrecorded=1))
    specs.append(ArraySpec("death_step", ("chain",), (chains,), "int64", unrecorded=-1))
    return specs


class Recorder:
    """Listens to one chain; rows that it does not reach stay NaN, token ids 0.

    Args:
        store: where rows go.
        config: the run's.
        observables: read at draws, in this order.
        chain: its number.
    """

    def __init__(self, store: Store, config: SamplerConfig, observables: Sequence[Observable], chain: int) -> None:
        self.store, self.chain, self._observables = store, chain, observables
        self._parts = config.gradient_accumulation_steps
        self._section = store.section(range(chain, chain + 1))
        self._section.cut_back(0)
        self._waiting: list[tuple[Tensor, Tensor]] = []

    def micro(self, *, loss: Tensor, input_ids: Tensor, step: int, micro_step: int, **_: Any) -> None:
        """Keep a batch until its step has all of them."""
        if micro_step == 0:
            self._waiting = []
        self._waiting.append((loss, input_ids))
        if micro_step == self._parts - 1:
            losses, ids = zip(*self._waiting, strict=True)
            self._put("sampling_loss_micro", step, torch.cat(losses).float())
            self._put("sampling_input_ids_micro", step, torch.cat(ids).long())

    def step(self, chain: int, step: int, optimizer: SGMCMC) -> None:
        """Record the step's norms and products."""
        metrics = optimizer.get_metrics()
        for name in METRICS:
            self._put(f"metrics_{name}", step, getattr(metrics, name)[0])

    def draw(self, *, loss: Tensor, draw: int, model: nn.Module, **_: Any) -> None:
        """Record the batch's losses from before the step, and the observables' after it."""
        self._put("sampling_loss", draw, loss)
        for one in self._observables:
            self._put(f"loss_{one.obs_id}", draw, one.compute_loss(model))

    def finish(self, died: int) -> None:
        """The chain is over; it died at this step, or lived (-1)."""
        at = slice(self.chain, self.chain + 1)
        self.store.put_whole("alive", np.array([died < 0]), at)
        self.store.put_whole("death_step", np.array([died]), at)
        self._section.finish()

    def _put(self, name: str, row: int, values: Tensor) -> None:
        self._section.put(name, self.chain, row, values.detach().cpu().numpy()[None, None])
