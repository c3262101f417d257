"""What makes a run that run: digests of model, data and settings, and the machine it ran on."""

from __future__ import annotations

import datetime
import hashlib
import platform
from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from sltfast.data import Source
from sltfast.losses import ItemLoss
from sltfast.observables import Observable
from sltfast.restriction import Restriction
from sltfast.results.digest import Digest


def restriction_digest(restriction: Restriction) -> str:
    """A digest of which coordinates move."""
    digest = hashlib.blake2b(digest_size=16)
    for segment in restriction.segments:
        digest.update(segment.name.encode())
        if segment.mask is not None:
            digest.update(segment.mask.numpy().tobytes())
        elif not segment.whole:
            digest.update(f"[{segment.rows}, {segment.columns}]".encode())
    return digest.hexdigest()


def run_identity(model: nn.Module, source: Source, observables: Sequence[Observable], loss: ItemLoss) -> dict[str, str]:
    """What must agree, beside the settings and the restriction, for two calls to be the same run."""
    identity = {
        "model": Digest().add(model).add(getattr(getattr(model, "config", None), "to_dict", dict)()).hexdigest(),
        "data": source.fingerprint(),
        "loss": f"{loss.name} {Digest().add(loss.function).hexdigest()}",
    }
    for observable in observables:
        rows = hashlib.blake2b(observable.rows.tobytes(), digest_size=8).hexdigest()
        identity[f"observable {observable.name}"] = f"{observable.source.fingerprint()} {rows}"
    return identity


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
