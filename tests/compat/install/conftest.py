"""Two small packages stand in for the faces, so that what is tested is the aliasing and nothing behind it."""

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sltfast.compat import uninstall, versions

TREES = {
    "face_two": {
        "__init__.py": "",
        "both.py": 'WHO = "two"\nONLY_TWO = 2\n\ndef who():\n    return WHO\n\nclass Kept:\n    pass\n',
        "inner/__init__.py": "",
        "inner/newer.py": "VALUE = 2\n",
        "broken.py": "VALUE = 2\n",
    },
    "face_one": {
        "__init__.py": "",
        "both.py": 'WHO = "one"\nONLY_ONE = 1\n\ndef who():\n    return WHO\n',
        "inner/__init__.py": "",
        "inner/older.py": "VALUE = 1\n",
        "broken.py": "import an_extra_that_is_not_installed\n",
    },
}


@pytest.fixture
def faces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """``devinterp`` 2 and 1 are ``face_two`` and ``face_one``; nothing is left installed afterwards."""
    for package, files in TREES.items():
        for name, text in files.items():
            path = tmp_path / package / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    for version, package in zip(("2", "1"), TREES, strict=True):
        monkeypatch.setitem(versions.FACES, version, package)
    before = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "devinterp"}
    for name in before:
        del sys.modules[name]
    versions.has_module.cache_clear()
    yield
    uninstall()
    for name in [name for name in sys.modules if name.partition(".")[0] in (*TREES, "devinterp")]:
        del sys.modules[name]
    sys.modules.update(before)
    versions.has_module.cache_clear()


@pytest.fixture
def users(tmp_path: Path) -> Callable[[str], dict[str, object]]:
    """Import a user's module of this text and give its names."""

    def made(text: str) -> dict[str, object]:
        count = len(list(tmp_path.glob("users_*.py")))
        (tmp_path / f"users_{count}.py").write_text(text)
        importlib.invalidate_caches()
        module = importlib.import_module(f"users_{count}")
        return vars(sys.modules.pop(module.__name__))

    return made
