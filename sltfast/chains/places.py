"""Where the run of each restriction goes, and what stands there already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from sltfast.chains.asked import Asked
from sltfast.chains.prepared import Prepared
from sltfast.restriction import Restriction
from sltfast.results.computed import results_beside
from sltfast.results.identity import restriction_digest, run_identity
from sltfast.results.lock import locked
from sltfast.results.loss_values import loss_values
from sltfast.results.record import attributes
from sltfast.results.replacing import delete_results, tell
from sltfast.results.store import MemoryStore, Store, ZarrStore
from sltfast.results.tree import Existing, existing_run, open_run, tree_from_memory
from sltfast.sampler.precision import computed_in
from sltfast.sampler.weight_reading import weight_names

if TYPE_CHECKING:
    import xarray as xr


class Place(NamedTuple):
    """A restriction and where it is recorded."""

    name: str
    restriction: Restriction
    path: Path | None
    attrs: dict[str, Any]
    existing: Existing

    def store(self, prepared: Prepared, start: Mapping[str, np.ndarray]) -> Store:
        """Laid out, or as an interrupted call left it, with the values that stand before the first step."""
        store: Store
        if self.path is None:
            store = MemoryStore(prepared.specs)
        else:
            resume = self.existing.state == "interrupted"
            store = ZarrStore(self.path, prepared.specs, self.attrs, prepared.recording.step_of, resume=resume)
        for name, values in start.items():
            store.put_whole(name, values)
        return store

    def tree(self, store: Store | None) -> xr.DataTree:
        """What was recorded; ``store`` is that of a run in memory."""
        if self.path is not None:
            return open_run(self.path)
        assert isinstance(store, MemoryStore)
        return tree_from_memory(store, self.attrs, completed=True)


def find_places(asked: Asked, prepared: Prepared, held: ExitStack) -> list[Place]:
    """Lock each path, and see what is there.

    Args:
        asked: the call.
        prepared: its set-up.
        held: gives the locks back.

    Raises:
        OutputBusy, OutputMismatch: as ``run_chains``.
    """
    places: list[Place] = []
    identity: dict[str, Any] = {}
    for name, restriction in asked.restrictions.items():
        path = asked.paths[name]
        attrs = attributes(asked.config, prepared.observables, prepared.recording, restriction, asked.device)
        if asked.contract is not None:
            attrs["metadata"] = asked.contract.metadata
        if asked.weights is not None:
            attrs["sltfast"]["weights"] = weight_names(asked.model, asked.weights)
        existing = Existing("", {})
        if path is not None:  # reading every weight and row is worth it only where runs could be mixed up
            identity = identity or _identity(asked, prepared)
            attrs["sltfast"]["identity"] = {**identity, "restriction": restriction_digest(restriction)}
            held.enter_context(locked(path))
            existing = existing_run(path, attrs, asked.model, overwrite=asked.request.overwrite)
        places.append(Place(name, restriction, path, attrs, existing))
    return places


def _identity(asked: Asked, prepared: Prepared) -> dict[str, Any]:
    """What the runs of all restrictions share."""
    dtype = computed_in(prepared.clone, asked.config.precision, asked.device)
    identity = {
        **run_identity(asked.model, asked.source, prepared.observables),
        "loss": asked.loss_told,
        "loss_values": loss_values(prepared.shapes.first, asked.device, dtype),
        **prepared.recording.identity,
        "arrays": ", ".join(spec.name for spec in prepared.specs),
    }
    if asked.weights is not None:
        identity["record_weights"] = restriction_digest(asked.weights)
    if asked.contract is not None:
        identity["order"] = asked.contract.digest
    return identity


def replace(places: Sequence[Place]) -> None:
    """Say which runs are about to be deleted, and delete what was computed from them; they go as they are laid out."""
    replaced = [place for place in places if place.existing.replaced]
    if replaced:
        results = dict.fromkeys(
            one for place in replaced if place.path is not None for one in results_beside(place.path)
        )
        tell([place.existing.replaced for place in replaced], list(results))
        delete_results(list(results))
