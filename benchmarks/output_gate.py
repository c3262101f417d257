"""No ratio without equality, for scripts whose variants return tensors: ours against another's, in norm."""

import sys
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

TOLERANCE = 1e-4  # |ours − other| / |other|: float32 sums of up to 50,000 terms keep five digits


def refuse_unless_close(what: str, variants: Mapping[str, Callable[[], object]], others: Sequence[str]) -> None:
    """Exit with a message if what ours returns is further than TOLERANCE from the first of `others` that is there."""
    name = next((other for other in others if other in variants), None)
    if name is None:
        return
    ours, other = (_flat(variants[side]()) for side in ("ours", name))
    apart = float((ours - other).norm() / other.norm())
    if not apart <= TOLERANCE:
        sys.exit(
            f"{what}: ours is {apart:.1e} from {name}, at most {TOLERANCE:g} is allowed; no time is worth reporting"
        )


def _flat(outcome: object) -> Tensor:
    tensors = outcome if isinstance(outcome, tuple) else (outcome,)
    return torch.cat([tensor.detach().double().flatten() for tensor in tensors if tensor.is_floating_point()])
