"""What lies at a path, or was handed over: runs, estimates, susceptibilities, influences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from sltfast.results.computed import UNFINISHED, is_result, read

if TYPE_CHECKING:
    import xarray as xr

Kind = Literal["run", "estimate", "susceptibilities", "influences"]
KINDS = "a run of sltfast.sample, an estimate of sltfast.llc, susceptibilities, or influences of sltfast.bif"


@dataclass(frozen=True)
class Found:
    """One tree and what it is.

    Attributes:
        name: of the file without its suffixes, or the caller's.
        kind: what the tree holds.
        tree: it.
    """

    name: str
    kind: Kind
    tree: xr.DataTree


def gather(given: Any) -> list[Found]:
    """Everything to report on, in the order of names; runs first.

    Args:
        given: a path to a ``.zarr`` store or a folder that holds some, a tree or data set, a mapping from names to
            trees, or a sequence of paths.

    Raises:
        FileNotFoundError: no such path, or a folder without a ``.zarr`` store.
        ValueError: a tree that is nothing the page knows.
    """
    if isinstance(given, str | Path):
        return _without_prefix(sorted(_at(Path(given).expanduser()), key=_order))
    if hasattr(given, "data_vars"):
        return [_classified("", given)]
    if isinstance(given, Mapping):
        return sorted((_classified(str(name), tree) for name, tree in given.items()), key=_rank)
    return sorted((one for path in given for one in _at(Path(path).expanduser())), key=_order)


def _rank(one: Found) -> int:
    return ("run", "estimate", "susceptibilities", "influences").index(one.kind)


def _order(one: Found) -> tuple[int, list[int | str]]:
    """Numbers in names count as numbers: l2 before l10."""
    import re

    return _rank(one), [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", one.name)]


def _at(path: Path) -> Iterator[Found]:
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such run, result or folder")
    stores = list(_stores(path))
    if not stores:
        raise FileNotFoundError(
            f"{path}: the folder holds no .zarr store (give the output_path of a run, or its folder)"
        )
    for store in stores:
        yield _classified(store.name.removesuffix(".zarr"), _read(store))


def _stores(path: Path) -> Iterator[Path]:
    if (path / "zarr.json").exists() or (path / ".zgroup").exists():
        yield path
    elif path.is_dir():
        for inner in sorted(path.iterdir()):
            if inner.is_dir() and not inner.name.endswith((".journal", UNFINISHED)):
                yield from _stores(inner)


def _read(path: Path) -> Any:
    from sltfast.results.tree import open_run

    return read(path) if is_result(path) else open_run(path)


def _classified(name: str, given: Any) -> Found:
    import xarray as xr

    tree = xr.DataTree(given) if isinstance(given, xr.Dataset) else given
    variables = set(tree.dataset.data_vars)
    kind: Kind
    if "susceptibilities" in tree.children:
        kind = "susceptibilities"
    elif "influences" in variables:
        kind = "influences"
    elif "llc_mean" in variables and "excess_trace" in variables:
        kind = "estimate"
    elif "metadata" in tree.attrs:
        kind = "run"
    else:
        raise ValueError(f"{name or 'the tree'} holds {', '.join(map(str, variables)) or 'nothing'}: expected {KINDS}")
    return Found(name, kind, tree)


def _without_prefix(found: list[Found]) -> list[Found]:
    """Runs beside ``llm.susceptibilities.zarr`` are called ``llm_<restriction>``: the restriction says enough."""
    stems = {one.name.rpartition(".")[0] + "_" for one in found if is_result(Path(one.name))}
    shortened = []
    for one in found:
        prefix = next((stem for stem in stems if one.kind == "run" and one.name.startswith(stem)), "")
        shortened.append(Found(one.name.removeprefix(prefix), one.kind, one.tree))
    return shortened
