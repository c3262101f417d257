"""Influence of items on each other: the damped influence function, and Bayesian influence along training."""

from sltfast.estimators.influence.damped import damped_influence as damped_influence
