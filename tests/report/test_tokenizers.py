"""Tokens of tokenizers on disk, each alone as it stands in its text."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from sltfast.report.tokens import Vocabulary, piece_of

TEXT = "the cat sat on the mat"
SPACES = {
    "sentencepiece": ("▁", pre_tokenizers.Metaspace(), decoders.Metaspace()),
    "byte level": ("Ġ", pre_tokenizers.ByteLevel(add_prefix_space=True), decoders.ByteLevel()),
}


@pytest.mark.parametrize("kind", SPACES)
def test_a_token_keeps_the_space_before_it(kind: str, tmp_path: Path) -> None:
    mark, split, decoder = SPACES[kind]
    words = {mark + word: index for index, word in enumerate(dict.fromkeys(TEXT.split()))}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token=mark + "the"))
    tokenizer.pre_tokenizer, tokenizer.decoder = split, decoder
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(tmp_path)
    piece = piece_of(str(tmp_path))
    assert piece is not None
    assert [piece(index) for index in range(3)] == [" the", " cat", " sat"]
    assert Vocabulary(piece).text([0, 1, 2, 3, 0, 4], letters=100) == " " + TEXT
