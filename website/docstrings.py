"""Docstrings as the reference shows them, and functions found where Python finds them."""

from __future__ import annotations

from typing import Any

from griffe import Alias, Extension, Module, Object

from website.wording import in_known_words


class HouseStyle(Extension):
    """Sections that only name another function are sentences; what follows ``Example:`` is code.

    A function that its package offers under the name of its own module is found under that name, as in Python.
    """

    def on_package(self, *, pkg: Module, **_: Any) -> None:
        """Put such functions in the place of their modules, once what else those modules hold was found."""
        for package in (pkg, *(module for module in pkg.modules.values() if module.is_init_module)):
            offered = [name for name in map(str, package.exports or []) if name in package.members]
            named_alike = [
                name for name in offered if name in package.modules and name in package.modules[name].members
            ]
            for member in (package.members[name] for name in offered if named_alike):
                if isinstance(member, Alias):
                    member.resolve_target()
            functions = {name: package.modules[name].members[name] for name in named_alike}
            for name, function in functions.items():
                package.set_member(name, Alias(name, function, parent=package))

    def on_object(self, *, obj: Object, **_: Any) -> None:
        """Rewrite the docstring of every object that has one."""
        if obj.docstring is not None:
            obj.docstring.value = in_known_words(obj.docstring.value)
