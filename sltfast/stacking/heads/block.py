"""A block whose attention runs on lanes: what all lanes share inside it is computed once, on B rows."""

from __future__ import annotations

from collections.abc import Callable, Hashable, MutableMapping
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from sltfast.stacking.heads.attention import LaneAttention
from sltfast.stacking.heads.spread import Spread, holds, mapped, written

Memo = MutableMapping[Hashable, Any]
PASSES = (nn.Dropout, nn.Identity)  # in eval mode they give back what they are given, written out or not


class HeadBlock:
    """Patches of one block: hidden states [B, T, d] go in, [L·B, T, d] come out.

    The hidden states enter spread over the lanes. A frozen child that is called with what all lanes share runs on it
    once; the attention runs its lanes; anything else sees the whole batch. Masks, position embeddings and all other
    arguments of the block stay those of B rows, which the attention alone reads.

    Args:
        name: the block's.
        block: the module.
        lanes: its attention.
        announced: ``remember`` is called before every forward.
    """

    def __init__(self, name: str, block: nn.Module, lanes: LaneAttention, announced: bool) -> None:
        self.name, self.block, self.lanes, self.announced = name, block, lanes, announced
        self._memo: Memo | None = None
        self._key: Hashable = None
        self._expected = False
        self._calls: dict[Hashable, int] = {}
        self._patched: list[nn.Module] = []
        self._hooks: list[Any] = []

    def apply(self) -> None:
        """Patch the block."""
        self._hooks = [
            self.block.register_forward_pre_hook(self._enter, with_kwargs=True),
            self.block.register_forward_hook(self._leave),
        ]
        above = {module for module in self.block.modules() if self.lanes.attention in module.modules()}
        for parent in above - {self.lanes.attention}:
            for name, child in parent.named_children():
                if child not in above:
                    self._patch(child, self._shared_child(name, child))
        self._patch(self.lanes.attention, self._attention(self.lanes.attention.forward))

    def restore(self) -> None:
        """Take the patches off."""
        for hook in self._hooks:
            hook.remove()
        for module in self._patched:
            del module.forward
        self._hooks, self._patched = [], []

    def remember(self, memo: Memo | None, key: Hashable) -> None:
        """Of the forward that is about to enter the block; see ``HeadLanes.remember``."""
        self._memo, self._key, self._expected = memo, key, True

    def _patch(self, module: nn.Module, forward: Callable[..., Any]) -> None:
        if "forward" not in module.__dict__:  # a child that stands in several places is patched once
            module.forward = forward
            self._patched.append(module)

    def _enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self._calls.clear()
        if self.announced and not self._expected and self.lanes.weights.lanes > 1:
            raise RuntimeError(f"{self.name} expands lanes late: run the model inside expansion.on(lanes)")
        if not self._expected:  # nobody told of a batch: what is remembered is another's
            self._memo = None
        self._expected = False
        if args:
            return (Spread.of(args[0][None], self.lanes.weights.lanes), *args[1:]), kwargs
        hidden = kwargs["hidden_states"]
        return args, {**kwargs, "hidden_states": Spread.of(hidden[None], self.lanes.weights.lanes)}

    def _leave(self, module: nn.Module, args: Any, output: Any) -> Any:
        return written(output)

    def _kept(self, name: Hashable, compute: Callable[[], Any]) -> Any:
        """What ``compute`` returns, from the memo where the batch has come before."""
        if self._memo is None:
            return compute()
        call = self._calls[name] = self._calls.get(name, -1) + 1
        key = (self._key, self.name, name, call)
        if key in self._memo:
            return self._memo[key]
        value = self._memo[key] = compute()  # a memo without room keeps nothing
        return value

    def _shared_child(self, name: str, module: nn.Module) -> Callable[..., Any]:
        forward = module.forward
        # a norm costs less than the memory that its values would take
        keep = self._kept if any(parameter.ndim > 1 for parameter in module.parameters()) else _computed

        def child(*args: Any, **kwargs: Any) -> Any:
            spread = holds(args, kwargs)
            if not spread:
                return forward(*args, **kwargs)
            shared = spread[0].shared
            if shared is None or any(leaf.shared is None for leaf in spread):
                if isinstance(module, PASSES):
                    return forward(*args, **kwargs)
                return forward(*written(args), **written(kwargs))
            output = keep(name, lambda: forward(*_base(args), **_base(kwargs)))
            rows = shared.shape[:2]

            def again(tensor: Tensor) -> Tensor:
                return Spread.of(tensor[None], self.lanes.weights.lanes) if tensor.shape[:2] == rows else tensor

            return again(output) if isinstance(output, Tensor) else pytree.tree_map_only(Tensor, again, output)

        return child

    def _attention(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        # passes over other heads of this block have bases of their own
        heads = self.lanes.weights.assignment.queries

        def attention(*args: Any, **kwargs: Any) -> Any:
            if not holds(args, kwargs):
                return forward(*args, **kwargs)
            args, kwargs = _base(args), _base(kwargs)
            frozen = self._kept(("attention", *heads), lambda: self.lanes.freeze(*args, **kwargs))
            return self.lanes(frozen, *args, **kwargs)

        return attention


def _base(tree: Any) -> Any:
    """The same arguments with B rows for every spread batch (one that is no longer shared raises)."""

    def one(spread: Spread) -> Tensor:
        if spread.shared is None:
            raise TypeError("the attention reads hidden states that its own lanes have changed")
        return spread.shared

    return mapped(tree, one)


def _computed(name: Hashable, compute: Callable[[], Any]) -> Any:
    return compute()
