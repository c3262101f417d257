"""Synthetic text whose tokens know their kind: what a language model that reads it has to learn, token by token."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

KINDS = ("new", "copied", "chain", "counting", "bracket")
VOCABULARY = 48
SPAN = 5  # tokens of a span that is said twice
LETTERS, CHAIN, DIGITS, BRACKETS = range(16), range(16, 32), range(32, 42), range(42, 46)
TEXT: Mapping[str, float] = {"copy": 0.4, "chain": 0.2, "count": 0.2, "brackets": 0.2}


@dataclass(frozen=True)
class KnownText:
    """Rows of tokens and what each token is.

    Attributes:
        tokens: int64 [rows, tokens].
        kinds: [rows, tokens], numbers into ``KINDS``.
    """

    tokens: Tensor
    kinds: np.ndarray

    def predicted(self) -> np.ndarray:
        """Names of the kinds of all tokens that are predicted, [rows, tokens − 1]."""
        return np.array(KINDS)[self.kinds[:, 1:]]

    def kinds_of(self, tree: Any) -> np.ndarray:
        """Names of the kinds of the tokens of ``response_matrix(tree)``, where this text is the tree's only data set.

        Raises:
            KeyError: a row of the tree is none of this text.
        """
        where = {tuple(row): index for index, row in enumerate(self.tokens.tolist())}
        ids = tree["context"]["input_ids"].values.reshape(-1, self.tokens.shape[1])
        return self.predicted()[[where[tuple(row)] for row in ids.tolist()]].ravel()


def known_text(rows: int, tokens: int = 32, *, seed: int = 0, mixture: Mapping[str, float] = TEXT) -> KnownText:
    """Rows of segments, each of one kind.

    "copy": five letters drawn at random ("new"), then the same again ("copied"): what an induction circuit predicts.
    "chain": a Markov chain of 16 tokens with two likely successors each. "count": digits, each one more than the last,
    modulo 10. "brackets": two sorts of brackets, opened at random and closed as they must be.

    Args:
        rows: how many.
        tokens: of each.
        seed: the same seed gives the same text.
        mixture: weights of the sorts of segments; those left out do not occur.

    Raises:
        ValueError: an unknown sort, weights that are no distribution, or fewer than 2 tokens.
    """
    known = {"copy": _copy, "chain": _chain, "count": _count, "brackets": _brackets}
    if not mixture or not set(mixture) <= set(known) or not all(w >= 0 for w in mixture.values()):
        raise ValueError(f"mixture must give weights >= 0 to sorts among {list(known)}, got {dict(mixture)}")
    if sum(mixture.values()) <= 0 or tokens < 2 or rows < 1:
        raise ValueError(f"text needs rows, 2 tokens and a weight above 0, got {rows}, {tokens} and {dict(mixture)}")
    rng = np.random.default_rng(seed)
    names = list(mixture)
    shares = np.array([mixture[name] for name in names], dtype=np.float64) / sum(mixture.values())
    written, kinds = np.empty((rows, tokens), np.int64), np.empty((rows, tokens), np.int64)
    for row in range(rows):
        filled = 0
        while filled < tokens:
            segment, kind = known[names[int(rng.choice(len(names), p=shares))]](rng)
            end = min(tokens, filled + len(segment))
            written[row, filled:end], kinds[row, filled:end] = segment[: end - filled], kind[: end - filled]
            filled = end
    return KnownText(torch.from_numpy(written), kinds)


def _copy(rng: np.random.Generator) -> tuple[list[int], list[int]]:
    span = rng.choice(LETTERS, SPAN, replace=False).tolist()
    return span * 2, [0] * SPAN + [1] * SPAN


def _chain(rng: np.random.Generator) -> tuple[list[int], list[int]]:
    step, state = [], int(rng.integers(len(CHAIN)))
    for _ in range(8):
        step.append(CHAIN[state])
        state = (3 * state + 1 + 7 * int(rng.random() < 0.3)) % len(CHAIN)
    return step, [2] * 8


def _count(rng: np.random.Generator) -> tuple[list[int], list[int]]:
    first = int(rng.integers(len(DIGITS)))
    return [DIGITS[(first + k) % len(DIGITS)] for k in range(8)], [3] * 8


def _brackets(rng: np.random.Generator) -> tuple[list[int], list[int]]:
    """Four pairs, well nested."""
    written: list[int] = []
    held: list[int] = []
    left = 4
    while left or held:
        if left and (not held or rng.random() < 0.5):
            held.append(int(rng.integers(2)))
            written.append(BRACKETS[2 * held[-1]])
            left -= 1
        else:
            written.append(BRACKETS[2 * held.pop() + 1])
    return written, [4] * len(written)
