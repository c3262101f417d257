"""One step of every chain in flight, by any method of ``ops.langevin_step_``, through the fused op."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sltfast import ops
from sltfast.arena import Arena, Block
from sltfast.ops import METRICS
from sltfast.ops.langevin_arguments import MOMENTUM_METHODS, RMSPROP_METHODS
from sltfast.sampler.config import SETTINGS, SamplerConfig

ARGUMENTS = {"alpha": "rms_alpha", "eps": "rms_eps", "friction": "friction"}  # of the op, by setting
NORMS = 6  # of METRICS; the rest are dot products


class Transition:
    """State beside the weights (second moments or momenta, health) and the step itself.

    Attributes:
        chains: int64 [C], the ids of the chains in flight.
        step_index: int64 [], the counter t; on the device, so nothing waits for the host.
        alive: bool [C]; death_step: int64 [C], -1 while alive.
    """

    def __init__(self, config: SamplerConfig, arena: Arena, chains: Sequence[int], device: torch.device) -> None:
        self.config, self.arena = config, arena
        count = len(chains)
        self.chains = torch.tensor(list(chains), dtype=torch.int64, device=device)
        self.step_index = torch.zeros((), dtype=torch.int64, device=device)
        self.alive = torch.ones(count, dtype=torch.bool, device=device)
        self.death_step = torch.full((count,), -1, dtype=torch.int64, device=device)
        box = float("inf") if config.bounding_box_size is None else config.bounding_box_size
        row = [config.lr, config.n_beta, config.localization, config.llc_weight_decay, config.noise_level, box]
        hyper = torch.tensor([row] * count, dtype=torch.float64, device=device)
        self._metrics = [torch.zeros(count, len(METRICS), dtype=torch.float64, device=device) for _ in arena.blocks]
        self._no_gradient = torch.empty(0, device=device)
        self._moves = []
        for block, metrics in zip(arena.blocks, self._metrics, strict=True):
            if config.method in RMSPROP_METHODS:
                block.v = torch.empty_like(block.w)
            if config.method in MOMENTUM_METHODS:
                block.momentum = torch.empty_like(block.w)
            if config.method == "sgnht":
                block.thermostat = torch.empty(count, dtype=torch.float64, device=device)
            state = {name: tensor for name, tensor in block.state.items() if name != "w"}
            rates = {ARGUMENTS[name]: config.setting(name) for name in SETTINGS[config.method]}
            self._moves.append(
                self._bound(
                    block.w,
                    block,
                    hyper,
                    method=config.method,
                    low=block.low if block.has_low else None,
                    metrics=metrics if config.save_metrics else None,
                    **state,
                    **rates,
                )
            )

    def _bound(self, w: Tensor, block: Block, hyper: Tensor, **rest: Any) -> ops.LangevinStep:
        return ops.LangevinStep(
            w,
            block.anchors,
            block.segments,
            hyper,
            self.step_index,
            self.chains,
            seed=self.config.init_seed,
            masks=block.masks if block.has_masks else None,
            alive=self.alive,
            death_step=self.death_step,
            **rest,
        )

    def reset(self) -> None:
        """Start anew: weights at w* (plus the initial noise, if any), moments at their first value, all alive.

        Momenta are drawn at their temperature, m ~ √(ε/2)·N(0, 1), and a thermostat starts at the friction.
        """
        self.arena.reset()
        self.step_index.zero_()
        self.alive.fill_(True)
        self.death_step.fill_(-1)
        for block in self.arena.blocks:
            if block.v is not None:
                block.v.fill_(1.0 if self.config.method == "rmsprop_sgld_hh" else 0.0)
            if block.momentum is not None:
                self._kick(block.momentum.zero_(), block, (self.config.lr / 2) ** 0.5, ops.STREAM_MOMENTUM)
            if block.thermostat is not None:
                block.thermostat.fill_(self.config.setting("friction"))
            if self.config.init_noise is not None:
                low = block.low if block.has_low else None
                self._kick(block.w, block, self.config.init_noise, ops.STREAM_INIT, low)

    def _kick(
        self, w: Tensor, block: Block, deviation: float, stream: int, low: Sequence[Tensor] | None = None
    ) -> None:
        """Move `w`, the block's weights or a tensor like them, to w + deviation·ξ."""
        row = [1.0, 0.0, 0.0, 0.0, deviation, float("inf")]
        hyper = torch.tensor([row] * len(self.chains), dtype=torch.float64, device=w.device)
        move = self._bound(w, block, hyper, method="sgld", stream=stream, low=low)
        move([self._no_gradient] * len(block.names))

    def step(self, gradients: list[list[Tensor | None]], loss: Tensor) -> None:
        """w_t → w_{t+1} for gradients of the mean loss at w_t; a parameter without gradient counts as zero gradient.

        Args:
            gradients: per block and segment, [C, n] values or the parameter's shape (C = 1).
            loss: float64 [C], the mini-batch losses; a chain whose loss is not finite dies and stays where it is.
        """
        for move, taken in zip(self._moves, gradients, strict=True):
            move([self._no_gradient if g is None else g.contiguous() for g in taken], loss=loss)
        self.step_index += 1

    def metrics(self) -> Tensor:
        """[C, 9] float64 of the last step over all blocks, in the order of ``METRICS``."""
        if len(self._metrics) == 1:
            return self._metrics[0]
        stacked = torch.stack(self._metrics)
        norms = stacked[..., :NORMS].square().sum(0).sqrt()
        return torch.cat([norms, stacked[..., NORMS:].sum(0)], dim=-1)
