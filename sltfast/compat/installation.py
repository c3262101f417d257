"""``install()`` and ``uninstall()``: whether ``import devinterp`` means sltfast's faces."""

from __future__ import annotations

import sys
from threading import RLock
from types import ModuleType

from sltfast.compat.alias_finder import AliasFinder
from sltfast.compat.alias_module import AliasModule, forget_decisions
from sltfast.compat.versions import FACES, PACKAGE, RELEASES

_LOCK = RLock()
_replaced: dict[str, ModuleType] = {}  # modules of the real devinterp that install(replace=True) took away


class DevinterpIsLoaded(ImportError):
    """The real devinterp was imported before ``install``, and its names may be in use already."""


def install(version: str = "auto", *, replace: bool = False) -> None:
    """From here on ``import devinterp`` and every module in it mean sltfast's faces; nothing else is touched.

    Call it before the first import of devinterp. Again with the same version it does nothing; with another it changes
    the version for what is imported from then on.

    Args:
        version: ``"2"`` for devinterp 2.0.1's face, ``"1"`` for 1.3.2's. ``"auto"`` serves both: a name that one of
            them has is that one's; a name that both have (``SGLD``, ``default_nbeta``) is of the version that the other
            names in the same file or notebook cell are of; where those do not tell, of the version told last, or 2.
        replace: take away the real devinterp where it was imported before. Names that were taken from it keep what they
            are; ``uninstall`` gives it back.

    Raises:
        DevinterpIsLoaded: the real devinterp was imported before and `replace` is False.
        ValueError: unknown version.
    """
    if version not in ("auto", *FACES):
        known = ", ".join(f'"{name}" (devinterp {release})' for name, release in RELEASES.items())
        raise ValueError(f'version must be {known} or "auto" (both, as each file needs), got {version!r}')
    versions = tuple(FACES) if version == "auto" else (version,)
    with _LOCK:
        if _finder() is not None and _finder().versions == versions:  # type: ignore[union-attr]
            return
        real = {name: module for name, module in _loaded().items() if not isinstance(module, AliasModule)}
        if real and not replace:
            raise DevinterpIsLoaded(
                f"devinterp was imported before sltfast.compat.install(): {', '.join(sorted(real)[:4])}"
                f"{', …' if len(real) > 4 else ''}. Call install() before it is imported, run the script "
                "as `python -m sltfast.compat script.py`, or pass replace=True: imports from then on get sltfast's, "
                "names imported before stay devinterp's"
            )
        _remove()
        _replaced.update(real)
        for name in _loaded():
            del sys.modules[name]
        sys.meta_path.insert(0, AliasFinder(versions))


def uninstall() -> None:
    """Take the aliases away: ``import devinterp`` means the installed package again, or fails where there is none.

    Names that were imported keep what they are. Without an ``install`` before, nothing happens.
    """
    with _LOCK:
        if _finder() is None:
            return
        _remove()
        sys.modules.update(_replaced)
        _replaced.clear()


def installed() -> str | None:
    """What is installed: ``"auto"``, ``"2"``, ``"1"``, or None."""
    finder = _finder()
    if finder is None:
        return None
    return finder.versions[0] if len(finder.versions) == 1 else "auto"


def _finder() -> AliasFinder | None:
    return next((finder for finder in sys.meta_path if isinstance(finder, AliasFinder)), None)


def _loaded() -> dict[str, ModuleType]:
    return {name: m for name, m in sys.modules.items() if name == PACKAGE or name.startswith(PACKAGE + ".")}


def _remove() -> None:
    sys.meta_path[:] = [finder for finder in sys.meta_path if not isinstance(finder, AliasFinder)]
    for name, module in _loaded().items():
        if isinstance(module, AliasModule):
            del sys.modules[name]
    forget_decisions()
