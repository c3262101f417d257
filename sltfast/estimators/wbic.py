"""The widely applicable Bayesian information criterion of the localised posterior."""

from __future__ import annotations

import math
import numbers
from typing import TYPE_CHECKING, Any

from sltfast.data import as_source
from sltfast.estimators.llc import compute_llc, needed_for

if TYPE_CHECKING:
    import xarray as xr
    from torch import nn

    from sltfast.losses import LossFn


def wbic(
    model: nn.Module,
    dataset: Any,
    *,
    lr: float,
    n: float | None = None,
    loss_fn: LossFn | None = None,
    include_burnin: bool = False,
    **sampling: Any,
) -> xr.Dataset:
    """Sample at β = 1/log n and estimate WBIC, whose leading terms are those of the free energy −log ∫ e^{−nL}·φ.

    WBIC = E_{β = 1/log n}[n·L(w)] = n·L(w*) + log n·λ̂,  λ̂ = nβ·(E[L(w)] − L(w*)),  nβ = n/log n,

    over the posterior localised at w*: the free energy of its surroundings. n·L(w*) is computed over every row and has
    no error; the error is that of the chains, log n·SE(λ̂).

    Args:
        model: see ``sltfast.sample``.
        dataset: see ``sltfast.sample``.
        lr: step size ε > 0.
        n: what the mean loss L is a mean over, in independent observations. None: the rows of the data set (sequences,
            for a language model; give the number of its predicted tokens to count those).
        loss_fn: see ``sltfast.sample``.
        include_burnin: see ``sltfast.compute_llc``.
        **sampling: every other keyword of ``sltfast.sample`` but ``n_beta``, which n decides.

    Returns:
        ``xr.Dataset``: ``wbic`` and ``wbic_se`` (nats), ``n``, ``n_beta``, ``init_loss_dataset`` (L(w*) over all rows),
        and every variable of ``sltfast.compute_llc`` at this nβ; attrs as there.

    Raises:
        TypeError: ``n_beta`` is given, or as ``sltfast.sample``.
        ValueError: n is not above 1, or as ``sltfast.sample``.
        AllChainsDied: no chain lived.

    Source: Watanabe, "A widely applicable Bayesian information criterion", JMLR 14 (2013).
    """
    from sltfast.sampling import sample

    if "n_beta" in sampling:
        raise TypeError("wbic samples at n_beta = n / log n: give n, or use sltfast.llc for another temperature")
    source = as_source(dataset, buffer_size=sampling.get("buffer_size"))
    count = _observations(len(source) if n is None else n)
    n_beta = count / math.log(count)
    keywords = needed_for("paired", sampling) | {"dataset_init_loss": True}
    if keywords.get("batch_size") is None:
        keywords["batch_size"] = getattr(dataset, "batch_size", None)
    samples = sample(model, source, lr=lr, n_beta=n_beta, loss_fn=loss_fn, **keywords)
    result = compute_llc(samples, include_burnin=include_burnin)
    level = float(samples["init_loss_dataset"])
    result["wbic"] = count * level + math.log(count) * float(result["llc_mean"])
    result["wbic_se"] = math.log(count) * float(result["llc_se"])
    for name in ("wbic", "wbic_se"):
        result[name].attrs["units"] = "nats"
    result["init_loss_dataset"], result["n"], result["n_beta"] = level, count, n_beta
    return result


def _observations(n: Any) -> float:
    if isinstance(n, bool) or not isinstance(n, numbers.Real) or not 1 < float(n) < math.inf:
        raise ValueError(f"n must be a number of observations > 1, got {n!r} (nβ = n / log n)")
    return float(n)
