"""Other packages' faces over sltfast's engine: code written for devinterp runs with one import changed, or none.

- ``sltfast.compat.devinterp``: the module tree of devinterp 2.0.1;
- ``sltfast.compat.devinterp_v1``: that of devinterp 1.3.2.
"""
