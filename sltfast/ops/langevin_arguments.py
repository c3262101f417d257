"""Every rule about the arguments of `langevin_step_`, with the error that names the mend."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sltfast.ops.arguments import LOW_DTYPES, MASTER_DTYPES, check_list, check_tensor, dtype_names

METHODS = ("sgld", "rmsprop_sgld", "rmsprop_sgld_hh", "sghmc", "sgnht")
RMSPROP_METHODS = ("rmsprop_sgld", "rmsprop_sgld_hh")
MOMENTUM_METHODS = ("sghmc", "sgnht")
HYPER = ("lr", "n_beta", "localization", "weight_decay", "noise_level", "box")
METRICS = (
    "scaled_grad",
    "unscaled_grad",
    "localization",
    "weight_decay",
    "noise",
    "distance",
    "dot_grad_prior",
    "dot_grad_noise",
    "dot_prior_noise",
)


def check_segments(segments: Tensor, row: int) -> list[list[int]]:
    """Return the segment table as rows of ints, or say which row is wrong."""
    if segments.dtype != torch.int64:
        raise TypeError(f"segments must be int64, got {dtype_names([segments.dtype])}")
    if segments.dim() != 2 or segments.shape[1] != 5:
        raise ValueError(
            f"segments must have shape [S, 5] (offset, numel, element, run, stride), got {list(segments.shape)}"
        )
    if segments.device.type != "cpu":
        raise ValueError(f"segments must be on the CPU, got {segments.device}")
    table = segments.tolist()
    for s, (offset, numel, element, run, stride) in enumerate(table):
        if min(offset, numel, element, stride) < 0:
            raise ValueError(f"segments[{s}] must not be negative, got {table[s]}")
        if offset + numel > row:
            raise ValueError(
                f"segments[{s}] ends at coordinate {offset + numel}, beyond the {row} coordinates of a row of w"
            )
        if numel and run < 1:
            raise ValueError(f"segments[{s}] run must be >= 1, got {run} (a whole tensor: run = numel)")
    for s, earlier in enumerate(table):
        for later in table[s + 1 : s + 2]:
            if earlier[0] + earlier[1] > later[0]:
                raise ValueError(
                    f"segments[{s + 1}] starts at {later[0]}, before segments[{s}] ends at "
                    f"{earlier[0] + earlier[1]} (sort the segments by offset; they must not overlap)"
                )
    return table


def check_state(name: str, tensor: Tensor | None, method: str, methods: Sequence[str], what: str) -> None:
    """Raise unless a tensor of the sampler's state is given exactly where the method keeps it."""
    if method in methods and tensor is None:
        raise ValueError(f"method {method!r} needs {name}, {what}")
    if method not in methods and tensor is not None:
        raise ValueError(f"{name} must be None for method {method!r}")


def check_langevin_step(
    w: Tensor,
    grads: Sequence[Tensor],
    anchors: Sequence[Tensor],
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
    low: Sequence[Tensor],
    masks: Sequence[Tensor],
    loss: Tensor | None,
    alive: Tensor | None,
    death_step: Tensor | None,
    metrics: Tensor | None,
    noise: Sequence[Tensor],
    rms_alpha: float,
    rms_eps: float,
    friction: float,
    stochastic_rounding: bool,
) -> None:
    """Raise the first broken rule of `ops.langevin_step_` (positional, in the schema's order)."""
    if w.dtype not in MASTER_DTYPES:
        raise TypeError(
            f"w must be {dtype_names(MASTER_DTYPES)}, got {dtype_names([w.dtype])} "
            "(keep fp32 master weights; low= takes the rounded copy)"
        )
    if w.dim() != 2:
        raise ValueError(f"w must have shape [C, P], got {list(w.shape)}")
    if not w.is_contiguous():
        raise ValueError(f"w must be contiguous, got strides {w.stride()}")
    c, row = w.shape
    device = w.device
    table = check_segments(segments, row)
    n = [segment[1] for segment in table]
    own = (w.dtype, *LOW_DTYPES)
    everything = (*MASTER_DTYPES, *LOW_DTYPES)
    per_chain = [c * numel for numel in n]
    check_list("grads", grads, per_chain, everything, device, optional=False, empty_means="zero gradient")
    check_list("anchors", anchors, n, own, device, optional=False)
    check_tensor("hyper", hyper, (c, 6), [torch.float64], device)
    check_tensor("step", step, (), [torch.int64], device)
    check_tensor("chains", chains, (c,), [torch.int64], device)
    if not 0 <= stream < 256:
        raise ValueError(f"stream must be in 0..255, got {stream} (use ops.STREAM_STEP and its siblings)")
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {method!r}")
    check_state("v", v, method, RMSPROP_METHODS, "the running mean of squared gradients, shaped like w")
    check_state("momentum", momentum, method, MOMENTUM_METHODS, "the last move of every coordinate, shaped like w")
    check_state("thermostat", thermostat, method, ("sgnht",), "float64 [C], which starts at the friction")
    if v is not None:
        check_tensor("v", v, (c, row), [w.dtype], device)
        if not 0.0 <= rms_alpha <= 1.0:
            raise ValueError(f"rms_alpha must be in [0, 1], got {rms_alpha}")
        if not rms_eps >= 0.0:
            raise ValueError(f"rms_eps must be >= 0, got {rms_eps}")
    if momentum is not None:
        check_tensor("momentum", momentum, (c, row), [w.dtype], device)
        if not 0.0 < friction <= 1.0:
            raise ValueError(f"friction must be in (0, 1], got {friction} (1 is SGLD)")
    if thermostat is not None:
        check_tensor("thermostat", thermostat, (c,), [torch.float64], device)
    if stochastic_rounding and table and not low:
        raise ValueError("stochastic_rounding is of the rounded copy: give low, or leave it off")
    check_list("low", low, per_chain, LOW_DTYPES, device, optional=True, empty_means="no copy")
    for s, copy in enumerate(low):
        if not copy.is_contiguous():
            raise ValueError(f"low[{s}] must be contiguous, got strides {copy.stride()}")
    check_list("masks", masks, n, [torch.bool], device, optional=True, empty_means="all coordinates move")
    if loss is not None:
        check_tensor("loss", loss, (c,), [torch.float64], device)
    if alive is not None:
        check_tensor("alive", alive, (c,), [torch.bool, torch.uint8], device)
    if death_step is not None:
        check_tensor("death_step", death_step, (c,), [torch.int64], device)
    if metrics is not None:
        check_tensor("metrics", metrics, (c, len(METRICS)), [torch.float64], device)
    check_list("noise", noise, per_chain, everything, device, optional=True)
