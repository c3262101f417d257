"""``sample_restrictions``: many restrictions of one model over the same batches, in as few passes as they allow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from sltfast.chains import Wanted, run_chains
from sltfast.clone import unwrap
from sltfast.observables import ObservableSpec
from sltfast.request import resolve
from sltfast.restriction import ParamMasks
from sltfast.restriction.components import components

if TYPE_CHECKING:
    import xarray as xr


def sample_restrictions(
    model: nn.Module,
    dataset: Any,
    observables: Mapping[str, ObservableSpec] | None = None,
    weight_restrictions: Mapping[str, ParamMasks] | Sequence[str] | str = (),
    *,
    output_path: str | Path | None = None,
    **sampling: Any,
) -> dict[str, xr.DataTree]:
    """Sample every restriction of a model, each as ``sltfast.sample`` with its ``param_masks`` would.

    All see the same batches, and a coordinate draws the same noise in each. What they have in common is computed once:
    the losses at w*; below the first block that moves, one forward a batch serves all chains of all restrictions, and
    observables come from memory there; the heads of one attention share a pass, and only a chain's own head is its own.

    Args:
        model: as ``sltfast.sample``.
        dataset: as ``sltfast.sample``.
        observables: as ``sltfast.sample``.
        weight_restrictions: ``{name: param_masks}`` (None as param_masks: the whole model); or names of parts, each a
            restriction called like itself: ``["l0h1", "l1 mlp"]``, "all heads", "all".
        output_path: ``runs/llm.zarr`` writes each restriction to ``runs/llm_<name>.zarr``, each a run of its own that
            ``sltfast.open`` reads; the same call resumes what was interrupted.
        **sampling: every other keyword of ``sltfast.sample``; ``lr`` and ``n_beta`` are required.

    Returns:
        By name, the tree that ``sltfast.sample`` returns.

    Raises:
        TypeError: weight_restrictions of another type, or a keyword that ``sltfast.sample`` does not have.
        AllChainsDied: no chain of any restriction is left; where only some restrictions are without one, ``alive`` says
            so.
        ValueError: it is empty, or two names would be written to one file; else as ``sltfast.sample``.

    Source: weight-restricted posteriors: Wang et al. 2410.02984.
    """
    if "param_masks" in sampling:
        raise TypeError("param_masks belongs in weight_restrictions here: {name: param_masks}")
    config, request = resolve(dataset, sampling)
    named = components(unwrap(model), weight_restrictions, full=False)
    wanted = {name: Wanted(masks, path_of(output_path, name)) for name, masks in named.items()}
    paths = [one.output_path for one in wanted.values() if one.output_path is not None]
    if len(set(paths)) < len(paths):
        raise ValueError(f"two of the restrictions {sorted(wanted)} would be written to one file: rename one")
    return run_chains(model, dataset, observables, wanted, config, request)


def path_of(output_path: str | Path | None, name: str) -> Path | None:
    """Where one of several runs is written: ``runs/llm.zarr`` and "l0h1" make ``runs/llm_l0h1.zarr``; None: memory."""
    if output_path is None:
        return None
    path = Path(output_path)
    safe = "".join(letter if letter.isalnum() or letter in "-." else "_" for letter in name)
    return path.with_name(f"{path.stem}_{safe}{path.suffix}")
