"""Which implementation of an op runs here, and why another does not."""

import os
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

BACKENDS = ("auto", "native", "triton", "reference")
PREFERENCE = {"cpu": ("native", "reference"), "cuda": ("native", "triton", "reference")}
"""What "auto" takes by device, first that runs; Triton on a CPU is its interpreter, which nobody would choose."""
EXCEPTIONS = {("cuda", "grouped_gradient_step_"): ("triton", "native", "reference")}
"""Ops with an order of their own: this one is a matrix product, and only its Triton kernel has tensor cores for it."""
CUDA_LIBRARY = Path(__file__).resolve().parents[1] / "libsltfast_cuda.so"

try:
    from sltfast import _C
except ImportError as error:
    _C = None
    _absent = f"the native extension is not loaded: {error} (build it: pip install --no-build-isolation .)"
else:
    _absent = ""
    if torch.version.cuda and CUDA_LIBRARY.exists():
        torch.ops.load_library(CUDA_LIBRARY)

_warned = False
_refused: dict[tuple[str, str], dict[str, str]] = {}  # asked once: a tracer cannot look for modules


def native_ops() -> list[str]:
    """The ops that the native extension declares."""
    prefix = "sltfast::native_"
    names: list[str] = torch._C._dispatch_get_all_op_names() if _C is not None else []
    return sorted(name.removeprefix(prefix) for name in names if name.startswith(prefix))


def _native_refusal(op: str, device: torch.device) -> str:
    if _absent:
        return _absent
    key = {"cpu": "CPU", "cuda": "CUDA"}.get(device.type)
    if key and torch._C._dispatch_has_kernel_for_dispatch_key(f"sltfast::native_{op}", key):
        return ""
    if key == "CUDA" and not torch.version.cuda:
        return f"this torch ({torch.__version__}) has no CUDA"
    if key == "CUDA" and not CUDA_LIBRARY.exists():
        return "the CUDA kernels are not built (install where nvcc is found, or with SLTFAST_CUDA=1)"
    return f"there is no native kernel for {device.type}"


def _triton_refusal(op: str, device: torch.device) -> str:
    if find_spec("triton") is None:
        return "triton is not installed (pip install 'sltfast[gpu]')"
    if find_spec(f"sltfast.triton_kernels.{op.rstrip('_')}") is None:
        return "there is no Triton kernel for it"
    if device.type == "cuda" or os.environ.get("TRITON_INTERPRET") == "1":
        return ""
    return f"Triton's kernels run on CUDA devices, not on {device.type} (for tests: TRITON_INTERPRET=1 before import)"


def refusals(op: str = "langevin_step_", device: torch.device | str = "cpu") -> dict[str, str]:
    """Why a backend cannot run `op` on `device`: {backend: reason}; a backend that can run is not listed."""
    where = device if isinstance(device, str) else device.type
    if (op, where) not in _refused:
        kind = torch.device(where)
        reasons = {"native": _native_refusal(op, kind), "triton": _triton_refusal(op, kind)}
        _refused[op, where] = {backend: reason for backend, reason in reasons.items() if reason}
    return _refused[op, where]


def choose(op: str, requested: str, device: torch.device) -> str:
    """Return "native", "triton" or "reference": what `requested` (one of BACKENDS) means for `op` on `device`.

    Raises:
        ValueError: `requested` is no backend.
        RuntimeError: `requested` names a backend that cannot run; the message says why.
    """
    if requested not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {requested!r}")
    if requested == "reference":
        return "reference"
    if requested != "auto":
        reason = refusals(op, device).get(requested, "")
        if reason:
            raise RuntimeError(f"backend {requested!r} cannot run {op} on {device}: {reason}")
        return requested
    refused = refusals(op, device)
    order = EXCEPTIONS.get((device.type, op)) or PREFERENCE.get(device.type, ("reference",))
    choice = next(backend for backend in order if backend not in refused)
    if choice == "reference" and _absent and not torch.compiler.is_compiling():
        _warn_once(f"{_absent}; running the plain PyTorch reference, about 100 times slower")
    return choice


def implementation(op: str, requested: str, device: torch.device) -> Callable[..., Any]:
    """The registered op that `requested` means for `op` on `device`; raises as `choose` does."""
    found: Callable[..., Any] = getattr(torch.ops.sltfast, f"{choose(op, requested, device)}_{op}").default
    return found


def _warn_once(message: str) -> None:
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(message, RuntimeWarning, stacklevel=5)


def build_facts() -> dict[str, object]:
    """What was compiled in (version, ISA levels and the one in use, CUDA archs, torch target); {} without it."""
    return dict(_C.build_facts()) if _C is not None else {}
