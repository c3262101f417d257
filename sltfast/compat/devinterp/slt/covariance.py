"""Covariances and correlations of series of observations, pair by pair."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    import xarray as xr


def batch_cov(batched_a: Tensor, batched_b: Tensor) -> Tensor:
    """Covariances (n − 1) among the series of every pair (a, b), those of a before those of b.

    Args:
        batched_a: [n_a, s_a, observations].
        batched_b: [n_b, s_b, observations].

    Returns:
        [n_a, n_b, s_a + s_b, s_a + s_b].
    """
    _check(batched_a, batched_b)
    (count_a, series_a, observations), (count_b, series_b, _) = batched_a.shape, batched_b.shape
    a, b = (values - values.mean(-1, keepdim=True) for values in (batched_a, batched_b))
    scale = 1.0 / (observations - 1)
    total = series_a + series_b
    result = a.new_empty(count_a, count_b, total, total)
    within_a, within_b = ((values @ values.mT).mul_(scale) for values in (a, b))
    across = (a.reshape(-1, observations) @ b.reshape(-1, observations).T).mul_(scale)
    across = across.view(count_a, series_a, count_b, series_b).transpose(1, 2)
    result[..., :series_a, :series_a] = within_a[:, None]
    result[..., series_a:, series_a:] = within_b[None]
    result[..., :series_a, series_a:] = across
    result[..., series_a:, :series_a] = across.mT
    return result


def batch_corrcoef(batched_a: Tensor, batched_b: Tensor) -> Tensor:
    """Correlations among the series of every pair, laid out as in ``batch_cov``; 1 on the diagonal.

    Args:
        batched_a: float32 or float64 [n_a, s_a, observations].
        batched_b: likewise [n_b, s_b, observations].
    """
    for values in (batched_a, batched_b):
        assert values.dtype in (torch.float32, torch.float64), f"float32 or float64 are correlated, got {values.dtype}"
    covariance = batch_cov(batched_a, batched_b)
    deviation = covariance.diagonal(dim1=-2, dim2=-1).sqrt()
    covariance /= deviation.unsqueeze(-1)
    covariance /= deviation.unsqueeze(-2)
    covariance.diagonal(dim1=-2, dim2=-1).fill_(1)
    return covariance


def xr_corrcoef_with_torch_backend(
    seq1: xr.DataArray, seq2: xr.DataArray, *, device: str | torch.device, compute_covariance: bool = False
) -> xr.Dataset:
    """Correlations of all rows of two arrays, those of the first before those of the second.

    Args:
        seq1: two dimensions, rows first.
        seq2: the same dimensions.
        device: where products are formed.
        compute_covariance: covariances (n − 1) instead.

    Returns:
        ``correlation`` (rows, rows_T), with the rows' coordinates on both.
    """
    import xarray as xr

    assert seq1.ndim == seq2.ndim == 2, f"two dimensions each are needed, got {seq1.dims} and {seq2.dims}"
    assert seq1.dims == seq2.dims, f"equal dimensions are needed, got {seq1.dims} and {seq2.dims}"
    rows = str(seq1.dims[0])
    both = xr.concat([seq1, seq2], dim=rows)
    data = torch.as_tensor(both.values, device=device)
    matrix = torch.cov(data) if compute_covariance else torch.corrcoef(data)
    labels = both[rows].values
    dims = (rows, f"{rows}_T")
    return xr.Dataset({"correlation": (dims, matrix.cpu().numpy())}, coords=dict.fromkeys(dims, labels))


def _check(a: Tensor, b: Tensor) -> None:
    assert a.dim() == b.dim() == 3, f"[items, series, observations] are needed, got {tuple(a.shape)}, {tuple(b.shape)}"
    assert a.shape[2] == b.shape[2], f"equally many observations are needed, got {a.shape[2]} and {b.shape[2]}"
