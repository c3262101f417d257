"""Count sketches of the parts of a step: a few numbers whose inner products are those of the parts, in expectation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

SKETCH_QUANTITIES: tuple[str, ...] = ("scaled_grad", "unscaled_grad", "localization", "weight_decay", "noise")
Device = torch.device | str | int


@dataclass
class CountSketch:
    """S(v)_j = Σ_{i: h(i) = j} s(i) v_i with hashes h: [d] → [k] and signs s: E⟨S(v), S(w)⟩ = ⟨v, w⟩.

    Source: Charikar et al. 2002; Weinberger et al. 2009 (feature hashing).

    Attributes:
        hash_indices: h, int64 [d].
        hash_signs: s, float32 [d].
    """

    hash_indices: Tensor
    hash_signs: Tensor
    _output_dim: int

    @property
    def device(self) -> torch.device:
        """Where hashes and signs lie."""
        if self.hash_indices.device != self.hash_signs.device:
            raise RuntimeError(
                f"Inconsistent devices: hash_indices on {self.hash_indices.device}, hash_signs on "
                f"{self.hash_signs.device}; move both with .to(device)"
            )
        return self.hash_indices.device

    @property
    def input_dim(self) -> int:
        """The dimension of what is sketched."""
        return self.hash_indices.shape[0]

    @property
    def output_dim(self) -> int:
        """The dimension of a sketch."""
        return self._output_dim

    @classmethod
    def create(cls, input_dim: int, output_dim: int, seed: int = 0) -> CountSketch:
        """Hashes and signs from a seed; sketches compare only where d, k and seed are the same."""
        generator = torch.Generator().manual_seed(seed)
        places = torch.randint(0, output_dim, (input_dim,), generator=generator)
        signs = 2 * torch.randint(0, 2, (input_dim,), generator=generator) - 1
        return cls(places, signs.float(), output_dim)

    def to(self, device: Device) -> CountSketch:
        """On a device."""
        if self.device == torch.device(device):
            return self
        return CountSketch(self.hash_indices.to(device), self.hash_signs.to(device), self._output_dim)

    def sketch(self, v: Tensor) -> Tensor:
        """S(v), float32 [k], of a flat vector [d]."""
        result = torch.zeros(self._output_dim, dtype=torch.float32, device=v.device)
        self.scatter_into_(result, v, 0)
        return result

    def scatter_into_(self, result: Tensor, v: Tensor, offset: int) -> None:
        """Add the sketch of a part of the vector, which begins at coordinate ``offset``, to ``result``."""
        part = slice(offset, offset + v.numel())
        signed = self.hash_signs[part] * v.detach().reshape(-1).float()
        result.scatter_add_(0, self.hash_indices[part], signed)


@dataclass
class SketchBuffer:
    """Sketches of the parts of one step, float32 [k] each (``Metrics`` says what they are)."""

    QUANTITIES: ClassVar[tuple[str, ...]] = SKETCH_QUANTITIES

    scaled_grad: Tensor
    unscaled_grad: Tensor
    localization: Tensor
    weight_decay: Tensor
    noise: Tensor

    @classmethod
    def create(cls, output_dim: int, device: torch.device | str = "cpu") -> SketchBuffer:
        """Zeros."""
        return cls(**{name: torch.zeros(output_dim, dtype=torch.float32, device=device) for name in cls.QUANTITIES})

    @property
    def device(self) -> torch.device:
        """Where all lie."""
        places = {name: getattr(self, name).device for name in self.QUANTITIES}
        if len(set(places.values())) != 1:
            raise RuntimeError(f"Inconsistent devices across buffers: {places}; move all with .to(device)")
        return places[self.QUANTITIES[0]]

    def zero_(self) -> None:
        """Zeros again, in place."""
        for name in self.QUANTITIES:
            getattr(self, name).zero_()

    def to(self, device: Device) -> SketchBuffer:
        """On a device."""
        if self.device == torch.device(device):
            return self
        return SketchBuffer(**{name: getattr(self, name).to(device) for name in self.QUANTITIES})
