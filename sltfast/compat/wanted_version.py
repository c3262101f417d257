"""Which version of devinterp a source file was written for, told from the names it takes from devinterp.

``from devinterp.slt.sampling import sample`` is 2.x, ``from devinterp.slt.llc import LLCEstimator`` is 1.x; a name that
both have, such as ``devinterp.optim.SGLD``, says nothing by itself and gets the version that the others tell.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sltfast.compat.versions import FACES, PACKAGE, has_module, has_name

Use = tuple[str, str | None]  # a module of devinterp, and a name of it


def uses(source: str) -> Iterator[Use]:
    """What a source takes from devinterp: imports, and names looked up in imported modules.

    Args:
        source: Python; what does not parse, such as a notebook's magics, takes nothing.
    """
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError):
        return
    bound: dict[str, str] = {}  # what a name of the file stands for
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if _of_devinterp(alias.name):
                    bound[alias.asname or PACKAGE] = alias.name if alias.asname else PACKAGE
                    yield alias.name, None
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and _of_devinterp(node.module or ""):
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                if any(has_module(version, inner) for version in FACES):
                    bound[alias.asname or alias.name] = inner
                    yield inner, None
                else:
                    yield str(node.module), None if alias.name == "*" else alias.name
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            dotted = _dotted(node)
            if dotted is not None and dotted[0] in bound:
                *path, name = dotted[1:]
                yield ".".join([bound[dotted[0]], *path]), name


def wanted_version(source: str) -> str | None:
    """The one version that has everything a source takes from devinterp.

    Args:
        source: Python.

    Returns:
        ``"2"``, ``"1"``, or None where the names do not tell them apart.
    """
    decided = {versions[0] for use in uses(source) if len(versions := _holders(use)) == 1}
    return decided.pop() if len(decided) == 1 else None


def _of_devinterp(module: str) -> bool:
    return module == PACKAGE or module.startswith(PACKAGE + ".")


def _holders(use: Use) -> list[str]:
    module, name = use
    return [v for v in FACES if (has_module(v, module) if name is None else has_name(v, module, name))]


def _dotted(node: ast.expr) -> list[str] | None:
    """The names of ``a.b.c``, outermost first; None for anything else."""
    if isinstance(node, ast.Name):
        return [node.id]
    if isinstance(node, ast.Attribute):
        outer = _dotted(node.value)
        return None if outer is None else [*outer, node.attr]
    return None
