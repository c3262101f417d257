"""The arrays of a run: names, dimensions and precisions as devinterp 2.0.1 has them, and what it lacks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sltfast.observables import Observable
from sltfast.sampler.config import SamplerConfig
from sltfast.sampler.recording import Recording
from sltfast.sampler.transition import METRICS
from sltfast.sampler.trial import Shapes

CHUNK_ROWS = 50
CHUNK_BYTES = 128 << 10  # up to which a chunk takes more rows than that: a file costs as much as many short rows
STAGED_BYTES = 16 << 20  # what the chunks of all chains may hold for it, while they fill
BLOCK_BYTES = 16 << 20  # of a chunk of blocks, whose rows may be large: no more than one row needs


class ArraySpec(NamedTuple):
    """One array of a run; ``rows`` says what its second dimension counts ("step", "draw", "block"), "" if nothing."""

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    rows: str = ""
    shared: bool = False  # the same values in every chain
    unrecorded: int = 0  # what whole numbers and flags hold before they are recorded

    @property
    def fill(self) -> float | int:
        """What an entry holds before it is recorded: NaN in float arrays."""
        return float("nan") if np.dtype(self.dtype).kind == "f" else self.unrecorded

    @property
    def chunks(self) -> tuple[int, ...]:
        """Zarr chunks: one chain, 50 rows or 128 KiB of them (of blocks at most 16 MiB), all of the rest."""
        if not self.rows:
            return self.shape
        row = max(1, int(np.prod(self.shape[2:])) * np.dtype(self.dtype).itemsize)
        if self.rows == "block":
            most = max(1, min(CHUNK_ROWS, BLOCK_BYTES // row))
        else:
            most = max(CHUNK_ROWS, min(CHUNK_BYTES, STAGED_BYTES // self.shape[0]) // row)
        return (1, min(most, self.shape[1]), *self.shape[2:])


def layout(
    config: SamplerConfig,
    observables: Sequence[Observable],
    shapes: Shapes,
    recording: Recording,
    *,
    save_token_losses: bool,
) -> list[ArraySpec]:
    """Every array that a run records.

    Args:
        config: the run's settings.
        observables: what is read at draws.
        shapes: of the losses, as the trial found them.
        recording: what is kept of the observables.
        save_token_losses: whether the per-item losses of the sampling batches are kept.
    """
    positions, tokens = shapes.positions, shapes.tokens
    chains, steps, draws = config.num_chains, config.num_steps, config.num_draws
    rows = config.batch_size * config.gradient_accumulation_steps
    shared = config.match_sampling_input_ids_across_chains
    specs = [
        ArraySpec("loss", ("chain", "step"), (chains, steps), "float64", "step"),
        ArraySpec("init_loss_trace", ("chain", "step"), (chains, steps), "float64"),
        ArraySpec("alive", ("chain",), (chains,), "bool", unrecorded=1),
        ArraySpec("death_step", ("chain",), (chains,), "int64", unrecorded=-1),
    ]
    if config.num_init_loss_batches:
        specs.append(ArraySpec("init_loss", ("chain", "token_pos"), (chains, positions), "float32"))
        specs.append(ArraySpec("init_loss_mean", ("chain",), (chains,), "float64"))
    if save_token_losses:
        micro = ("chain", "step", "batch_sampling")
        specs.append(
            ArraySpec(
                "sampling_loss_micro",
                (*micro, "token_pos"),
                (chains, steps, rows, positions),
                "float32",
                "step",
            )
        )
        specs.append(
            ArraySpec(
                "sampling_loss",
                ("chain", "draw", "batch", "token_pos"),
                (chains, draws, config.batch_size, positions),
                "float32",
                "draw",
            )
        )
        if tokens:
            specs.append(
                ArraySpec(
                    "sampling_input_ids_micro",
                    (*micro, "token"),
                    (chains, steps, rows, tokens),
                    "int64",
                    "step",
                    shared,
                )
            )
    for observable, width in zip(observables, shapes.observable_positions, strict=True):
        batch, count = f"batch_{observable.id}", len(observable.rows)
        same = "token_pos" if width == positions else f"token_pos_{observable.id}"
        specs += [
            ArraySpec(f"mean_loss_{observable.id}", ("chain", "draw"), (chains, draws), "float64", "draw"),
            ArraySpec(f"init_loss_{observable.id}", (batch, same), (count, width), "float64"),
            ArraySpec(f"init_mean_loss_{observable.id}", (), (), "float64"),
            ArraySpec(f"rows_{observable.id}", (batch,), (count,), "int64"),
        ]
        if recording.record == "traces":
            dims, shape = ("chain", "draw", batch, same), (chains, draws, count, width)
            specs.append(ArraySpec(f"loss_{observable.id}", dims, shape, "float32", "draw"))
        if recording.record == "moments":
            dims, shape = ("chain", "block", batch, same), (chains, recording.num_blocks, count, width)
            specs += [
                ArraySpec(f"moment_{what}_{observable.id}", dims, shape, "float64", "block")
                for what in ("mean", "m2", "comoment")
            ]
        ids = observable.token_ids()
        if ids is not None:
            same = "token" if ids.shape[1] == tokens or not tokens else f"token_{observable.id}"
            specs.append(ArraySpec(f"input_ids_{observable.id}", (batch, same), tuple(ids.shape), "int64"))
    specs += _block_specs(recording, chains, sum(len(observable.rows) for observable in observables))
    if config.save_metrics:
        specs += [
            ArraySpec(f"metrics_{name}", ("chain", "step"), (chains, steps), "float32", "step") for name in METRICS
        ]
    _check_names(specs, observables)
    return specs


def _check_names(specs: Sequence[ArraySpec], observables: Sequence[Observable]) -> None:
    """Refuse an observable whose arrays or dimensions would be the run's own ("trace" makes ``init_loss_trace``)."""
    seen: set[str] = {"init_loss_dataset"}
    sizes: dict[str, int] = {}
    for spec in specs:
        twice = [spec.name] if spec.name in seen else []
        twice += [dim for dim, size in zip(spec.dims, spec.shape, strict=True) if sizes.setdefault(dim, size) != size]
        seen.add(spec.name)
        if twice:
            whose = [one.name for one in observables if one.id in (twice[0], spec.name) or twice[0].endswith(one.id)]
            raise ValueError(
                f"observable {(whose or ['?'])[0]!r} would be recorded as the run's {twice[0]!r}: rename it"
            )


def _block_specs(recording: Recording, chains: int, items: int) -> list[ArraySpec]:
    """Arrays of blocks that are not one observable's; ``items``: sequences of all observables."""
    if recording.record == "traces":
        return []
    dims, shape = ("chain", "block"), (chains, recording.num_blocks)
    draws = ArraySpec("moment_draws", dims, shape, "float64", "block")
    if recording.record == "moments":
        return [draws, *(ArraySpec(f"moment_{what}", dims, shape, "float64", "block") for what in ("phi", "phi_m2"))]
    return [
        draws,
        ArraySpec("moment_items_mean", (*dims, "item"), (*shape, items), "float64", "block"),
        ArraySpec("moment_items_comoment", (*dims, "item", "item_T"), (*shape, items, items), "float64", "block"),
    ]
