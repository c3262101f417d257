"""What would only show after hours of sampling, said before the first step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from sltfast.devices import usable_device
from sltfast.estimators.bif.sources import check_covariances
from sltfast.observables import observable_id


def settings_for_pairs(sampling: Mapping[str, Any], *, method: str, reduction: str, num_blocks: int) -> dict[str, Any]:
    """The keywords of a run whose losses are correlated: what its observables' losses do not need is left out.

    Args:
        sampling: the caller's keywords of ``sltfast.sample``; they win.
        method: how losses are correlated, "token" or "sequence".
        reduction: of the chains, "stack" or "mean".
        num_blocks: blocks of draws a chain; of fewer draws, as many as those.

    Raises:
        ValueError: a record that has no such covariances, or fewer than two draws.
    """
    record, draws, chains = sampling.get("record"), sampling.get("num_draws", 200), sampling.get("num_chains", 4)
    if record == "moments":
        raise ValueError("record='moments' keeps no covariances of pairs: give record='traces' or 'covariances'")
    if record == "covariances":
        check_covariances(method, reduction)
    counted = all(isinstance(number, int) and number >= 1 for number in (draws, chains))
    total = draws * (1 if reduction == "mean" else chains) if counted else 2  # the sampler refuses what is no number
    if total < 2:
        raise ValueError(f"a covariance needs at least 2 draws, got {total}: raise num_draws")
    blocks = min(num_blocks, draws) if counted else num_blocks
    return {"save_token_losses": False, "num_init_loss_batches": 0, "num_blocks": blocks, **sampling}


def device_for_products(device: str | torch.device | None) -> torch.device:
    """Where products of losses are formed; None: a GPU if there is one.

    Raises:
        ValueError: a device that does not exist here.
    """
    return usable_device(device or ("cuda" if torch.cuda.is_available() else "cpu"))


def identifiers(observables: Any, caller: str) -> dict[str, str]:
    """What each observable is called in the samples, by the caller's name of it.

    Raises:
        ValueError: no mapping, or an empty one.
    """
    if not isinstance(observables, Mapping) or not observables:
        raise ValueError(f"{caller} needs observables, {{name: data set}} with at least one, got {observables!r}")
    return {str(name): observable_id(str(name)) for name in observables}
