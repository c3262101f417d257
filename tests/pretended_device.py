"""A device that is not there: tensors with real values that claim to be on it, and what a host would wait for.

Without a GPU a test cannot see the host wait. Here every tensor of a run says that it is on PRETENDED, so the code goes
the way of a device, and every operation reaches ``Device``, which does it on the CPU. What needs a value on the host
is counted and told with the line that asked; any other operation but a view or an allocation is a launch.
"""

from __future__ import annotations

import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map_only

make_subclass = Tensor._make_subclass
PRETENDED = torch.device("meta")  # the one device without hardware whose tensors autograd takes
WAITS = {  # the host needs a value, or the number of values that are to come
    "_local_scalar_dense", "is_nonzero", "equal", "allclose", "nonzero", "nonzero_numpy", "masked_select", "_unique",
    "_unique2", "unique_dim", "unique_consecutive", "unique_dim_consecutive", "_assert_async", "bincount", "histc",
}  # fmt: skip
INDEXING = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index"}
MASKS = (torch.bool, torch.uint8)
NO_LAUNCH = {"empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "detach", "lift_fresh", "set_"}


class OnDevice(Tensor):
    """A tensor that says it is on PRETENDED; ``held`` has its values, on the CPU."""

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: Tensor) -> OnDevice:
        own = Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=PRETENDED,
        )
        own.held = held.detach()
        return own

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func} was called on the pretended device outside of it")


class Device(TorchDispatchMode):
    """Does what is asked of PRETENDED, and counts it while ``counting``.

    Attributes:
        waits: what the host waited for, each with the lines of this project that led there.
        launches: operations by name.
    """

    def __init__(self) -> None:
        super().__init__()
        self.counting = False
        self.waits: list[str] = []
        self.launches: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = func._schema.name.split("::")[1]
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, OnDevice)]
        target = kwargs.get("device")
        if target is not None:
            kwargs["device"] = torch.device("cpu")
        there = bool(given) if target is None else torch.device(target).type == PRETENDED.type
        own = {id(one.held): one for one in given}
        args, kwargs = tree_map_only(OnDevice, lambda one: one.held, (args, kwargs))
        from_host = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor) and id(leaf) not in own]
        if self.counting and (given or there):
            self._count(func, name, args, kwargs, from_host, there)
        result = func(*args, **kwargs)
        if not there:
            return result
        return tree_map_only(Tensor, lambda made: own[id(made)] if id(made) in own else OnDevice(made), result)

    def _count(
        self, func: Any, name: str, args: Any, kwargs: dict[str, Any], from_host: list[Tensor], stays: bool
    ) -> None:
        by_mask = name in INDEXING and any(index.dtype in MASKS for index in tree_leaves(args[1]) if index is not None)
        by_host = name in INDEXING and any(leaf.ndim for leaf in from_host)
        unsized = name == "repeat_interleave" and "self" not in func._schema.overload_name and len(args) < 3
        blocking = name in ("_to_copy", "copy_") and from_host and not (kwargs.get("non_blocking") or True in args[2:])
        if name in WAITS or by_mask or by_host or unsized or blocking or not stays:
            self.waits.append(f"{name}: {_asked()}")
        elif not (func.is_view or name in NO_LAUNCH):
            self.launches[name] += 1


def _asked() -> str:
    here = Path(__file__).resolve()
    frames = [
        f for f in traceback.extract_stack() if "/torch/" not in f.filename and Path(f.filename).resolve() != here
    ]
    return " < ".join(f"{Path(f.filename).name}:{f.lineno}" for f in reversed(frames[-6:]))


def _is_list(index: Any) -> bool:
    return isinstance(index, list)


class _Functions(TorchFunctionMode):
    """Functions that do not come to ``Device`` as they would on a device."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        where = (kwargs or {}).get("device")
        if func is torch.tensor and where is not None and torch.device(where) == PRETENDED:
            return torch.tensor(*args, **{**kwargs, "device": "cpu"}).to(PRETENDED)
        if func == Tensor.__getitem__ and isinstance(args[0], OnDevice):
            args = (args[0], tree_map_only(list, lambda index: torch.tensor(index), args[1], is_leaf=_is_list))
        if func in (Tensor.tolist, Tensor.numpy) and isinstance(args[0], OnDevice):
            args = (args[0].cpu(), *args[1:])
        if func == Tensor.data.__set__ and isinstance(args[1], OnDevice):
            args[0].held = args[1].held
        return func(*args, **(kwargs or {}))


def _hollow(tensor: Tensor) -> Tensor:
    """For subclasses, which are asked for their shape, dtype and device alone."""
    if not isinstance(tensor, OnDevice):
        return tensor
    with _disable_current_modes():
        return torch.empty(tensor.shape, dtype=tensor.dtype, device=PRETENDED)


def _make_subclass(cls: type[Any], data: Tensor, requires_grad: bool = False, **kwargs: Any) -> Any:
    return make_subclass(cls, _hollow(data), requires_grad, **kwargs)


def _to_host(tensor: Tensor) -> Callable[[], np.ndarray]:
    """On a device the copy goes to pinned memory behind the host's back; who writes it out waits for it."""
    copy = tensor.clone()
    return lambda: np.asarray(copy.held if isinstance(copy, OnDevice) else copy)


@contextmanager
def pretended() -> Iterator[Device]:
    """``device="meta"`` of a run is a device that computes; it knows no autocast."""
    enabled, autocast, dtype = torch.is_autocast_enabled, torch.autocast, torch.get_autocast_dtype

    def there(kind: Any) -> bool:
        return kind == PRETENDED.type

    as_subclass = Tensor.as_subclass
    device = Device()
    with (
        mock.patch.object(Tensor, "as_subclass", lambda self, cls: as_subclass(_hollow(self), cls)),
        mock.patch.object(Tensor, "_make_subclass", _make_subclass),
        mock.patch("sltfast.chains.asked.pick_device", return_value=PRETENDED),
        mock.patch("sltfast.sampler.recorder._to_host", _to_host),
        mock.patch("torch.is_autocast_enabled", lambda *a: False if there(a and a[0]) else enabled(*a)),
        mock.patch("torch.get_autocast_dtype", lambda kind: torch.float32 if there(kind) else dtype(kind)),
        mock.patch("torch.autocast", lambda kind, *a, **k: nullcontext() if there(kind) else autocast(kind, *a, **k)),
        device,
        _Functions(),
    ):
        yield device
