"""Every op on one page: its schema, and what stands behind it in plain PyTorch, in Triton and under a tracer.

An op NAME is three registered ops of one schema: `sltfast::native_NAME` (C++ and CUDA, declared in
`csrc/registry.cpp`), `sltfast::triton_NAME` and `sltfast::reference_NAME`; a dispatch key holds one implementation, and
a user may want another than the first.
"""

from collections.abc import Callable
from importlib import import_module
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sltfast.ops.arguments import LOW_DTYPES, MASTER_DTYPES
from sltfast.ops.backend import PREFERENCE, choose, native_ops, refusals
from sltfast.ops.reference import comoment, grouped_gradient_products, grouped_gradient_step, langevin_step, token_loss
from sltfast.ops.token_loss_arguments import (
    traced_token_loss,
    traced_token_loss_backward,
    traced_token_loss_with_gradient,
)


def _writes_in_place(*_: object) -> None:
    return None


def _one_number_a_sample(left: Tensor, *_: object) -> Tensor:
    return left.new_empty(left.shape[0], dtype=torch.float64)


class Op(NamedTuple):
    """What is registered under one name; `fake` makes the outputs that a tracer sees.

    `dtypes` are those of the first tensor; which others go with it, the faces say.
    """

    schema: str
    reference: Callable[..., Any]
    fake: Callable[..., Any] = _writes_in_place
    dtypes: tuple[torch.dtype, ...] = MASTER_DTYPES


OPS: dict[str, Op] = {
    "langevin_step_": Op(
        "(Tensor(a!) w, Tensor[] grads, Tensor[] anchors, Tensor segments, Tensor hyper, Tensor step, Tensor chains, "
        "int seed, int stream, str method, Tensor(b!)? v, Tensor(c!)? momentum, Tensor(d!)? thermostat, "
        "Tensor(e!)[] low, Tensor[] masks, Tensor? loss, Tensor(f!)? alive, Tensor(g!)? death_step, "
        "Tensor(h!)? metrics, Tensor[] noise, float rms_alpha, float rms_eps, float friction, "
        "bool stochastic_rounding) -> ()",
        langevin_step.langevin_step_,
    ),
    "grouped_gradient_step_": Op(
        "(Tensor(a!) w, Tensor left, Tensor right, Tensor? weights, Tensor anchor, Tensor segment, Tensor hyper, "
        "Tensor step, Tensor chains, int seed, int stream, Tensor? loss, Tensor(b!)? alive, Tensor(c!)? death_step, "
        "str precision) -> ()",
        grouped_gradient_step.grouped_gradient_step_,
    ),
    "grouped_gradient_products": Op(
        "(Tensor left_a, Tensor right_a, Tensor left_b, Tensor right_b, str algorithm) -> Tensor",
        grouped_gradient_products.grouped_gradient_products,
        _one_number_a_sample,
    ),
    "grouped_gradient_inner": Op(
        "(Tensor left, Tensor right, Tensor v) -> Tensor",
        grouped_gradient_products.grouped_gradient_inner,
        _one_number_a_sample,
    ),
    "comoment_": Op(
        "(Tensor(a!) count, Tensor(b!) mean_x, Tensor(c!) m2_x, Tensor(d!)? mean_y, Tensor(e!)? m2_y, "
        "Tensor(f!)? block, Tensor x, Tensor? y, Tensor? valid, str precision) -> ()",
        comoment.comoment_,
    ),
    "comoment_merge_": Op(
        "(Tensor(a!) count, Tensor(b!) mean_x, Tensor(c!) m2_x, Tensor(d!)? mean_y, Tensor(e!)? m2_y, "
        "Tensor(f!)? block, Tensor other_count, Tensor other_mean_x, Tensor other_m2_x, Tensor? other_mean_y, "
        "Tensor? other_m2_y, Tensor? other_block) -> ()",
        comoment.comoment_merge_,
    ),
    "comoment_correlation_": Op(
        "(Tensor(a!) out, Tensor block, Tensor m2_x, Tensor? m2_y) -> ()", comoment.comoment_correlation_
    ),
    "comoment_standardise_": Op(
        "(Tensor(a!) z, Tensor x, Tensor mean, Tensor scale, Tensor? valid) -> ()", comoment.comoment_standardise_
    ),
    "comoment_top_k_": Op(
        "(Tensor(a!) values, Tensor(b!) indices, Tensor block, int column, int? row, bool absolute) -> ()",
        comoment.comoment_top_k_,
    ),
    "token_loss": Op(
        "(Tensor hidden, Tensor unembedding, Tensor? bias, Tensor targets, int ignore_index, float scale, "
        "float softcap, str precision) -> (Tensor, Tensor)",
        token_loss.token_loss,
        traced_token_loss,
        (*MASTER_DTYPES, *LOW_DTYPES),
    ),
    "token_loss_backward": Op(
        "(Tensor dloss, Tensor hidden, Tensor unembedding, Tensor? bias, Tensor targets, Tensor lse, "
        "int ignore_index, float scale, float softcap, str precision, bool needs_hidden, bool needs_unembedding, "
        "bool needs_bias) -> (Tensor, Tensor, Tensor)",
        token_loss.token_loss_backward,
        traced_token_loss_backward,
        (*MASTER_DTYPES, *LOW_DTYPES),
    ),
    "token_loss_with_gradient": Op(
        "(Tensor hidden, Tensor unembedding, Tensor? bias, Tensor targets, Tensor weights, int ignore_index, "
        "float scale, float softcap, str precision, bool needs_unembedding, bool needs_bias) -> "
        "(Tensor, Tensor, Tensor, Tensor, Tensor)",
        token_loss.token_loss_with_gradient,
        traced_token_loss_with_gradient,
        (*MASTER_DTYPES, *LOW_DTYPES),
    ),
}
"""By name; the Triton implementation of NAME is the function NAME of `sltfast.triton_kernels.NAME` (no trailing _)."""


def _triton(name: str) -> Callable[..., Any]:
    def launch(*arguments: Any) -> Any:
        module = import_module(f"sltfast.triton_kernels.{name.rstrip('_')}")  # triton takes a second to import
        return getattr(module, name)(*arguments)

    return launch


LIBRARY = torch.library.Library("sltfast", "FRAGMENT")
for _name, _op in OPS.items():
    for _backend, _function in (("reference", _op.reference), ("triton", _triton(_name))):
        LIBRARY.define(f"{_backend}_{_name}{_op.schema}")
        LIBRARY.impl(f"{_backend}_{_name}", _function, "CompositeExplicitAutograd")
        torch.library.register_fake(f"sltfast::{_backend}_{_name}", _op.fake, lib=LIBRARY)
    if _name in native_ops():
        torch.library.register_fake(f"sltfast::native_{_name}", _op.fake, lib=LIBRARY)
    for _device in PREFERENCE:
        refusals(_name, _device)


def runs(op: str, device: torch.device, dtype: torch.dtype) -> str:
    """The backend that "auto" takes for an op on a device, or "" where the op does not take `dtype`."""
    return choose(op, "auto", device) if dtype in OPS[op].dtypes else ""
