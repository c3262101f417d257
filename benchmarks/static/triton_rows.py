"""Compiles every Triton kernel for every architecture and makes its rows, which tell of spills."""

import time
from collections import Counter
from importlib import import_module
from pathlib import Path
from typing import Any

import sltfast.triton_kernels
from benchmarks.static.langevin_step import CHAINS, PER_CHAIN
from benchmarks.static.rows import ARCHITECTURES, Row, counted_row, plain_row
from benchmarks.static.sass import Kernel, Loop, Turn, kernels_of
from benchmarks.static.triton_aot import compile_ahead

VECTOR = 16
COUNTED = ("sgld", "rmsprop_sgld", "rmsprop_sgld_hh", "sghmc", "sgnht")


def rows() -> list[Row]:
    """One for every variant and architecture, or several where its hot path is counted."""
    out = []
    for path in sorted(Path(sltfast.triton_kernels.__path__[0]).glob("*.py")):
        variants = getattr(import_module(f"sltfast.triton_kernels.{path.stem}"), "AHEAD", ())
        for arch in ARCHITECTURES:
            start = time.perf_counter()
            for variant in variants:
                out += _rows_of(path.stem, variant, arch)
            if variants:
                print(f"{path.name} sm_{arch}: {len(variants)} variants, {time.perf_counter() - start:.1f} s")
    return out


def _rows_of(module: str, variant: Any, arch: int) -> list[Row]:
    how = (variant.num_warps, variant.max_registers)
    compiled = compile_ahead(variant.kernel, variant.signature, variant.constexprs, arch, *how)
    (kernel,) = kernels_of(compiled.asm["cubin"])
    row = plain_row(module, variant.name, "Triton", arch, kernel, kernel.stack + kernel.local)
    if module == "langevin_step" and variant.name in COUNTED:
        return _counted(kernel, row, variant)
    return [row]


def _vectors(loop: Loop) -> Turn:
    """A turn, of its accesses only those of coordinates: 16 bytes wide, where a chain's scalars are 8 at most.

    The store that flags a coordinate which broke is left out as well: it is not taken while none does.
    """
    code = [loop.kernel.code[i] for i in loop.own]
    wide = [x for x in code if x.access == VECTOR]
    return Turn(
        read=sum(x.access for x in wide if x.name == "LDG"),
        written=sum(x.access for x in wide if x.name == "STG"),
        narrowest=VECTOR,
        opcodes=Counter(x.opcode for x in code),
    )


def _counted(kernel: Kernel, row: Row, variant: Any) -> list[Row]:
    """One row for each of CHAINS: the chains' loop, and a share of the one around it, which reads w*."""
    chain = max((loop for loop in kernel.loops if _vectors(loop).written), key=lambda loop: loop.depth)
    around = [loop for loop in kernel.loops if set(chain.own) <= set(loop.inner)]
    shared = max(around, key=lambda loop: loop.depth)
    return [
        counted_row(
            row,
            [(_vectors(chain), 1.0), (_vectors(shared), 1.0 / chains)],
            counted_per="coordinate",
            units=variant.group,
            chains=chains,
            floor=PER_CHAIN[variant.constexprs["RULE"]] + 4 / chains,
        )
        for chains in CHAINS
    ]
