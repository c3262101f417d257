"""Masks and names of a model's parts, for a caller to look at, combine and pass on."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from sltfast.restriction.names import parts_of
from sltfast.restriction.selection import select


def create_param_masks(model: nn.Module, names: str | Sequence[str]) -> dict[str, Tensor | None]:
    """Masks of the coordinates that parts of a language model are made of.

    ================  ================================================================================================
    ``"full"``        every parameter (also ``"all"``)
    ``"l0"``          all of block 0, norms included
    ``"l0 attn"``     its attention: projections, biases, norms inside it
    ``"l0 mlp"``      its MLP, or mixture of experts with router
    ``"l0h1"``        head 1 of it: what computes the head's queries, keys and values (keys and values that the heads
                      of a group share are in each of them), and what reads its slot of the output projection
    ``"l0g0"``        group 0 of it: the heads that share their first keys and values
    ``"all heads"``   every head of every block
    ``"embed"``       the token embedding
    ``"unembed"``     the unembedding (of a tied model: the tensor it shares with the embedding)
    ================  ================================================================================================

    A parameter's name, or a glob over parameters or parts (``"*.bias"``, ``"l0h*"``), selects too. Heads are found by
    a forward on a few tokens through a structural clone, whatever the projections are called and however they are
    fused. Norms that all heads share and the output projection's bias belong to no head.

    Args:
        model: a language model (Hugging Face, TransformerLens, or built alike).
        names: one name, or several: their union.

    Returns:
        First name of each parameter with something selected → bool mask of its shape, on the CPU, or None where all
        of it is.

    Raises:
        ValueError: a part that the model does not have, or a name that is none; the message lists what there is.
        NotUnderstood: (a ValueError) a part that cannot be told in a model built like this one.
        TypeError: names of another type.
    """
    if isinstance(names, dict) or names is None:
        raise TypeError(f"names must be a name or a list of names, got {type(names).__name__}")
    shapes = {name: parameter.shape for name, parameter in model.named_parameters()}
    regions = select(model, names)
    return {name: None if region.is_whole else region.dense().view(shapes[name]) for name, region in regions.items()}


def head_names(model: nn.Module) -> list[str]:
    """Names of every attention head of a model.

    Args:
        model: a language model.

    Returns:
        ``["l0h0", "l0h1", …]``, layer by layer.

    Raises:
        NotUnderstood: (a ValueError) heads that cannot be told in a model built like this one.
    """
    return parts_of(model).head_names(model)


def restriction_names(model: nn.Module) -> list[str]:
    """Every name that ``create_param_masks`` and ``param_masks`` understand for a model, beside its parameters'.

    Args:
        model: any module.

    Returns:
        Names of parts, the whole model first; those that this model lacks, or that cannot be told in it, left out.
    """
    return parts_of(model).names(model)
