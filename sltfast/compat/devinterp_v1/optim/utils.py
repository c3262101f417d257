"""What an optimiser could keep, by its name."""

from sltfast.compat.devinterp.optim.utils import OptimizerMetric as OptimizerMetric
