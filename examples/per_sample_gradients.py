"""Which rows a small language model has trouble with, and how noisy its mini-batches are, in seconds.

python examples/per_sample_gradients.py
"""

import argparse

import torch
from torch import Tensor, nn

from sltfast import default_nbeta, per_sample
from sltfast.extras import require

VOCABULARY, TOKENS = 32, 24


def sequences(rows: int, corrupted: int) -> Tensor:
    """Rows that count upwards from some token by some step, [rows, TOKENS]; the first few are noise instead."""
    generator = torch.Generator().manual_seed(1)
    start, step = torch.randint(0, VOCABULARY, (2, rows, 1), generator=generator)
    ids = (start + (1 + step % 5) * torch.arange(TOKENS)) % VOCABULARY
    ids[:corrupted] = torch.randint(0, VOCABULARY, (corrupted, TOKENS), generator=generator)
    return ids


def mean_loss(model: nn.Module, ids: Tensor) -> Tensor:
    """Next-token cross-entropy, for training; per_sample has its own."""
    return nn.functional.cross_entropy(model(ids).logits[:, :-1].flatten(0, 1), ids[:, 1:].flatten())


def trained_gpt2(ids: Tensor, steps: int) -> nn.Module:
    """GPT-2 with 2 layers; its embedding and unembedding are one weight, used twice."""
    transformers = require("transformers", extra="hf", purpose="to build GPT-2")
    config = transformers.GPT2Config(
        vocab_size=VOCABULARY, n_embd=48, n_layer=2, n_head=4, n_positions=TOKENS, bos_token_id=0, eos_token_id=0
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.GPT2LMHeadModel(config).eval()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(2)
    for _ in range(steps):
        batch = ids[torch.randint(0, len(ids), (32,), generator=generator)]
        optimizer.zero_grad()
        mean_loss(model, batch).backward()
        optimizer.step()
    optimizer.zero_grad()
    return model


def norm_alone(model: nn.Module, row: Tensor) -> float:
    """|∇ℓ| of one row by autograd."""
    gradients = torch.autograd.grad(mean_loss(model, row[None]), list(model.parameters()))
    return float(torch.stack([g.square().sum() for g in gradients]).sum().sqrt())


def draw(norms: Tensor, corrupted: int, path: str) -> None:
    pyplot = require("matplotlib.pyplot", extra="plots", purpose="to draw the figure")
    figure, axes = pyplot.subplots(figsize=(6, 3.5), layout="constrained")
    bins = torch.linspace(0, float(norms.max()), 40).numpy()
    axes.hist(norms[corrupted:].numpy(), bins, label="counting", alpha=0.7)
    axes.hist(norms[:corrupted].numpy(), bins, label="noise", alpha=0.7)
    axes.set_xlabel("gradient norm of a row |∇ℓ|")
    axes.set_ylabel("rows")
    axes.legend()
    figure.savefig(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=512)
    parser.add_argument("--steps", type=int, default=300, help="of training")
    parser.add_argument("--figure", help="write a histogram of the norms to this file")
    arguments = parser.parse_args()

    torch.set_num_threads(1)  # the model is too small for more
    corrupted = arguments.rows // 16
    ids = sequences(arguments.rows, corrupted)
    model = trained_gpt2(ids, arguments.steps)

    norms = per_sample.gradient_norms(model, ids)
    alone = norm_alone(model, ids[0])
    print(f"equal to autograd's on a batch of one: {abs(float(norms[0]) - alone) < 1e-4 * alone}")
    top = norms.topk(corrupted).indices
    print(f"of the {corrupted} rows with the largest gradients {int((top < corrupted).sum())} are noise")

    gradient = per_sample.weighted_sum(model, ids)  # the mean loss's own
    against = per_sample.inner_products(model, ids, gradient) < 0
    print(f"{int(against.sum())} of {arguments.rows} rows pull against the mean gradient")

    noise = per_sample.noise_scale(model, ids, batch_size=32, lr=1e-4, n_beta=default_nbeta(len(ids)))
    print(f"noise scale tr Σ/|G|² = {noise.noise_scale:.0f} rows; {noise.advice()}")
    if arguments.figure:
        draw(norms, corrupted, arguments.figure)


if __name__ == "__main__":
    main()
