"""Where susceptibilities are kept beside the runs that they are of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sltfast.errors import OutputMismatch

if TYPE_CHECKING:
    import xarray as xr

COMPUTED_FROM = "computed_from"


def result_path(output_path: str | Path) -> Path:
    """``runs/llm.susceptibilities.zarr`` for the runs ``runs/llm_<restriction>.zarr``.

    Raises:
        OutputMismatch: something else is there, which writing would destroy.
    """
    path = Path(output_path).expanduser()
    path = path.with_name(f"{path.stem}.susceptibilities{path.suffix or '.zarr'}")
    if path.exists() and not (path.is_dir() and not any(path.iterdir())) and not _source(path):
        raise OutputMismatch(f"{path}, where the susceptibilities would go, holds something else: give another path")
    return path


def source_of(runs: Mapping[str, xr.DataTree], settings: Mapping[str, Any]) -> str:
    """A digest of the runs and settings that a result is computed from."""
    attrs = {name: {key: tree.attrs[key] for key in ("metadata", "sltfast")} for name, tree in runs.items()}
    text = json.dumps([attrs, dict(settings)], sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def saved(path: Path, source: str) -> xr.DataTree | None:
    """What an earlier call computed from the same runs, if that is there."""
    import xarray as xr

    if not path.exists() or _source(path) != source:
        return None
    return xr.open_datatree(path, engine="zarr", consolidated=False)


def save(result: xr.DataTree, path: Path) -> None:
    """Write susceptibilities, in place of those that an earlier call wrote."""
    result.to_zarr(path, mode="w", consolidated=False)


def _source(path: Path) -> str:
    """The digest that a result was written with; "" for something else."""
    import zarr

    try:
        return str(zarr.open_group(str(path), mode="r").attrs.get(COMPUTED_FROM, ""))
    except Exception:  # whatever zarr raises for what it cannot read
        return ""
