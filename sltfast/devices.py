"""Devices that a caller names: tried before anything is computed on them."""

from __future__ import annotations

import torch
from torch import nn


def usable_device(device: str | torch.device) -> torch.device:
    """The device, once it has held a value and given it back.

    Raises:
        ValueError: a device that does not exist here, or that holds no values ("meta").
    """
    try:
        where = torch.device(device)
        torch.zeros(1, device=where).sum().item()
    # a name that torch does not know, a build without the device, another type, "meta"
    except (RuntimeError, AssertionError, TypeError, NotImplementedError) as error:
        raise ValueError(f"device {device!r} cannot be used here: give None, 'cpu' or 'cuda' ({error})") from error
    return where


def pick_device(model: nn.Module, device: str | torch.device | None) -> torch.device:
    """Where to sample: where the caller says, else the model's own device, or a GPU for a model on the CPU.

    Raises:
        ValueError: a device that does not exist here.
    """
    if device is None:
        own = next(model.parameters()).device
        return own if own.type != "cpu" else torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return usable_device(device)
