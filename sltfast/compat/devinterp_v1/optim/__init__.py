"""Samplers as ``torch.optim`` optimisers, by the names of devinterp 1.3.2."""

from sltfast.compat.devinterp_v1.optim.sgld import SGLD as SGLD
from sltfast.compat.devinterp_v1.optim.sgmcmc import SGMCMC as SGMCMC
from sltfast.compat.devinterp_v1.optim.sgnht import SGNHT as SGNHT
