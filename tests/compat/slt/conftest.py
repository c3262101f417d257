"""A small causal language model in double precision, and sequences for it."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

VOCABULARY, TOKENS = 50, 12


def neox(**changes: Any) -> GPTNeoXForCausalLM:
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "vocab_size": VOCABULARY,
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 32,
        "attention_dropout": 0.0,
        "hidden_dropout": 0.0,
    }
    return GPTNeoXForCausalLM(GPTNeoXConfig(**{**settings, **changes})).double()


@pytest.fixture(scope="session", autouse=True)
def no_collections() -> Iterator[None]:
    """Devinterp collects garbage twice a chain, which takes longer than these chains."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("devinterp.slt.sampler._gc_and_empty_cache", lambda: None)
        yield


@pytest.fixture(scope="session")
def model() -> GPTNeoXForCausalLM:
    return neox()


@pytest.fixture(scope="session")
def dropping_model() -> GPTNeoXForCausalLM:
    return neox(hidden_dropout=0.1)


@pytest.fixture(scope="session")
def data() -> Dataset:
    """37 rows: no whole number of batches of 4."""
    ids = np.random.default_rng(0).integers(0, VOCABULARY, (37, TOKENS))
    return Dataset.from_dict({"input_ids": ids.tolist(), "attention_mask": np.ones_like(ids).tolist()}).with_format(
        "torch"
    )
