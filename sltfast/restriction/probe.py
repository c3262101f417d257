"""Which features of an attention's projections feed which head: read off a gradient, whatever they are called."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from sltfast.clone import structural_clone
from sltfast.restriction.anatomy import NotUnderstood

TOKENS = 5
SPREAD = 0.3  # small enough that no softmax over the probe's scores is ever one-hot


class _Reached(Exception):
    """The attention has run: the rest of the forward tells nothing."""


@dataclass
class Call:
    """One use of a module inside the attention.

    Attributes:
        name: of the module.
        entered: what it was given, on the graph of the leaves before it.
        leaf: what stands for its output: random [..., features] of a projection, or ones of a gain's own shape.
    """

    name: str
    entered: Tensor
    leaf: Tensor


@dataclass
class Trace:
    """What an attention did with random outputs in place of its projections'.

    Attributes:
        projections: modules that mix features (linear maps), in the order of their use.
        gains: modules that scale features (norms).
        bare: parameters of no such module, in random copies.
    """

    projections: list[Call] = field(default_factory=list)
    gains: list[Call] = field(default_factory=list)
    bare: dict[str, Tensor] = field(default_factory=dict)


def trace(model: nn.Module, attention: str) -> Trace:
    """Run a structural clone of ``model`` on a few tokens, up to the end of one attention.

    Every linear map in the attention answers with a random leaf instead of its product, so what is found out does not
    depend on the weights; norms pass their input on, times a leaf of ones. The caller's model is not touched.

    Args:
        model: the caller's.
        attention: name of the attention's module.

    Returns:
        The uses of its modules, with the graph between them (gradients must be on).

    Raises:
        NotUnderstood: the forward fails, or never comes to the attention.
    """
    if any(parameter.is_meta for parameter in model.parameters()):
        raise NotUnderstood("the model is on the meta device: load its weights before naming heads")
    traced = _traced(model, attention, frozenset())
    called = {call.name for call in [*traced.projections, *traced.gains]}
    # a module that was not called may have had its weights read by another
    unread = {name for name, inner in model.get_submodule(attention).named_modules(prefix=attention) if _owns(inner)}
    unread -= called | {name.rpartition(".")[0] for name in traced.bare}
    return _traced(model, attention, frozenset(unread)) if unread else traced


def _traced(model: nn.Module, attention: str, unread: frozenset[str]) -> Trace:
    device = next(model.get_submodule(attention).parameters()).device
    clone = structural_clone(model, device).eval()
    module = clone.get_submodule(attention)
    traced = Trace()
    generator = torch.Generator().manual_seed(0)
    for name, inner in module.named_modules(prefix=attention):
        if not _owns(inner):
            continue
        if inner is module or name in unread or any(True for _ in inner.children()):
            for key, parameter in list(inner.named_parameters(recurse=False)):
                fresh = nn.Parameter(_random(parameter, generator), requires_grad=parameter.is_floating_point())
                setattr(inner, key, fresh)
                traced.bare[f"{name}.{key}"] = fresh
        else:
            inner.forward = _recording(name, inner, traced, generator)
    module.register_forward_hook(_stop)
    try:
        _forward(clone, device)
    except _Reached:
        return traced
    except Exception as error:
        raise NotUnderstood(
            f"{type(model).__name__} cannot be run on {TOKENS} tokens to find its heads "
            f"({type(error).__name__}: {error}); give a mapping from parameter name to mask"
        ) from error
    raise NotUnderstood(f"the forward of {type(model).__name__} does not call {attention}: give a mask instead")


def _owns(module: nn.Module) -> bool:
    return any(True for _ in module.parameters(recurse=False))


def _stop(module: nn.Module, args: Any, output: Any) -> None:
    raise _Reached


def _random(like: Tensor, generator: torch.Generator) -> Tensor:
    drawn = SPREAD * torch.randn(like.shape, generator=generator)
    return drawn.to(like.device, like.dtype if like.is_floating_point() else torch.float32)


def _recording(name: str, module: nn.Module, traced: Trace, generator: torch.Generator) -> Callable[..., Tensor]:
    original = module.forward
    shapes = [tuple(parameter.shape) for parameter in module.parameters()]

    def projection(x: Tensor, *args: Any, **named: Any) -> Tensor:
        with torch.no_grad():
            output = original(x, *args, **named)
        if not isinstance(output, Tensor):
            raise TypeError(f"{name} returns a {type(output).__name__}")
        if _is_gain(module, shapes, x, output):
            leaf = torch.ones(shapes[0], dtype=output.dtype, device=output.device, requires_grad=True)
            traced.gains.append(Call(name, x, leaf))
            # with a gate beside it the norm has to run; alone it would only mix heads through their joint scale
            return original(x, *args, **named) * leaf if args or named else x * leaf
        leaf = _random(output, generator).requires_grad_()
        traced.projections.append(Call(name, x, leaf))
        return leaf

    return projection


def _is_gain(module: nn.Module, shapes: list[tuple[int, ...]], x: Tensor, output: Tensor) -> bool:
    """Whether every parameter multiplies (or shifts) features one by one."""
    if isinstance(module, nn.Linear | nn.Embedding) or x.shape != output.shape or len(set(shapes)) != 1:
        return False
    return len(shapes[0]) == 1 or tuple(output.shape[-len(shapes[0]) :]) == shapes[0]


def _forward(clone: nn.Module, device: torch.device) -> None:
    find: Any = getattr(clone, "get_input_embeddings", None)
    vocabulary = getattr(find(), "num_embeddings", None) if callable(find) else None
    vocabulary = vocabulary or getattr(getattr(clone, "cfg", None), "d_vocab", None) or TOKENS
    ids = (1 + torch.arange(TOKENS, device=device))[None] % vocabulary
    if "input_ids" in inspect.signature(clone.forward).parameters:
        clone(input_ids=ids)
    else:
        clone(ids)
