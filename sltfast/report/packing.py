"""Numbers and texts as the page embeds them."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np

# what could end the script element, or the line in an old parser, is written as \\uXXXX: still the same JSON
HARMLESS = {ord(letter): f"\\u{ord(letter):04x}" for letter in "<>&\u2028\u2029"}


def floats(values: np.ndarray) -> dict[str, Any]:
    """An array as little-endian float32 in base64, with its shape."""
    array = np.ascontiguousarray(values, dtype="<f4")
    return {"shape": list(array.shape), "float32": base64.b64encode(array.tobytes()).decode("ascii")}


def as_json(data: Any) -> str:
    """JSON that may stand inside a script element, whatever the texts in it."""
    return json.dumps(data, ensure_ascii=False, separators=(",", ":"), allow_nan=False).translate(HARMLESS)
