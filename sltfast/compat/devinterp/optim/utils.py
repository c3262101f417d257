"""Names of what an optimiser of devinterp 1.x could keep; 2.0.1 has the type alone."""

from typing import Literal

OptimizerMetric = Literal[
    "distance",
    "weight_norm",
    "grad_norm",
    "localization_loss",
    "noise_norm",
    "dw",
    "noise",
    "momentum_norm",
    "thermostat",
]
