"""Which modules fold, and by which rule: keyed on the forward that runs, so a subclass with its own falls through."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from typing import Any

from torch import nn

from sltfast.stacking.convolutions import convolution
from sltfast.stacking.embeddings import embedding, is_plain, own_embedding
from sltfast.stacking.linear import conv1d, is_linear, linear
from sltfast.stacking.norms import batch_norm, group_norm, layer_norm, own_rms_norm, rms_norm
from sltfast.stacking.site import Site

OWN_FORWARD = (own_embedding, own_rms_norm)  # rules that run a forward not known here
Rule = Callable[[Site], Callable[..., Any]]

_RULES: dict[Any, Rule] = {
    nn.Linear.forward: linear,
    nn.Embedding.forward: embedding,
    nn.LayerNorm.forward: layer_norm,
    nn.RMSNorm.forward: rms_norm,
    nn.GroupNorm.forward: group_norm,
    nn.BatchNorm1d.forward: batch_norm,
    nn.Conv1d.forward: convolution,
    nn.Conv2d.forward: convolution,
    nn.Conv3d.forward: convolution,
}


def rule_of(module: nn.Module) -> Rule | None:
    """How the module folds, or None where it must run as a unit."""
    if {"forward", "parametrizations"} & {*vars(module), *module._modules}:
        return None  # a forward of its own on the instance, or weights that are computed
    forward = type(module).forward
    rule = conv1d if forward is _hugging_face_conv1d() else _RULES.get(forward)
    if rule in (linear, conv1d) and not is_linear(module):
        return None
    if rule is None and _is_own_rms_norm(module):
        return own_rms_norm
    if rule is None and isinstance(module, nn.Embedding) and [*module._parameters] == ["weight"]:
        rule = own_embedding
    return None if rule in (embedding, own_embedding) and not is_plain(module) else rule


def _hugging_face_conv1d() -> Any:
    loaded = sys.modules.get("transformers.pytorch_utils")
    return loaded.Conv1D.forward if loaded is not None else None


def _is_own_rms_norm(module: nn.Module) -> bool:
    """A class named …RMSNorm with one vector for a weight, whose forward takes the hidden states alone."""
    if not type(module).__name__.endswith("RMSNorm") or [*module._parameters] != ["weight"] or module._modules:
        return False
    weight = module._parameters["weight"]
    return weight is not None and weight.ndim == 1 and len(inspect.signature(type(module).forward).parameters) == 2
