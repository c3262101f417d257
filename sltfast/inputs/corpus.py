"""Text to token data: documents → token ids → rows of one length."""

from __future__ import annotations

import sysconfig
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

BYTES = 256
SEPARATOR_BYTE = 0  # never occurs in text, so a byte model can learn what it means

Encode = Callable[[str], list[int]]


def encode_bytes(text: str) -> list[int]:
    """The UTF-8 bytes of a text, each a token of a vocabulary of 256."""
    return list(text.encode("utf-8"))


def piece_of_byte(token: int) -> str:
    r"""The character of a byte, or its escape (``\xc3``) where a byte is none by itself."""
    text = chr(token)
    return text if token < 128 and (text.isprintable() or text in "\n\t") else f"\\x{token:02x}"


def tokens_of(documents: Iterable[str], encode: Encode, separator: int | None) -> Iterator[list[int]]:
    """Token ids of each document, the separator after each."""
    ending = [] if separator is None else [separator]
    for document in documents:
        if document:
            yield encode(document) + ending


def pack(documents: Iterable[list[int]], context: int, *, max_rows: int | None = None) -> Tensor:
    """Join documents end to end and cut the stream into rows of ``context`` tokens; the rest is dropped.

    Args:
        documents: token ids of each document.
        context: tokens in a row.
        max_rows: stop reading documents once there are this many rows.

    Returns:
        int64 [rows, context].

    Raises:
        ValueError: context < 2, max_rows < 1, or fewer than ``context`` tokens in all documents together.
    """
    if context < 2:
        raise ValueError(f"context must be >= 2 (next-token prediction needs a pair), got {context}")
    if max_rows is not None and max_rows < 1:
        raise ValueError(f"max_rows must be >= 1, got {max_rows}")
    wanted = None if max_rows is None else max_rows * context
    parts: list[np.ndarray] = []
    count = 0
    for ids in documents:
        parts.append(np.asarray(ids, dtype=np.int64))
        count += len(ids)
        if wanted is not None and count >= wanted:
            break
    rows = count // context if wanted is None else min(count, wanted) // context
    if rows == 0:
        raise ValueError(
            f"the data holds {count} tokens, fewer than one row of {context}: give more text or a shorter context"
        )
    return torch.from_numpy(np.concatenate(parts)[: rows * context].reshape(rows, context))


def standard_library_documents() -> list[str]:
    """CPython's own source files and pydoc's help texts, in this order.

    Real code and real English prose that every machine with Python has (about 3 MB of code, 0.5 MB of prose).

    Raises:
        FileNotFoundError: the interpreter ships no sources (a frozen or zipped standard library).
    """
    return standard_library_sources() + help_texts()


def standard_library_sources() -> list[str]:
    """CPython's own source files, top level and one package deep, tests left out, sorted by name.

    Raises:
        FileNotFoundError: the interpreter ships no sources (a frozen or zipped standard library).
    """
    root = Path(sysconfig.get_paths()["stdlib"])
    apart = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "pydoc_data", "__pycache__"}
    files = [
        path
        for pattern in ("*.py", "*/*.py")
        for path in root.glob(pattern)
        if path.parent == root or path.parent.name not in apart
    ]
    if not files:
        raise FileNotFoundError(f"{root} holds no Python sources: give text of your own")
    return [path.read_text("utf-8", errors="replace") for path in sorted(files)]


def help_texts() -> list[str]:
    """Pydoc's help texts, sorted by topic: English prose about Python."""
    from pydoc_data.topics import topics  # 0.7 MB of literals: not on import

    return [topics[name] for name in sorted(topics)]
