"""Which implementation of the ops runs here, and why another does not."""

import warnings

import torch

BACKENDS = ("auto", "native", "reference")

try:
    from sltfast import _C
except ImportError as error:
    _C = None
    _absent = f"the native extension is not loaded: {error} (build it: pip install --no-build-isolation .)"
else:
    _absent = ""

_warned = False


def _native_refusal(device: torch.device) -> str:
    if _absent or device.type == "cpu":
        return _absent
    return f"the native kernels run on the CPU, not on {device}"


def refusals(device: torch.device | str = "cpu") -> dict[str, str]:
    """Why a backend cannot run on `device`: {backend: reason}; a backend that can run is not listed."""
    reason = _native_refusal(torch.device(device))
    return {"native": reason} if reason else {}


def choose(requested: str, device: torch.device) -> str:
    """Return "native" or "reference": what `requested` ("auto" | "native" | "reference") means on `device`.

    Raises:
        ValueError: `requested` is no backend.
        RuntimeError: `requested` is "native" and cannot run; the message says why.
    """
    if requested not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {requested!r}")
    if requested == "reference":
        return "reference"
    reason = _native_refusal(device)
    if not reason:
        return "native"
    if requested == "native":
        raise RuntimeError(f"backend 'native' cannot run: {reason}")
    if _absent and not torch.compiler.is_compiling():
        _warn_once(f"{_absent}; running the plain PyTorch reference, about 100 times slower")
    return "reference"


def _warn_once(message: str) -> None:
    global _warned
    if not _warned:
        _warned = True
        warnings.warn(message, RuntimeWarning, stacklevel=5)


def build_facts() -> dict[str, object]:
    """What was compiled in (version, ISA levels and the one in use, CUDA archs, torch target); {} without it."""
    return dict(_C.build_facts()) if _C is not None else {}
