"""devinterp 2.0.1's module tree over sltfast's engine: ``import sltfast.compat.devinterp as devinterp``."""

from sltfast.compat.exactness import exact

__all__ = ["exact"]
