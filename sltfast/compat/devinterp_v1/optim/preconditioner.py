"""Preconditioners, which are those of devinterp 2.0.1."""

from sltfast.compat.devinterp.optim.preconditioner import CompositePreconditioner as CompositePreconditioner
from sltfast.compat.devinterp.optim.preconditioner import IdentityPreconditioner as IdentityPreconditioner
from sltfast.compat.devinterp.optim.preconditioner import MaskPreconditioner as MaskPreconditioner
from sltfast.compat.devinterp.optim.preconditioner import NHTPreconditioning as NHTPreconditioning
from sltfast.compat.devinterp.optim.preconditioner import Preconditioner as Preconditioner
from sltfast.compat.devinterp.optim.preconditioner import PreconditionerCoefs as PreconditionerCoefs
from sltfast.compat.devinterp.optim.preconditioner import RMSpropPreconditioner as RMSpropPreconditioner
