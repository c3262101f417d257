"""Covariances of weights over draws, by the names of devinterp 1.3.2."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from sltfast.compat.defects import warn_once
from sltfast.compat.devinterp_v1.slt.callback import SamplerCallback

WeightAccessor = Callable[[nn.Module], Tensor]
AttentionHeadWeightsAccessor = Callable[[nn.Module], Sequence[Tensor]]
LayerWeightsAccessor = Callable[[nn.Module], Tensor]


class AccumulatorClosed(RuntimeError, AssertionError):
    """A draw came after ``finalize``."""


class _Accumulator(SamplerCallback):
    """First and second moments of weights; means once it is final."""

    def __init__(self, device: torch.device | str, num_evals: int) -> None:
        super().__init__(device)
        self.num_draws, self.num_evals, self.is_finished = 0, num_evals, False

    def __call__(self, model: nn.Module, **kwargs: Any) -> None:
        """Take in a draw."""
        self.accumulate(model)

    def accumulate(self, model: nn.Module) -> None:
        """Take in a model's weights.

        Raises:
            AccumulatorClosed: (an AssertionError) it is final.
        """
        if self.is_finished:
            raise AccumulatorClosed("Cannot accumulate after finalizing: call reset() first")
        with torch.no_grad():
            self._add(model)
        self.num_draws += 1

    def _add(self, model: nn.Module) -> None:
        """Add one draw's moments."""

    def _sums(self) -> list[Tensor]:
        """Every tensor of moments."""
        return []

    def finalize(self) -> None:
        """Turn sums into means."""
        if not self.is_finished:
            for moment in self._sums():
                moment /= max(1, self.num_draws)
        self.is_finished = True

    def reset(self) -> None:
        """Begin anew."""
        for moment in self._sums():
            moment.zero_()
        self.num_draws, self.is_finished = 0, False


class CovarianceAccumulator(_Accumulator):
    """Covariance (ddof 0) of chosen weights over all draws of all chains.

    Args:
        num_weights: n, weights in all.
        accessors: functions of the model that give them.
        device: where the moments are kept.
        num_evals: eigenvalues that are told.
    """

    def __init__(
        self,
        num_weights: int,
        accessors: Sequence[WeightAccessor],
        device: torch.device | str = "cpu",
        num_evals: int = 3,
    ) -> None:
        super().__init__(device, num_evals)
        self.num_weights, self.accessors = num_weights, list(accessors)
        self.first_moment = torch.zeros(num_weights, device=device)
        self.second_moment = torch.zeros(num_weights, num_weights, device=device)

    def _sums(self) -> list[Tensor]:
        return [self.first_moment, self.second_moment]

    def _add(self, model: nn.Module) -> None:
        weights = torch.cat([accessor(model).reshape(-1) for accessor in self.accessors])
        self.first_moment += weights
        self.second_moment += torch.outer(weights, weights)

    def to_matrix(self) -> Tensor:
        """[n, n] covariance, once it is final."""
        return self.second_moment - torch.outer(self.first_moment, self.first_moment)

    def to_eigen(self, include_matrix: bool = False) -> dict[str, Any]:
        """Give "evals" [k], the largest eigenvalues, ascending; "evecs" [k, n], their vectors, as rows; "matrix"."""
        warn_once("v1: eigenvectors of weight covariances")
        covariance = self.to_matrix().cpu()
        values, vectors = _largest(covariance, self.num_evals)
        return {"evals": values, "evecs": vectors} | ({"matrix": covariance.numpy()} if include_matrix else {})

    def get_results(self) -> dict[str, Any]:
        """``to_eigen`` with the matrix."""
        return self.to_eigen(include_matrix=True)


class WithinHeadCovarianceAccumulator(_Accumulator):
    """Covariance (ddof 0) of the weights of each attention head of each layer.

    Args:
        num_heads: H.
        num_weights_per_head: n.
        accessors: one a layer: functions of the model that give H tensors of n weights.
        device: where the moments are kept.
        num_evals: eigenvalues that are told.
    """

    def __init__(
        self,
        num_heads: int,
        num_weights_per_head: int,
        accessors: Sequence[AttentionHeadWeightsAccessor],
        device: torch.device | str = "cpu",
        num_evals: int = 3,
    ) -> None:
        super().__init__(device, num_evals)
        self.num_layers, self.num_heads, self.num_weights_per_head = len(accessors), num_heads, num_weights_per_head
        self.accessors = list(accessors)
        self.first_moment = torch.zeros(self.num_layers, num_heads, num_weights_per_head, device=device)
        self.second_moment = torch.zeros(*self.first_moment.shape, num_weights_per_head, device=device)

    @property
    def num_weights_per_layer(self) -> int:
        """Weights of the heads of a layer."""
        return self.num_heads * self.num_weights_per_head

    @property
    def num_weights(self) -> int:
        """Weights of all heads."""
        return self.num_layers * self.num_weights_per_layer

    def _sums(self) -> list[Tensor]:
        return [self.first_moment, self.second_moment]

    def _add(self, model: nn.Module) -> None:
        for layer, accessor in enumerate(self.accessors):
            heads = torch.stack([head.reshape(-1) for head in accessor(model)])
            self.first_moment[layer] += heads
            self.second_moment[layer] += heads.unsqueeze(2) * heads.unsqueeze(1)

    def to_matrix(self) -> Tensor:
        """[layers, H, n, n] covariances, once it is final."""
        return self.second_moment - self.first_moment.unsqueeze(3) * self.first_moment.unsqueeze(2)

    def to_eigen(self, include_matrix: bool = False) -> dict[str, Any]:
        """Give "evals" [k, layers, H], ascending; "evecs" [k, layers, H, n]; "matrix" [layers, H, n, n]."""
        warn_once("v1: eigenvectors of weight covariances")
        covariance = self.to_matrix().cpu()
        k, n = self.num_evals, self.num_weights_per_head
        values = np.zeros((k, self.num_layers, self.num_heads))
        vectors = np.zeros((k, self.num_layers, self.num_heads, n))
        for layer in range(self.num_layers):
            for head in range(self.num_heads):
                values[:, layer, head], vectors[:, layer, head] = _largest(covariance[layer, head], k)
        return {"evecs": vectors, "evals": values} | ({"matrix": covariance} if include_matrix else {})

    def get_results(self) -> dict[str, Any]:
        """``to_eigen`` with the matrices."""
        return self.to_eigen(include_matrix=True)


class BetweenLayerCovarianceAccumulator(_Accumulator):
    """Covariances (ddof 0) of the weights of one layer with those of another.

    Args:
        model: tells the layers' sizes.
        pairs: {name: (one layer, another)}.
        device: where the moments are kept.
        num_evals: singular values that are told.
        **accessors: layers by name: functions of the model that give their weights.
    """

    def __init__(
        self,
        model: nn.Module,
        pairs: Mapping[str, tuple[str, str]],
        device: torch.device | str = "cpu",
        num_evals: int = 3,
        **accessors: LayerWeightsAccessor,
    ) -> None:
        super().__init__(device, num_evals)
        self.num_layers, self.accessors, self.pairs = len(accessors), accessors, dict(pairs)
        self.num_weights_per_layer = {name: accessor(model).numel() for name, accessor in accessors.items()}
        sizes = self.num_weights_per_layer
        self.first_moments = {name: torch.zeros(size, device=device) for name, size in sizes.items()}
        self.second_moments = {
            name: torch.zeros(sizes[one], sizes[other], device=device) for name, (one, other) in self.pairs.items()
        }

    @property
    def num_weights(self) -> int:
        """Weights of all layers."""
        return sum(self.num_weights_per_layer.values())

    def _sums(self) -> list[Tensor]:
        return [*self.first_moments.values(), *self.second_moments.values()]

    def _add(self, model: nn.Module) -> None:
        weights = {name: accessor(model).reshape(-1) for name, accessor in self.accessors.items()}
        for name, values in weights.items():
            self.first_moments[name] += values
        for name, (one, other) in self.pairs.items():
            self.second_moments[name] += torch.outer(weights[one], weights[other])

    def to_matrices(self) -> dict[str, Tensor]:
        """[n_one, n_other] covariances by pair, once it is final."""
        return {
            name: self.second_moments[name] - torch.outer(self.first_moments[one], self.first_moments[other])
            for name, (one, other) in self.pairs.items()
        }

    def to_eigens(self, include_matrix: bool = False) -> dict[str, Any]:
        """By pair: "evals" [k], the largest singular values, descending; "evecs" [k, n_one] and "evecs_other"
        [k, n_other], their left and right vectors, as rows; "matrix".
        """
        warn_once("v1: eigenvectors of weight covariances")
        results = {}
        for name, covariance in self.to_matrices().items():
            left, values, right = torch.linalg.svd(covariance.cpu(), full_matrices=False)
            k = self.num_evals
            found = {"evecs": left.T[:k].numpy(), "evecs_other": right[:k].numpy(), "evals": values[:k].numpy()}
            results[name] = found | ({"matrix": covariance.cpu().numpy()} if include_matrix else {})
        return results

    def get_results(self) -> dict[str, Any]:
        """``to_eigens`` with the matrices."""
        return self.to_eigens(include_matrix=True)


def _largest(covariance: Tensor, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The ``count`` largest eigenvalues, ascending, and their eigenvectors as rows."""
    values, vectors = torch.linalg.eigh(covariance)
    return values[-count:].numpy(), vectors.T[-count:].numpy()
