"""Token ids as a reader sees them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

Piece = Callable[[int], str]
UNKNOWN = "no tokenizer was given, so tokens are shown by their numbers (--tokenizer decodes them)"


def piece_of(tokenizer: Any) -> Piece | None:
    """How one token id is written, or None where nothing says.

    Args:
        tokenizer: "bytes", a directory, GGUF file or hub name as ``sltfast llc`` takes it; an object with ``decode``;
            a function from id to text; or None.

    Raises:
        TypeError: none of these.
        FileNotFoundError: there is no such tokenizer.
    """
    if tokenizer is None:
        return None
    if isinstance(tokenizer, str):
        from sltfast.inputs.pretrained import load_tokens

        return load_tokens(tokenizer, tokenizer).piece
    if hasattr(tokenizer, "decode"):
        return lambda token: str(tokenizer.decode([token]))
    if callable(tokenizer):
        return lambda token: str(tokenizer(token))
    raise TypeError(
        f"tokenizer must be 'bytes', a path, an object with decode, or a function from id to text, got "
        f"{type(tokenizer).__name__}"
    )


class Vocabulary:
    """The texts of the tokens that occur on the page, each once.

    Args:
        piece: id → text; None writes numbers.
    """

    def __init__(self, piece: Piece | None) -> None:
        self._piece = piece or (lambda token: f"‹{token}›")
        self._places: dict[int, int] = {}
        self.pieces: list[str] = []

    def places(self, ids: Iterable[int] | np.ndarray) -> list[int]:
        """Where in ``pieces`` each id's text stands."""
        return [self._place(int(token)) for token in ids]

    def text(self, ids: Iterable[int] | np.ndarray, letters: int) -> str:
        """The text of some tokens, cut after so many letters."""
        pieces = [self._piece(int(token)) for token in ids]
        text = "".join(pieces)
        return text if len(text) <= letters else text[:letters] + "…"

    def _place(self, token: int) -> int:
        if token not in self._places:
            self._places[token] = len(self.pieces)
            self.pieces.append(self._piece(token))
        return self._places[token]
