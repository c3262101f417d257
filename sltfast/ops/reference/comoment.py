"""The co-moment ops in plain PyTorch: all arithmetic in float64, whatever precision is asked for."""

import torch
from torch import Tensor

from sltfast.ops.comoment_arguments import (
    Comoments,
    check_comoment,
    check_correlation,
    check_merge,
    check_standardise,
    check_top_k,
)


def _centred(x: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
    """M [G, 1], batch means [G, N] and centred draws [G, k, N], zero for draws that do not count.

    The mean is taken twice, the second time of what the first left, so that a common offset costs nothing.
    """
    counts = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device) if valid is None else valid.bool()
    keep = counts[:, :, None]
    m = counts.sum(1, dtype=torch.float64)[:, None]
    draws = torch.where(keep, x.double(), 0.0)
    mean = draws.sum(1) / m.clamp(min=1)
    mean = mean + torch.where(keep, draws - mean[:, None], 0.0).sum(1) / m.clamp(min=1)
    return m, mean, torch.where(keep, draws - mean[:, None], 0.0)


def _join(mean: Tensor, m2: Tensor, n: Tensor, m: Tensor, other_mean: Tensor, other_m2: Tensor) -> Tensor:
    """Chan's rule for one side, in place; n, m [G, 1]. Returns δ [G, N]."""
    share = m / (n + m).clamp(min=1)
    delta = torch.where(m > 0, other_mean - mean, 0.0)
    mean += delta * share
    m2 += other_m2 + delta**2 * n * share
    return delta


def _outer(a: Tensor, b: Tensor) -> Tensor:
    return a[:, :, None] * b[:, None, :]


def comoment_(
    count: Tensor,
    mean_x: Tensor,
    m2_x: Tensor,
    mean_y: Tensor | None,
    m2_y: Tensor | None,
    block: Tensor | None,
    x: Tensor,
    y: Tensor | None,
    valid: Tensor | None,
    precision: str,
) -> None:
    """`sltfast::reference_comoment_`; the equation and the shapes are in `ops.comoment_`."""
    check_comoment(Comoments(count, mean_x, m2_x, mean_y, m2_y, block), x, y, valid, precision)
    n = count[:, None].clone()
    m, batch_x, centred_x = _centred(x, valid)
    delta_y = delta_x = _join(mean_x, m2_x, n, m, batch_x, (centred_x**2).sum(1))
    centred_y = centred_x
    if y is not None and mean_y is not None and m2_y is not None:
        _, batch_y, centred_y = _centred(y, valid)
        delta_y = _join(mean_y, m2_y, n, m, batch_y, (centred_y**2).sum(1))
    if block is not None:
        weight = n * m / (n + m).clamp(min=1)
        block += centred_x.mT @ centred_y + _outer(delta_x * weight, delta_y)
    count += m[:, 0]


def comoment_merge_(
    count: Tensor,
    mean_x: Tensor,
    m2_x: Tensor,
    mean_y: Tensor | None,
    m2_y: Tensor | None,
    block: Tensor | None,
    other_count: Tensor,
    other_mean_x: Tensor,
    other_m2_x: Tensor,
    other_mean_y: Tensor | None,
    other_m2_y: Tensor | None,
    other_block: Tensor | None,
) -> None:
    """`sltfast::reference_comoment_merge_`; the equation and the shapes are in `ops.comoment_merge_`."""
    check_merge(
        Comoments(count, mean_x, m2_x, mean_y, m2_y, block),
        Comoments(other_count, other_mean_x, other_m2_x, other_mean_y, other_m2_y, other_block),
    )
    n, m = count[:, None].clone(), other_count[:, None]
    delta_y = delta_x = _join(mean_x, m2_x, n, m, other_mean_x, other_m2_x)
    if mean_y is not None and m2_y is not None and other_mean_y is not None and other_m2_y is not None:
        delta_y = _join(mean_y, m2_y, n, m, other_mean_y, other_m2_y)
    if block is not None and other_block is not None:
        block += other_block + _outer(delta_x * (n * m / (n + m).clamp(min=1)), delta_y)
    count += other_count


def _inverse_root(m2: Tensor) -> Tensor:
    return torch.where(m2 >= torch.finfo(torch.float64).tiny, 1.0 / m2.sqrt(), 0.0)


def comoment_correlation_(out: Tensor, block: Tensor, m2_x: Tensor, m2_y: Tensor | None) -> None:
    """`sltfast::reference_comoment_correlation_`; see `ops.comoment_correlation`."""
    check_correlation(out, block, m2_x, m2_y)
    inverse_x = _inverse_root(m2_x)
    inverse_y = inverse_x if m2_y is None else _inverse_root(m2_y)
    r = (block * _outer(inverse_x, inverse_y)).clamp(-1.0, 1.0)
    if m2_y is None:
        r.diagonal(dim1=1, dim2=2).masked_fill_(inverse_x > 0, 1.0)
    out.copy_(r)


def comoment_standardise_(z: Tensor, x: Tensor, mean: Tensor, scale: Tensor, valid: Tensor | None) -> None:
    """`sltfast::reference_comoment_standardise_`; see `ops.comoment_standardise_`."""
    check_standardise(z, x, mean, scale, valid)
    scaled = (x.double() - mean[:, None]) * scale[:, None]
    z.copy_(scaled if valid is None else torch.where(valid.bool()[:, :, None], scaled, 0.0))


def comoment_top_k_(
    values: Tensor, indices: Tensor, block: Tensor, column: int, row: int | None, absolute: bool
) -> None:
    """`sltfast::reference_comoment_top_k_`; see `ops.comoment_top_k_`."""
    check_top_k(values, indices, block, column, row)
    n, m = block.shape
    k = values.shape[1]
    places = torch.arange(column, column + m, device=block.device).expand(n, m)
    if row is not None:
        own = torch.arange(row, row + n, device=block.device)[:, None]
        places = torch.where(places == own, -1, places)
    places = torch.where(block.isnan(), -1, places)
    all_values, all_places = torch.cat([values, block], 1), torch.cat([indices, places], 1)
    key = all_values.abs() if absolute else all_values
    # best first; stable sorts, last key first: index, then value, then empty places behind all
    order = all_places.sort(dim=1, stable=True).indices
    order = order.gather(1, key.gather(1, order).sort(dim=1, descending=True, stable=True).indices)
    empty = (all_places.gather(1, order) < 0).to(torch.uint8)
    order = order.gather(1, empty.sort(dim=1, stable=True).indices)[:, :k]
    values.copy_(all_values.gather(1, order))
    indices.copy_(all_places.gather(1, order))
