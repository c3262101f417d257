"""Weights from files, and into a model that is there already."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sltfast.extras import require

TORCH_FILES = (".pt", ".pth", ".bin", ".ckpt")
BESIDE_WEIGHTS = ("optimizer", "scheduler", "rng_state", "training_args", "scaler")
"""What trainers leave in the folder of a checkpoint."""
WRAPPERS = ("model", "state_dict", "model_state_dict")
PREFIXES = ("module.", "_orig_mod.")
"""What DistributedDataParallel and torch.compile put before the names."""


class NotTheseWeights(ValueError):
    """A file's weights are not those of the model."""


def is_checkpoint(path: Path) -> bool:
    """Whether a file or folder can hold weights."""
    if path.is_file():
        return path.suffix in (".safetensors", ".gguf", *TORCH_FILES)
    return (path / "config.json").is_file() or bool(weight_files(path))


def weight_files(path: Path) -> list[Path]:
    """The files of a checkpoint's weights: a file itself, or a folder's shards."""
    if path.is_file():
        return [path]
    shards = sorted(path.glob("*.safetensors")) or sorted(path.glob("pytorch_model*.bin"))
    others = [
        file
        for file in sorted(path.iterdir())
        if file.suffix in TORCH_FILES and not file.name.startswith(BESIDE_WEIGHTS)
    ]
    return shards or (others if len(others) == 1 else [])


def read_weights(path: Path) -> dict[str, Tensor]:
    """Weights by name, memory-mapped where the file allows it.

    Args:
        path: a .safetensors file, a torch file of a state dict (or of a mapping with one under "model", "state_dict" or
            "model_state_dict"), or a folder of either.

    Raises:
        ValueError: a file that holds no state dict, or a folder with several.
        MissingExtra: safetensors is not installed.
    """
    files = weight_files(path)
    if not files:
        raise ValueError(f"{path}: the folder holds no weights, or several torch files (name one of them)")
    weights: dict[str, Tensor] = {}
    for file in files:
        part = _read(file)
        twice = sorted(set(part) & set(weights))
        if twice:
            raise ValueError(f"{path}: {twice[0]!r} is in more than one file (name the file that is meant)")
        weights |= part
    return weights


def _read(file: Path) -> dict[str, Tensor]:
    if file.suffix == ".safetensors":
        safetensors = require("safetensors.torch", extra="hf", purpose="to read a .safetensors file")
        try:
            tensors: dict[str, Tensor] = safetensors.load_file(file)
        except FileNotFoundError:
            raise
        except Exception as error:  # SafetensorError is no ValueError
            raise ValueError(f"{file}: no whole .safetensors file ({error}); fetch or save it again") from error
        return tensors
    try:
        try:
            content = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        except RuntimeError:  # a file from before torch 1.6 cannot be mapped
            content = torch.load(file, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # unpicklers raise anything for garbage
        first = str(error).strip().splitlines()[0][:200] if str(error).strip() else ""
        reason = f"{type(error).__name__}: {first}" if first else type(error).__name__
        if isinstance(error, pickle.UnpicklingError) or "weights_only" in str(error):  # torch advises to run it
            reason = "it holds other pickled objects than tensors, or is no torch file; pickled code is never run here"
        raise ValueError(
            f"{file}: no state dict can be read from it ({reason}); save model.state_dict(), or pass the model itself"
        ) from error
    return state_dict_of(content, str(file))


def state_dict_of(content: Any, name: str) -> dict[str, Tensor]:
    """The state dict in what a training loop saved, its names without the prefixes of wrappers.

    Raises:
        ValueError: there is none.
    """
    for key in ("", *WRAPPERS):
        inner = content.get(key) if key and isinstance(content, Mapping) else content
        if isinstance(inner, Mapping) and inner and all(isinstance(value, Tensor) for value in inner.values()):
            weights = {str(key): value for key, value in inner.items()}
            for prefix in PREFIXES:
                if all(key.startswith(prefix) for key in weights):
                    weights = {key.removeprefix(prefix): value for key, value in weights.items()}
            return weights
    told = f"keys {sorted(map(str, content))[:4]}" if isinstance(content, Mapping) else type(content).__name__
    raise ValueError(f"{name}: no state dict of tensors in it ({told}); save model.state_dict()")


@torch.no_grad()
def fill(model: nn.Module, weights: Mapping[str, Tensor], name: str) -> None:
    """Copy weights into a model's own tensors; a tied weight may stand under any or all of its names.

    Nothing is copied unless everything fits.

    Raises:
        NotTheseWeights: weights that are missing, unknown, of another shape, or that differ where the model ties them.
    """
    own = model.state_dict(keep_vars=True)
    unknown = sorted(set(weights) - set(own))
    if unknown:
        raise NotTheseWeights(f"{name} holds {len(unknown)} weights that the model has not: {_some(unknown)}")
    places: dict[int, list[str]] = {}
    for key, tensor in own.items():
        places.setdefault(id(tensor), []).append(key)
    missing = [names[0] for names in places.values() if not any(key in weights for key in names)]
    if missing:
        raise NotTheseWeights(f"{name} lacks {len(missing)} weights of the model: {_some(missing)}")
    moves = []
    for names in places.values():
        present = [key for key in names if key in weights]
        value = weights[present[0]]
        if value.shape != own[present[0]].shape:
            raise NotTheseWeights(
                f"{name}: {present[0]} has shape {list(value.shape)}, in the model {list(own[present[0]].shape)}"
            )
        for other in present[1:]:
            if not torch.equal(value, weights[other]):
                raise NotTheseWeights(f"{name}: {present[0]} and {other} differ, but the model ties them")
        moves.append((own[present[0]], value))
    for target, value in moves:
        target.copy_(value)


def names_in(model: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, str] | None:
    """Where a file's weights went in the model that a loader filled from it: name in the file → name in the model.

    A loader may rename (old names of an architecture) and leave out (masks that are computed now). A name of its own is
    found by its values; None where that is not possible without doubt, or the loader changed the values.
    """
    own = model.state_dict(keep_vars=True)

    def arrived(key: str, value: Tensor) -> bool:
        return own[key].shape == value.shape and torch.equal(own[key], value.to(own[key]))

    names = {key: key for key in weights if key in own}
    if not all(arrived(key, weights[key]) for key in names):
        return None
    covered = {id(own[key]) for key in names}
    unexplained = {id(tensor): key for key, tensor in own.items() if id(tensor) not in covered}
    for key in sorted(set(weights) - set(own)):
        fits = [name for name in unexplained.values() if arrived(name, weights[key])]
        if len(fits) > 1:
            return None
        if fits:
            names[key] = fits[0]
    found = [name for key, name in names.items() if key != name]
    return names if sorted(found) == sorted(unexplained.values()) else None


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
