"""Models of many checkpoints of one architecture: built once, filled with each one's weights."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sltfast.inputs.checkpoints import Checkpoint
from sltfast.inputs.pretrained import load_model
from sltfast.inputs.weights import fill, names_in, read_weights, state_dict_of, weight_files

NOT_OF_THE_ARCHITECTURE = ("_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache")


class Skeleton:
    """Gives the model of a checkpoint: the module itself, or one model into which weights are loaded in turn.

    What a call returns is good until the next one. The caller's model is copied, not filled.

    Args:
        model: the architecture of state dicts and weight files; Hugging Face folders need none.
        dtype: precision of models that are built from Hugging Face folders.
    """

    def __init__(self, model: nn.Module | None, dtype: str) -> None:
        self.dtype, self.given = dtype, model is not None
        self._model: nn.Module | None = None
        self._config: dict[str, Any] | None = None
        self._keys: set[str] = set()
        self._names: dict[str, str] = {}
        if model is not None:
            try:
                self._model = copy.deepcopy(model)
            except (TypeError, RuntimeError) as error:
                raise TypeError(
                    f"{type(model).__name__} cannot be copied ({error}), and checkpoints are not loaded into your own: "
                    "give the models themselves, or remove what copy.deepcopy refuses"
                ) from error

    def filled(self, checkpoint: Checkpoint) -> nn.Module:
        """The model at a checkpoint.

        Raises:
            ValueError: weights that are not the model's, a file that cannot be read, or no architecture to fill.
            FileNotFoundError, MissingExtra: as ``load_model``.
        """
        content = checkpoint.content
        if isinstance(content, nn.Module):
            return content
        if isinstance(content, str):
            name, _, revision = content.rpartition("@")
            return load_model(name, dtype=self.dtype, revision=revision)
        if isinstance(content, Path) and not self.given and (content.suffix == ".gguf" or _config_of(content)):
            return self._from_hugging_face(content)
        if self._model is None or not self.given:
            raise ValueError(f"{checkpoint.name} holds weights alone: give model=, the architecture they belong to")
        weights = state_dict_of(content, checkpoint.name) if isinstance(content, Mapping) else read_weights(content)
        fill(self._model, weights, checkpoint.name)
        return self._model

    def _from_hugging_face(self, path: Path) -> nn.Module:
        config = _config_of(path)
        if self._model is not None and config is not None and config == self._config:
            weights = read_weights(path)
            if weights.keys() == self._keys:
                fill(self._model, {name: weights[key] for key, name in self._names.items()}, str(path))
                return self._model
        model = load_model(str(path), dtype=self.dtype)
        if config is not None and weight_files(path):
            weights = read_weights(path)
            names = names_in(model, weights)
            if names is not None:  # else transformers does more than to rename as it loads
                self._model, self._config = _unmapped(model), config
                self._keys, self._names = set(weights), names
        return model


def _config_of(path: Path) -> dict[str, Any] | None:
    """What of a folder's config decides the architecture; None where weights cannot simply be filled in."""
    file = path / "config.json"
    if not file.is_file():
        return None
    config: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return {key: value for key, value in config.items() if key not in NOT_OF_THE_ARCHITECTURE}


@torch.no_grad()
def _unmapped(model: nn.Module) -> nn.Module:
    """The model with every weight in memory of its own: one that is a view of its file must not be written to."""
    for tensor in model.state_dict(keep_vars=True).values():
        tensor.data = tensor.data.clone()
    return model
