"""Masks of a language model's parts by name: "full", "l0", "l0 attn", "l0 mlp", "l0h1", "l0g0", "embed", "unembed"."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from sltfast.compat.defects import warn_once
from sltfast.restriction import create_param_masks as native_masks
from sltfast.restriction import restriction_names

ParamMasks = dict[str, Tensor | None]
"""Parameter name → mask of its shape, or None for all of it. Parameters that are not named stand still."""

PART = re.compile(r"l(?P<layer>\d+)(?:\s+(?P<component>attn|mlp)|\s*(?P<kind>[hg])(?P<index>\d+))?")
NORM = re.compile(r"norm|^ln", re.IGNORECASE)


def create_param_masks(model: nn.Module, restriction: str | list[str]) -> ParamMasks:
    """Masks of what a name, or the union of several, selects; upper case and "l0 h1" are understood.

    Norms inside attention or MLP count to the layer, not to "l0 attn" or "l0 mlp". A tied unembedding is the
    embedding's tensor. Parts are found in the model itself (see ``sltfast.create_param_masks``), in no table.

    Args:
        model: Hugging Face, TransformerLens, or built alike.
        restriction: a name of a part or of a parameter, or a list of them.

    Returns:
        In the model's order; bool masks for heads and groups, None for whole parameters.

    Raises:
        TypeError: neither a string nor a list.
        ValueError: "full" in a list, a part that the model does not have, or a name that is none.
    """
    if isinstance(restriction, list):
        if "full" in restriction:
            raise ValueError("Cannot combine 'full' with other restrictions: give it alone, or leave it out")
        return _united([create_param_masks(model, one) for one in restriction])
    if not isinstance(restriction, str):
        raise TypeError(f"restriction must be a str or list[str], got {type(restriction).__name__}")
    name = restriction.strip()
    lower = name.lower()
    part = PART.fullmatch(lower)
    if lower == "full":
        return dict.fromkeys(dict(model.named_parameters()))
    if part is None and lower not in ("embed", "unembed"):
        if name in dict(model.named_parameters()):
            return {name: None}
        raise ValueError(
            f"Unknown restriction {restriction!r}: give 'full', 'l0', 'l0 attn', 'l0 mlp', 'l0h1', 'l0g0', 'embed', "
            "'unembed', or the name of a parameter"
        )
    if part is None:
        return _component(model, lower)
    _check_there(model, part)
    if part["kind"]:
        masks = native_masks(model, f"l{part['layer']}{part['kind']}{part['index']}")
        shapes = {key: parameter.shape for key, parameter in model.named_parameters()}
        return {key: torch.ones(shapes[key], dtype=torch.bool) if mask is None else mask for key, mask in masks.items()}
    wanted = f"l{part['layer']}" + (f" {part['component']}" if part["component"] else "")
    masks = native_masks(model, wanted)
    if part["component"]:
        masks = {key: mask for key, mask in masks.items() if not NORM.search(key.split(".")[-2])}
    return masks


def _component(model: nn.Module, name: str) -> ParamMasks:
    masks = native_masks(model, name)
    if name == "unembed" and set(masks) & set(native_masks(model, "embed")):
        warn_once("tied unembedding", stacklevel=4)
    return masks


def _check_there(model: nn.Module, part: re.Match[str]) -> None:
    """Refuse a layer, head or group beyond the last, in devinterp's words.

    Raises:
        ValueError: there is no such part.
    """
    names = restriction_names(model)
    layer = int(part["layer"])
    layers = sum(re.fullmatch(r"l\d+", name) is not None for name in names)
    if layers and layer >= layers:
        raise ValueError(f"Layer {layer} out of range (model has {layers} layers): give l0 to l{layers - 1}")
    if not part["kind"]:
        return
    word = "Head" if part["kind"] == "h" else "Group"
    heads = sum(re.fullmatch(rf"l{layer}h\d+", name) is not None for name in names)
    count = sum(re.fullmatch(rf"l{layer}{part['kind']}\d+", name) is not None for name in names) or heads
    if count and int(part["index"]) >= count:
        raise ValueError(f"{word} {part['index']} out of range (model has {count} of them in layer {layer})")


def _united(several: list[ParamMasks]) -> ParamMasks:
    """The union of masks; None, all of a parameter, wins."""
    united: ParamMasks = {}
    for masks in several:
        for name, mask in masks.items():
            before = united.get(name, mask)
            united[name] = None if mask is None or before is None else before.bool() | mask.bool()
    return united


def preview_weight_restriction(model: nn.Module, masks: ParamMasks, *, plain: bool = False) -> None:
    """Print what masks select: by module, each parameter with how many of its coordinates.

    Args:
        model: whose parameters they are.
        masks: from ``create_param_masks``, or made by hand.
        plain: names only, one a line.

    Raises:
        AttributeError: a mask of a parameter that the model does not have.
    """
    if plain:
        for name in sorted(masks):
            print(name)  # noqa: T201  (what was asked for)
        return
    modules: dict[str, list[str]] = {}
    for name in masks:
        modules.setdefault(name.rpartition(".")[0], []).append(name)
    for module in sorted(modules):
        print(module or "(model)")  # noqa: T201
        for name in modules[module]:
            mask, total = masks[name], model.get_parameter(name).numel()
            moving = total if mask is None else int(mask.count_nonzero())
            share = 100 * moving / total if total else 0.0
            leaf = name.rpartition(".")[2]
            print(f"  {leaf:32} {share:6.1f} %  ({moving:,} of {total:,})")  # noqa: T201
