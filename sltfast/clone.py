"""A structural clone: the caller's modules over again, sharing every weight's storage, so the caller's
model is never touched while chains move weights of their own.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn


def unwrap(model: nn.Module) -> nn.Module:
    """The module behind torch.compile and (Distributed)DataParallel wrappers.

    Raises:
        TypeError: no module, or a scripted one, whose weights no clone can share.
    """
    given: Any = model
    if not isinstance(given, nn.Module):
        what = f"the class {given.__name__} itself" if isinstance(given, type) else type(given).__name__
        raise TypeError(f"model must be a torch.nn.Module, got {what} (sltfast.inputs loads models from disk)")
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise TypeError(
            f"{type(given).__name__} is compiled by torch.jit, which keeps its weights to itself: give the "
            "torch.nn.Module that was scripted or traced (torch.compile's modules are taken as they are)"
        )
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
            inner = model.module
        if not isinstance(inner, nn.Module):
            return model
        model = inner


def structural_clone(model: nn.Module, device: torch.device, dtype: torch.dtype | None = None) -> nn.Module:
    """Copy the module tree; parameters share storage with the caller's (when on ``device``), frozen.

    Parameters stay tied where they were tied. Buffers are copied, because a forward may change them. With ``dtype``
    every floating-point parameter and buffer is held in it, in a copy where it was not.

    Raises:
        ValueError: a parameter of a lazy module that has not run yet, or one without values (meta device).
        TypeError: the module tree cannot be copied (locks, open files, non-leaf weights).
    """
    # An embedding with max_norm rescales its rows in place as it reads them.
    rescaled = {id(module.weight) for module in model.modules() if getattr(module, "max_norm", None) is not None}
    memo: dict[int, Any] = {}
    for name, parameter in model.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise ValueError(f"parameter {name!r} has no shape yet (a lazy module): run one forward first")
        if parameter.is_meta and device.type != "meta":
            raise ValueError(f"parameter {name!r} is on the meta device: load all of the model's weights first")
        held = dtype if parameter.is_floating_point() else None
        shared = parameter.detach().to(device, held)
        if id(parameter) in rescaled or shared.is_inference():
            shared = shared.clone()
        memo[id(parameter)] = nn.Parameter(shared, requires_grad=False)
    try:
        clone: nn.Module = copy.deepcopy(model, memo)
    except (TypeError, RuntimeError) as error:
        raise TypeError(
            f"{type(model).__name__} cannot be copied ({error}); sltfast samples a copy so that your model stays as it "
            "is: remove what copy.deepcopy refuses (locks, open files, weight_norm's derived weights)"
        ) from error
    if dtype is not None or any(buffer.device != device for buffer in clone.buffers()):
        clone.to(device, dtype)
    config = getattr(clone, "config", None)
    if hasattr(config, "use_cache"):
        # A key-value cache costs memory and has no use where every forward sees whole sequences.
        config.use_cache = False  # type: ignore[union-attr]
    return clone
