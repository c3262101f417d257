"""The values of a run's loss on its first batch at w*: what tells losses apart that look alike, or cannot be read."""

from __future__ import annotations

import functools
import hashlib
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sltfast.losses import ItemLosses

ROWS = 32  # of the batch, whose means are kept as they are
ROUNDINGS, LOW_ROUNDINGS = 1e3, 32.0  # as engines are compared (``sampler.engines.agreement``)


def loss_values(first: ItemLosses, device: torch.device, precision: torch.dtype) -> dict[str, Any]:
    """What is kept of the first batch's losses.

    Args:
        first: ℓ(w*; b₀), [B, T].
        device: where they were computed.
        precision: what the model computed in.

    Returns:
        ``bits``, a digest of all values that count; ``means``, float64 means of the first ROWS rows; ``computed_on``,
        machine, threads and version of torch; ``tolerance``, what rounding explains between two machines: 10³
        roundings of the precision (32 of one below float32) of 1 + the largest of the means.
    """
    values = first.values.detach()
    weights = torch.ones_like(values) if first.weights is None else first.weights.detach()
    counted = torch.where(weights != 0, values, 0)
    digest = hashlib.blake2b(digest_size=16)
    for tensor in (counted, weights):
        digest.update(str((tuple(tensor.shape), tensor.dtype)).encode())
        digest.update(_octets(tensor))
    total = weights.double().sum(1)
    means = (counted.double() * weights.double()).sum(1) / torch.where(total == 0, 1, total)
    kept = means[:ROWS].cpu().tolist()
    roundings = ROUNDINGS if torch.finfo(precision).eps < 1e-6 else LOW_ROUNDINGS
    tolerance = roundings * torch.finfo(precision).eps * (1.0 + max(map(abs, kept), default=0.0))
    return {"bits": digest.hexdigest(), "means": kept, "computed_on": _place(device), "tolerance": tolerance}


def _octets(tensor: Tensor) -> bytes:
    return tensor.cpu().contiguous().view(torch.uint8).numpy().tobytes()


def _place(device: torch.device) -> str:
    what = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{device.type} {_processor()}"
    return f"{what}, {torch.get_num_threads()} threads, torch {torch.__version__}"


@functools.cache
def _processor() -> str:
    name = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        models = [line for line in cpuinfo.read_text().splitlines() if line.startswith("model name")]
        name = models[0].partition(":")[2].strip() if models else name
    return f"{name} ({torch.backends.cpu.get_cpu_capability()})"


def values_differ(recorded: Mapping[str, Any], given: Mapping[str, Any]) -> str:
    """How two records of ``loss_values`` differ, "" where they are of one loss.

    On one CPU, with as many threads and the same torch, every bit counts; elsewhere and on GPUs, whose sums may come in
    any order, what exceeds the larger of the two tolerances.
    """
    old, new = recorded["means"], given["means"]
    if len(old) != len(new):
        return f"{len(old)} rows there, {len(new)} now"
    there, here = (f"{sum(means) / max(1, len(means)):.9g}" for means in (old, new))
    apart = max((abs(a - b) for a, b in zip(old, new, strict=True)), default=0.0)
    allowed = max(recorded["tolerance"], given["tolerance"])
    if apart > allowed:
        return f"mean {there} there, {here} now, rows differ by up to {apart:.3g}"
    one_machine = recorded["computed_on"] == given["computed_on"] and given["computed_on"].startswith("cpu")
    if one_machine and recorded["bits"] != given["bits"]:
        return f"mean {there} there, {here} now, rows differ by up to {apart:.3g} on the very same machine"
    return ""
