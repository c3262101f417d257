"""After ``install()`` the name devinterp means the faces, and after ``uninstall()`` what it meant before."""

import importlib
import importlib.metadata
import inspect
import pickle
import sys
from collections.abc import Callable
from types import ModuleType
from unittest import mock

import pytest

from sltfast.compat import DevinterpIsLoaded, install, installed, uninstall

pytestmark = pytest.mark.usefixtures("faces")
Users = Callable[[str], dict[str, object]]


def test_every_way_to_import(users: Users) -> None:
    install("2")
    names = users(
        "import devinterp\nimport devinterp.inner.newer as n\nfrom devinterp import both\n"
        "from devinterp.inner import newer\nfrom devinterp.both import who, WHO as w\n"
        "inside = devinterp.inner.newer.VALUE\n"
    )
    assert names["n"] is names["newer"] is sys.modules["devinterp.inner.newer"]
    assert names["both"].__name__ == "devinterp.both"  # type: ignore[attr-defined]
    assert (names["w"], names["inside"]) == ("two", 2)
    assert names["who"] is importlib.import_module("face_two.both").who


def test_a_submodule_that_was_not_imported_is_still_the_alias() -> None:
    import face_two.inner.newer  # noqa: F401

    install("2")
    import devinterp  # a fresh alias, nothing imported inside it

    assert devinterp.inner.newer.__name__ == "devinterp.inner.newer"


def test_star_takes_both_faces_names(users: Users) -> None:
    install("auto")
    names = users("from devinterp.both import *\n")
    assert {"who", "ONLY_TWO", "ONLY_ONE"} <= set(names)
    assert not [name for name in names if name == "versions"]


@pytest.mark.parametrize(
    ("text", "who"),
    [
        ("from devinterp.both import WHO, ONLY_ONE\n", "one"),
        ("from devinterp.both import WHO, ONLY_TWO\n", "two"),
        ("from devinterp.both import WHO\nimport devinterp.inner.older\n", "one"),
        ("from devinterp.both import WHO\nfrom devinterp.inner import older as o\n", "one"),
        ("import devinterp.both as b\nWHO = b.WHO\nX = b.ONLY_ONE\n", "one"),
        ("import devinterp.both\nWHO = devinterp.both.WHO\nX = devinterp.both.ONLY_ONE\n", "one"),
        ("from devinterp.both import WHO\n\ndef later():\n    from devinterp.inner.older import VALUE\n", "one"),
        ("from devinterp.both import WHO\n", "two"),  # nothing tells
        ("from devinterp.both import WHO, ONLY_ONE, ONLY_TWO\n", "two"),  # of both
    ],
)
def test_auto_gives_a_file_the_version_its_names_are_of(users: Users, text: str, who: str) -> None:
    install("auto")
    assert users(text)["WHO"] == who


def test_where_a_file_does_not_tell_the_last_that_told_decides(users: Users) -> None:
    install()
    assert users("from devinterp.both import WHO\n")["WHO"] == "two"
    users("from devinterp.both import WHO, ONLY_ONE\n")
    assert users("from devinterp.both import WHO\n")["WHO"] == "one"


def test_two_files_of_two_versions_live_together(users: Users) -> None:
    install()
    old = users("from devinterp.both import who, ONLY_ONE\nimport devinterp.both as b\ndef ask():\n    return b.WHO\n")
    new = users("from devinterp.both import who, ONLY_TWO\nimport devinterp.both as b\ndef ask():\n    return b.WHO\n")
    assert (old["who"](), new["who"]()) == ("one", "two")  # type: ignore[operator]
    assert (old["ask"](), new["ask"]()) == ("one", "two")  # type: ignore[operator]


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("from devinterp.both import ONLY_ONE", ImportError, r"'ONLY_ONE' in devinterp 2\.0\.1; it is in devinterp 1"),
        ("import devinterp.both\ndevinterp.both.ONLY_ONE", AttributeError, r"install\(version=\"1\"\)"),
        (
            "import devinterp.inner.older",
            ModuleNotFoundError,
            r"'devinterp.inner.older' in devinterp 2\.0\.1; it is in",
        ),
        ("from devinterp.inner import older", ImportError, r"'older' in devinterp 2\.0\.1; it is in devinterp 1\.3\.2"),
        ("from devinterp.both import never", ImportError, r"neither devinterp 2\.0\.1 nor 1\.3\.2 has it"),
        ("import devinterp.never", ModuleNotFoundError, r"neither devinterp 2\.0\.1 nor 1\.3\.2 has it"),
    ],
)
def test_a_missing_name_says_which_version_has_it(users: Users, text: str, error: type[Exception], says: str) -> None:
    install("2")
    with pytest.raises(error, match=says):
        users(text)


def test_missing_names_are_missing_to_those_who_ask_politely(users: Users) -> None:
    install("2")
    import devinterp.both

    assert not hasattr(devinterp.both, "ONLY_ONE")
    assert getattr(devinterp.both, "ONLY_ONE", None) is None
    assert (
        users("try:\n    from devinterp.both import ONLY_ONE\nexcept ImportError:\n    ONLY_ONE = 'none'\n") == mock.ANY
    )


def test_a_face_that_cannot_be_imported_here_does_not_stop_the_other(users: Users) -> None:
    install("auto")
    import devinterp.broken

    assert users("from devinterp.broken import VALUE\n")["VALUE"] == 2
    assert not hasattr(devinterp.broken, "never")
    assert "VALUE" in dir(devinterp.broken)
    with pytest.raises(ImportError, match="could not be imported here: No module named 'an_extra_that_is_not_inst"):
        users("from devinterp.broken import never\n")
    with pytest.raises(AttributeError, match="has no 'never' to delete"):
        del devinterp.broken.never


def test_patches_reach_the_face_and_are_undone() -> None:
    install("2")
    import devinterp.both

    with mock.patch("devinterp.both.WHO", "patched"):
        assert devinterp.both.who() == "patched"
    assert devinterp.both.who() == "two"
    devinterp.both.ADDED = 1
    assert importlib.import_module("face_two.both").ADDED == 1
    del devinterp.both.ADDED
    assert not hasattr(devinterp.both, "ADDED")


def test_pickles_both_ways() -> None:
    install("2")
    from devinterp.both import Kept

    assert type(pickle.loads(pickle.dumps(Kept()))) is Kept
    theirs = b"cdevinterp.both\nKept\n."  # a class as devinterp's own pickles name it
    assert pickle.loads(theirs) is Kept


def test_modules_look_like_modules() -> None:
    install("2")
    import devinterp.both as alias

    assert isinstance(alias, ModuleType)
    assert inspect.getsource(alias).startswith("WHO")
    assert {"WHO", "who", "__name__"} <= set(dir(alias))
    assert importlib.util.find_spec("devinterp.inner") is not None
    assert importlib.reload(alias) is alias


@pytest.mark.parametrize(("version", "release"), [("2", "2.0.1"), ("1", "1.3.2"), ("auto", "2.0.1")])
def test_the_distribution_says_the_version_served(version: str, release: str) -> None:
    install(version)
    assert importlib.metadata.version("devinterp") == release
    assert importlib.metadata.metadata("devinterp")["Name"] == "devinterp"
    assert importlib.metadata.version("torch")


def test_again_and_another_version_and_away() -> None:
    assert installed() is None
    uninstall()  # nothing to take away
    install("2")
    import devinterp.both as two

    finders = list(sys.meta_path)
    install("2")
    assert sys.meta_path == finders
    assert sys.modules["devinterp.both"] is two
    install("1")
    assert installed() == "1"
    from devinterp.both import WHO

    assert WHO == "one"
    assert two.WHO == "two"
    uninstall()
    assert installed() is None
    assert "devinterp" not in sys.modules
    assert len(sys.meta_path) == len(finders) - 1


def test_unknown_version() -> None:
    with pytest.raises(ValueError, match=r'version must be "2" \(devinterp 2\.0\.1\), .* got \'3\''):
        install("3")
    assert installed() is None


def test_the_real_one_loaded_before_is_refused_or_replaced_and_given_back() -> None:
    real = ModuleType("devinterp")
    sys.modules["devinterp"] = real
    with pytest.raises(
        DevinterpIsLoaded, match=r"imported before sltfast.compat.install\(\): devinterp\. .*replace=True"
    ):
        install("2")
    assert installed() is None
    install("2", replace=True)
    from devinterp.both import WHO

    assert WHO == "two"
    uninstall()
    assert sys.modules["devinterp"] is real
