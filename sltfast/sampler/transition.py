"""One step of every lane in flight, by any method of ``ops.langevin_step_``, through the fused op."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sltfast import ops
from sltfast.arena import Arena, Block, Share
from sltfast.ops import HYPER, METRICS
from sltfast.ops.langevin_arguments import MOMENTUM_METHODS, RMSPROP_METHODS
from sltfast.sampler.config import SETTINGS, SamplerConfig

ARGUMENTS = {"alpha": "rms_alpha", "eps": "rms_eps", "friction": "friction"}  # of the op, by setting
NORMS = 6  # of METRICS; the rest are dot products


class Transition:
    """State beside the weights (second moments or momenta, health) and the step itself.

    Attributes:
        chains: int64 [L], the chains whose noise the lanes have; hyper: float64 [L, 6], their settings.
        step_index: int64 [], the counter t; on the device, so nothing waits for the host.
        alive: bool [L]; death_step: int64 [L], -1 while alive.
    """

    def __init__(self, config: SamplerConfig, arena: Arena, chains: Sequence[int], device: torch.device) -> None:
        self.config, self.arena, self.device = config, arena, device
        count = len(chains)
        self.chains = torch.empty(count, dtype=torch.int64, device=device)
        self.step_index = torch.zeros((), dtype=torch.int64, device=device)
        self.alive = torch.ones(count, dtype=torch.bool, device=device)
        self.death_step = torch.full((count,), -1, dtype=torch.int64, device=device)
        self.hyper = torch.empty(count, len(HYPER), dtype=torch.float64, device=device)
        self._metrics = [torch.zeros(count, len(METRICS), dtype=torch.float64, device=device) for _ in arena.blocks]
        self._no_gradient = torch.empty(0, device=device)
        self.assign(chains)
        self._moves = []
        for block, metrics in zip(arena.blocks, self._metrics, strict=True):
            if config.method in RMSPROP_METHODS:
                block.v = torch.empty_like(block.w)
            if config.method in MOMENTUM_METHODS:
                block.momentum = torch.empty_like(block.w)
            if config.method == "sgnht":
                block.thermostat = torch.empty(count, dtype=torch.float64, device=device)
            rates = {ARGUMENTS[name]: config.setting(name) for name in SETTINGS[config.method]}
            moves = []
            for share in block.shares:
                state = {name: tensor[share.lanes] for name, tensor in block.state.items() if name != "w"}
                metric = metrics[share.lanes] if config.save_metrics else None
                moves.append(
                    self._bound(
                        block.w,
                        block,
                        share,
                        self.hyper,
                        method=config.method,
                        low=[low[share.lanes] if low.numel() else low for low in block.low] if block.has_low else None,
                        metrics=metric,
                        **state,
                        **rates,
                    )
                )
            self._moves.append(moves)

    def assign(self, chains: Sequence[int]) -> None:
        """Which chains the lanes are now, with their noise and hyperparameters."""
        noise = torch.tensor([self.config.noise_chain(chain) for chain in chains], dtype=torch.int64)
        hyper = torch.tensor([self.config.hyper(chain) for chain in chains], dtype=torch.float64)
        self.chains.copy_(noise)
        self.hyper.copy_(hyper)

    def _bound(self, w: Tensor, block: Block, share: Share, hyper: Tensor, **rest: Any) -> ops.LangevinStep:
        lanes = share.lanes
        return ops.LangevinStep(
            w[lanes],
            share.anchors,
            share.table,
            hyper[lanes],
            self.step_index,
            self.chains[lanes],
            seed=self.config.init_seed,
            masks=share.masks if block.has_masks else None,
            alive=self.alive[lanes],
            death_step=self.death_step[lanes],
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
                self._kick(block.momentum.zero_(), block, (self.hyper[:, 0] / 2).sqrt(), ops.STREAM_MOMENTUM)
            if block.thermostat is not None:
                block.thermostat.fill_(self.config.setting("friction"))
            if self.config.init_noise is not None:
                self._kick(block.w, block, torch.full_like(self.hyper[:, 0], self.config.init_noise), ops.STREAM_INIT)
                block.refresh_low()

    def _kick(self, w: Tensor, block: Block, deviation: Tensor, stream: int) -> None:
        """Move `w`, the block's weights or a tensor like them, to w + deviation·ξ; deviation is [L]."""
        hyper = torch.zeros_like(self.hyper)
        hyper[:, 0], hyper[:, 4], hyper[:, 5] = 1.0, deviation, float("inf")
        for share in block.shares:
            move = self._bound(w, block, share, hyper, stream=stream)
            move([self._no_gradient] * len(block.leaves))

    def step(self, gradients: list[list[Tensor | None]], loss: Tensor) -> None:
        """w_t → w_{t+1} for gradients of the mean loss at w_t; a leaf without gradient counts as zero gradient.

        Args:
            gradients: per block and leaf, [L, *shape] (or the parameter's own shape, L = 1).
            loss: float64 [L], the mini-batch losses; a lane whose loss is not finite dies and stays where it is.
        """
        for block, moves, taken in zip(self.arena.blocks, self._moves, gradients, strict=True):
            whole = [self._no_gradient if g is None else g.contiguous() for g in taken]
            if len(moves) == 1:
                moves[0](whole, loss=loss)
                continue
            for share, move in zip(block.shares, moves, strict=True):
                move([g[share.lanes] if g.numel() else g for g in whole], loss=loss[share.lanes])
        self.step_index += 1

    def metrics(self) -> Tensor:
        """[L, 9] float64 of the last step over all blocks, in the order of ``METRICS``."""
        if len(self._metrics) == 1:
            return self._metrics[0]
        stacked = torch.stack(self._metrics)
        norms = stacked[..., :NORMS].square().sum(0).sqrt()
        return torch.cat([norms, stacked[..., NORMS:].sum(0)], dim=-1)
