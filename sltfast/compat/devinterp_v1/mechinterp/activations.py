"""The activation of a module, a channel or a neuron as the model runs, by the name of devinterp 1.3.2."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from torch.utils.hooks import RemovableHandle


class ActivationProbe:
    """Keeps what a module gave last.

    Args:
        model: any.
        location: attributes of the model separated by dots, then indices behind the batch dimension, "*" for all:
            "layer1.conv" is a layer's output, "layer1.conv.3" its channel 3, "layer1.conv.3.2.2" one neuron of it.

    Attributes:
        activation: of the last forward; None before the first.

    Raises:
        ValueError: a part of the location that is neither an attribute nor an index.
    """

    def __init__(self, model: nn.Module, location: str) -> None:
        self.model, self.activation = model, None
        self.layer: Any = model
        self.layer_location: list[str] = []
        self.neuron_location: list[Any] = []
        for part in location.split("."):
            if not self.neuron_location and hasattr(self.layer, part):
                self.layer_location.append(part)
                self.layer = getattr(self.layer, part)
            elif part == "*":
                self.neuron_location.append(slice(None))
            elif part.lstrip("-").isdigit():
                self.neuron_location.append(int(part))
            else:
                raise ValueError(
                    f"{part!r} in {location!r} is neither an attribute of {type(self.layer).__name__} nor an index"
                )

    def hook_fn(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """Keep the module's output, or the part of it that is asked for."""
        self.activation = output[(slice(None), *self.neuron_location)] if self.neuron_location else output

    def register_hook(self) -> RemovableHandle:
        """Begin to watch."""
        self.handle: RemovableHandle = self.layer.register_forward_hook(self.hook_fn)
        return self.handle

    def unregister_hook(self) -> None:
        """End it."""
        self.handle.remove()

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Watch within the block."""
        self.register_hook()
        try:
            yield
        finally:
            self.unregister_hook()
