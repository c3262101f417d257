"""The global generators, seeded as devinterp seeds them."""

import random
from typing import Any

import numpy as np
import torch


def set_seed(seed: int, device: Any = None) -> None:
    """Seed the global generators of python, numpy and torch, those of every GPU among them.

    Args:
        seed: from 0 to 2³² − 1.
        device: taken for devinterp's sake.
    """
    seed = int(seed)
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    torch.manual_seed(seed)
