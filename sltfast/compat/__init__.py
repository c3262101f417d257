"""Other packages' faces over sltfast's engine: code written for devinterp runs with one import changed, or none.

- ``sltfast.compat.devinterp``: the module tree of devinterp 2.0.1;
- ``sltfast.compat.devinterp_v1``: that of devinterp 1.3.2;
- ``install()``: from here on ``import devinterp`` means these, until ``uninstall()``;
- ``python -m sltfast.compat script.py``: run a script that way, unchanged.
"""

from sltfast.compat.defects import CompatWarning
from sltfast.compat.exactness import exact
from sltfast.compat.installation import DevinterpIsLoaded, install, installed, uninstall

__all__ = ["CompatWarning", "DevinterpIsLoaded", "exact", "install", "installed", "uninstall"]
