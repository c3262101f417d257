"""Samplers as ``torch.optim`` optimisers, by the names of devinterp 2.0.1, and with its numbers bit for bit.

Every step runs in devinterp's order of operations with torch's noise stream; where an operation of devinterp's cannot
change a bit (a product with 1, a sum with zeros of a prior that is not there), it is left out.
"""

from sltfast.compat.devinterp.optim.sgld import SGLD
from sltfast.compat.devinterp.optim.sgmcmc import SGMCMC, SamplingMethodLiteral
from sltfast.compat.devinterp.optim.sgnht import SGNHT

__all__ = ["SGLD", "SGMCMC", "SGNHT", "SamplingMethodLiteral"]
