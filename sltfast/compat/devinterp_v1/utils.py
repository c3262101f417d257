"""Losses, batches, seeds and the default temperature, by the names of devinterp 1.3.2."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from sltfast.clone import structural_clone
from sltfast.compat.devinterp.utils import default_nbeta as nbeta_of_batches
from sltfast.compat.seeding import set_seed as set_seed
from sltfast.devices import usable_device
from sltfast.extras import require

PJRT_DEVICE = os.environ.get("PJRT_DEVICE")
TPU_TYPE = os.environ.get("TPU_TYPE")
USE_TPU_BACKEND = False
"""There is no TPU engine here: what asks for one runs on the device it names."""


class Outputs(NamedTuple):
    """What ``evaluate`` may return: anything with a ``loss``."""

    loss: Tensor


EvalResults = Outputs | dict[str, Tensor] | tuple[Tensor, ...] | Tensor
EvaluateFn = Callable[[nn.Module, Any], Any]
"""``evaluate(model, batch)`` -> ``EvalResults``, or anything else that ``split_results`` takes apart."""


def default_nbeta(dataloader: DataLoader[Any] | int, grad_accum_steps: int = 1) -> float:
    """The inverse temperature nβ = m / ln m of m rows a step.

    Args:
        dataloader: m, or the loader whose batch size it is.
        grad_accum_steps: mini-batches a step, by which m is multiplied.

    Returns:
        nβ; 1, with a warning, where m <= 1 (ln m is no use there).

    Raises:
        NoBatchSize: (a NotImplementedError) neither a ``DataLoader`` nor a whole number.
    """
    return nbeta_of_batches(dataloader, grad_accum_steps)


def prepare_input(data: Any, device: Any, is_deepspeed_enabled: bool = False, accelerator: Any = None) -> Any:
    """A batch, any nesting of mappings, tuples and lists, with its tensors on ``device``.

    Args:
        data: the batch.
        device: where to.
        is_deepspeed_enabled: also cast floating-point tensors to the dtype of ``accelerator``'s DeepSpeed plugin.
        accelerator: of Hugging Face accelerate, where DeepSpeed is on.
    """
    move = partial(prepare_input, device=device, is_deepspeed_enabled=is_deepspeed_enabled, accelerator=accelerator)
    if isinstance(data, Mapping):
        return type(data)({key: move(value) for key, value in data.items()})  # type: ignore[call-arg]
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*map(move, data))
    if isinstance(data, tuple | list):
        return type(data)(map(move, data))
    if not isinstance(data, Tensor):
        return data
    if is_deepspeed_enabled and (data.is_floating_point() or data.is_complex()):
        return data.to(device=device, dtype=accelerator.state.deepspeed_plugin.hf_ds_config.dtype())
    return data.to(device=device)


def split_results(results: Any) -> tuple[Tensor, Any]:
    """(loss, the rest) of what ``evaluate`` returned.

    Args:
        results: a tensor; a tuple whose first member is the loss; a mapping with "loss"; or anything with ``.loss``.

    Raises:
        ValueError: none of these.
    """
    if isinstance(results, Tensor):
        return results, None
    if isinstance(results, Mapping) and "loss" in results:
        return results["loss"], {key: value for key, value in results.items() if key != "loss"}
    if isinstance(results, tuple) and not hasattr(results, "_fields") and results:
        return results[0], results[1:] or results
    if hasattr(results, "loss"):
        return results.loss, results
    if isinstance(results, tuple) and results:
        return results[0], results[1:]
    raise ValueError(
        f"evaluate returned a {type(results).__name__}: it must return a loss (tensor), a tuple that begins with it, a "
        "dict with the key 'loss', or an object with the attribute loss"
    )


def get_seeded_dataloader(dataloader: DataLoader[Any], seed: int) -> DataLoader[Any]:
    """A loader of the same rows in the order they stand, with a generator of its own seed."""
    return DataLoader(
        dataloader.dataset,
        batch_size=dataloader.batch_size,
        collate_fn=dataloader.collate_fn,
        generator=torch.Generator().manual_seed(int(seed)),
    )


def get_init_loss_one_batch(
    dataloader: Any, model: nn.Module, evaluate: EvaluateFn | None, device: Any, seed: int | None = None
) -> float:
    """L(w*) over the first batch of the loader, the model in train mode.

    Args:
        dataloader: batches.
        model: at w*; it is not touched.
        evaluate: ``evaluate(model, batch)``; None: ``model(batch)``.
        device: where.
        seed: see ``get_seeded_dataloader``; None: the loader as it is.
    """
    return get_init_loss_multi_batch(dataloader, 1, model, evaluate, device, seed)


def get_init_loss_multi_batch(
    dataloader: Any, n_batches: int, model: nn.Module, evaluate: EvaluateFn | None, device: Any, seed: int | None = None
) -> float:
    """L(w*) over the first ``n_batches`` batches (all, where there are fewer), the model in train mode.

    Args: as ``get_init_loss_one_batch``.
    """
    if seed is not None:
        dataloader = get_seeded_dataloader(dataloader, seed)
    return _init_loss(dataloader, n_batches, model, evaluate, device)


def get_init_loss_full_batch(
    dataloader: Any, model: nn.Module, evaluate: EvaluateFn | None, device: Any, seed: int | None = None
) -> float:
    """L(w*) over all batches, each counting alike, the model in train mode.

    Args: as ``get_init_loss_one_batch``.
    """
    if seed is not None:
        dataloader = get_seeded_dataloader(dataloader, seed)
    return _init_loss(dataloader, None, model, evaluate, device)


def _init_loss(
    batches: Iterable[Any], most: int | None, model: nn.Module, evaluate: EvaluateFn | None, device: Any
) -> float:
    where = usable_device(device)
    clone = structural_clone(model, where).train()
    total, count = 0.0, 0
    with torch.no_grad():
        for batch in islice(batches, most):
            data = prepare_input(batch, where)
            total += split_results(clone(data) if evaluate is None else evaluate(clone, data))[0].detach().item()
            count += 1
    if not count:
        raise ValueError("the loader yields no batch: nothing to take the initial loss over")
    return total / count


def evaluate(criterion: Callable[[Tensor, Tensor], Tensor], model: nn.Module, data: Any) -> tuple[Tensor, dict]:
    """The loss of a batch (x, y) and {"output": f(x)}.

    Args:
        criterion: ``criterion(f(x), y)`` -> mean loss.
        model: f.
        data: the pair (x, y).
    """
    x, y = data
    output = model(x)
    return criterion(output, y), {"output": output}


def make_evaluate(criterion: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Any]:
    """``evaluate`` with a criterion of your own."""
    return partial(evaluate, criterion)


evaluate_ce: Callable[..., Any] = partial(evaluate, F.cross_entropy)
evaluate_mse: Callable[..., Any] = partial(evaluate, F.mse_loss)


def cycle(iterable: Iterable[Any], limit: float | None = None) -> Iterator[Any]:
    """Go through an iterable over and over, anew each time: a loader that shuffles has another order every round.

    Args:
        iterable: what can be iterated more than once.
        limit: items in all; None: no end.
    """
    most, given = math.inf if limit is None else limit, 0
    while given < most:
        before = given
        for item in iterable:
            if given >= most:
                return
            yield item
            given += 1
        if given == before:
            return  # nothing in it: there is no next round


def plot_trace(
    trace: Any,
    y_axis: str,
    x_axis: str = "step",
    title: str | None = None,
    plot_mean: bool = True,
    plot_std: bool = True,
    fig_size: tuple[float, float] = (12, 9),
    true_lc: float | None = None,
) -> None:
    """Show a trace (chain, draw), its mean over chains and one standard deviation around it.

    Args:
        trace: [C, D].
        y_axis: the quantity.
        x_axis: what is counted.
        title: None: made of ``y_axis``.
        plot_mean: draw the mean.
        plot_std: draw the band.
        fig_size: inches.
        true_lc: a value to draw a line at.

    Raises:
        MissingExtra: matplotlib is not installed.
    """
    plt = require("matplotlib.pyplot", extra="plots", purpose="to plot traces")
    trace = np.asarray(trace)
    _, axes = plt.subplots(figsize=fig_size)
    draws = np.arange(trace.shape[1])
    if true_lc is not None:
        axes.axhline(true_lc, color="r", linestyle="dashed")
    for chain, values in enumerate(trace):
        axes.plot(draws, values, linewidth=1, label=f"chain {chain}")
    mean, std = trace.mean(0), trace.std(0)
    if plot_mean:
        axes.plot(draws, mean, color="black", linestyle="--", linewidth=2, label="mean", zorder=3)
    if plot_std:
        axes.fill_between(draws, mean - std, mean + std, color="gray", alpha=0.3, zorder=2)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))
    axes.set(title=title or f"{y_axis} over sampling draws", xlabel=x_axis, ylabel=y_axis)
    axes.figure.tight_layout()
    plt.show()
