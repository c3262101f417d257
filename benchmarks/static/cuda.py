"""Compiles every csrc/cuda/*.cu for every architecture, warnings and spills being errors, and makes its rows."""

import re
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.static.langevin_step import counted as langevin_step
from benchmarks.static.rows import ARCHITECTURES, Row, plain_row
from benchmarks.static.sass import Kernel, kernels_of

CUDA = Path(__file__).resolve().parents[2] / "csrc" / "cuda"
FLAGS = [
    *("-std=c++17", "-O3", "-fmad=false", "-DUSE_CUDA", "-DTORCH_TARGET_VERSION=0x020a000000000000"),
    *("-Xptxas", "-v,--warn-on-spills", "-Werror", "all-warnings"),
]
COUNTED: dict[str, Callable[[Kernel, Row], list[Row]]] = {"langevin_step": langevin_step}
"""By file: the rows of a kernel whose hot path is counted, none for one that is only compiled."""


SPILLS = re.compile(r"Function properties for (\S+)\n.*?(\d+) bytes spill stores, (\d+) bytes spill loads")


def cubin(source: Path, arch: int) -> tuple[bytes, dict[str, int]]:
    """`source` compiled for sm_`arch`, and the bytes that each kernel spills.

    Raises:
        RuntimeError: a warning or a spill, with what the compiler said.
    """
    include = Path(torch.__file__).resolve().parent / "include"
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "out.cubin"
        command = ["nvcc", *FLAGS, f"-isystem={include}", f"-arch=sm_{arch}", "-cubin", str(source), "-o", str(target)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
        return target.read_bytes(), {name: int(a) + int(b) for name, a, b in SPILLS.findall(done.stderr)}


RULES = ("plain", "preconditioned", "momentum")
"""langevin_table.cuh's enum, in order."""


def short_name(kernel: str) -> str:
    """`void sltfast::(anonymous namespace)::f<(sltfast::Rule)0, float>(…)` → `f<plain, float>`."""
    name = kernel.replace("(anonymous namespace)::", "").replace("sltfast::", "").removeprefix("void ")
    return re.sub(r"\(Rule\)(\d)", lambda rule: RULES[int(rule[1])], name).replace("(bool)", "").partition("(")[0]


def rows() -> list[Row]:
    """One for every kernel and architecture, or several where its hot path is counted."""
    out = []
    for source in sorted(CUDA.glob("*.cu")):
        for arch in ARCHITECTURES:
            start = time.perf_counter()
            machine_code, spills = cubin(source, arch)
            kernels = kernels_of(machine_code)
            print(f"{source.name} sm_{arch}: {len(kernels)} kernels, {time.perf_counter() - start:.1f} s")
            for kernel in kernels:
                row = plain_row(source.stem, short_name(kernel.name), "CUDA", arch, kernel, spills[kernel.symbol])
                counted = COUNTED[source.stem](kernel, row) if source.stem in COUNTED else []
                out += counted or [row]
    return out
