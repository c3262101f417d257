"""What makes a run that run: digests of model, data, loss and settings, and the machine it ran on."""

from __future__ import annotations

import datetime
import hashlib
import platform
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sltfast.data import Source
from sltfast.losses import ItemLoss
from sltfast.observables import Observable
from sltfast.restriction import Restriction
from sltfast.results.content import content
from sltfast.results.digest import Digest

OF_THE_FILE = ("transformers_version", "dtype", "torch_dtype", "use_cache")  # in a config: nothing that a forward reads
COUNTERS = "num_batches_tracked"  # of batch norm: no forward of a run reads it
EACH = 8  # hexadecimal digits of one tensor among those of a model


def restriction_digest(restriction: Restriction) -> str:
    """A digest of which coordinates move, after their number."""
    digest = hashlib.blake2b(digest_size=16)
    for segment in restriction.segments:
        digest.update(segment.name.encode())
        if segment.mask is not None:
            digest.update(segment.mask.numpy().tobytes())
        elif not segment.whole:
            digest.update(f"[{segment.rows}, {segment.columns}]".encode())
    return f"{restriction.numel} coordinates of {len(restriction.segments)} tensors, {digest.hexdigest()}"


def loss_source(loss: ItemLoss) -> str:
    """The loss by name, code, closures, the globals it uses and its own state; to be taken before it is first called.

    What can be neither read nor taken apart (functions in C, locks, open files) counts by its name alone, and is named:
    there the values of the loss have to tell (``results.loss_values``).
    """
    digest = Digest().add(loss.function)
    if isinstance(loss.function, nn.Module):
        digest.add(type(loss.function).forward)
    unread = ", ".join(sorted(set(digest.unread)))
    return f"{loss.name}, {digest.hexdigest()}" + (f", but for {unread}" if unread else "")


def model_identity(model: nn.Module) -> dict[str, str]:
    """Architecture, weights and buffers: a line and a digest each, and beside it a short digest of every tensor.

    ``architecture`` counts types and plain attributes of all modules, shapes, precisions and ties of all tensors, and
    a Hugging Face config but for its path and versions. The code of a forward is no part of it: what it computes shows
    in the values of the loss.
    """
    parameters: dict[str, Tensor] = dict(model.named_parameters())
    buffers = _read_buffers(model)
    built = hashlib.blake2b(digest_size=16)

    def told(*words: Any) -> None:
        built.update("\0".join(map(str, words)).encode() + b"\0")

    for name, module in model.named_modules():
        told(name, type(module).__module__, type(module).__qualname__)
        for key, value in sorted(vars(module).items()):
            if isinstance(value, bool | int | float | str | tuple) and key != "training" and not key.startswith("_"):
                told(key, repr(value))
    first: dict[int, str] = {}
    for name, weight in model.named_parameters(remove_duplicate=False):
        told(name, tuple(weight.shape), weight.dtype, first.setdefault(id(weight), name))
    for name, tensor in buffers.items():
        told(name, tuple(tensor.shape), tensor.dtype)
    config: dict[str, Any] = getattr(getattr(model, "config", None), "to_dict", dict)()
    kept = {key: value for key, value in config.items() if key not in OF_THE_FILE and not str(key).startswith("_")}
    told(Digest().add(kept).hexdigest())
    count = sum(parameter.numel() for parameter in parameters.values())
    return {
        "architecture": f"{type(model).__qualname__} of {count} weights in {len(parameters)} tensors, "
        f"{built.hexdigest()}",
        "weights": _each(parameters),
        "buffers": _each(buffers),
    }


def _read_buffers(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in model.named_buffers() if not name.endswith(COUNTERS)}


def _each(tensors: dict[str, Tensor]) -> str:
    """The whole digest, and EACH digits of every tensor's, in order."""
    digests = [content(tensor) for tensor in tensors.values()]
    return (
        f"{hashlib.blake2b(b''.join(digests), digest_size=16).hexdigest()} {''.join(d.hex()[:EACH] for d in digests)}"
    )


def changed_tensors(model: nn.Module, part: str, recorded: str, given: str) -> list[str]:
    """Names of the tensors whose digests differ, of models of one architecture.

    Args:
        model: given now.
        part: "weights" or "buffers".
        recorded: this part of the identity on record.
        given: the same of the model.
    """
    names = list(dict(model.named_parameters()) if part == "weights" else _read_buffers(model))
    old, new = (whole.partition(" ")[2] for whole in (recorded, given))
    if len(old) != len(new):
        return []
    return [name for k, name in enumerate(names) if old[k * EACH : (k + 1) * EACH] != new[k * EACH : (k + 1) * EACH]]


def run_identity(model: nn.Module, source: Source, observables: Sequence[Observable]) -> dict[str, str]:
    """What must agree, beside settings, loss and restriction, for two calls to be the same run."""
    identity = {**model_identity(model), "data": _of_rows(source)}
    for observable in observables:
        rows = hashlib.blake2b(observable.rows.tobytes(), digest_size=8).hexdigest()
        identity[f"observable {observable.name}"] = (
            f"{_of_rows(observable.source)}; {len(observable.rows)} read, {rows}"
        )
    return identity


def _of_rows(source: Source) -> str:
    return f"{len(source)} rows, {source.fingerprint()}"


def provenance(device: torch.device) -> dict[str, Any]:
    """Versions, machine and time of a run."""
    from sltfast import __version__

    return {
        "sltfast": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": platform.machine(),
        "system": platform.system(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else str(device),
        "threads": torch.get_num_threads(),
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
