"""Influence of items on each other: the damped influence function, and Bayesian influence along training."""

from sltfast.estimators.influence.damped import damped_influence as damped_influence
from sltfast.estimators.influence.over_checkpoints import influence_over_checkpoints as influence_over_checkpoints
