"""`grouped_gradient_step_` in Triton: the Langevin update is the epilogue of the product that forms the gradient.

G_c = Σ_n s_{c,n} · left[c,n]ᵀ right[c,n];  w ← clamp(w − (ε/2)·(nβ·G + λ·w + γ·(w − w*)) + √ε·σ·ξ,  w* ± b)
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from sltfast.ops.grouped_gradient_arguments import check_grouped_gradient_step
from sltfast.triton_kernels.ahead import Ahead
from sltfast.triton_kernels.langevin_table import KINDS
from sltfast.triton_kernels.langevin_update import plain_increment
from sltfast.triton_kernels.philox import box_muller, normals_of_elements, words_of_groups
from sltfast.triton_kernels.rounding import from_bfloat16, to_bfloat16
from sltfast.triton_kernels.rows import dense_rows
from sltfast.triton_kernels.tuning import fastest, power

# Rows, columns and warps of a program. 64 × 64 reads each factor the fewest times, 16 coordinates a thread, more of
# which would spill; 64 × 32 makes twice the programs of a product that is too small to fill the GPU. Sums in float64,
# or normals that every coordinate draws for itself, leave room for 8 a thread: 32 × 64.
SHAPES = ((64, 64, 8), (64, 32, 4))
ROWS, COLUMNS, WARPS = SHAPES[0]
ROWS_FEW = 32
DEPTH, DEPTH_DOUBLE = 32, 16


@triton.jit
def _widened(pointers, mask, KIND: tl.constexpr, T: tl.constexpr):
    """Values in T; bfloat16 comes as its bits."""
    if KIND == "bf16":
        return from_bfloat16(tl.load(pointers, mask=mask, other=0)).to(T)
    return tl.load(pointers, mask=mask, other=0.0).to(T)


@triton.jit
def _rounded(x, PRECISION: tl.constexpr):
    """A factor as `csrc/numerics/operands.h` rounds it; what is rounded has no bits that a tensor core would drop."""
    if PRECISION == "bf16":
        return from_bfloat16(to_bfloat16(x))
    if PRECISION == "tf32":
        word = x.to(tl.uint32, bitcast=True)
        finite = (word & 0x7F800000) != 0x7F800000
        # the sum cannot overflow: the sign is added afterwards
        near = (((word & 0x7FFFFFFF) + 0x1000) & 0x7FFFE000) | (word & 0x80000000)
        return tl.where(finite, near.to(tl.uint32).to(tl.float32, bitcast=True), x)
    return x


@triton.jit
def _normals(seed, stream, step, chain, element, element_row, r, k0, GROUPED: tl.constexpr, COLUMNS: tl.constexpr):
    """ξ of a tile; GROUPED: every row starts a group of four elements, which is then drawn once."""
    if GROUPED:
        start = element + r[:, None] * element_row + k0
        groups = (start >> 2) + tl.arange(0, COLUMNS // 4)[None, :]
        x0, x1, x2, x3 = words_of_groups(seed, stream, step, chain, groups)
        n0, n1 = box_muller(x0, x1)
        n2, n3 = box_muller(x2, x3)
        return tl.reshape(tl.join(tl.join(n0, n2), tl.join(n1, n3)), (r.shape[0], COLUMNS))
    k = k0 + tl.arange(0, COLUMNS)
    return normals_of_elements(seed, stream, step, chain, element + r[:, None] * element_row + k[None, :])


@triton.jit(do_not_specialize=["seed", "stream"])
def grouped_gradient_kernel(
    w, left, right, weights, anchor, hyper, step, chains, loss, alive, broken,
    n, rows, columns, count, w_row, offset, left_chain, left_row, right_chain, right_row, element, element_row,
    seed, stream,
    LEFT: tl.constexpr, RIGHT: tl.constexpr, ANCHOR: tl.constexpr, PRECISION: tl.constexpr, GROUPED: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, DEPTH: tl.constexpr,
):  # fmt: skip
    """One tile of one chain; chains innermost, so that programs that run together share the anchor's tile."""
    T: tl.constexpr = w.dtype.element_ty
    program = tl.program_id(0).to(tl.int64)
    c, tile = program % count, program // count
    across = (columns + COLUMNS - 1) // COLUMNS
    r = tile // across * ROWS + tl.arange(0, ROWS)
    k0 = tile % across * COLUMNS
    k = k0 + tl.arange(0, COLUMNS)
    goes = c >= 0
    if alive is not None:
        goes = goes & (tl.load(alive + c) != 0)
    if loss is not None:
        value = tl.load(loss + c)
        goes = goes & (value - value == 0.0)
    if goes:
        total = tl.zeros((ROWS, COLUMNS), T)
        for first in range(0, n, DEPTH):
            position = first + tl.arange(0, DEPTH).to(tl.int64)
            there = (position < n)[:, None]
            x = left + c * left_chain + position[:, None] * left_row + r[None, :]
            a = _widened(x, there & (r < rows)[None, :], LEFT, T)
            if weights is not None:
                a = a * tl.load(weights + c * n + position, mask=position < n, other=0.0)[:, None]
            y = right + c * right_chain + position[:, None] * right_row + k[None, :]
            b = _rounded(_widened(y, there & (k < columns)[None, :], RIGHT, T), PRECISION)
            precision: tl.constexpr = "ieee" if PRECISION == "ieee" else "tf32"
            total = tl.dot(tl.trans(_rounded(a, PRECISION)), b, total, input_precision=precision, out_dtype=T)
        xi = _normals(
            seed.to(tl.int64), stream.to(tl.int64), tl.load(step), tl.load(chains + c), element, element_row, r, k0,
            GROUPED, COLUMNS,
        ).to(T)  # fmt: skip
        inside = (r < rows)[:, None] & (k < columns)[None, :]
        at = r[:, None] * columns + k[None, :]
        pull = _widened(anchor + at, inside, ANCHOR, T)
        place = w + c * w_row + offset + at
        old = tl.load(place, mask=inside, other=0.0)
        h = hyper + 6 * c
        lr, n_beta, gamma, decay = tl.load(h), tl.load(h + 1), tl.load(h + 2), tl.load(h + 3)
        noise = tl.sqrt(lr) * tl.load(h + 4)
        moved = old + plain_increment(lr, n_beta, gamma, decay, noise, total, old, old - pull, xi, T)
        lost = (moved - moved != 0.0) & inside
        box = tl.load(h + 5).to(T)
        held = tl.minimum(tl.maximum(moved, pull - box), pull + box)
        tl.store(place, tl.where(lost, old, held), mask=inside)
        tl.store(broken + c, 1, mask=tl.max(tl.max(lost.to(tl.int32), 1), 0) != 0)


def _registers(precision: str, grouped: bool) -> int:
    """Registers a thread may have, 0 = as the compiler sees fit: on sm_100 it may stop at 128 of them, and spill."""
    return 144 if precision != "ieee" and not grouped else 0


def _seen(tensor: Tensor) -> Tensor:
    """Bits of bfloat16; other dtypes as they are."""
    return tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor


def grouped_gradient_step_(
    w: Tensor,
    left: Tensor,
    right: Tensor,
    weights: Tensor | None,
    anchor: Tensor,
    segment: Tensor,
    hyper: Tensor,
    step: Tensor,
    chains: Tensor,
    seed: int,
    stream: int,
    loss: Tensor | None,
    alive: Tensor | None,
    death_step: Tensor | None,
    precision: str,
) -> None:
    """`sltfast::triton_grouped_gradient_step_`; the equation and the shapes are in `ops.grouped_gradient_step_`."""
    check_grouped_gradient_step(
        w, left, right, weights, anchor, segment, hyper, step, chains, seed, stream, loss, alive, death_step, precision
    )
    count, n, rows, columns = w.shape[0], left.shape[1], left.shape[2], right.shape[2]
    offset, numel, element, run, stride = segment.tolist()
    element_row = columns if run == numel else stride
    left, right, anchor = dense_rows(left), dense_rows(right), anchor.contiguous()
    broken = torch.zeros(count, dtype=torch.int32, device=w.device)
    double = w.dtype == torch.float64
    grouped = element % 4 == 0 and element_row % 4 == 0
    fixed = (hyper, step, chains, loss, alive.view(torch.uint8) if alive is not None else None)
    operands = (_seen(left), _seen(right), weights.contiguous() if weights is not None else None, _seen(anchor))

    def launch(shape: tuple[int, int, int], to: Tensor, row: int, first: int, marks: Tensor) -> None:
        down, across, warps = shape
        programs = triton.cdiv(rows, down) * triton.cdiv(columns, across) * count
        grouped_gradient_kernel[(programs,)](
            to, *operands, *fixed, marks,
            n, rows, columns, count, row, first, left.stride(0), left.stride(1), right.stride(0),
            right.stride(1), element, element_row, seed, stream,
            LEFT=KINDS[left.dtype], RIGHT=KINDS[right.dtype], ANCHOR=KINDS[anchor.dtype], PRECISION=precision,
            GROUPED=grouped, ROWS=down, COLUMNS=across, DEPTH=DEPTH_DOUBLE if double else DEPTH, num_warps=warps,
            maxnreg=_registers(precision, grouped) or None, enable_fp_fusion=False,
        )  # fmt: skip

    if rows and columns and count:
        shape = (ROWS_FEW, COLUMNS, WARPS)
        if grouped and not double:
            key = (
                "grouped_gradient_step_", w.device, left.dtype, right.dtype, precision,
                *map(power, (count, n, rows, columns)),
            )  # fmt: skip

            def attempt(shape: tuple[int, int, int]) -> None:
                launch(shape, w[:, offset : offset + numel].clone(), numel, 0, torch.zeros_like(broken))

            shape = fastest(key, SHAPES, attempt, w.device)
        launch(shape, w, w.shape[1], offset, broken)
    # on the device: nothing is read by the host
    lives = alive.bool() if alive is not None else torch.ones_like(broken, dtype=torch.bool)
    dies = lives & (broken.bool() if loss is None else broken.bool() | ~torch.isfinite(loss))
    if alive is not None:
        alive.masked_fill_(dies, 0)
    if death_step is not None:
        death_step.copy_(torch.where(dies, step, death_step))


def _ahead(name: str, warps: int = WARPS, **changes: object) -> Ahead:
    """A variant with all its optional tensors."""
    numbers = (
        "n", "rows", "columns", "count", "w_row", "offset", "left_chain", "left_row", "right_chain", "right_row",
        "element", "element_row", "seed", "stream",
    )  # fmt: skip
    t = "*fp64" if changes.get("LEFT") == "f64" else "*fp32"
    factor = "*i16" if changes.get("LEFT") == "bf16" else t
    signature = {
        **dict.fromkeys(("w", "weights", "anchor"), t), **dict.fromkeys(("left", "right"), factor),
        "hyper": "*fp64", "step": "*i64", "chains": "*i64", "loss": "*fp64", "alive": "*u8", "broken": "*i32",
        **dict.fromkeys(numbers, "i64"),
    }  # fmt: skip
    double, grouped = t == "*fp64", changes.get("GROUPED", True)
    constexprs = {
        "LEFT": "f32", "RIGHT": "f32", "ANCHOR": "f32", "PRECISION": "ieee", "GROUPED": True, "COLUMNS": COLUMNS,
        "ROWS": ROWS if grouped and not double else ROWS_FEW, "DEPTH": DEPTH_DOUBLE if double else DEPTH,
    }  # fmt: skip
    registers = _registers(str(changes.get("PRECISION", "ieee")), bool(grouped))
    return Ahead(name, grouped_gradient_kernel, signature, constexprs | changes, warps, registers)


AHEAD = (
    _ahead("ieee"),
    _ahead("ieee, elements not in fours", GROUPED=False),
    _ahead("tf32", PRECISION="tf32"),
    _ahead("tf32, elements not in fours", PRECISION="tf32", GROUPED=False),
    _ahead("bf16 factors", LEFT="bf16", RIGHT="bf16", PRECISION="bf16"),
    _ahead("bf16 factors, elements not in fours", LEFT="bf16", RIGHT="bf16", PRECISION="bf16", GROUPED=False),
    *(
        _ahead(f"{precision}, {rows} × {columns}", warps, ROWS=rows, COLUMNS=columns, **factors)
        for rows, columns, warps in SHAPES[1:]
        for precision, factors in {
            "ieee": {},
            "tf32": {"PRECISION": "tf32"},
            "bf16 factors": {"LEFT": "bf16", "RIGHT": "bf16", "PRECISION": "bf16"},
        }.items()
    ),
    _ahead("float64", LEFT="f64", RIGHT="f64", ANCHOR="f64"),
    _ahead("float64, elements not in fours", LEFT="f64", RIGHT="f64", ANCHOR="f64", GROUPED=False),
)
