"""Losses that run out of memory, as torch tells it, where too many chains go through the model at once."""

import torch
from models import regression_loss

CPU = "[enforce fail at alloc_cpu.cpp:117] err == 0. DefaultCPUAllocator: can't allocate memory: you tried to allocate"
ERRORS = {
    "cpu": lambda: RuntimeError(CPU),
    "device": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
    "host": lambda: MemoryError("std::bad_alloc"),
}


class Short:
    """The regression loss, while no more than ``most`` batches of ``rows`` rows come together, or for ``spared`` calls.

    Args:
        most: chains that fit.
        rows: of a batch.
        spared: calls of more that are let through all the same.
        graded: whether only calls under autograd count, or (False) only those without.
        kind: of the error.
    """

    def __init__(self, most, rows=8, spared=0, graded=None, kind="cpu"):
        self.most, self.rows, self.spared, self.graded, self.kind = most, rows, spared, graded, kind
        self.failures = 0

    def __call__(self, model, batch):
        counts = self.graded is None or self.graded == torch.is_grad_enabled()
        if counts and len(batch[0]) > self.most * self.rows:
            if self.spared <= 0:
                self.failures += 1
                raise ERRORS[self.kind]()
            self.spared -= 1
        return regression_loss(model, batch)
