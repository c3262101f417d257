"""Registers, stack and shared memory of a compiled kernel, as cuobjdump reads them from its cubin."""

import re
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import triton


class Resources(NamedTuple):
    """Of one kernel: registers a thread, bytes of stack and local memory a thread (spills), static shared bytes."""

    registers: int
    stack: int
    local: int
    shared: int


def tool(name: str) -> str:
    """Path of a CUDA tool (cuobjdump, nvdisasm) that came with Triton."""
    return str(Path(triton.__file__).parent / "backends/nvidia/bin" / name)


def resources_of(cubin: bytes) -> Resources:
    """What a cubin of one kernel takes."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        listing = subprocess.run(
            [tool("cuobjdump"), "--dump-resource-usage", file.name], check=True, capture_output=True, text=True
        ).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)", listing)
    if not found:
        raise ValueError(f"cuobjdump named no resources:\n{listing}")
    registers, stack, shared, local = (int(number) for number in found.groups())
    return Resources(registers, stack, local, shared)
