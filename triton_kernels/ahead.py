"""How a kernel is to be compiled without a GPU: what every module here lists, once a variant, as its AHEAD."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Ahead(NamedTuple):
    """One variant of a kernel: its row in the static table, and a compilation that must not spill.

    Args:
        name: the variant, such as "sgld fp32".
        kernel: the `@triton.jit` function.
        signature: type of every argument that is no constexpr ("*fp32", "*i64", "i32", "fp32"); a pointer is taken as
            16-byte aligned, as torch's allocations are, unless its type ends in ":unaligned".
        constexprs: value of every constexpr argument.
        num_warps: warps of a program.
        max_registers: registers a thread may have; 0 = as the compiler sees fit.
        group: coordinates that a thread moves at a time, where the table counts them; 0 = only compiled.
    """

    name: str
    kernel: Any
    signature: Mapping[str, str]
    constexprs: Mapping[str, Any]
    num_warps: int = 4
    max_registers: int = 0
    group: int = 0
