"""A section of the page: what its template shows, and what its script reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Section:
    """One entry of the table of contents.

    Attributes:
        id: of the HTML element, and key of ``data`` on the page.
        title: its heading.
        template: file in ``templates/``.
        shown: the template's values.
        data: what the section's script reads, ready for `packing.as_json`.
        warnings: what a reader must know before believing the page.
    """

    id: str
    title: str
    template: str
    shown: Mapping[str, Any] = field(default_factory=dict)
    data: Mapping[str, Any] | None = None
    warnings: tuple[str, ...] = ()
