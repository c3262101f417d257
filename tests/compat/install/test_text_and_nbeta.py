"""``devinterp.utils``: nβ, and the same sequences of tokens as devinterp's."""

import inspect
from typing import Any
from unittest import mock

import devinterp.utils as theirs
import numpy as np
import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models, pre_tokenizers
from torch.utils.data import DataLoader, TensorDataset
from transformers import PreTrainedTokenizerFast

from sltfast.compat.devinterp import utils as ours

WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "another", "small", "dog", "run"]


def tokenizer(**special: str) -> PreTrainedTokenizerFast:
    words = ["<eos>", "<bos>", "<unk>", "<mine>", *WORDS]
    plain = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="<eos>", unk_token="<unk>", **special)


def texts(rows: int) -> Dataset:
    rng = np.random.default_rng(0)
    return Dataset.from_dict({"words": [" ".join(rng.choice(WORDS, rng.integers(0, 40))) for _ in range(rows)]})


@pytest.mark.parametrize("special", [{}, {"pad_token": "<mine>"}, {"pad_token": "<eos>"}], ids=str)
@pytest.mark.parametrize(("rows", "length", "bos"), [(50, 16, True), (50, 16, False), (1, 2, True), (2100, 100, False)])
def test_sequences(special: dict[str, str], rows: int, length: int, bos: bool) -> None:
    options: dict[str, Any] = {"max_length": length, "column_name": "words", "add_bos_token": bos, "streaming": True}
    mine = tokenizer(bos_token="<bos>", **special)
    found = ours.tokenize_and_concatenate(texts(rows), mine, **options)
    known = theirs.tokenize_and_concatenate(texts(rows), tokenizer(bos_token="<bos>", **special), **options)
    assert found[0]["input_ids"].dtype == torch.int64
    assert torch.equal(found[:]["input_ids"], known[:]["input_ids"])
    assert len(mine) == len(tokenizer(bos_token="<bos>", **special))


def test_too_short_a_text_is_padded_within_the_vocabulary() -> None:
    rows = ours.tokenize_and_concatenate(Dataset.from_dict({"text": ["the cat"]}), tokenizer(), streaming=True,
                                         max_length=6, add_bos_token=False)  # fmt: skip
    ids = rows[0]["input_ids"]
    assert len(ids) == 6
    assert ids.max() < len(tokenizer())


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({}, "add_bos_token=True but .* has no bos_token_id"),
        ({"add_bos_token": False, "max_length": 0}, "max_length=0 is too small"),
        ({"add_bos_token": False}, "tokenization produced no sequences: the column 'text' holds no text"),
    ],
)
def test_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        ours.tokenize_and_concatenate(Dataset.from_dict({"text": [" "]}), tokenizer(), streaming=True, **options)


@pytest.mark.parametrize(("size", "steps"), [(2, 1), (32, 1), (32, 4), (1, 8)])
def test_nbeta(size: int, steps: int) -> None:
    loader = DataLoader(TensorDataset(torch.zeros(64, 1)), batch_size=size)
    expected = size * steps / np.log(size * steps)
    for given in (size, loader):
        assert ours.default_nbeta(given, steps) == pytest.approx(expected, rel=1e-15)
        assert ours.default_nbeta(given, gradient_accumulation_steps=steps) == theirs.default_nbeta(given, steps)


def test_one_item_a_step_and_what_has_no_batch_size() -> None:
    with mock.patch("sltfast.compat.devinterp.utils.warnings") as mine, mock.patch("devinterp.utils.warnings") as known:
        assert ours.default_nbeta(1) == theirs.default_nbeta(1) == 1
    assert mine.warn.call_args == known.warn.call_args
    with pytest.raises(NotImplementedError, match=r"must be a DataLoader with a batch_size or an int, got 2\.5"):
        ours.default_nbeta(2.5)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["default_nbeta", "tokenize_and_concatenate"])
def test_signatures(name: str) -> None:
    mine, known = (inspect.signature(getattr(module, name)).parameters for module in (ours, theirs))
    assert [(p.name, p.default, p.kind) for p in mine.values()] == [(p.name, p.default, p.kind) for p in known.values()]
