"""What devinterp 2.x keeps in ``devinterp.utils``: the default nβ, and text cut into sequences of one length."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from torch.utils.data import DataLoader

PIECES = 20  # a batch of texts is tokenised in this many pieces of equal length


class NoBatchSize(NotImplementedError, TypeError):
    """What was given has no batch size."""


def default_nbeta(dataloader: DataLoader | int, gradient_accumulation_steps: int = 1) -> float:
    """nβ = n / ln n, where n is the number of items behind one step.

    Args:
        dataloader: whose ``batch_size`` counts, or the batch size itself.
        gradient_accumulation_steps: batches a step.

    Returns:
        nβ; 1 with a warning where n <= 1, for which n / ln n is undefined.

    Raises:
        NoBatchSize: (a NotImplementedError) anything else.

    Source: Watanabe 2013, β = 1/ln n; devinterp counts the batch, not the data set.
    """
    size = dataloader.batch_size if isinstance(dataloader, DataLoader) else dataloader
    if isinstance(size, bool) or not isinstance(size, int):
        raise NoBatchSize(f"dataloader must be a DataLoader with a batch_size or an int, got {dataloader!r}")
    n = size * gradient_accumulation_steps
    if n <= 1:
        warnings.warn(  # noqa: B028 - devinterp gives no stacklevel, and its tests read the call
            "default nbeta is undefined for batch_size * gradient_accumulation_steps == 1, "
            "falling back to default value of 1"
        )
        return 1
    return float(n / np.log(n))


def tokenize_and_concatenate(
    dataset: Any,
    tokenizer: Any,
    streaming: bool = False,
    max_length: int = 1024,
    column_name: str = "text",
    add_bos_token: bool = True,
    num_proc: int = 10,
) -> Any:
    """Join texts by the end-of-text token and cut the tokens into sequences of one length; the rest is dropped.

    A batch of texts (1,000 of them, as ``map`` hands them over) is joined and tokenised in 20 pieces of equal length.
    Tokens equal to the tokenizer's padding token are left out. The tokenizer stays as it is.

    Args:
        dataset: Hugging Face ``Dataset`` of texts.
        tokenizer: with an ``eos_token``, and a ``bos_token_id`` for `add_bos_token`.
        streaming: tokenise in this process alone.
        max_length: tokens a sequence, the beginning-of-text token included.
        column_name: of the texts.
        add_bos_token: begin every sequence with it.
        num_proc: processes that tokenise.

    Returns:
        ``Dataset`` with ``input_ids`` [max_length] as torch tensors. A batch too short for one sequence is padded, by
        the padding token, or the end-of-text token where there is none.

    Raises:
        ValueError: no beginning-of-text token, `max_length` too small, or no text.
    """
    if add_bos_token and tokenizer.bos_token_id is None:
        raise ValueError(
            f"add_bos_token=True but {type(tokenizer).__name__} has no bos_token_id (pass add_bos_token=False)"
        )
    width = max_length - bool(add_bos_token)
    if width < 1:
        raise ValueError(f"max_length={max_length} is too small: a sequence needs {2 if add_bos_token else 1} or more")
    padding = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id

    def cut(batch: dict[str, list[str]]) -> dict[str, np.ndarray]:
        text = tokenizer.eos_token.join(batch[column_name])
        if not text.strip():
            return {"input_ids": np.empty(0, dtype=np.int64)}
        size = -(-len(text) // PIECES)
        pieces = [text[start : start + size] for start in range(0, PIECES * size, size)]
        tokens = np.concatenate([np.asarray(ids, dtype=np.int64) for ids in tokenizer(pieces)["input_ids"]])
        if tokenizer.pad_token_id is not None:
            tokens = tokens[tokens != tokenizer.pad_token_id]
        if len(tokens) < width:
            tokens = np.pad(tokens, (0, width - len(tokens)), constant_values=padding)
        rows = tokens[: len(tokens) // width * width].reshape(-1, width)
        if add_bos_token:
            rows = np.insert(rows, 0, tokenizer.bos_token_id, axis=1)
        return {"input_ids": rows}

    rows = dataset.select_columns(column_name).map(
        cut, batched=True, num_proc=None if streaming else num_proc, remove_columns=[column_name]
    )
    if len(rows) == 0 or "input_ids" not in rows.column_names:
        raise ValueError(f"tokenization produced no sequences: the column {column_name!r} holds no text")
    rows.set_format(type="torch", columns=["input_ids"])
    return rows
