"""The Nosé–Hoover thermostat as a ``torch.optim`` optimiser, by the name of devinterp 1.3.2."""

from sltfast.compat.devinterp.optim.sgnht import Thermostat


class SGNHT(Thermostat):
    """``Thermostat`` by the name of devinterp 1.3.2; a group's mask is its ``optimize_over``."""

    mask_key = "optimize_over"
