"""The ops: one face each, over interchangeable backends.

`backend` says which implementation runs where; `reference` is each op in plain PyTorch; `registration` is the page with
every schema.
"""

from sltfast.ops import backend as backend
from sltfast.ops import registration as registration
from sltfast.ops.comoment import (
    comoment_,
    comoment_correlation,
    comoment_covariance,
    comoment_merge_,
    comoment_standardise_,
    comoment_top_k_,
    comoments,
)
from sltfast.ops.comoment_arguments import PRECISIONS, Comoments
from sltfast.ops.comoment_tiles import correlate_draws, rank_draws, standardised_draws
from sltfast.ops.grouped_gradient_products import grouped_gradient_inner, grouped_gradient_products
from sltfast.ops.grouped_gradient_step import epilogue_refusal, grouped_gradient, grouped_gradient_step_
from sltfast.ops.langevin_arguments import HYPER, METHODS, METRICS
from sltfast.ops.langevin_step import LangevinStep, langevin_step_
from sltfast.ops.reference.philox import philox_normals
from sltfast.ops.streams import STREAM_DATA, STREAM_INIT, STREAM_MOMENTUM, STREAM_ROUNDING, STREAM_STEP
from sltfast.ops.token_loss import WeightedTokenLoss, token_loss

__all__ = [
    "HYPER",
    "METHODS",
    "METRICS",
    "PRECISIONS",
    "STREAM_DATA",
    "STREAM_INIT",
    "STREAM_MOMENTUM",
    "STREAM_ROUNDING",
    "STREAM_STEP",
    "Comoments",
    "LangevinStep",
    "WeightedTokenLoss",
    "backend",
    "comoment_",
    "comoment_correlation",
    "comoment_covariance",
    "comoment_merge_",
    "comoment_standardise_",
    "comoment_top_k_",
    "comoments",
    "correlate_draws",
    "epilogue_refusal",
    "grouped_gradient",
    "grouped_gradient_inner",
    "grouped_gradient_products",
    "grouped_gradient_step_",
    "langevin_step_",
    "philox_normals",
    "rank_draws",
    "standardised_draws",
    "token_loss",
]
