"""Optional dependencies: imported on first use, and named by their extra when they are missing."""

from importlib import import_module
from types import ModuleType


class MissingExtra(ImportError):
    """A package of an optional extra is not installed; the message says which extra to install."""


def require(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import an optional dependency.

    Args:
        module: dotted name of the module, e.g. `"matplotlib.pyplot"`.
        extra: the extra of sltfast that installs it, e.g. `"plots"`.
        purpose: what it is needed for, read after "is needed", e.g. `"to draw figures"`.

    Returns:
        The imported module.

    Raises:
        MissingExtra: the module, or its package, is not installed. An ImportError from inside an installed
            package is passed on unchanged: installing the extra again would not mend it.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as absent:
        package = module.partition(".")[0]
        if absent.name is None or absent.name.partition(".")[0] != package:
            raise
        raise MissingExtra(
            f"{package} is needed {purpose} and is not installed: pip install 'sltfast[{extra}]'",
            name=absent.name,
        ) from absent
