"""Whether the first forward leaves the weights alone: a clone shares the caller's, so writing to them is refused."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

COPIED_BYTES = 64 << 20  # weights up to this are put back; of larger models a write is told, and not undone
HASHED = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


@contextmanager
def unchanged(model: nn.Module, name: str) -> Iterator[None]:
    """Refuse what happens within where it writes to a parameter of ``model``, and put the values back.

    Args:
        model: shares its parameters with the caller's.
        name: of the loss, for the message.

    Raises:
        ValueError: a parameter has other values than before.
    """
    # embeddings with max_norm rescale what they read: their weights are the clone's own
    own = {id(module.weight) for module in model.modules() if getattr(module, "max_norm", None) is not None}
    found = ((key, p) for key, p in model.named_parameters() if p.dtype in HASHED and p.numel() and id(p) not in own)
    parameters = {key: p.detach() for key, p in found}
    small = sum(tensor.nbytes for tensor in parameters.values()) <= COPIED_BYTES
    copies = {key: tensor.clone() for key, tensor in parameters.items()} if small else {}
    before = _hashes(parameters)
    try:
        yield
    finally:
        after = _hashes(parameters)
        changed = [] if torch.equal(before, after) else [k for k, one in enumerate((before != after).tolist()) if one]
        names = [list(parameters)[k] for k in changed]
        for key in names:
            if key in copies:
                parameters[key].copy_(copies[key])
    if names:
        undone = "" if copies else "; the model's weights have changed: load them again"
        raise ValueError(
            f"{name} changes parameter {names[0]!r} in place while it computes a loss: chains sample the weights, and "
            f"nothing else may set them. Take that out of the model's forward{undone}"
        )


def _hashes(parameters: dict[str, Tensor]) -> Tensor:
    """One number of all the bits of each, NaN or not."""
    if not parameters:
        return torch.zeros(0)
    return torch.stack([torch.hash_tensor(tensor.reshape(-1)).view(torch.int64) for tensor in parameters.values()])
