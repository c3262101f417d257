"""What cannot be folded at all, told from the model alone."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd


def refusal(model: nn.Module) -> str | None:
    """Why the lanes of a folded batch would mix or draw other numbers than alone, or None."""
    for name, module in model.named_modules():
        where = f"{type(module).__name__} {name!r}" if name else type(module).__name__
        if isinstance(module, _BatchNorm) and (module.training or module.running_mean is None):
            return f"{where} normalises by its batch's own statistics, which would mix the lanes"
        if isinstance(module, _DropoutNd) and module.training and module.p > 0:
            return f"{where} drops out at random in train mode"
        if module.training and any(_drops(value) for key, value in vars(module).items() if "dropout" in key):
            return f"{where} drops out at random in train mode"
    return None


def _drops(value: object) -> bool:
    return isinstance(value, float) and value > 0
