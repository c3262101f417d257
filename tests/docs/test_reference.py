"""Every public name is in the reference, and docstrings come through the reader as they were meant."""

import ast
import inspect
import re
from types import ModuleType

import pytest
from checkout import ROOT

import sltfast
from website import build
from website.wording import in_known_words

REFERENCE = "".join(path.read_text() for path in sorted((build.DOCS / "reference").glob("*.md")))
SHOWN = re.findall(r"^::: (sltfast[\w.]*)$", REFERENCE, re.MULTILINE)


@pytest.mark.parametrize("name", sltfast.__all__)
def test_a_public_name_is_shown(name: str) -> None:
    """A room stands for all the names in its ``__all__``; `make docs` looks for each of them in what it built."""
    assert f"sltfast.{name}" in SHOWN


def test_nothing_is_shown_twice_and_everything_shown_exists() -> None:
    assert len(SHOWN) == len(set(SHOWN))
    inner = {f"sltfast.ops.{name}" for name in ("backend", "registration")}  # modules among a room's names
    assert set(SHOWN) <= {f"sltfast.{name}" for name in sltfast.__all__} | inner


def test_names_of_rooms_are_written_out_where_a_reader_of_the_source_finds_them() -> None:
    """The reference is made from the source, not from the running package, so ``__all__`` must be a literal."""
    for name in sltfast.__all__:
        room = getattr(sltfast, name)
        if isinstance(room, ModuleType):
            tree = ast.parse((ROOT / "sltfast" / name / "__init__.py").read_text())
            (listed,) = [
                ast.literal_eval(node.value)
                for node in tree.body
                if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__"
            ]
            assert listed == room.__all__


def test_sections_that_only_refer_become_sentences() -> None:
    written = "Do.\n\nRaises:\n    As ``sample``, save\n        ValueError.\n\nSource: them."
    assert in_known_words(written) == "Do.\n\nRaises: As ``sample``, save ValueError.\n\nSource: them."
    kept = "Do.\n\nRaises:\n    ValueError: as ``sample``."
    assert in_known_words(kept) == kept


def test_examples_become_code() -> None:
    written = "Do.\n\nExample:\n    a = 1\n\n    if a:\n        b = 2\n\nThe rest."
    assert in_known_words(written) == "Do.\n\n```python\na = 1\n\nif a:\n    b = 2\n```\n\nThe rest."


@pytest.mark.parametrize("name", sltfast.__all__)
def test_no_section_is_lost(name: str) -> None:
    """Sections that are left hold an item each, ``name: text``, as the parser asks; it drops lines that have none."""
    shown = in_known_words(inspect.getdoc(getattr(sltfast, name)) or "")
    for lines in re.findall(r"^Raises:\n((?:    .*\n?)+)", shown, re.MULTILINE):
        items = [line for line in lines.splitlines() if re.match(r"    \S", line)]
        assert [line for line in items if not re.match(r"    [\w, .]+: ", line)] == []
