"""Where an influence is kept beside the run that it is of."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sltfast.errors import OutputMismatch

if TYPE_CHECKING:
    import xarray as xr


def result_path(output_path: str | Path) -> Path:
    """``runs/llm.bif.zarr`` for the run ``runs/llm.zarr``.

    Raises:
        OutputMismatch: something else is there, which writing would destroy.
    """
    path = Path(output_path).expanduser()
    path = path.with_name(f"{path.stem}.bif{path.suffix or '.zarr'}")
    if path.exists() and not (path.is_dir() and not any(path.iterdir())):
        import zarr

        try:
            ours = "definition" in zarr.open_group(str(path), mode="r").attrs
        except Exception:
            ours = False
        if not ours:
            raise OutputMismatch(f"{path}, where the influences would go, holds something else: give another path")
    return path


def save(result: xr.Dataset, path: Path) -> None:
    """Write influences, in place of those that an earlier call wrote."""
    import xarray as xr

    xr.DataTree(result).to_zarr(path, mode="w", consolidated=False)
