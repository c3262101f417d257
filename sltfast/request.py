"""The keywords of ``sample`` and of all that stands on it, sorted and checked in one place."""

from __future__ import annotations

import difflib
import numbers
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

import torch

from sltfast.losses import LossFn
from sltfast.restriction import ParamMasks
from sltfast.sampler.capture import StepCaptureSetting
from sltfast.sampler.config import SamplerConfig, rmsprop_kwargs, whole_number, yes_or_no
from sltfast.shown import shown

RMSPROP = ("rmsprop_eps", "rmsprop_alpha")  # devinterp's other spelling of sampling_method_kwargs
EngineName = Literal["auto", "stacked", "vmap", "sequential"]
Record = Literal["traces", "moments", "covariances"]


@dataclass(frozen=True)
class Request:
    """What a caller asks for beside the settings of the sampler (``sltfast.sample`` says what each means)."""

    loss_fn: LossFn | None = None
    batches_per_draw: int = 3
    obs_seed: int = 1337
    record: Record = "traces"
    sampling_task: str | None = None
    num_blocks: int = 8
    device: str | torch.device | None = None
    save_token_losses: bool = True
    record_weights: ParamMasks = None
    dataset_init_loss: bool = False
    overwrite: bool = False
    progress: bool = True
    buffer_size: int | None = None
    engine: EngineName = "auto"
    chains_per_pass: int | None = None
    memory_budget: int | None = None
    plan: bool = False
    step_capture: StepCaptureSetting = "auto"
    compile: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.engine, str) or self.engine not in get_args(EngineName):
            raise ValueError(f"engine must be one of {', '.join(get_args(EngineName))}, got {shown(self.engine)}")
        if not isinstance(self.record, str) or self.record not in get_args(Record):
            raise ValueError(f"record must be one of {', '.join(get_args(Record))}, got {shown(self.record)}")
        if self.sampling_task is not None and not isinstance(self.sampling_task, str):
            raise TypeError(f"sampling_task must be None or the name of an observable, got {shown(self.sampling_task)}")
        for name, least in (("num_blocks", 1), ("batches_per_draw", 1), ("obs_seed", 0)):
            object.__setattr__(self, name, whole_number(name, getattr(self, name), least))
        for name in ("save_token_losses", "dataset_init_loss", "overwrite", "progress", "plan", "compile"):
            object.__setattr__(self, name, yes_or_no(name, getattr(self, name)))
        if not isinstance(self.step_capture, str | bool) or self.step_capture not in ("auto", True, False):
            raise ValueError(f"step_capture must be 'auto', True or False, got {shown(self.step_capture)}")
        if self.compile and self.engine not in ("auto", "vmap"):
            raise ValueError(
                f"compile=True compiles the vmap engine, got engine={self.engine!r} (give 'auto' or 'vmap')"
            )
        for name, what in (("chains_per_pass", "chains"), ("memory_budget", "bytes")):
            value = getattr(self, name)
            whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
            if value is not None and not (whole and value >= 1):
                raise ValueError(f"{name} must be None or a number of {what} >= 1, got {shown(value)}")
            object.__setattr__(self, name, None if value is None else int(value))


def resolve(dataset: Any, keywords: Mapping[str, Any]) -> tuple[SamplerConfig, Request]:
    """The sampler's settings and the rest, from keywords of ``sample``.

    Raises:
        TypeError: a keyword that ``sample`` does not have, or one missing.
        ValueError: a value that is not allowed.
    """
    of_config = {field.name for field in fields(SamplerConfig)} - {"cells"}
    of_request = {field.name for field in fields(Request)}
    known = of_config | of_request | {*RMSPROP}
    for name in keywords:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            raise TypeError(f"there is no keyword {name!r}" + (f": did you mean {close[0]!r}?" if close else ""))
    given = dict(keywords)
    kwargs = [given.pop(name, None) for name in ("sampling_method_kwargs", *RMSPROP)]
    given["sampling_method_kwargs"] = rmsprop_kwargs(*kwargs)
    if given.get("batch_size") is None:
        given["batch_size"] = getattr(dataset, "batch_size", None) or 32
    missing = [name for name in ("lr", "n_beta") if name not in given]
    if missing:
        raise TypeError(f"missing keyword {missing[0]!r}")
    config = SamplerConfig(**{name: value for name, value in given.items() if name in of_config})
    return config, Request(**{name: value for name, value in given.items() if name in of_request})
