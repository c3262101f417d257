"""What stands at ``output_path`` before a run: devinterp's rule of when it is returned, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sltfast.compat.devinterp.slt.config import SamplerConfig
from sltfast.compat.fast_run.settings import sampler_record
from sltfast.errors import OutputMismatch
from sltfast.results.store import SPECS, sidecar

if TYPE_CHECKING:
    import xarray as xr


class AnotherRun(RuntimeError, OutputMismatch):
    """``output_path`` holds another run, an unfinished one of devinterp's, or no run (a RuntimeError, as it raises)."""


def stored_run(path: Path, config: SamplerConfig) -> xr.DataTree | None:
    """The run at ``path``, if its settings are these: complete, or an interrupted one that can be taken up.

    Returns:
        The tree as it is on disk, lazily; None where nothing is there.

    Raises:
        AnotherRun: other settings, no run, or an unfinished run without a journal.
    """
    import xarray as xr

    if not path.exists():
        return None
    mend = f"Delete and retry: rm -rf '{path}'"
    try:
        tree = xr.open_datatree(str(path), engine="zarr", consolidated=False)
        stored = dict(tree.attrs["metadata"]["config"]["sampler"])
    except Exception as error:
        raise AnotherRun(
            f"Output path '{path}' exists but couldn't be opened as zarr with a run in it "
            f"({type(error).__name__}: {error}). {mend}"
        ) from error
    if tree.attrs.get("completed") != 1 and not (sidecar(path) / SPECS).exists():
        raise AnotherRun(
            f"Output path '{path}' exists but sampling was incomplete, and there is no journal to go on from. {mend}"
        )
    wanted = sampler_record(config)
    apart = [
        f"{name} (stored {stored.get(name)!r}, now {wanted.get(name)!r})"
        for name in sorted({*stored, *wanted})
        if stored.get(name) != wanted.get(name)
    ]
    if apart:
        raise AnotherRun(f"Output path '{path}' has a different sampler config: {'; '.join(apart)}. {mend}")
    return tree
