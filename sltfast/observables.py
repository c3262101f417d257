"""What is read at a draw: fixed data sets whose per-item losses are evaluated at the chain's weights."""

from __future__ import annotations

import numbers
import random
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sltfast.batches import fetch
from sltfast.data import Source, as_source, leaves
from sltfast.losses import token_ids

LONGEST_NAME = 200  # bytes of an identifier in UTF-8: file systems end at 255, and "moment_comoment_" comes before it
ObservableSpec = Any  # a data set, or (data set, batches_per_draw)


def observable_id(name: str) -> str:
    """A name usable in a variable: other characters than letters, digits and _ become _; no leading digit.

    Raises:
        TypeError: no string.
        ValueError: longer than a file's name may be.
    """
    if not isinstance(name, str):
        raise TypeError(f"observables are named by strings, got {name!r}")
    result = re.sub(r"\W", "_", name)
    if len(result.encode()) > LONGEST_NAME:
        raise ValueError(
            f"observable {name[:40]!r}… has a name of {len(result.encode())} bytes: it becomes part of file names, so "
            f"at most {LONGEST_NAME} are allowed"
        )
    return f"_{result}" if not result or result[0].isdigit() else result


class Observable:
    """A fixed set of rows, evaluated without gradients.

    Attributes:
        name: as the caller gave it; ``id``: as it stands in variable names.
        source, rows: the data and the chosen row indices, the same at every draw and in every chain.
    """

    def __init__(
        self, name: str, source: Source, batches: int, batch_size: int, seed: int, device: torch.device
    ) -> None:
        needed = batches * batch_size
        if len(source) < needed:
            raise ValueError(
                f"observable {name!r} has {len(source)} rows, fewer than batches_per_draw × batch_size = {batches} × "
                f"{batch_size} = {needed}: give (data set, k) with k <= {len(source) // batch_size}, or a smaller "
                "batch_size"
            )
        self.name, self.id, self.source, self.device = name, observable_id(name), source, device
        self.batches_per_draw, self.batch_size = batches, batch_size
        self.rows = np.array(random.Random(seed).sample(range(len(source)), needed), dtype=np.int64)
        self.batches: list[Any] = [
            fetch(source, self.rows[k : k + batch_size], device) for k in range(0, needed, batch_size)
        ]
        shapes = {tuple(tuple(leaf.shape[1:]) for leaf in leaves(batch)) for batch in self.batches}
        if len(shapes) > 1:
            raise ValueError(
                f"batches of observable {name!r} have different shapes {sorted(shapes)}: pad all its rows to one length"
            )

    def token_ids(self) -> Tensor | None:
        """[rows, tokens] int64 on the CPU, where the batches are token sequences."""
        found = [token_ids(batch) for batch in self.batches]
        tokens = [ids for ids in found if ids is not None]
        return torch.cat(tokens).long().cpu() if len(tokens) == len(found) else None


def resolve_observables(
    specs: Mapping[str, ObservableSpec] | None,
    *,
    batches_per_draw: int,
    batch_size: int,
    seed: int,
    device: torch.device,
    buffer_size: int | None = None,
) -> list[Observable]:
    """Observables from ``{name: data set}`` or ``{name: (data set, batches_per_draw)}``.

    Raises:
        TypeError: not a mapping from names.
        ValueError: too few rows, or two names that become one identifier.
    """
    if specs is None:
        return []
    if not isinstance(specs, Mapping):
        raise TypeError(f"observables must be a mapping from name to data set, got {type(specs).__name__}")
    resolved: list[Observable] = []
    for name, spec in specs.items():
        if not isinstance(name, str):
            raise TypeError(f"observables are named by strings, got {name!r}")
        dataset, batches = spec, batches_per_draw
        if isinstance(spec, tuple) and len(spec) == 2 and isinstance(spec[1], numbers.Integral):
            dataset, batches = spec[0], int(spec[1])
        if batches < 1:
            raise ValueError(f"batches_per_draw of observable {name!r} must be >= 1, got {batches}")
        observable = Observable(name, as_source(dataset, buffer_size=buffer_size), batches, batch_size, seed, device)
        clash = [other.name for other in resolved if other.id == observable.id]
        if clash:
            raise ValueError(
                f"observables {clash[0]!r} and {name!r} would both be called {observable.id!r}: rename one"
            )
        resolved.append(observable)
    return resolved
