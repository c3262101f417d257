"""The losses before the first step, chain by chain."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from sltfast.compat.devinterp.slt.lm_loss import compute_per_token_loss
from sltfast.compat.exact_run.feeding import TokenItems, loader_of
from sltfast.compat.exact_run.walk import replayed
from sltfast.compat.fast_run.before import check_shape
from sltfast.compat.fast_run.job import Job
from sltfast.compat.seeding import set_seed


@torch.no_grad()
def init_losses(model: nn.Module, job: Job, rows: TokenItems) -> Iterator[np.ndarray]:
    """Each chain's mean loss by position, float32 [1, T], over its first batches.

    Under ``init_noise`` every parameter is moved, whichever of them the chain moves, and moved back. What the forward
    leaves in buffers stays there, and the chains start from it.

    Args:
        model: a copy of the caller's, in the mode in which it is sampled.
        job: the call.
        rows: its data.

    Raises:
        ValueError: ``loss_fn`` gives anything but losses [B, T].
    """
    config, losses = job.config, job.loss_fn or compute_per_token_loss
    batches = config.gradient_accumulation_steps * config.num_init_loss_batches
    for chain in range(config.num_chains):
        set_seed(config.init_seed + chain)
        kept = [parameter.detach().clone() for parameter in model.parameters()] if config.init_noise else []
        if config.init_noise:
            for parameter in model.parameters():
                parameter.add_(torch.randn_like(parameter) * config.init_noise)
        total = torch.zeros((), device=job.device)
        for batch, _ in zip(replayed(loader_of(rows, config, chain), "cycle", batches), range(batches), strict=False):
            ids = batch["input_ids"].to(job.device)
            found = losses(model, ids)
            check_shape(found, ids)
            total = total + found.detach().float() / batches
        for parameter, before in zip(model.parameters(), kept, strict=False):
            parameter.copy_(before)
        yield total.mean(dim=0, keepdim=True).cpu().numpy()
