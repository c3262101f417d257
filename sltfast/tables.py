"""Plain-text tables and the numbers in them."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns under their names, right-aligned save the last; two spaces between."""
    lines = [list(header), *map(list, rows)]
    widths = [max(_width(line[column]) for line in lines) for column in range(len(header))]
    last = len(header) - 1
    return "\n".join(
        "  ".join(
            cell if column == last else " " * (widths[column] - _width(cell)) + cell for column, cell in enumerate(line)
        ).rstrip()
        for line in lines
    )


def number(value: float, digits: int = 4) -> str:
    """A number to so many significant digits, without an exponent where that stays readable; "–" for NaN."""
    if math.isnan(value):
        return "–"
    if value == 0 or math.isinf(value):
        return f"{value:g}"
    decimals = digits - 1 - math.floor(math.log10(abs(value)))
    return f"{value:.{max(0, decimals)}f}" if -2 <= decimals <= digits + 2 else f"{value:.{digits - 1}e}"


def plus_minus(value: float, error: float) -> str:
    """A value ± its error, the error to two digits and the value to the same place."""
    if not math.isfinite(value) or not math.isfinite(error) or error <= 0:
        return f"{number(value)} ± {number(error, 2)}"
    decimals = 1 - math.floor(math.log10(error))
    if decimals > 8 or abs(value) >= 1e8:
        return f"{value:.3e} ± {error:.1e}"
    return f"{value:.{max(0, decimals)}f} ± {error:.{max(0, decimals)}f}"


def _width(text: str) -> int:
    """Columns on a terminal: combining marks (the hat of λ̂) take none."""
    return sum(1 for character in text if not unicodedata.combining(character))
