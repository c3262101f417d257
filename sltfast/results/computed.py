"""Where a result is kept beside the runs that it is of: ``runs/llm.bif.zarr`` for ``runs/llm.zarr``."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from sltfast.errors import OutputBusy, OutputMismatch
from sltfast.results.durable import sync_directory
from sltfast.results.lock import locked

if TYPE_CHECKING:
    import xarray as xr

Kind = Literal["susceptibilities", "bif"]
KIND, COMPUTED_FROM = "result_kind", "computed_from"
GROUPS = "groups"  # names in their order, which a directory does not keep
UNFINISHED = ".part"  # ends the name of a directory in which a result is written, as "new" and then as "whole"


def result_path(output_path: str | Path, kind: Kind) -> Path:
    """``runs/llm.<kind>.zarr`` for the run ``runs/llm.zarr``, or for the runs ``runs/llm_<restriction>.zarr``.

    Raises:
        OutputMismatch: something else is there, which writing would destroy.
    """
    path = Path(output_path).expanduser()
    path = path.with_name(f"{path.stem}.{kind}{path.suffix or '.zarr'}")
    _finish(path)
    if path.exists() and not (path.is_dir() and not any(path.iterdir())) and _attrs(path).get(KIND) != kind:
        raise OutputMismatch(f"{path}, where the result ({kind}) would go, holds something else: give another path")
    return path


def is_result(path: Path) -> bool:
    """Whether a path has the name of a result."""
    return any(f".{kind}." in path.name or path.name.endswith(f".{kind}") for kind in get_args(Kind))


def results_beside(run: Path) -> list[Path]:
    """Results that stand beside a run and were computed from it: of ``runs/llm_a.zarr`` those of ``runs/llm.zarr`` too.

    What only has the name of a result, and does not say that it is one, is none.
    """
    found = []
    for part in sorted(run.parent.glob(f"*{UNFINISHED}")):
        if is_result(part):
            _finish(part.with_name(part.name.removesuffix(UNFINISHED)))
    for path in sorted(run.parent.iterdir()) if run.parent.is_dir() else ():
        for kind in get_args(Kind):
            stem, dot, rest = path.name.partition(f".{kind}")
            named = (
                bool(dot)
                and rest in ("", run.suffix or ".zarr")
                and (run.stem == stem or run.stem.startswith(f"{stem}_"))
            )
            if named and _attrs(path).get(KIND) == kind:
                found.append(path)
    return found


def source_of(runs: Mapping[str, xr.DataTree], settings: Mapping[str, Any]) -> str:
    """A digest of the runs and settings that a result is computed from."""
    attrs = {name: {key: tree.attrs[key] for key in ("metadata", "sltfast")} for name, tree in runs.items()}
    text = json.dumps([attrs, dict(settings)], sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def saved(path: Path, source: str) -> xr.DataTree | None:
    """What an earlier call computed from the same runs, if that is there."""
    if not path.exists() or _attrs(path).get(COMPUTED_FROM) != source:
        return None
    with read(path) as tree:
        return tree.load()  # a later call may write in its place


def read(path: Path) -> xr.DataTree:
    """A result on disk, read lazily; its groups in the order in which they were written."""
    import xarray as xr

    tree = xr.open_datatree(path, engine="zarr", consolidated=False)
    order = {name: place for place, name in enumerate(tree.attrs.get(GROUPS, ()))}
    found = tree.children
    tree.children = {name: found[name] for name in sorted(found, key=lambda name: (order.get(name, len(order)), name))}
    return tree


def save(result: xr.DataTree | xr.Dataset, path: Path, kind: Kind, source: str = "") -> None:
    """Write a result, in place of one that an earlier call wrote: whole, or not at all, after a power cut too.

    Args:
        result: its attrs get what it is and what it was computed from.
        path: from ``result_path``.
        kind: what it is.
        source: from ``source_of``, for ``saved`` to know it by; "" where it is computed anew each time.

    Raises:
        OutputBusy: another process writes this result.
    """
    import xarray as xr

    from sltfast.results.zarr_files import WholeFiles

    result.attrs |= {KIND: kind, COMPUTED_FROM: source}
    if isinstance(result, xr.DataTree):
        result.attrs[GROUPS] = list(result.children)
    tree = xr.DataTree(result) if isinstance(result, xr.Dataset) else result
    part = _part(path)
    with locked(path):
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        try:
            files = WholeFiles(part / "new", part)
            tree.to_zarr(files, mode="w", consolidated=False)
            files.settle()
            os.replace(part / "new", part / "whole")
            sync_directory(part)
            sync_directory(path.parent)  # from here on a stop leaves the new one for the next call to put in place
            if path.exists():
                os.replace(path, part / "old")
        finally:
            _put_in_place(part, path)


def _part(path: Path) -> Path:
    return path.with_name(path.name + UNFINISHED)


def _finish(path: Path) -> None:
    """Put a result in place whose writing was stopped when it was whole, and remove what else that left."""
    part = _part(path)
    if part.is_dir():
        with suppress(OutputBusy), locked(path):  # busy: it is being written right now
            _put_in_place(part, path)


def _put_in_place(part: Path, path: Path) -> None:
    whole = part / "whole"
    try:
        if whole.exists() and not path.exists():
            os.replace(whole, path)
            sync_directory(path.parent)
    finally:
        if path.exists() or not whole.exists():  # a whole one that could not be moved waits for the next call
            shutil.rmtree(part, ignore_errors=True)


def _attrs(path: Path) -> dict[str, Any]:
    """Attributes of a store; none of what is no store."""
    import zarr

    try:
        return dict(zarr.open_group(str(path), mode="r").attrs)
    except Exception:  # whatever zarr raises for what it cannot read
        return {}
