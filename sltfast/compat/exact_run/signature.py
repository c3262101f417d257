"""What must agree for two exact calls to be the same run."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from sltfast.clone import structural_clone, unwrap
from sltfast.compat.devinterp.slt.lm_loss import compute_per_token_loss
from sltfast.compat.exact_run.feeding import TokenItems, loader_of
from sltfast.compat.fast_run.job import Job
from sltfast.compat.fast_run.masks import ParamMasks
from sltfast.compat.seeding import set_seed
from sltfast.losses import ItemLosses, item_loss
from sltfast.observables import resolve_observables
from sltfast.results.digest import Digest
from sltfast.results.identity import loss_source, run_identity
from sltfast.results.loss_values import loss_values


def identity(job: Job, masks: ParamMasks) -> dict[str, Any]:
    """Digests of model, data, observables, masks and loss, the loss's values on the first batch, and the loop."""
    seen = resolve_observables(
        job.observables,
        batches_per_draw=1,
        batch_size=job.config.batch_size,
        seed=job.obs_seed,
        device=job.device,
    )
    return {
        **run_identity(job.model, job.source, seen),
        "loss": loss_source(item_loss(job.model, job.loss_fn or compute_per_token_loss)),
        "loss_values": _values(job),
        "restriction": Digest().add(dict(masks)).hexdigest(),
        "loop": "devinterp 2.0.1's, bit for bit",
    }


def _values(job: Job) -> dict[str, Any]:
    set_seed(job.config.init_seed)
    clone: nn.Module = structural_clone(unwrap(job.model), job.device).train()
    batch = next(iter(loader_of(TokenItems(job.source), job.config, 0)))
    with torch.no_grad():
        losses = (job.loss_fn or compute_per_token_loss)(clone, batch["input_ids"].to(job.device))
    return loss_values(ItemLosses(losses, None), job.device, next(clone.parameters()).dtype)
