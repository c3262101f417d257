"""A batch of every lane that is not written out yet: what the lanes share, and what each adds to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils import _pytree as pytree

ADDITIONS = (torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__)
SHAPE_ONLY = (
    Tensor.shape.__get__,  # type: ignore[attr-defined]
    Tensor.dtype.__get__,  # type: ignore[attr-defined]
    Tensor.device.__get__,
    Tensor.ndim.__get__,  # type: ignore[attr-defined]
    Tensor.layout.__get__,  # type: ignore[attr-defined]
    Tensor.is_cuda.__get__,  # type: ignore[attr-defined]
    Tensor.size,
    Tensor.dim,
    Tensor.numel,
    Tensor.is_floating_point,
    Tensor.__len__,
)


class Spread(Tensor):
    """y_l = base_r(l) + own_l for L lanes l = r·C + c, of shape [L·B, T, d], lane-major.

    Sums of spread batches stay spread, so a residual stream that all lanes share is added once and not L times. Every
    other operation sees the whole batch, which is written at its first use and kept. The tensor itself is a shape
    without storage.

    Attributes:
        base: [R, B, T, d] or, where all lanes share it, [1, B, T, d]; constant.
        own: writes base + own as [L·B, T, d]; None where nothing is a lane's own.
        lanes: L.
    """

    base: Tensor
    own: Callable[[Tensor], Tensor] | None
    lanes: int
    _whole: Tensor | None
    _stale: bool

    @staticmethod
    def of(base: Tensor, lanes: int, own: Callable[[Tensor], Tensor] | None = None) -> Spread:
        """A spread batch; see the attributes."""
        rows = lanes * base.shape[1]
        hollow = base.new_full((), float("nan")).expand(rows, *base.shape[2:])
        spread = hollow.as_subclass(Spread)
        spread.base, spread.own, spread.lanes = base, own, lanes
        spread._whole, spread._stale = None, False
        return spread

    @property
    def shared(self) -> Tensor | None:
        """[B, T, d], where all lanes are alike; else None."""
        if self.own is not None or self._stale or self.base.shape[0] != 1:
            return None
        return self.base[0]

    def whole(self) -> Tensor:
        """[L·B, T, d], written out."""
        if self._whole is None:
            if self.own is not None:
                self._whole = self.own(self.base)
            else:
                copies = self.lanes // self.base.shape[0]
                repeated = self.base[:, None].expand(-1, copies, *self.base.shape[1:])
                rows = repeated.reshape(self.lanes * self.base.shape[1], *self.base.shape[2:])
                self._whole = rows.clone() if copies == 1 else rows  # written on by others, so never the base itself
        return self._whole

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Sums and shapes of a spread batch; the whole batch for everything else."""
        kwargs = dict(kwargs or {})
        if func in SHAPE_ONLY:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **kwargs)
        if func in ADDITIONS and len(args) == 2 and not kwargs:
            added = _sum(*args)
            if added is not None:
                return added
        if func is F.dropout and isinstance(args[0], Spread) and not _drops(*args[1:], **kwargs):
            return args[0]
        name = getattr(func, "__name__", "")
        if "out" in kwargs or name in ("__set__", "__setitem__") or name.startswith("__i") or _in_place(name):
            for leaf in pytree.tree_leaves((args, kwargs)):
                if isinstance(leaf, Spread):
                    leaf.whole()
                    leaf._stale = True
        return func(*written(args), **written(kwargs))


def written(tree: Any) -> Any:
    """The same arguments with every spread batch written out."""
    return mapped(tree, Spread.whole)


def mapped(tree: Any, one: Callable[[Spread], Any]) -> Any:
    """The same nesting with ``one`` of every spread batch in its place."""
    if isinstance(tree, Spread):
        return one(tree)
    kind = type(tree)
    if kind is tuple or kind is list:  # what nearly all calls are made of, without the generality that costs time
        return kind(mapped(item, one) for item in tree)
    if kind is dict:
        return {key: mapped(item, one) for key, item in tree.items()}
    return pytree.tree_map_only(Spread, one, tree) if isinstance(tree, tuple | Mapping) else tree


def holds(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Spread]:
    """The spread batches among the arguments of a call; those nested deeper are left to what reads them."""
    return [value for value in (*args, *kwargs.values()) if isinstance(value, Spread)]


def _in_place(name: str) -> bool:
    return name.endswith("_") and not name.endswith("__")


def _drops(p: float = 0.5, training: bool = True, inplace: bool = False) -> bool:
    return training and p > 0


def _sum(left: Any, right: Any) -> Tensor | None:
    """The sum without writing out what lanes share; None where that is not possible."""
    if not isinstance(left, Spread):
        left, right = right, left
    if left._whole is not None and (left.own is not None or left._stale):
        return None
    if isinstance(right, Spread):
        if right._whole is not None and (right.own is not None or right._stale):
            return None
        if left.lanes != right.lanes or left.shape != right.shape or (left.own and right.own):
            return None
        return Spread.of(left.base + right.base, left.lanes, left.own or right.own)
    if isinstance(right, Tensor) and right.shape == left.shape and left.own is None:
        parts = left.base.shape[0]
        copies = left.lanes // parts
        rows = right.reshape(parts, copies, *left.base.shape[1:]) + left.base[:, None]
        return cast(Tensor, rows.reshape(right.shape))
    return None
