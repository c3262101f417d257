"""The Bayesian influence function and the covariances of losses that it is made of."""

from sltfast.estimators.bif.compute import compute_bif
from sltfast.estimators.bif.group_influence import group_influence
from sltfast.estimators.bif.run import bif

__all__ = ["bif", "compute_bif", "group_influence"]
