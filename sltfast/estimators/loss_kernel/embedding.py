"""Points in the plane whose distances are those of the loss kernel."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch

from sltfast.estimators.bif.compute import CorrelationMethod
from sltfast.estimators.bif.moment_pairs import records_covariances
from sltfast.estimators.bif.recorded import Keys, loss_keys_of, recorded_losses
from sltfast.estimators.bif.selection import losses_at
from sltfast.estimators.bif.side import Side
from sltfast.estimators.loss_kernel.kernel import compute_loss_kernel
from sltfast.extras import require
from sltfast.isolation import alone
from sltfast.results.samples import root_of

if TYPE_CHECKING:
    import xarray as xr

Method = Literal["mds", "umap"]


def embed(
    kernel_or_samples: xr.Dataset | xr.DataTree,
    method: Method = "mds",
    *,
    num_components: int = 2,
    seed: int = 0,
    neighbours: int = 15,
    correlation_method: CorrelationMethod = "sequence",
    loss_keys: Keys = "all",
) -> xr.Dataset:
    """Items as points: near each other where their losses answer alike to changes of the weights.

    Distances are those of standardised losses, d(x, x')² = R(x, x) + R(x', x') − 2·R(x, x').

    Args:
        kernel_or_samples: a result of ``compute_loss_kernel`` with all pairs of sequences, or samples, of which nothing
            quadratic in the items is formed.
        method: "mds": classical multidimensional scaling, the linear map that keeps distances best; "umap": neighbours
            stay neighbours (McInnes et al. 1802.03426).
        num_components: dimensions of the points.
        seed: of what is random; the same seed gives the same points.
        neighbours: of a point, for "umap".
        correlation_method: of samples: items are "sequence"s or "token"s.
        loss_keys: of samples: see ``compute_bif``.

    Returns:
        ``xr.Dataset``: ``embedding`` (batch[, target_position], component); NaN for items without weight. With "mds"
        also ``explained`` (component), the share of the squared distances that a component keeps.

    Raises:
        ValueError: an unknown method, more components than items allow, or a kernel of neighbours only.
        MissingExtra: scikit-learn or umap-learn is not installed (extra "analysis").

    Source: Adam, Furman & Hoogland 2509.26537.
    """
    if method not in get_args(Method):
        raise ValueError(f"method must be one of {get_args(Method)}, got {method!r}")
    if not _whole(neighbours) or neighbours < 2:
        raise ValueError(f"neighbours must be a whole number >= 2, got {neighbours!r}")
    dataset = root_of(kernel_or_samples)
    if records_covariances(dataset):
        samples: Any = kernel_or_samples
        dataset = compute_loss_kernel(
            samples, correlation_method=correlation_method, loss_keys=loss_keys, standard_errors=False
        )
    given: np.ndarray
    if "correlation" in dataset:
        if dataset["correlation"].dims != ("batch_1", "batch_2"):
            raise ValueError(
                f"the kernel must be of all pairs of sequences (batch_1, batch_2), it has dimensions "
                f"{dataset['correlation'].dims}: give the samples instead"
            )
        given, shape, precomputed = dataset["correlation"].values, (dataset.sizes["batch_1"], 1), True
        valid = np.isfinite(np.diagonal(given))
        given = given[np.ix_(valid, valid)].astype(np.float64)
        observables = dataset["observable"].values
    else:
        recorded = recorded_losses(kernel_or_samples, loss_keys_of(dataset, loss_keys))
        losses, blocks = losses_at(recorded, correlation_method, "stack", 1)
        shape, precomputed, observables = (losses.shape[1], losses.shape[2]), False, recorded.observables
        z = Side.of(losses.flatten(1), blocks, normalize=True, dtype=torch.float64).z.T.numpy()
        valid = np.isfinite(z).all(1)
        given = z[valid]
    if not _whole(num_components) or not 1 <= num_components < len(given):
        raise ValueError(f"num_components must be in 1 … {len(given) - 1} (items less one), got {num_components!r}")
    points = np.full((valid.size, num_components), np.nan)
    share = None
    if method == "mds":
        points[valid], share = _scaled(given, num_components, precomputed)
    else:
        points[valid] = _umap(given, num_components, precomputed, seed, neighbours)
    return _table(points, share, shape, observables, method, seed)


def _whole(number: Any) -> bool:
    return isinstance(number, int | np.integer) and not isinstance(number, bool)


def _scaled(given: np.ndarray, components: int, precomputed: bool) -> tuple[np.ndarray, np.ndarray]:
    """Classical scaling: principal components of the feature vectors, or of their Gram matrix."""
    decomposition = require("sklearn.decomposition", extra="analysis", purpose="to embed a loss kernel")
    if precomputed:
        found: Any = decomposition.KernelPCA(components, kernel="precomputed", eigen_solver="dense")
        points = found.fit_transform(given)
        centred = given - given.mean(0) - given.mean(1)[:, None] + given.mean()
        kept, total = found.eigenvalues_, float(np.trace(centred))
    else:
        found = decomposition.PCA(components, svd_solver="full")
        points = found.fit_transform(given)
        kept, total = found.singular_values_**2, float(((given - given.mean(0)) ** 2).sum())
    return points, kept / total if total > 0 else np.zeros(components)


def _umap(given: np.ndarray, components: int, precomputed: bool, seed: int, neighbours: int) -> np.ndarray:
    with alone(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of packages it could use but need not have, and of its one thread
        umap: Any = require("umap", extra="analysis", purpose="to embed a loss kernel")
        if precomputed:
            own = np.diagonal(given)
            given = np.sqrt(np.maximum(own[:, None] + own - 2 * given, 0.0))
        reducer = umap.UMAP(
            n_components=components,
            n_neighbors=min(neighbours, len(given) - 1),
            metric="precomputed" if precomputed else "euclidean",
            random_state=seed,
        )
        return np.asarray(reducer.fit_transform(given), dtype=np.float64)


def _table(
    points: np.ndarray,
    share: np.ndarray | None,
    shape: tuple[int, int],
    observables: np.ndarray,
    method: str,
    seed: int,
) -> xr.Dataset:
    import xarray as xr

    components = points.shape[1]
    dims: tuple[str, ...] = ("batch", "component")
    coords: dict[str, Any] = {"batch": np.arange(shape[0]), "observable": ("batch", observables)}
    if shape[1] > 1:
        dims = ("batch", "target_position", "component")
        coords["target_position"] = np.arange(1, shape[1] + 1)
        points = points.reshape(*shape, components)
    variables: dict[str, Any] = {"embedding": (dims, points)}
    if share is not None:
        variables["explained"] = ("component", share)
    return xr.Dataset(variables, coords=coords, attrs={"method": method, "seed": seed})
