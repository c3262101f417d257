"""A guard stands where a moving weight was: its metadata can be read, computing with it raises."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor


class GuardedWeight(RuntimeError):
    """A moving weight was used by something else than its own module.

    Attributes:
        module: name of the module that holds the weight; a module above it is the one that read it.
    """

    def __init__(self, module: str, parameter: str, function: str) -> None:
        super().__init__(
            f"{function} read {parameter!r} of module {module or 'the model'!r} outside that module's forward: every "
            "lane has its own weights there, so the module that reads it must run as one unit"
        )
        self.module = module


_GETTERS = (
    "shape", "dtype", "device", "layout", "ndim", "requires_grad", "is_leaf", "is_meta", "is_cuda", "is_cpu",
    "is_sparse", "is_quantized", "grad", "itemsize", "nbytes", "grad_fn",
)  # fmt: skip
_QUESTIONS = (
    "size", "dim", "numel", "nelement", "stride", "is_floating_point", "is_complex", "element_size", "is_contiguous",
    "get_device", "__len__", "ndimension", "is_inference", "storage_offset",
)  # fmt: skip
_ALLOWED = {getattr(Tensor, name).__get__ for name in _GETTERS} | {getattr(Tensor, name) for name in _QUESTIONS}
_ALLOWED |= {torch.is_floating_point, torch.is_complex, torch.numel}
_AS_OTHER = {Tensor.to, Tensor.type_as}  # harmless where the guard only says which dtype and device


class Guard(Tensor):
    """See the module's docstring."""

    module_name: str
    parameter_name: str

    @staticmethod
    def of(weight: Tensor, module: str, parameter: str) -> Guard:
        """A guard with the shape, dtype and device of ``weight``."""
        guard: Guard = Tensor._make_subclass(Guard, weight.detach(), False)
        guard.module_name, guard.parameter_name = module, parameter
        return guard

    @classmethod
    def __torch_function__(
        cls,
        func: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Let metadata through, refuse everything else."""
        given = {**(kwargs or {})}
        if func in _ALLOWED:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **given)
        if func in _AS_OTHER and not isinstance(args[0], cls):
            like = next(value for value in (*args[1:], *given.values()) if isinstance(value, cls))
            return args[0].to(like.device, like.dtype)
        guard = _first([args, given])
        name = getattr(func, "__name__", str(func))
        if name == "__get__":
            name = "an attribute"
        raise GuardedWeight(guard.module_name, guard.parameter_name, name) if guard is not None else TypeError(name)

    def __repr__(self) -> str:  # type: ignore[override]
        return f"Guard({self.parameter_name!r} of {self.module_name!r})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Guard:
        return self

    def __reduce_ex__(self, proto: Any) -> Any:
        raise GuardedWeight(self.module_name, self.parameter_name, "pickling")


def _first(values: Any) -> Guard | None:
    if isinstance(values, Guard):
        return values
    if isinstance(values, Mapping):
        values = values.values()
    elif not isinstance(values, tuple | list):
        return None
    return next((found for found in map(_first, values) if found is not None), None)
