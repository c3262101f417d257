"""The components of a model, each as a restriction of its own: what a response is measured over."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from torch import nn

from sltfast.restriction.names import parts_of
from sltfast.restriction.selection import ParamMasks

COMPONENT = re.compile(r"embed|unembed|l\d+h\d+|l\d+ mlp")
FULL = "full"


def components(
    model: nn.Module, weight_restrictions: Mapping[str, ParamMasks] | Sequence[str] | str, *, full: bool = True
) -> dict[str, ParamMasks]:
    """Restrictions by name.

    Args:
        model: the model.
        weight_restrictions: ``{name: param_masks}``; or names of parts, each a restriction called like itself, in which
            "all heads" stands for every head and "all" for every component: embedding, unembedding (where it is not the
            embedding's own tensor), each head, each MLP.
        full: put the full model first, where it was not asked for.

    Raises:
        TypeError: another type.
        ValueError: nothing is asked for, a part that the model does not have, or "all" of a model without parts.
        NotUnderstood: (a ValueError) parts that cannot be told in a model built like this one.
    """
    if isinstance(weight_restrictions, Mapping):
        named = dict(weight_restrictions)
    else:
        asked = [weight_restrictions] if isinstance(weight_restrictions, str) else weight_restrictions
        if not isinstance(asked, Sequence) or not all(isinstance(name, str) for name in asked):
            raise TypeError(
                "weight_restrictions must be {name: param_masks} or a list of names of parts, such as 'l0h1', "
                f"'all heads' or 'all', got {weight_restrictions!r}"
            )
        named = {name: None if name == FULL else name for one in asked for name in _expanded(model, one)}
    if not all(isinstance(name, str) for name in named):
        raise TypeError(f"the names of weight_restrictions must be strings, got {sorted(map(repr, named))}")
    if not named:
        raise ValueError("weight_restrictions is empty: give at least one, such as ['all heads']")
    return named if FULL in named or not full else {FULL: None, **named}


def _expanded(model: nn.Module, name: str) -> list[str]:
    words = " ".join(name.split())
    if words == "all heads":
        return parts_of(model).head_names(model)
    if words != "all":
        return [words]
    parts = parts_of(model)
    names = [part for part in parts.names(model) if COMPONENT.fullmatch(part)]
    if not names:
        raise ValueError(
            f"'all' means every head and MLP of a language model, but none can be told in {type(model).__name__}: "
            "give {name: param_masks}"
        )
    if {"embed", "unembed"} <= set(names) and parts.regions(model, "embed") == parts.regions(model, "unembed"):
        names.remove("unembed")  # tied: one tensor, one component
    return names
