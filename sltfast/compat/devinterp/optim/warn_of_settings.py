"""Settings under which a chain samples no posterior, or one that was hardly meant."""

import warnings
from typing import Any


def warn_of_settings(noise_level: float, nbeta: Any) -> None:
    """Say what devinterp says of a noise level or an inverse temperature; for constructors of optimisers."""
    if noise_level != 1.0:
        warnings.warn(
            f"noise_level is unequal to one ({noise_level:g}): the chain does not sample the posterior", stacklevel=3
        )
    if nbeta == 1.0:
        warnings.warn("nbeta set to 1: give utils.default_nbeta(dataloader) unless 1 is what you mean", stacklevel=3)
