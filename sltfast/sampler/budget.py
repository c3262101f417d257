"""How much memory a run may take."""

from __future__ import annotations

import os
from pathlib import Path

import torch

SHARE = 0.8  # of what is free: the rest is for the caller, and for what no plan foresees


def free_bytes(device: torch.device) -> int:
    """Memory that a device can still give; on Linux also what it would drop from its file caches."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            name, _, value = line.partition(":")
            if name == "MemAvailable":
                return int(value.split()[0]) << 10
    pages = "SC_AVPHYS_PAGES" if "SC_AVPHYS_PAGES" in os.sysconf_names else "SC_PHYS_PAGES"
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf(pages)


def memory_budget(asked: int | None, device: torch.device) -> int:
    """Bytes that a run may take beside the model: as asked, or a share of what is free."""
    return int(SHARE * free_bytes(device)) if asked is None else asked


def readable(count: float) -> str:
    """Bytes for a reader, in decimal units."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(count) >= size:
            return f"{count / size:.3g} {unit}"
    return f"{count:.0f} bytes"
