"""The ops: one face each, over interchangeable backends.

`backend` says which implementation runs where; `reference` is each op in plain PyTorch; `registration` is the page with
every schema.
"""

from sltfast.ops import backend as backend
from sltfast.ops import registration as registration
from sltfast.ops.grouped_gradient import grouped_gradient_inner, grouped_gradient_products
from sltfast.ops.langevin_arguments import HYPER, METHODS, METRICS
from sltfast.ops.langevin_step import LangevinStep, langevin_step_
from sltfast.ops.reference.philox import philox_normals
from sltfast.ops.streams import STREAM_DATA, STREAM_INIT, STREAM_MOMENTUM, STREAM_ROUNDING, STREAM_STEP

__all__ = [
    "HYPER",
    "METHODS",
    "METRICS",
    "STREAM_DATA",
    "STREAM_INIT",
    "STREAM_MOMENTUM",
    "STREAM_ROUNDING",
    "STREAM_STEP",
    "LangevinStep",
    "backend",
    "grouped_gradient_inner",
    "grouped_gradient_products",
    "langevin_step_",
    "philox_normals",
]
