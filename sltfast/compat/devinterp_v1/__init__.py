"""devinterp 1.3.2's module tree over sltfast's engine: ``import sltfast.compat.devinterp_v1 as devinterp``."""
