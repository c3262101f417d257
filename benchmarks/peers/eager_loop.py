"""A plain SGLD loop, one chain after another: eager ``F.cross_entropy`` and an in-place eager update."""

from __future__ import annotations

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.models import next_token_losses


def eager_loop(model: nn.Module, ids: Tensor, settings: dict[str, Any], seed: int = 0) -> Tensor:
    """Mini-batch losses [C, T] of a language model's chains.

    Args:
        model: at w*; a copy of it moves.
        ids: token ids [N, T].
        settings: lr, n_beta, localization, num_chains, num_draws, batch_size.
        seed: of noise and order.
    """
    lr, n_beta, gamma = (settings[key] for key in ("lr", "n_beta", "localization"))
    size, draws = settings["batch_size"], settings["num_draws"]
    trace = torch.empty(settings["num_chains"], draws)
    with torch.random.fork_rng(devices=[]):
        for chain in range(len(trace)):
            torch.manual_seed(seed)  # every chain sees the same batches
            orders = [torch.randperm(len(ids)) for _ in range(1 + draws * size // len(ids))]
            batches = torch.cat([order[: len(ids) // size * size] for order in orders]).split(size)
            torch.manual_seed(seed + 1 + chain)
            moving = copy.deepcopy(model)
            pairs = list(zip(moving.parameters(), model.parameters(), strict=True))
            for draw in range(draws):
                loss = next_token_losses(moving, ids[batches[draw]]).mean()
                loss.backward()
                trace[chain, draw] = loss.detach()
                with torch.no_grad():
                    for w, anchor in pairs:
                        w.lerp_(anchor, lr / 2 * gamma).sub_(w.grad, alpha=lr / 2 * n_beta)
                        w.add_(torch.randn_like(w), alpha=math.sqrt(lr))
                        w.grad = None
    return trace
