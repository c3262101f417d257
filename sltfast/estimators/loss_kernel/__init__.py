"""The loss kernel: which items answer alike to changes of the weights."""

from sltfast.estimators.loss_kernel.embedding import embed
from sltfast.estimators.loss_kernel.kernel import compute_loss_kernel, loss_kernel

__all__ = ["compute_loss_kernel", "embed", "loss_kernel"]
