"""Markdown in which a single asterisk is an asterisk: w* is a symbol here, and emphasis is written with underscores."""

from __future__ import annotations

from typing import Any

from markdown import Markdown
from markdown.extensions import Extension
from markdown.inlinepatterns import SimpleTagInlineProcessor

STRONG = r"(\*\*)(?=\S)([^*]+?)(?<=\S)\*\*"


class Asterisks(Extension):
    """``**strong**`` stays; an asterisk alone is printed."""

    def extendMarkdown(self, md: Markdown) -> None:
        """Put this pattern in the place of the one that takes what stands between two asterisks for emphasis."""
        md.inlinePatterns.deregister("em_strong")
        md.inlinePatterns.register(SimpleTagInlineProcessor(STRONG, "strong"), "em_strong", 60)


def makeExtension(**options: Any) -> Asterisks:
    """What Markdown calls to get the extension."""
    return Asterisks(**options)
