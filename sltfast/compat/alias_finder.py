"""The import system's way to ``devinterp``: modules and the distribution's metadata, served from the faces."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterable, Sequence
from email.message import EmailMessage
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from os import PathLike
from pathlib import Path
from types import ModuleType

from sltfast.compat.alias_module import AliasModule, installed_with
from sltfast.compat.versions import PACKAGE, RELEASES, load


class AliasFinder(MetaPathFinder):
    """Finds ``devinterp`` and every module in it, ahead of any that is installed.

    Attributes:
        versions: those that are served; the first is what the metadata say.
    """

    def __init__(self, versions: tuple[str, ...]) -> None:
        self.versions = versions

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of a module of devinterp; None for every other.

        Raises:
            ModuleNotFoundError: no served version has it; the message says which has.
        """
        if fullname != PACKAGE and not fullname.startswith(PACKAGE + "."):
            return None
        versions = installed_with(fullname, self.versions)
        first = load(versions[0], fullname)
        spec = ModuleSpec(fullname, AliasLoader(versions), origin=getattr(first, "__file__", None))
        if hasattr(first, "__path__"):
            packages = [load(version, fullname) for version in versions]
            spec.submodule_search_locations = [place for package in packages for place in package.__path__]
        return spec

    def find_distributions(
        self, context: importlib.metadata.DistributionFinder.Context | None = None
    ) -> Iterable[importlib.metadata.Distribution]:
        """What ``importlib.metadata`` says of devinterp: the version that is served."""
        name = None if context is None else context.name
        if name is None or name.lower().replace("_", "-") == PACKAGE:
            yield FaceDistribution(RELEASES[self.versions[0]])


class AliasLoader(Loader):
    """Makes the alias of a module."""

    def __init__(self, versions: tuple[str, ...]) -> None:
        self.versions = versions

    def create_module(self, spec: ModuleSpec) -> AliasModule:
        """An alias that serves nothing yet."""
        return AliasModule(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Let it serve the faces that have it."""
        module.versions = self.versions  # type: ignore[attr-defined]
        module.__doc__ = load(self.versions[0], module.__name__).__doc__


class FaceDistribution(importlib.metadata.Distribution):
    """The metadata of the devinterp whose face is served."""

    def __init__(self, release: str) -> None:
        self.release = release

    def read_text(self, filename: str) -> str | None:
        """The text of ``METADATA``; there are no other files."""
        if filename != "METADATA":
            return None
        message = EmailMessage()
        for key, value in (
            ("Metadata-Version", "2.1"),
            ("Name", PACKAGE),
            ("Version", self.release),
            ("Summary", "sltfast's face of devinterp"),
        ):
            message[key] = value
        return str(message)

    def locate_file(self, path: str | PathLike[str]) -> Path:
        """A file beside the faces."""
        return Path(__file__).parent / path
