"""The spectrum of the loss's Hessian at w*, from a few Hessian-vector products."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch
from torch import nn

from sltfast.arena import LOW_PRECISION
from sltfast.batches import BatchStream
from sltfast.clone import structural_clone, unwrap
from sltfast.data import Source, as_source
from sltfast.diagnostics.lanczos import Quadrature, lanczos
from sltfast.hessian import Hessian, Method
from sltfast.losses import LossFn
from sltfast.per_sample.items import prepared
from sltfast.restriction import ParamMasks, Restriction
from sltfast.restriction.selection import select
from sltfast.sampler.progress import Progress

if TYPE_CHECKING:
    import xarray as xr


def curvature(
    model: nn.Module,
    dataset: Any,
    *,
    loss_fn: LossFn | None = None,
    param_masks: ParamMasks = None,
    num_probes: int = 4,
    num_steps: int = 20,
    num_items: int = 256,
    batch_size: int = 32,
    products: Method = "auto",
    seed: int = 0,
    buffer_size: int | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """Spectrum, trace and extreme eigenvalues of H = ∇²L(w*) on the coordinates that move.

    Stochastic Lanczos quadrature: for random signs z, k steps of Lanczos' method from z give nodes θ_j and weights τ_j
    with tr f(H) ≈ d·mean_z Σ_j τ_j·f(θ_j). It is exact for what a polynomial below degree 2k can say, and for all f
    where H has no more than k distinct eigenvalues; over z it is unbiased. L is the mean loss of ``num_items`` items,
    others for each probe, so that the spread over probes counts the choice of items too. The cost is
    num_probes × num_steps products, each about two gradients of L.

    Args:
        model: as for ``sltfast.sample``; it is not touched. bf16 and fp16 weights are probed in float32.
        dataset: as for ``sltfast.sample``.
        loss_fn: see ``sltfast.sample``.
        param_masks: which coordinates move, see ``sltfast.sample``; d of them.
        num_probes: vectors z; two or more give standard errors.
        num_steps: k; the basis of k·d numbers is kept where it fits into a gigabyte.
        num_items: rows behind each probe's L, drawn without replacement; at most all.
        batch_size: rows of a forward pass.
        products: "double_backward", "finite_differences" of gradients, or "auto": the first where it runs and agrees
            with the second on one vector.
        seed: of the signs and of the rows.
        buffer_size: see ``sltfast.sample``.
        progress: show a progress bar.

    Returns:
        ``xr.Dataset``: ``nodes``, ``weights``, ``residuals`` (probe, node; NaN, 0, NaN beyond a probe's last): an
        eigenvalue lies within its residual of each node, in nats per squared weight; ``trace`` = tr H and
        ``trace_se``; ``frobenius`` = √tr H² and ``frobenius_se``; ``largest`` and ``smallest``, the extreme nodes, with
        ``largest_residual`` and ``smallest_residual``; ``negative_trace``, the sum of the negative eigenvalues (where
        w* is no minimum), and ``negative_trace_se``. attrs: ``numel`` = d, ``products`` as used,
        ``products_because`` (why not double backward), ``num_items``, ``num_probes``, ``num_steps``.

    Raises:
        ValueError: a number out of range, or as ``per_sample.gradient_norms``.
        TypeError: as ``per_sample.gradient_norms``.
        RuntimeError: "double_backward" was asked for and the model has no second derivative.

    Source: Ubaru, Chen & Saad 2017; Ghorbani, Krishnan & Xiao 1901.10159 (Hessians of networks).
    """
    for name, value in (
        ("num_probes", num_probes), ("num_steps", num_steps), ("num_items", num_items), ("batch_size", batch_size),
    ):  # fmt: skip
        if isinstance(value, bool) or int(value) != value or value < 1:
            raise ValueError(f"{name} must be a whole number >= 1, got {value!r}")
    if products not in get_args(Method):
        raise ValueError(f"products must be one of {', '.join(get_args(Method))}, got {products!r}")
    source = as_source(dataset, buffer_size=buffer_size)
    model, masks = _in_full_precision(unwrap(model), param_masks)
    parts = _batches(source, min(num_items, len(source)), batch_size, seed)
    generator = torch.Generator().manual_seed(seed)
    probes = []
    with prepared(model, loss_fn, masks) as items, Progress(num_probes * num_steps, shown=progress) as bar:
        bar.starts("curvature")
        hessian = Hessian(items, next(parts), products=products)
        double = all(parameter.dtype == torch.float64 for parameter in items.parameters.values())
        for probe in range(num_probes):
            if probe:
                hessian.take(next(parts))
            signs = 2.0 * torch.randint(0, 2, (hessian.numel,), generator=generator, dtype=torch.int8) - 1
            start = signs.to(items.device, torch.float64 if double else torch.float32)
            probes.append(lanczos(lambda v: hessian.product(v[None])[0].to(v), start, num_steps))
            bar.skip(num_steps)
    settings = {
        "products": hessian.method,
        "products_because": hessian.because,
        "num_items": min(num_items, len(source)),
    }
    return _spectrum(probes, hessian.numel).assign_attrs(settings, num_probes=num_probes, num_steps=num_steps)


def _in_full_precision(model: nn.Module, param_masks: ParamMasks) -> tuple[nn.Module, ParamMasks]:
    """The model, in float32 where it holds less; what moves is told by the model as it was."""
    restriction = Restriction.of(model, param_masks)
    if not any(parameter.dtype in LOW_PRECISION for parameter in model.parameters()):
        return model, param_masks
    masks: Any = select(model, param_masks)
    return structural_clone(model, restriction.segments[0].parameter.device, torch.float32), masks


def _batches(source: Source, count: int, batch_size: int, seed: int) -> Iterator[list[Any]]:
    """Endlessly, the batches of a probe's rows."""
    stream = BatchStream(source, count, seed)
    probe = 0
    while True:
        rows = stream.rows(probe)
        yield [source.fetch(rows[start : start + batch_size]) for start in range(0, count, batch_size)]
        probe += 1


def _spectrum(probes: list[Quadrature], numel: int) -> xr.Dataset:
    import xarray as xr

    longest = max(len(probe.nodes) for probe in probes)
    fills = {"nodes": np.nan, "weights": 0.0, "residuals": np.nan}
    arrays = {
        name: np.stack([np.pad(getattr(p, name), (0, longest - len(p.nodes)), constant_values=fill) for p in probes])
        for name, fill in fills.items()
    }
    spectrum = xr.Dataset(
        {name: (("probe", "node"), values) for name, values in arrays.items()}, attrs={"numel": numel}
    )
    nodes, residuals = arrays["nodes"], arrays["residuals"]
    high = np.unravel_index(np.nanargmax(nodes), nodes.shape)
    low = np.unravel_index(np.nanargmin(nodes), nodes.shape)
    square, square_se = trace_of(spectrum, nodes**2)
    trace, trace_se = trace_of(spectrum, nodes)
    negative, negative_se = trace_of(spectrum, np.minimum(nodes, 0.0))
    frobenius = float(np.sqrt(square))
    values = {
        "trace": trace,
        "trace_se": trace_se,
        "frobenius": frobenius,
        "frobenius_se": square_se / (2 * frobenius) if frobenius else 0.0,
        "largest": float(nodes[high]),
        "largest_residual": float(residuals[high]),
        "smallest": float(nodes[low]),
        "smallest_residual": float(residuals[low]),
        "negative_trace": negative,
        "negative_trace_se": negative_se,
    }
    return spectrum.assign(values)


def trace_of(spectrum: xr.Dataset, values: np.ndarray) -> tuple[float, float]:
    """Tr f(H) and its standard error over probes (NaN for one) from f at the nodes, [probe, node]."""
    weights = spectrum["weights"].values
    each = int(spectrum.attrs["numel"]) * np.where(weights > 0, weights * values, 0.0).sum(axis=1)
    error = float(each.std(ddof=1) / np.sqrt(len(each))) if len(each) > 1 else float("nan")
    return float(each.mean()), error
