"""A block whose attention runs on lanes: what all lanes share inside it is computed once, on B rows."""

from __future__ import annotations

from collections.abc import Callable, Hashable, MutableMapping
from typing import Any

from torch import Tensor, nn
from torch.utils import _pytree as pytree

from sltfast.stacking.heads_attention import LaneAttention
from sltfast.stacking.spread import Spread, written

Memo = MutableMapping[Hashable, Any]


class HeadBlock:
    """Patches of one block: hidden states [B, T, d] go in, [L·B, T, d] come out.

    The hidden states enter spread over the lanes. A frozen child that is called with what all lanes share runs on it
    once; the attention runs its lanes; anything else sees the whole batch. Masks, position embeddings and all other
    arguments of the block stay those of B rows, which the attention alone reads.

    Attributes:
        memo, key: where given, what children return for shared inputs, and what the attention computes at w*, is kept
            under ``(key, name, call)`` and not computed again. The key says which batch it is.
    """

    def __init__(self, block: nn.Module, lanes: LaneAttention) -> None:
        self.block, self.lanes = block, lanes
        self.memo: Memo | None = None
        self.key: Hashable = None
        self._calls: dict[str, int] = {}
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
                    self._patch(child, self._shared_child(name, child.forward))
        self._patch(self.lanes.attention, self._attention(self.lanes.attention.forward))

    def restore(self) -> None:
        """Take the patches off."""
        for hook in self._hooks:
            hook.remove()
        for module in self._patched:
            del module.forward
        self._hooks, self._patched = [], []

    def _patch(self, module: nn.Module, forward: Callable[..., Any]) -> None:
        if "forward" not in module.__dict__:  # a child that stands in several places is patched once
            module.forward = forward
            self._patched.append(module)

    def _enter(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self._calls.clear()
        if args:
            return (Spread.of(args[0][None], self.lanes.lanes), *args[1:]), kwargs
        hidden = kwargs["hidden_states"]
        return args, {**kwargs, "hidden_states": Spread.of(hidden[None], self.lanes.lanes)}

    def _leave(self, module: nn.Module, args: Any, output: Any) -> Any:
        return written(output)

    def _kept(self, name: str, compute: Callable[[], Any]) -> Any:
        if self.memo is None:
            return compute()
        call = self._calls[name] = self._calls.get(name, -1) + 1
        key = (self.key, name, call)
        if key in self.memo:
            return self.memo[key]
        value = self.memo[key] = compute()  # a memo without room keeps nothing
        return value

    def _shared_child(self, name: str, forward: Callable[..., Any]) -> Callable[..., Any]:
        def child(*args: Any, **kwargs: Any) -> Any:
            spread = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Spread)]
            if not spread:
                return forward(*args, **kwargs)
            shared = spread[0].shared
            if shared is None or any(leaf.shared is None for leaf in spread):
                return forward(*written(args), **written(kwargs))
            output = self._kept(name, lambda: forward(*_base(args), **_base(kwargs)))
            rows = shared.shape[:2]

            def again(tensor: Tensor) -> Tensor:
                return Spread.of(tensor[None], self.lanes.lanes) if tensor.shape[:2] == rows else tensor

            return pytree.tree_map_only(Tensor, again, output)

        return child

    def _attention(self, forward: Callable[..., Any]) -> Callable[..., Any]:
        def attention(*args: Any, **kwargs: Any) -> Any:
            if not any(isinstance(leaf, Spread) for leaf in pytree.tree_leaves((args, kwargs))):
                return forward(*args, **kwargs)
            args, kwargs = _base(args), _base(kwargs)
            self.lanes.frozen = self._kept("attention", lambda: self.lanes.freeze(*args, **kwargs))
            try:
                return self.lanes(*args, **kwargs)
            finally:
                self.lanes.frozen = None

        return attention


def _base(tree: Any) -> Any:
    """The same arguments with B rows for every spread batch (one that is no longer shared raises)."""

    def one(spread: Spread) -> Tensor:
        if spread.shared is None:
            raise TypeError("the attention reads hidden states that its own lanes have changed")
        return spread.shared

    return pytree.tree_map_only(Spread, one, tree)
