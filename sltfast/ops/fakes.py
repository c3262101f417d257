"""Schemas of the Python-registered ops and the fakes that let `torch.compile` trace every op.

The ops return nothing and write only to arguments, so a fake has nothing to allocate.
"""

import torch

from sltfast.ops import reference
from sltfast.ops.backend import refusals

LANGEVIN_STEP = (
    "_langevin_step_(Tensor(a!) w, Tensor[] grads, Tensor[] anchors, Tensor segments, Tensor hyper, Tensor step, "
    "Tensor chains, int seed, int stream, str method, Tensor(b!)? v, Tensor(c!)[] low, Tensor[] masks, "
    "Tensor? loss, Tensor(d!)? alive, Tensor(e!)? death_step, Tensor(f!)? metrics, Tensor[] noise, "
    "float rms_alpha, float rms_eps) -> ()"
)

_library = torch.library.Library("sltfast", "FRAGMENT")
_library.define("reference" + LANGEVIN_STEP)
_library.impl("reference_langevin_step_", reference.langevin_step_, "CompositeExplicitAutograd")


def _writes_in_place(*_: object) -> None:
    return None


torch.library.register_fake("sltfast::reference_langevin_step_", _writes_in_place, lib=_library)
if "native" not in refusals():
    torch.library.register_fake("sltfast::native_langevin_step_", _writes_in_place, lib=_library)
