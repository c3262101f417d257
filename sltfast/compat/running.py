"""Run a script or a module as ``python`` does, with ``import devinterp`` meaning sltfast's faces."""

from __future__ import annotations

import builtins
import io
import runpy
import sys
from contextlib import nullcontext
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType, TracebackType

_OURS = {__file__, str(Path(__file__).with_name("__main__.py"))}


def script_code(path: str) -> bytes | None:
    """The source of a script; None for a folder or zip file with a ``__main__.py``.

    Args:
        path: of any of these.

    Raises:
        OSError: it cannot be read.
    """
    with io.open_code(str(Path(path).absolute())) if not Path(path).is_dir() else nullcontext() as file:
        source = None if file is None else file.read()
    return None if source is None or source.startswith(b"PK") else source


def run_script(path: str, source: bytes | None, arguments: list[str]) -> None:
    """Run a file as ``python path arguments`` does: ``sys.argv``, ``sys.path[0]`` and ``__main__`` are the script's.

    ``__main__`` stays the script's afterwards, for its threads and exit handlers.

    Args:
        path: of the file.
        source: from ``script_code``.
        arguments: what follows it in ``sys.argv``.
    """
    sys.argv[:] = [path, *arguments]
    sys.excepthook = _users_frames_only
    if source is None:
        runpy.run_path(path, run_name="__main__")
        return
    sys.path[0:1] = [str(Path(path).resolve().parent)]
    main = ModuleType("__main__")
    vars(main).update(__file__=path, __builtins__=builtins, __loader__=SourceFileLoader("__main__", path))
    sys.modules["__main__"] = main
    exec(compile(source, path, "exec", dont_inherit=True), vars(main))


def run_module(name: str, arguments: list[str]) -> None:
    """Run a module as ``python -m name arguments`` does.

    Args:
        name: of a module, or of a package with a ``__main__``.
        arguments: what follows it in ``sys.argv``.

    Raises:
        ImportError: there is no such module.
    """
    sys.argv[:] = [name, *arguments]
    sys.excepthook = _users_frames_only
    sys.path[0:1] = [str(Path.cwd())]
    runpy.run_module(name, run_name="__main__", alter_sys=True)


def _users_frames_only(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print a traceback that begins where the user's code does, as without this command."""
    inner = trace
    while inner is not None and _is_ours(inner):
        inner = inner.tb_next
    if inner is not None:
        error.__traceback__ = trace = inner
    sys.__excepthook__(kind, error, trace)


def _is_ours(trace: TracebackType) -> bool:
    file = trace.tb_frame.f_code.co_filename
    return file in _OURS or file.startswith("<frozen runpy") or file == runpy.__file__
