"""Susceptibilities: how much a part of the weights answers to data, item by item and by data set."""

from sltfast.estimators.susceptibility.compute import compute_susceptibilities as compute_susceptibilities
from sltfast.estimators.susceptibility.run import susceptibilities as susceptibilities
