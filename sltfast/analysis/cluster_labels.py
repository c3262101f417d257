"""Clusters beside another labelling of the same tokens: types of tokens, features of a sparse autoencoder."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from sltfast.extras import require

if TYPE_CHECKING:
    import xarray as xr


def compare_clusters(clusters: xr.Dataset, labels: Any) -> xr.Dataset:
    """For every cluster the label that describes it best, and how well.

    Of a cluster S and the tokens T that bear a label: precision |S ∩ T|/|S|, recall |S ∩ T|/|T|, Jaccard's
    |S ∩ T|/|S ∪ T|; the label with the largest Jaccard's is the best. ``p_value`` is the chance that so many of |S|
    tokens drawn at random would bear it (hypergeometric), times the number of labels.

    Args:
        clusters: from ``find_clusters``.
        labels: [n] one label a token (strings or numbers); or [n, features] true where a feature is active on a token,
            dense or scipy sparse, so that a token bears any number of them.

    Returns:
        ``xr.Dataset`` (cluster): ``best`` (the label, or the feature's number), ``precision``, ``recall``, ``jaccard``,
        ``base_rate`` (the label's share of all tokens), ``p_value``. attrs: ``num_labels``; ``clustered_share`` of
        tokens; ``adjusted_mutual_info`` of ``label`` and the labelling over the tokens clustered (one label a token,
        NaN else or without clusters): 0 by chance, 1 if they are the same.

    Raises:
        ValueError: labels of another number of tokens, or none.
        MissingExtra: scipy or scikit-learn is not installed.

    Source: Gordon et al. 2601.12703 (clusters against SAE features; its criterion of a match is not restated here).
    """
    import xarray as xr

    sparse = require("scipy.sparse", extra="analysis", purpose="to compare clusters")
    stats = require("scipy.stats", extra="analysis", purpose="to compare clusters")
    n, count = clusters.sizes["token"], clusters.sizes["cluster"]
    names, bears, single = _bearers(sparse, labels, n)
    members = sparse.csr_array(
        (np.ones(clusters.sizes["member"]), (clusters["member_cluster"].values, clusters["member_token"].values)),
        shape=(count, n),
    )
    shared = (members @ bears).toarray()  # [clusters, labels]
    sizes, totals = clusters["size"].values[:, None], np.asarray(bears.sum(axis=0)).ravel()[None]
    jaccard = shared / np.maximum(sizes + totals - shared, 1)
    best = jaccard.argmax(axis=1)
    here = np.arange(count), best
    total = totals[0, best]
    chance = stats.hypergeom.sf(shared[here] - 1, n, total.astype(int), clusters["size"].values)
    clustered = clusters["label"].values >= 0
    agreement = float("nan")
    if single is not None and clustered.any():
        metrics = require("sklearn.metrics", extra="analysis", purpose="to compare clusters")
        agreement = float(metrics.adjusted_mutual_info_score(single[clustered], clusters["label"].values[clustered]))
    values = {
        "best": names[best],
        "precision": shared[here] / sizes[:, 0],
        "recall": shared[here] / np.maximum(total, 1),
        "jaccard": jaccard[here],
        "base_rate": total / n,
        "p_value": np.minimum(1.0, chance * len(names)),
    }
    attrs = {
        "num_labels": len(names),
        "clustered_share": float(clustered.mean()),
        "adjusted_mutual_info": agreement,
    }
    coords = {"cluster": clusters["cluster"].values}
    return xr.Dataset({name: ("cluster", value) for name, value in values.items()}, coords=coords, attrs=attrs)


def _bearers(sparse: Any, labels: Any, n: int) -> tuple[np.ndarray, Any, np.ndarray | None]:
    """Names of labels, who bears them [n, labels], and each token's label where it bears one."""
    given = labels if sparse.issparse(labels) else np.asarray(labels)
    if given.ndim not in (1, 2) or given.shape[0] != n or 0 in given.shape:
        raise ValueError(f"labels must be [{n}] or [{n}, features], a row a token of the clusters, got {given.shape}")
    if given.ndim == 2:
        return np.arange(given.shape[1]), sparse.csr_array(given != 0, dtype=np.float64), None
    names, which = np.unique(given, return_inverse=True)
    return names, sparse.csr_array((np.ones(n), (np.arange(n), which)), shape=(n, len(names))), which
