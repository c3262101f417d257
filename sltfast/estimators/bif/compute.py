"""The Bayesian influence function of recorded samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch

from sltfast.estimators.bif.before import device_for_products
from sltfast.estimators.bif.definition import Definition
from sltfast.estimators.bif.recorded import Keys, rows_of, token_ids_of
from sltfast.estimators.bif.selection import Range, items_of
from sltfast.estimators.bif.sources import source_of
from sltfast.estimators.bif.tables import matrix_table, neighbour_table
from sltfast.results.samples import plain_settings, root_of

if TYPE_CHECKING:
    import xarray as xr

CorrelationMethod = Literal["token", "sequence"]
ChainReductionMethod = Literal["stack", "mean"]
RankBy = Literal["absolute", "value"]


def compute_bif(
    samples: xr.DataTree,
    *,
    correlation_method: CorrelationMethod = "token",
    reduce_chain_dimension_method: ChainReductionMethod = "stack",
    loss_keys: Keys = "all",
    batch_index_range_1: Range = "all",
    batch_index_range_2: Range = "all",
    loss_keys_1: Sequence[str] | None = None,
    loss_keys_2: Sequence[str] | None = None,
    average_tokenwise_bif: bool = False,
    sign: int = -1,
    normalize: bool = False,
    compute_covariance: bool | None = None,
    top_k: int | None = None,
    top_k_by: RankBy = "absolute",
    standard_errors: bool | None = None,
    separate_chains: bool = False,
    num_blocks: int = 8,
    batch_size: int = 32,
    device: str | torch.device | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """How the loss of one item answers to more weight on another: the Bayesian influence function.

        BIF(i, j) = ∂E_β[ℓ_j]/∂β_i = −Cov_β[ℓ_i, ℓ_j],

    over the draws of all chains that lived (one common mean, n − 1). Of an ``average_tokenwise_bif``, and of whole
    sequences, no token pair is formed: means of covariances are covariances of means.

    Args:
        samples: from ``sltfast.sample`` or ``sltfast.open``, or devinterp's tree. Of a run with
            ``record="covariances"``: sequences, stacked, in the blocks that it recorded.
        correlation_method: "token": losses of tokens; "sequence": of sequences, the mean over the positions they have.
        reduce_chain_dimension_method: "stack" the chains' draws, or take the "mean" over chains at each draw first.
        loss_keys: observables, one after another along ``batch``; "all": every one, sorted.
        batch_index_range_1: rows of that concatenation to have as queries (``batch_1``).
        batch_index_range_2: rows to have as training items (``batch_2``).
        loss_keys_1: instead, the observables whose rows are queries.
        loss_keys_2: instead, the observables whose rows are training items.
        average_tokenwise_bif: the mean over all pairs of positions of two sequences.
        sign: −1, the definition, or 1.
        normalize: correlations in place of covariances; 0 where a loss does not vary.
        compute_covariance: devinterp's convention instead: True for +Cov, False for +Corr.
        top_k: keep the k largest of each row, with which they are, and no matrix.
        top_k_by: rank by the "absolute" or the signed "value".
        standard_errors: of every entry; None: wherever the result is not the full matrix of tokens, whose cost they
            multiply.
        separate_chains: also ``within`` and ``between``, the parts that come from inside the chains and from the
            differences of their means; they add up to ``influences``. Where ``between`` is large the chains disagree.
        num_blocks: blocks of consecutive draws a chain, for standard errors.
        batch_size: at most so many sequences a tile of the matrix of tokens.
        device: where products are formed; None: a GPU if there is one.
        progress: show a progress bar, if it takes long.

    Returns:
        ``xr.Dataset``: ``influences`` (batch_1, batch_2, target_position, target_position_T), or (batch_1, batch_2)
        averaged or of sequences, in nats² or, normalised, dimensionless; NaN for a position without weight.
        ``influences_se``: the larger of the error by batch means and that between chains. ``input_ids`` (batch,
        position) where the samples have them. With ``top_k`` ``influences`` (batch_1[, target_position], neighbour)
        and ``neighbour_batch``, ``neighbour_position`` (counted from 1), −1 where there are fewer. Coordinates
        ``observable`` (batch), of which each item is, and ``row`` (batch), which row of its data set. attrs: the
        settings, ``definition``, ``chains``, ``draws``.

    Raises:
        ValueError, TypeError: an argument or samples that do not fit; the message says what is allowed.
        AllChainsDied: no chain lived.

    Source: Kreer et al. 2509.26544; Adam et al. 2510.12071. Batch means: Flegal & Jones (2010).
    """
    check_options(
        correlation_method=correlation_method,
        reduce_chain_dimension_method=reduce_chain_dimension_method,
        top_k=top_k,
        top_k_by=top_k_by,
        sign=sign,
        normalize=normalize,
        compute_covariance=compute_covariance,
        batch_size=batch_size,
        num_blocks=num_blocks,
        separate_chains=separate_chains,
    )
    where = device_for_products(device)
    definition = Definition.of(sign, normalize, compute_covariance)
    dataset = root_of(samples)
    source = source_of(
        samples,
        loss_keys,
        correlation_method=correlation_method,
        reduce_chain_dimension_method=reduce_chain_dimension_method,
        num_blocks=num_blocks,
    )
    items = (
        items_of(source.observables, batch_index_range_1, loss_keys_1, 1),
        items_of(source.observables, batch_index_range_2, loss_keys_2, 2),
    )
    if separate_chains and source.chains < 2:
        raise ValueError(f"separate_chains needs at least two chains, there are {source.chains}")
    pairs = source.pairs(items, normalize=definition.normalize, average=average_tokenwise_bif, device=where)
    per_token = correlation_method == "token" and not average_tokenwise_bif
    positions = source.positions if per_token else None
    errors = standard_errors if standard_errors is not None else not (per_token and top_k is None)
    side = None if positions is None else batch_size * positions
    if top_k is None:
        table = matrix_table(
            pairs,
            items,
            positions,
            sign=definition.sign,
            errors=errors,
            between=separate_chains,
            side=side,
            progress=progress,
        )
    else:
        table = neighbour_table(
            pairs,
            items,
            positions,
            k=top_k,
            absolute=top_k_by == "absolute",
            sign=definition.sign,
            errors=errors,
            side=side,
            progress=progress,
        )
    ids = token_ids_of(dataset, source.keys)
    if ids is not None:
        table["input_ids"] = (("batch", "position"), ids)
    table.coords["observable"] = ("batch", source.observables)
    rows = rows_of(dataset, source.keys)
    if rows is not None:
        table.coords["row"] = ("batch", rows)
    settings = {
        "definition": definition.words,
        "sign": definition.sign,
        "normalize": int(definition.normalize),
        "correlation_method": correlation_method,
        "reduce_chain_dimension_method": reduce_chain_dimension_method,
        "average_tokenwise_bif": int(average_tokenwise_bif),
        "loss_keys": source.keys,
        "chains": source.chains,
        "chains_left_out": list(source.left_out),
        "draws": source.draws,
        "blocks_per_chain": pairs.blocks.per_chain,
    }
    return table.assign_attrs(**plain_settings(dataset), **settings)


def check_options(
    *,
    correlation_method: str,
    reduce_chain_dimension_method: str,
    top_k: int | None,
    top_k_by: str,
    sign: int,
    normalize: bool,
    compute_covariance: bool | None,
    batch_size: int,
    num_blocks: int,
    separate_chains: bool = False,
) -> None:
    """Refuse what `compute_bif` refuses, as far as it shows before there are samples.

    Raises:
        ValueError: see `compute_bif`.
    """
    Definition.of(sign, normalize, compute_covariance)
    for name, value, allowed in (
        ("correlation_method", correlation_method, get_args(CorrelationMethod)),
        ("reduce_chain_dimension_method", reduce_chain_dimension_method, get_args(ChainReductionMethod)),
        ("top_k_by", top_k_by, get_args(RankBy)),
    ):
        if value not in allowed:
            raise ValueError(f"{name} must be one of {allowed}, got {value!r}")
    if separate_chains and (top_k is not None or reduce_chain_dimension_method != "stack"):
        raise ValueError(
            "separate_chains divides the whole matrix, of stacked draws: leave top_k out and give "
            f"reduce_chain_dimension_method='stack', got top_k={top_k!r} and {reduce_chain_dimension_method!r}"
        )
    counts: list[tuple[str, Any]] = [("num_blocks", num_blocks), ("batch_size", batch_size)]
    if top_k is not None:
        counts.append(("top_k", top_k))
    for name, value in counts:
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
            raise ValueError(f"{name} must be a whole number >= 1, got {value!r}")
