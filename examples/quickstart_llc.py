"""The learning coefficient of a small regression network, in seconds: any module, any loss, with error bars.

python examples/quickstart_llc.py
"""

import argparse

import torch
from torch import Tensor, nn

import sltfast


def squared_error(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """One loss per row, shape [B]: what sltfast needs to know about a task."""
    x, y = batch
    return (model(x) - y).square().sum(dim=1)


def trained_network(x: Tensor, y: Tensor, steps: int) -> nn.Module:
    """A network at (nearly) a minimum of its loss: an LLC belongs to a minimum w*."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 1))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(steps):
        optimizer.zero_grad()
        squared_error(model, (x, y)).mean().backward()
        optimizer.step()
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--training-steps", type=int, default=1500)
    parser.add_argument("--draws", type=int, default=1000)
    parser.add_argument("--figure", help="write the traces to this file")
    arguments = parser.parse_args()

    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2048, 4, generator=generator)
    y = torch.sin(x[:, :1]) * x[:, 1:2] + 0.1 * torch.randn(2048, 1, generator=generator)
    model = trained_network(x, y, arguments.training_steps)

    result = sltfast.llc(
        model,
        (x, y),
        loss_fn=squared_error,
        lr=2e-4,
        n_beta=300.0,
        localization=100.0,
        num_chains=4,
        num_burnin_steps=200,
        num_draws=arguments.draws,
        batch_size=256,
    )
    parameters = sum(p.numel() for p in model.parameters())
    print(f"λ̂ = {float(result['llc_mean']):.2f} ± {float(result['llc_se']):.2f} (of {parameters} parameters)")
    print(f"R̂ = {float(result['rhat']):.3f}, ESS = {float(result['ess']):.0f}")
    print(f"{result.attrs['verdict']}: {result.attrs['advice']}")
    if arguments.figure:
        sltfast.plotting.save(sltfast.plotting.plot_trace(result), arguments.figure)


if __name__ == "__main__":
    main()
