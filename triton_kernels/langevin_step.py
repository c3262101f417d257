"""`langevin_step_` in Triton: checks, the plan of the launch, the launch. The kernel is in `langevin_kernel.py`."""

from collections.abc import Hashable
from functools import partial

import torch
from torch import Tensor

from sltfast.ops.langevin_arguments import check_langevin_step
from sltfast.triton_kernels.ahead import Ahead
from sltfast.triton_kernels.langevin_kernel import langevin_kernel
from sltfast.triton_kernels.langevin_table import Kept, Operands, plan_step

RULES = {
    "sgld": "plain",
    "rmsprop_sgld": "preconditioned",
    "rmsprop_sgld_hh": "preconditioned",
    "sghmc": "momentum",
    "sgnht": "momentum",
}
TILE, WARPS = 512, 4  # four coordinates a thread: 16 bytes of a float32 operand, and one group of Philox
SUMS = 11

_plans = Kept()
_shared: dict[tuple[torch.device, int], tuple[Tensor, Tensor]] = {}  # sums and health of a stream, between its launches


def langevin_step_(
    w: Tensor,
    grads: list[Tensor],
    anchors: list[Tensor],
    segments: Tensor,
    hyper: Tensor,
    step: Tensor,
    chains: Tensor,
    seed: int,
    stream: int,
    method: str,
    v: Tensor | None,
    momentum: Tensor | None,
    thermostat: Tensor | None,
    low: list[Tensor],
    masks: list[Tensor],
    loss: Tensor | None,
    alive: Tensor | None,
    death_step: Tensor | None,
    metrics: Tensor | None,
    noise: list[Tensor],
    rms_alpha: float,
    rms_eps: float,
    friction: float,
    stochastic_rounding: bool,
) -> None:
    """`sltfast::triton_langevin_step_`; the equation and the shapes are in `ops.langevin_step_`."""
    check_langevin_step(
        w, grads, anchors, segments, hyper, step, chains, seed, stream, method,
        v, momentum, thermostat, low, masks, loss, alive, death_step, metrics, noise, rms_alpha, rms_eps,
        friction, stochastic_rounding,
    )  # fmt: skip
    operands = Operands(
        [g.contiguous() for g in grads],
        [a.contiguous() for a in anchors],
        low,
        [m.contiguous() for m in masks],
        [x.contiguous() for x in noise],
    )
    state = v if v is not None else momentum
    keeps_sums = metrics is not None or thermostat is not None
    settings = (seed, stream, rms_alpha, rms_eps, friction)
    make = partial(plan_step, w, state, segments.tolist(), operands, settings, TILE, keeps_sums)
    if _captured(w):
        plan = make()  # its tables belong to the graph, which fills them when it is replayed
    else:
        shapes = (_identity(w), state is not None and _identity(state), segments.numpy().tobytes(), _stream(w))
        tensors = tuple(tuple(map(_identity, tensors)) for tensors in operands)
        plan = _plans.get((shapes, tensors, settings, keeps_sums), make)
    settles = keeps_sums or alive is not None or death_step is not None
    if not plan.launches:
        if settles:
            _settle_nothing(w, step, loss, alive, death_step, metrics)
        return
    sums, health = _shared_memory(w, plan.cells if keeps_sums else 0, plan.groups) if settles else (None, None)
    for launch in plan.launches:
        grad_kind, anchor_kind, low_kind, noise_kind = launch.kinds
        langevin_kernel[launch.grid](
            w, w if state is None else state, launch.table, launch.tiles, hyper, step, chains, loss, _bytes(alive),
            death_step, metrics, thermostat, sums if keeps_sums else None, health,
            RULE=RULES[method], CORRECTED=method == "rmsprop_sgld_hh", GRAD_KIND=grad_kind, ANCHOR_KIND=anchor_kind,
            LOW_KIND=low_kind, NOISE_KIND=noise_kind, MASKED=bool(masks), STOCHASTIC=stochastic_rounding, TILE=TILE,
            num_warps=WARPS, enable_fp_fusion=False,
            maxnreg=_registers(RULES[method], w.dtype, launch.kinds, bool(masks), metrics is not None),
        )  # fmt: skip


def _registers(rule: str, dtype: torch.dtype, kinds: tuple[str, str, str, str], masked: bool, measured: bool) -> int:
    """Registers a thread may have: the fewest, of steps of sixteen, with which no architecture spills one."""
    if dtype == torch.float64:
        return 240
    if measured:
        return 144
    if rule != "plain":
        return 112
    return 96 if masked or kinds[2:] != ("none", "none") else 80


def _identity(tensor: Tensor) -> Hashable:
    return tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.device


def _captured(w: Tensor) -> bool:
    """Is a CUDA graph being captured?"""
    return w.device.type == "cuda" and torch.cuda.is_current_stream_capturing()


def _stream(w: Tensor) -> int:
    """The stream that launches go to: what one writes, the next on it may read."""
    return torch.cuda.current_stream(w.device).cuda_stream if w.device.type == "cuda" else 0


def _bytes(alive: Tensor | None) -> Tensor | None:
    return alive.view(torch.uint8) if alive is not None else None


def _shared_memory(w: Tensor, cells: int, groups: int) -> tuple[Tensor, Tensor]:
    """Room for the sums, and zeroed flags and tickets that every step leaves zero again.

    One of each for a stream; a graph gets its own, because it may be replayed beside that stream's next step.
    """
    count = w.shape[0]
    place = (w.device, _stream(w))
    sums, health = (None, None) if _captured(w) else _shared.get(place, (None, None))
    if sums is None or sums.numel() < count * SUMS * cells:
        sums = torch.empty(count * SUMS * cells, dtype=torch.float64, device=w.device)
    if health is None or health.numel() < count * TILE + groups:
        health = torch.zeros(count * TILE + groups, dtype=torch.int32, device=w.device)
    if not _captured(w):
        _shared[place] = (sums, health)
    return sums, health


def _settle_nothing(
    w: Tensor,
    step: Tensor,
    loss: Tensor | None,
    alive: Tensor | None,
    death_step: Tensor | None,
    metrics: Tensor | None,
) -> None:
    """A step without coordinates: chains still die of their loss, and the parts have norm 0."""
    moves = torch.ones(w.shape[0], dtype=torch.bool, device=w.device) if alive is None else alive.bool()
    goes = moves if loss is None else moves & torch.isfinite(loss)
    if metrics is not None:
        metrics.zero_().masked_fill_(~goes[:, None], torch.nan)
    died = moves & ~goes
    if alive is not None:
        alive.masked_fill_(died, 0)
    if death_step is not None:
        death_step.copy_(torch.where(died, step, death_step))


def _ahead(
    name: str,
    rule: str,
    *,
    kinds: tuple[str, str, str, str] = ("f32", "f32", "none", "none"),
    w: str = "*fp32",
    corrected: bool = False,
    measured: bool = False,
    thermal: bool = False,
    masked: bool = False,
    stochastic: bool = False,
) -> Ahead:
    """A variant as a run with chain health launches it."""
    signature = {
        "w": w,
        "state": w,
        "table": "*i64",
        "tiles": "*i32",
        "hyper": "*fp64",
        "step": "*i64",
        "chains": "*i64",
        "loss": "*fp64",
        "alive": "*u8",
        "death_step": "*i64",
        "health": "*i32",
    }
    constexprs: dict[str, object] = {"RULE": rule, "CORRECTED": corrected, "MASKED": masked, "STOCHASTIC": stochastic}
    constexprs |= dict(zip(("GRAD_KIND", "ANCHOR_KIND", "LOW_KIND", "NOISE_KIND"), kinds, strict=True))
    constexprs["TILE"] = TILE
    optional = {"metrics": measured, "thermostat": thermal, "sums": measured or thermal}
    signature |= {tensor: "*fp64" for tensor, given in optional.items() if given}
    constexprs |= {tensor: None for tensor, given in optional.items() if not given}
    dtype = torch.float64 if w == "*fp64" else torch.float32
    registers = _registers(rule, dtype, kinds, masked, measured)
    return Ahead(name, langevin_kernel, signature, constexprs, WARPS, registers, TILE // (32 * WARPS))


AHEAD = (
    _ahead("sgld", "plain"),
    _ahead("rmsprop_sgld", "preconditioned"),
    _ahead("rmsprop_sgld_hh", "preconditioned", corrected=True),
    _ahead("sghmc", "momentum"),
    _ahead("sgnht", "momentum", thermal=True),
    _ahead("sgld, metrics", "plain", measured=True),
    _ahead("rmsprop_sgld, metrics", "preconditioned", measured=True),
    _ahead("sgld, masks", "plain", masked=True),
    _ahead("sgld, bf16 gradient and copy", "plain", kinds=("bf16", "f32", "bf16", "none")),
    _ahead("sgld, f16 copy at random", "plain", kinds=("f16", "f32", "f16", "none"), stochastic=True),
    _ahead("sgld, given noise", "plain", kinds=("f32", "f32", "none", "f32")),
    _ahead("sgld float64, metrics", "plain", kinds=("f64", "f64", "none", "none"), w="*fp64", measured=True),
)
