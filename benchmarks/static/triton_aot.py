"""Triton kernels compiled ahead of time, for GPUs that need not be here.

Triton's interpreter and its compiler do not share a process: TRITON_INTERPRET must not be set.
"""

import os
from collections.abc import Mapping
from typing import Any

if os.environ.get("TRITON_INTERPRET") == "1":
    raise RuntimeError("TRITON_INTERPRET=1 is set: kernels are then interpreted, and cannot be compiled (unset it)")

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

ARCHITECTURES = (80, 90, 100, 120)


def compile_ahead(
    kernel: Any,
    signature: Mapping[str, str],
    constexprs: Mapping[str, Any],
    cc: int,
    num_warps: int = 4,
    max_registers: int = 0,
) -> Any:
    """A `@triton.jit` kernel compiled for compute capability `cc`, such as 90; `.asm` holds its "ptx" and "cubin".

    Args:
        kernel: the function.
        signature: type of every argument that is no constexpr, in any order: "*fp32" is a pointer to float32 that is
            16-byte aligned, as torch's allocations are; "*fp32:unaligned" one that need not be; "i64", "fp32" scalars.
        constexprs: value of every constexpr argument.
        cc: compute capability times ten.
        num_warps: warps of a program.
        max_registers: a thread's; 0 = as the compiler sees fit.

    Raises:
        ValueError: an argument is in neither mapping, or a name is no argument.
    """
    names = list(kernel.arg_names)
    wrong = set(names) ^ (set(signature) | set(constexprs))
    if wrong:
        raise ValueError(f"signature and constexprs must name the arguments {names}; wrong or missing: {sorted(wrong)}")
    types = {name: signature[name].split(":")[0] if name in signature else "constexpr" for name in names}
    attributes = {
        (names.index(name),): [["tt.divisibility", 16]]
        for name, kind in signature.items()
        if kind.startswith("*") and not kind.endswith(":unaligned")
    }
    source = ASTSource(fn=kernel, signature=types, constexprs=dict(constexprs), attrs=attributes)
    # only an explicit fma is fused, as on every other backend; the default differs between releases of Triton
    options = {"num_warps": num_warps, "enable_fp_fusion": False}
    if max_registers:
        options["maxnreg"] = max_registers
    return triton.compile(source, target=GPUTarget("cuda", cc, 32), options=options)
