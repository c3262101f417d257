"""The response matrix: susceptibilities as tokens × components, each token with its text and context."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import xarray as xr


def response_matrix(tree: xr.DataTree, tokenizer: Any = None, context: int = 20) -> xr.DataArray:
    """Susceptibilities as a matrix X_tj = χ of token t on component j, labelled.

    A token is a predicted position: row t is the continuation y at ``target_position`` p of a sequence, given what
    stands before it. Rows without a value in any component (padding) are left out; a component without any value (no
    chain of it lived) stays, as a column of NaN.

    Args:
        tree: from ``sltfast.susceptibilities``, ``sltfast.compute_susceptibilities`` or devinterp:
            ``/susceptibilities`` with ``sus`` (sus_flat, wr) and, for token data, ``/context`` with ``input_ids``.
        tokenizer: decodes ids, ``tokenizer.decode([id, …]) -> str``; None: ids stand for their text.
        context: tokens before the predicted one in the decoded context.

    Returns:
        ``xr.DataArray`` (token, component), float64. Coordinates of a token: ``dataset`` (name), ``batch``,
        ``target_position`` (index of the predicted token in its sequence), and for token data ``token_id``, ``text``
        and ``context`` (up to ``context`` tokens before it). attrs: ``padding_rows``, how many were left out.

    Raises:
        TypeError: no tree with ``/susceptibilities``.
        ValueError: no row holds a value, ``context`` is below 0, a tokenizer for data without tokens, or positions that
            are not in their sequence.

    Source: Gordon et al. 2601.12703 (tokens × components); Baker et al. 2504.18274 (per-token susceptibilities).
    """
    import xarray as xr

    if isinstance(context, bool) or not isinstance(context, int) or context < 0:
        raise ValueError(f"context must be a whole number of tokens >= 0, got {context!r}")
    children = getattr(tree, "children", {})
    if "susceptibilities" not in children or "sus" not in children["susceptibilities"].dataset:
        raise TypeError(
            f"tree must be one of susceptibilities, with /susceptibilities and sus in it, got {type(tree).__name__}"
        )
    found = children["susceptibilities"].dataset
    values = found["sus"].transpose("sus_flat", "wr").values.astype(np.float64)
    rows = _rows_with_values(values)
    names = dataset_names(found.attrs["dataset_id_to_name"])
    labels = {name: found[name].values[rows] for name in ("dataset_id", "batch", "target_position")}
    ids, which = np.unique(labels["dataset_id"], return_inverse=True)
    coords: dict[str, Any] = {
        "component": np.array([str(name) for name in found["wr"].values]),  # zarr gives them in a type of its own
        "dataset": ("token", np.array([names[str(one)] for one in ids.tolist()], dtype=str)[which]),
        "batch": ("token", labels["batch"]),
        "target_position": ("token", labels["target_position"]),
    }
    if "context" in children:
        coords |= _texts(children["context"].dataset, labels, tokenizer, context)
    elif tokenizer is not None:
        raise ValueError("a tokenizer was given, but the tree has no /context: its data are no tokens")
    attrs = {"padding_rows": len(values) - len(rows), "long_name": "susceptibility"}
    return xr.DataArray(values[rows], dims=("token", "component"), coords=coords, attrs=attrs, name="response")


def _rows_with_values(values: np.ndarray) -> np.ndarray:
    """Indices of the rows with a value in some component."""
    rows = np.flatnonzero(~np.isnan(values).all(axis=1)) if values.size else np.zeros(0, np.int64)
    if not len(rows):
        raise ValueError(
            f"no row of the susceptibilities {values.shape} holds a value: no chain lived, or all is padding"
        )
    return rows


def dataset_names(given: Any) -> dict[str, str]:
    """Names by data set's number, from a list, a mapping, or either written as text."""
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except ValueError:
            given = ast.literal_eval(given)
    if isinstance(given, Mapping):
        return {str(key): str(value) for key, value in given.items()}
    return {str(index): str(value) for index, value in enumerate(given)}


def _texts(
    stored: xr.Dataset, labels: dict[str, np.ndarray], tokenizer: Any, context: int
) -> dict[str, tuple[str, np.ndarray]]:
    """Of every token its id, its text and the text before it."""
    ids = stored["input_ids"].values
    whose = np.stack([stored["dataset_id"].values, stored["batch"].values, stored["position"].values])
    order = np.lexsort(whose[::-1])
    ids, whose = ids[order], whose[:, order]
    starts = np.flatnonzero(np.r_[True, (np.diff(whose[:2], axis=1) != 0).any(axis=0)])
    sequences = {(int(d), int(b)): start for d, b, start in zip(*whose[:2, starts], starts, strict=True)}
    try:
        first = np.array(
            [sequences[int(d), int(b)] for d, b in zip(labels["dataset_id"], labels["batch"], strict=True)], np.int64
        )
    except KeyError as error:
        raise ValueError(
            f"/context has no sequence (dataset_id, batch) = {error.args[0]} of /susceptibilities"
        ) from error
    at = first + labels["target_position"]
    ends = np.r_[starts[1:], len(ids)][np.searchsorted(starts, first)]
    if (at >= ends).any():
        position = int(labels["target_position"][at >= ends][0])
        raise ValueError(f"target_position {position} lies beyond its sequence in /context")

    def text(of: np.ndarray) -> str:
        return " ".join(map(str, of.tolist())) if tokenizer is None else str(tokenizer.decode(of.tolist()))

    tokens = ids[at]
    known = {int(one): text(np.array([one])) for one in np.unique(tokens)}
    befores = [
        text(ids[max(start, end - context) : end]) for start, end in zip(first.tolist(), at.tolist(), strict=True)
    ]
    return {
        "token_id": ("token", tokens),
        "text": ("token", np.array([known[int(one)] for one in tokens], dtype=object)),
        "context": ("token", np.array(befores, dtype=object)),
    }
