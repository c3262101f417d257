"""Which implementation of the ops runs here, and why another does not."""

import functools
import warnings

import torch

BACKENDS = ("auto", "native", "reference")

try:
    from sltfast import _C
except ImportError as error:
    _C = None
    _refusal = (
        f"the native extension is not loaded: {error} (build it with `pip install --no-build-isolation .`)"
    )
else:
    _refusal = ""


def refusals(device: torch.device | str = "cpu") -> dict[str, str]:
    """Why a backend cannot run on `device`: {backend: reason}; a backend that can run is not listed."""
    reason = _refusal
    if not reason and torch.device(device).type != "cpu":
        reason = f"the native kernels run on the CPU, not on {device}"
    return {"native": reason} if reason else {}


@functools.lru_cache(maxsize=64)
def choose(requested: str, device: torch.device) -> str:
    """Return "native" or "reference": what `requested` ("auto" | "native" | "reference") means on `device`.

    Raises:
        ValueError: `requested` is no backend.
        RuntimeError: `requested` is "native" and cannot run; the message says why.
    """
    if requested not in BACKENDS:
        raise ValueError(f"backend must be one of {', '.join(BACKENDS)}, got {requested!r}")
    reason = refusals(device).get("native")
    if requested == "reference" or (requested == "auto" and reason is not None):
        if requested == "auto" and _C is None:
            _warn_once(f"{reason}; sltfast runs its plain PyTorch reference, about 100 times slower")
        return "reference"
    if reason is not None:
        raise RuntimeError(f"backend 'native' cannot run: {reason}")
    return "native"


@functools.cache
def _warn_once(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=4)


def build_facts() -> dict[str, object]:
    """What was compiled in: version, ISA levels and the one in use, CUDA archs, torch target; {} without `_C`."""
    return dict(_C.build_facts()) if _C is not None else {}
