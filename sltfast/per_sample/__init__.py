"""Gradients of single items, by one forward and one backward pass of their batch, without storing any.

Example:
    from sltfast import per_sample

    def loss_fn(model, batch):
        x, y = batch
        return (model(x) - y).square().mean(1)

    model = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    data = torch.randn(256, 3), torch.randn(256, 1)

    per_sample.gradient_norms(model, data, loss_fn)                    # |g_i| [256]
    gradient = per_sample.weighted_sum(model, data, loss_fn=loss_fn)   # the batch's gradient, by parameter
    per_sample.inner_products(model, data, gradient, loss_fn)          # ⟨g_i, G⟩ [256]: who pulls along, who against

    noise = per_sample.noise_scale(model, data, loss_fn, batch_size=16, lr=1e-3, n_beta=30.0)
    noise.ratio       # the mini-batch noise of one SGLD step over the noise it injects
    noise.advice()
"""

from sltfast.per_sample.noise import noise_scale
from sltfast.per_sample.norms import gradient_norms, inner_products
from sltfast.per_sample.sgld_noise import NoiseScale
from sltfast.per_sample.sums import weighted_sum

__all__ = ["NoiseScale", "gradient_norms", "inner_products", "noise_scale", "weighted_sum"]
