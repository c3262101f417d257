"""Sampling many restrictions of one model, ours and devinterp's, and what both must agree on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import sltfast
from benchmarks.agreement import Estimate, of_trace, tables_agree
from benchmarks.floors import Collector, Products
from benchmarks.models import language_level, next_token_losses
from benchmarks.other_ops import OtherOps, hidden_states
from benchmarks.peers import devinterp_calls

Masks = dict[str, Any]
BATCHES_PER_DRAW = 1


@dataclass(frozen=True)
class Sampling:
    """One model, data set and observables; many restrictions."""

    model: nn.Module
    ids: Tensor
    observables: Mapping[str, Tensor]
    settings: dict[str, Any]

    @cached_property
    def rows(self) -> Any:
        return devinterp_calls.token_rows(self.ids)

    @cached_property
    def seen(self) -> dict[str, Any]:
        return {name: (devinterp_calls.token_rows(ids), BATCHES_PER_DRAW) for name, ids in self.observables.items()}

    @cached_property
    def level(self) -> float:
        return language_level(self.model, self.ids)

    def by_devinterp(self, masks: Masks) -> Any:
        return devinterp_calls.sample(self.model, self.rows, self.seen, param_masks=masks, **self.settings)

    def estimates(self, trees: Mapping[str, Any]) -> dict[str, Estimate]:
        """λ̂ of every restriction, and nβ·(mean loss of each observable − its loss in the first draw of all)."""
        found = {}
        n_beta = self.settings["n_beta"]
        for name, tree in trees.items():
            trace = tree["sampling_loss"].values  # [C, D, B, T]
            found[name] = of_trace(np.nanmean(trace, axis=(2, 3)), self.level, n_beta)
            for seen in self.observables:
                losses = tree[f"loss_{seen}"].values  # [C, D, rows, T]
                at_start = self._level_of(seen, tree[f"input_ids_{seen}"].values)
                found[f"{name}, {seen}"] = of_trace(np.nanmean(losses, axis=(2, 3)), at_start, n_beta)
        return found

    def _level_of(self, seen: str, ids: np.ndarray) -> float:
        return language_level(self.model, torch.from_numpy(np.asarray(ids)).long())


def compared(found: Mapping[str, Mapping[str, Estimate]]) -> str:
    """Every restriction that devinterp sampled, against ours."""
    return tables_agree(found)


def masks_of(model: nn.Module, names: list[str]) -> dict[str, Masks]:
    """The boolean masks of restrictions such as "l0h1": devinterp's where it is installed, so both move the same."""
    if hasattr(sltfast, "create_param_masks") and not devinterp_calls.installed():
        return {name: sltfast.create_param_masks(model, name) for name in names}
    return devinterp_calls.head_masks(model, names)


def sample_all(run: Sampling, masks: dict[str, Masks]) -> tuple[str, Callable[[], dict[str, Any]]]:
    """Our way to sample every restriction, and a note on it."""
    options = {"device": "cpu", "progress": False, "num_init_loss_batches": 0, **run.settings}
    if hasattr(sltfast, "sample_restrictions"):
        call = sltfast.sample_restrictions
        return "", lambda: call(run.model, run.rows, run.seen, weight_restrictions=masks, **options)

    def one_by_one() -> dict[str, Any]:
        return {
            name: sltfast.sample(run.model, run.rows, run.seen, param_masks=mask, **options)
            for name, mask in masks.items()
        }

    return "one sample() a head", one_by_one


def floor_products(model: nn.Module, layer: str, ids: Tensor) -> tuple[Products, Products, Products]:
    """Products up to the layer's output; behind it, forward and back to that output; behind it, forward alone.

    The layer's output is cut from what is before it, so that the way back ends there: less than any sampler needs,
    whose gradients go on into the head.
    """
    collector = Collector()
    parts: list[Products] = []

    def cut(module: nn.Module, inputs: Any, output: Any) -> Any:
        parts.append(collector.products)
        collector.products = Products()
        hidden = output[0] if isinstance(output, tuple) else output
        hidden = hidden.detach().requires_grad_()
        return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

    moving = [p for p in model.parameters() if p.requires_grad]
    handle = model.get_submodule(layer).register_forward_hook(cut)
    try:
        for p in moving:
            p.requires_grad_(False)
        with collector:
            loss = next_token_losses(model, ids).mean()
            forward = Products(collector.products)
            loss.backward()
    finally:
        handle.remove()
        for p in moving:
            p.requires_grad_(True)
    return parts[0], collector.products, forward


def other_ops_behind(model: nn.Module, layer: str, ids: Tensor) -> tuple[OtherOps, OtherOps]:
    """What is no product behind the layer's output: forward and back to it; forward alone.

    Args:
        model: a language model.
        layer: whose output is cut off from what is before it.
        ids: [B, T], of all lanes together.
    """

    def run(backward: bool) -> OtherOps:
        ops = OtherOps()
        ops.keeping = False

        def cut(module: nn.Module, inputs: Any, output: Any) -> Any:
            ops.keeping = True
            hidden = output[0] if isinstance(output, tuple) else output
            hidden = hidden.detach().requires_grad_(backward)
            return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

        handle = model.get_submodule(layer).register_forward_hook(cut)
        try:
            with ops:
                result = hidden_states(model, ids)
                if backward:
                    result.backward(result.detach())  # any numbers of its shape do
        finally:
            handle.remove()
        return ops

    moving = [p for p in model.parameters() if p.requires_grad]
    try:
        for p in moving:
            p.requires_grad_(False)
        return run(True), run(False)
    finally:
        for p in moving:
            p.requires_grad_(True)
