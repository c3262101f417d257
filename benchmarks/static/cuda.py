"""Compiles every csrc/cuda/*.cu for every architecture, warnings and spills being errors, and makes its rows."""

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


def cubin(source: Path, arch: int) -> bytes:
    """`source` compiled for sm_`arch`; raises, with what the compiler said, on a warning or a spill."""
    include = Path(torch.__file__).resolve().parent / "include"
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "out.cubin"
        command = ["nvcc", *FLAGS, f"-isystem={include}", f"-arch=sm_{arch}", "-cubin", str(source), "-o", str(target)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)}\n{done.stderr}")
        return target.read_bytes()


def short_name(kernel: str) -> str:
    """`void sltfast::(anonymous namespace)::f<(sltfast::Method)0, float>(…)` → `f<0, float>`."""
    name = kernel.replace("(anonymous namespace)::", "").replace("sltfast::", "").removeprefix("void ")
    return name.replace("(Method)", "").replace("(bool)", "").partition("(")[0]


def rows() -> list[Row]:
    """One for every kernel and architecture, or several where its hot path is counted."""
    out = []
    for source in sorted(CUDA.glob("*.cu")):
        for arch in ARCHITECTURES:
            start = time.perf_counter()
            kernels = kernels_of(cubin(source, arch))
            print(f"{source.name} sm_{arch}: {len(kernels)} kernels, {time.perf_counter() - start:.1f} s")
            for kernel in kernels:
                row = plain_row(source.stem, short_name(kernel.name), "CUDA", arch, kernel)
                counted = COUNTED[source.stem](kernel, row) if source.stem in COUNTED else []
                out += counted or [row]
    return out
