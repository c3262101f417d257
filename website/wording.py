"""Docstrings as this project writes them, in the words that a parser of Google style knows."""

from __future__ import annotations

import re
import textwrap

_REFERRED = re.compile(r"^(?P<section>Raises|Returns|Yields):\n +(?P<text>[Aa]s .*(?:\n +.*)*)", re.MULTILINE)
_EXAMPLE = re.compile(r"^Example:\n(?P<code>(?:(?: {4}.*)?\n?)+)", re.MULTILINE)


def in_known_words(docstring: str) -> str:
    """A docstring of which every section can be parsed.

    Args:
        docstring: as it stands in the code, without the common indentation.

    Returns:
        ``Raises:`` and ``Returns:`` whose whole text is "As …" as one sentence, ``Example:`` as a block of Python.
    """

    def sentence(found: re.Match[str]) -> str:
        return f"{found['section']}: {' '.join(found['text'].split())}"

    def fenced(found: re.Match[str]) -> str:
        return f"```python\n{textwrap.dedent(found['code']).strip()}\n```\n\n"

    return _EXAMPLE.sub(fenced, _REFERRED.sub(sentence, docstring)).rstrip()
