"""devinterp 2.0.1 through its public calls, as its documentation shows them.

``observables={}`` where an LLC alone is timed: undocumented, and it halves devinterp's time. Its progress bars are off.
It writes to a temporary directory that is emptied again, and it is an LM-only package: other models are run through its
``loss_fn`` hook with row numbers as tokens.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.case import Unavailable

NAME = "devinterp"
INIT_LOSS_BATCHES = 8  # its default is 32; sltfast pairs instead and needs none


def installed() -> bool:
    """Whether it can be imported."""
    return importlib.util.find_spec("devinterp") is not None


def need() -> None:
    """Say how to install what is missing.

    Raises:
        Unavailable: devinterp cannot be imported.
    """
    os.environ["TQDM_DISABLE"] = "1"  # read when tqdm is imported
    if not installed():
        raise Unavailable("devinterp is not installed: pip install 'sltfast[bench]', or --without devinterp")


def token_rows(ids: Tensor) -> Any:
    """A data set as its documentation wants it."""
    from datasets import Dataset

    return Dataset.from_dict({"input_ids": ids.tolist()}).with_format("torch")


def row_numbers(rows: int) -> Any:
    """For other data than tokens: the row's number, twice, as a sequence has at least two tokens."""
    return token_rows(torch.arange(rows)[:, None].expand(rows, 2))


def by_row_number(loss: Callable[[nn.Module, tuple[Tensor, Tensor]], Tensor], x: Tensor, y: Tensor) -> Any:
    """Its ``loss_fn(model, input_ids) -> [B, 1]`` for a loss on (x, y)."""

    def loss_fn(model: nn.Module, input_ids: Tensor) -> Tensor:
        rows = input_ids[:, 0]
        return loss(model, (x[rows], y[rows]))[:, None]

    return loss_fn


def llc(model: nn.Module, dataset: Any, **settings: Any) -> Any:
    """Its ``llc()``: traces and λ̂, in memory."""
    need()
    from devinterp.slt.llc import llc as call

    with tempfile.TemporaryDirectory() as folder:
        where = {"device": "cpu", "output_path": Path(folder) / "samples.zarr"}
        return call(model, dataset, {}, num_init_loss_batches=INIT_LOSS_BATCHES, **where, **settings).load()


def sample(model: nn.Module, dataset: Any, observables: Mapping[str, Any], **settings: Any) -> Any:
    """Its ``sample()``, loaded."""
    need()
    from devinterp.slt.sampling import sample as call

    with tempfile.TemporaryDirectory() as folder:
        where = {"device": "cpu", "output_path": Path(folder) / "samples.zarr"}
        tree = call(model, dataset, dict(observables), num_init_loss_batches=INIT_LOSS_BATCHES, **where, **settings)
        return tree.load()


def head_masks(model: nn.Module, names: list[str]) -> dict[str, Any]:
    """Its boolean masks of restrictions such as "l0h1", by name: both sides are given the same."""
    need()
    from devinterp.slt.weight_restrictions import create_param_masks

    return {name: create_param_masks(model, name) for name in names}
