"""A model and a batch made ready: a clone of its own, the selected parameters, and one loss for every item."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from sltfast.clone import structural_clone, unwrap
from sltfast.data import leaves, map_leaves
from sltfast.isolation import surroundings
from sltfast.losses import ItemLoss, LossFn, check_tokens, item_loss
from sltfast.restriction import ParamMasks, Restriction
from sltfast.sampler.precision import computing


class Items:
    """Losses per item of any batch, by a clone of the caller's model in eval mode.

    ℓ_i = Σ_t a_it·ℓ_it / Σ_t a_it, the mean over the item's own entries (0 where all are ignored), and its share
    s_i = Σ_t a_it / Σ_j Σ_t a_jt of the batch: Σ_i s_i·ℓ_i is the loss that SGLD differentiates.

    Args:
        model: the caller's.
        loss_fn: see ``sltfast.sample``.
        param_masks: see ``sltfast.sample``.

    Attributes:
        parameters: the clone's selected parameters by name.
        masks: by name, the coordinates that count (flat bool), or None for all.
        numel: coordinates that count.
        first_names: every name of a parameter → its first (they differ where weights are tied).

    Raises:
        ValueError, TypeError: as ``sltfast.sample`` for its model, loss function and masks.
    """

    def __init__(self, model: nn.Module, loss_fn: LossFn | None, param_masks: ParamMasks) -> None:
        model = unwrap(model)
        restriction = Restriction.of(model, param_masks)
        self.device = restriction.segments[0].parameter.device
        self.clone = structural_clone(model, self.device).eval()
        self._loss: ItemLoss = item_loss(model, loss_fn)
        self._tokens = loss_fn is None
        every = dict(self.clone.named_parameters())
        self.parameters: dict[str, nn.Parameter] = {}
        self.masks: dict[str, Tensor | None] = {}
        for segment in restriction.dense().segments:
            every[segment.name].requires_grad_()
            self.parameters[segment.name] = every[segment.name]
            self.masks[segment.name] = None if segment.mask is None else segment.mask.to(self.device)
        self.numel = restriction.numel
        by_id = {id(parameter): name for name, parameter in every.items()}
        self.first_names = {
            name: by_id[id(parameter)] for name, parameter in self.clone.named_parameters(remove_duplicate=False)
        }

    def take(self, batch: Any) -> tuple[Any, int]:
        """The batch where the model is, and its number of items.

        Raises:
            ValueError: no tensors, or tensors of different lengths; tokens that the model cannot read.
        """
        tensors = leaves(batch)
        if not tensors or any(leaf.ndim == 0 for leaf in tensors):
            raise ValueError(
                f"the batch ({type(batch).__name__}) must be a tensor, or a tuple or dict of tensors, whose first "
                "dimension counts items"
            )
        lengths = sorted({len(leaf) for leaf in tensors})
        if len(lengths) > 1 or lengths[0] == 0:
            raise ValueError(f"the tensors of the batch must count the same items, at least 1; they have {lengths}")
        if self._tokens:
            check_tokens(self.clone, batch)
        return map_leaves(self._here, batch), lengths[0]

    def _here(self, leaf: Tensor) -> Tensor:
        here = leaf.detach().to(self.device)
        return here.clone() if here.is_inference() else here  # autograd cannot save what inference mode made

    def losses(self, batch: Any) -> tuple[Tensor, Tensor]:
        """ℓ_i [B], and how much each item counts, Σ_t a_it [B] (detached); float32, or float64 where losses are.

        Raises:
            ValueError: a loss that is not finite or has no gradient, or negative weights.
        """
        losses = self._loss(self.clone, batch)
        dtype = torch.float64 if losses.values.dtype == torch.float64 else torch.float32
        values = losses.values.to(dtype)
        if losses.weights is None:
            means, weights = values.mean(1), values.new_full((len(values),), values.shape[1])
        else:
            counts = losses.weights.detach().to(dtype)
            if not bool((counts >= 0).all()) or not bool(torch.isfinite(counts).all()):
                raise ValueError(f"{self._loss.name} returned negative or infinite weights: an entry counts >= 0")
            weights = counts.sum(1)
            means = torch.where(counts != 0, counts * values, 0).sum(1) / torch.where(weights == 0, 1, weights)
        if not bool(torch.isfinite(means).all()):
            bad = torch.nonzero(~torch.isfinite(means)).flatten()[:4].tolist()
            raise ValueError(f"{self._loss.name} is not finite on items {bad} of the batch: there is no gradient")
        return means, weights

    def refuse_constant(self, means: Tensor) -> None:
        """Raise where no selected parameter has a part in the loss."""
        if not means.requires_grad:
            raise ValueError(
                f"no gradient of {self._loss.name} reaches the selected weights: the loss must be computed, with "
                "gradients on, with the model that is passed to it (a copy), and the weights must be used in it"
            )


def item_of(batch: Any, index: int) -> Any:
    """A batch of one item."""
    return map_leaves(lambda leaf: leaf[index : index + 1], batch)


@contextmanager
def prepared(model: nn.Module, loss_fn: LossFn | None, param_masks: ParamMasks) -> Iterator[Items]:
    """``Items`` with gradients on and random states private."""
    with torch.inference_mode(False):
        items = Items(model, loss_fn, param_masks)
    with surroundings(0, items.device), computing(None, items.device):
        yield items
