"""Language models from a directory, a GGUF file or the hub, with the tokenizer that goes with them."""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sltfast.extras import require
from sltfast.inputs.corpus import BYTES, SEPARATOR_BYTE, Encode, encode_bytes, piece_of_byte

DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
LONGEST_DEFAULT = 256
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")  # a directory with one needs no model beside it


@dataclass(frozen=True)
class Location:
    """Where a model lies, as transformers' ``from_pretrained`` wants it.

    Attributes:
        name: directory or hub name.
        gguf_file: file inside it, or None.
    """

    name: str
    gguf_file: str | None = None

    @property
    def options(self) -> dict[str, str]:
        """Keywords for ``from_pretrained``."""
        return {} if self.gguf_file is None else {"gguf_file": self.gguf_file}


@dataclass(frozen=True)
class Tokens:
    """How text becomes token ids.

    Attributes:
        encode: text → ids, without special tokens.
        separator: id that ends a document, or None.
        name: for messages.
        piece: id → its text.
    """

    encode: Encode
    separator: int | None
    name: str
    piece: Callable[[int], str]


def locate(model: str) -> Location:
    """Find what ``model`` names: a GGUF file, a directory (of weights, or with one GGUF file), or a hub name.

    Raises:
        FileNotFoundError: a path that does not exist, or a directory without a model.
        ValueError: a file that is not GGUF, or a directory with several GGUF files.
    """
    path = Path(model)
    if path.is_file():
        if path.suffix.lower() != ".gguf":
            raise ValueError(f"{model}: a model is a directory, a .gguf file or a hub name")
        return Location(str(path.parent), path.name)
    if path.is_dir():
        if (path / "config.json").exists():
            return Location(str(path))
        files = sorted(inner.name for inner in path.glob("*.gguf"))
        if not files:
            raise FileNotFoundError(f"{model}: the directory holds neither config.json nor a .gguf file")
        if len(files) > 1:
            raise ValueError(f"{model}: several GGUF files ({', '.join(files)}); name one of them")
        return Location(str(path), files[0])
    if model.startswith((".", "/", "~")) or model.count("/") > 1 or path.suffix.lower() == ".gguf":
        raise FileNotFoundError(f"{model}: no such file or directory")
    return Location(model)


def load_model(model: str, *, dtype: str = "float32", revision: str | None = None) -> nn.Module:
    """Load a causal language model for sampling: on the CPU, in eval mode, without a key-value cache.

    Args:
        model: see `locate`.
        dtype: "float32", "float64", "bfloat16" or "float16".
        revision: branch, tag or commit on the hub (a training checkpoint, say).

    Raises:
        FileNotFoundError: there is no such model.
        ValueError: an unknown dtype, a model that is no causal language model, or a checkpoint without some weights.
        MissingExtra: transformers (or gguf) is not installed.
    """
    if dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype!r}")
    location = locate(model)
    transformers = require("transformers", extra="hf", purpose="to load a language model")
    if location.gguf_file is not None:
        require("gguf", extra="hf", purpose="to read a GGUF file")
        require("accelerate", extra="hf", purpose="to read a GGUF file")
    loaded, report = _from_pretrained(
        transformers.AutoModelForCausalLM.from_pretrained,
        location,
        model,
        dtype=DTYPES[dtype],
        revision=revision,
        output_loading_info=True,
    )
    missing = sorted(report["missing_keys"])
    if missing:
        raise ValueError(
            f"{model}: the checkpoint lacks {len(missing)} weights, which would be random: {', '.join(missing[:3])}"
            + (", …" if len(missing) > 3 else "")
        )
    # GGUF weights are dequantised on loading, but the config still announces a quantised model
    if getattr(loaded.config, "quantization_config", None) is not None and location.gguf_file is not None:
        del loaded.config.quantization_config
    loaded.config.use_cache = False
    return loaded.to(DTYPES[dtype]).eval()


def load_tokens(tokenizer: str | None, model: str, *, revision: str | None = None) -> Tokens:
    """The tokenizer of a model, or another one.

    Args:
        tokenizer: "bytes" (UTF-8 bytes, vocabulary 256), a directory or hub name, or None for the model's own.
        model: see `locate`.
        revision: as in `load_model`.

    Raises:
        FileNotFoundError: there is no such tokenizer; the message names the mend.
    """
    if tokenizer == "bytes":
        return Tokens(encode_bytes, SEPARATOR_BYTE, f"UTF-8 bytes (vocabulary {BYTES})", piece_of_byte)
    transformers = require("transformers", extra="hf", purpose="to load a tokenizer")
    alone = tokenizer is not None and any((Path(tokenizer) / name).is_file() for name in TOKENIZER_FILES)
    location = Location(str(tokenizer)) if alone else locate(tokenizer or model)
    mend = "--tokenizer bytes reads UTF-8 bytes, --tokenizer PATH another tokenizer"
    try:
        loaded = _from_pretrained(
            transformers.AutoTokenizer.from_pretrained, location, tokenizer or model, revision=revision
        )
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{error}; {mend}") from error
    # without tokenizer files, transformers builds an empty one from the model's type and encodes every text to nothing
    if not set(loaded.get_vocab().values()) - set(loaded.all_special_ids):
        raise FileNotFoundError(f"{tokenizer or model}: no tokenizer there; {mend}")

    def encode(text: str) -> list[int]:
        ids: list[int] = loaded(text, add_special_tokens=False, verbose=False)["input_ids"]
        return ids

    def piece(token: int) -> str:
        text: str = loaded.decode([token], clean_up_tokenization_spaces=False)
        # a decoder of whole texts drops the space that the first word's token stands for
        spaced = str(loaded.convert_ids_to_tokens(token)).startswith("▁") and not text.startswith(" ")
        return " " + text if spaced else text

    return Tokens(encode, loaded.eos_token_id, type(loaded).__name__, piece)


def context_of(model: nn.Module, context: int | None) -> int:
    """Row length for packed text: ``context``, or the model's own limit up to 256.

    Raises:
        ValueError: ``context`` is longer than the model can read.
    """
    config = getattr(model, "config", None)
    limits = [getattr(config, name, None) for name in ("max_position_embeddings", "n_positions", "n_ctx")]
    limit = next((value for value in limits if isinstance(value, int) and value > 0), None)
    if context is None:
        return LONGEST_DEFAULT if limit is None else min(limit, LONGEST_DEFAULT)
    if limit is not None and context > limit:
        raise ValueError(f"context must be <= {limit} (the model's position limit), got {context}")
    return context


def _from_pretrained(load: Callable[..., Any], location: Location, given: str, **options: Any) -> Any:
    kept = {key: value for key, value in options.items() if value is not None}
    try:
        # the GGUF reader draws a bar that no setting turns off; warnings go through logging and stay
        silence = redirect_stderr(io.StringIO()) if location.gguf_file else nullcontext()
        with quiet_loading(), silence:
            # None would ask at the terminal whether to run the code that lies beside the weights
            return load(location.name, trust_remote_code=False, **location.options, **kept)
    except OSError as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise FileNotFoundError(f"{given}: {reason}") from error
    except ValueError as error:
        reason = " ".join(str(error).split())
        if "trust_remote_code" in reason:
            reason = (
                "it needs code that lies beside its weights, which is never run here: load it yourself "
                "(trust_remote_code=True, if you trust it) and pass the model to sltfast.sample"
            )
        raise ValueError(f"{given}: {reason}") from error
    except Exception as error:  # whatever a loader raises for a file that is cut, garbled or of another model
        told = " ".join(str(error).split())[:300]
        if isinstance(error, pickle.UnpicklingError) or "weights_only" in str(error):  # torch advises to run it
            told = "its weights hold other pickled objects than tensors, and pickled code is never run here"
        raise ValueError(
            f"{given}: its files cannot be read as a model ({type(error).__name__}: {told}); check config.json and the "
            "weights beside it, or fetch them again"
        ) from error


@contextmanager
def quiet_loading() -> Iterator[None]:
    """The loaders draw bars of their own, and tokenizers warn when a process forks later."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    logging = require("transformers.utils.logging", extra="hf", purpose="to load a language model")
    was_on = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            logging.enable_progress_bar()
