"""A plain SGLD loop over chains stacked by ``torch.func.vmap``: what a user writes who wants many chains.

Flat weights [C, P], one vmapped gradient a step, the update in place with the fewest operations that we know.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap


class VmapLoop:
    """Chains of a model; calling it samples anew and returns the mini-batch losses [C, T].

    Args:
        model: at w*.
        loss: ``loss(call, batch)`` -> losses an item, for anything that is called like the model.
        data: a tensor or a tuple of tensors, rows first.
        settings: lr, n_beta, localization, num_chains, num_draws, batch_size.
        compiled: ``torch.compile`` the step; the first call pays for it.
        seed: of noise and order.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Callable[[Callable[..., Any], Any], Tensor],
        data: Any,
        settings: dict[str, Any],
        *,
        compiled: bool = False,
        seed: int = 0,
    ) -> None:
        self.data = data if isinstance(data, tuple) else (data,)
        self.single = not isinstance(data, tuple)
        self.settings, self.seed = settings, seed
        named = {name: p.detach() for name, p in model.named_parameters()}
        shapes = {name: p.shape for name, p in named.items()}
        self.anchor = torch.cat([p.flatten() for p in named.values()])  # [P]
        sizes = [p.numel() for p in named.values()]

        def one_chain(flat: Tensor, batch: Any) -> Tensor:
            parts = zip(shapes.items(), flat.split(sizes), strict=True)
            weights = {name: part.view(shape) for (name, shape), part in parts}
            return loss(lambda *a, **k: functional_call(model, weights, a, k), batch).mean()

        gradients = vmap(grad_and_value(one_chain), in_dims=(0, None))
        lr, n_beta, gamma = settings["lr"], settings["n_beta"], settings["localization"]

        def step(flat: Tensor, anchor: Tensor, batch: Any) -> Tensor:
            gradient, losses = gradients(flat, batch)
            flat.lerp_(anchor, lr / 2 * gamma).sub_(gradient, alpha=lr / 2 * n_beta)
            flat.add_(torch.randn_like(flat), alpha=math.sqrt(lr))
            return losses

        self.step: Callable[..., Tensor] = torch.compile(step) if compiled else step

    def __call__(self) -> Tensor:
        chains, draws, size = (self.settings[key] for key in ("num_chains", "num_draws", "batch_size"))
        rows = len(self.data[0])
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(self.seed)
            flat = self.anchor.repeat(chains, 1)  # [C, P]
            trace = torch.empty(chains, draws)
            order = torch.empty(0, dtype=torch.int64)
            for draw in range(draws):
                if len(order) < size:
                    order = torch.randperm(rows)
                chosen, order = order[:size], order[size:]
                batch = tuple(part[chosen] for part in self.data)
                trace[:, draw] = self.step(flat, self.anchor, batch[0] if self.single else batch)
        return trace
