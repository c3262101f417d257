"""Step size, temperature and localisation for a deep linear network whose learning coefficient is known (a minute).

python examples/sweep.py --figure sweep.png
"""

import argparse
import itertools

import torch
from torch import Tensor, nn

import sltfast
from sltfast.tables import number, plus_minus, table
from sltfast.theory import dln_learning_coefficient

WIDTHS, RANK, ROWS = (6, 6, 6), 2, 2048


def squared_error(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Half the squared distance, one loss a row: minus the log-likelihood at unit noise, up to a constant."""
    x, y = batch
    return 0.5 * (model(x) - y).square().sum(dim=1)


def network_and_data() -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    """A network of two layers whose product has rank 2, at its minimum, and inputs and outputs without noise."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(*(nn.Linear(a, b, bias=False) for a, b in itertools.pairwise(WIDTHS)))
    with torch.no_grad():
        for layer in model:
            layer.weight.zero_()
            layer.weight[:RANK, :RANK] = torch.eye(RANK)
    x = torch.randn(ROWS, WIDTHS[0], generator=generator)
    return model, (x, model(x).detach())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=3000, help="of each chain")
    parser.add_argument("--figure", default="sweep.png", help="write the heat map to this file")
    arguments = parser.parse_args()

    torch.set_num_threads(1)  # the model is too small for more
    model, data = network_and_data()
    result = sltfast.sweep(
        model,
        data,
        loss_fn=squared_error,
        lr=[1e-6, 1e-4, 2e-4, 4e-4, 1e-2],
        n_beta=[300.0, 1000.0],
        localization=[1.0, 10.0],
        num_chains=3,
        num_burnin_steps=arguments.draws // 3,
        num_draws=arguments.draws,
        batch_size=256,
    )
    cells = result.stack(cell=["lr", "n_beta", "localization"]).transpose("cell", ...)
    rows = []
    for index in range(cells.sizes["cell"]):
        cell = cells.isel(cell=index)
        mark = "→" if bool(cell["recommended"]) else ""
        settings = [f"{float(cell[name]):g}" for name in ("lr", "n_beta", "localization")]
        estimate = plus_minus(float(cell["llc_mean"]), float(cell["llc_se"]))
        diagnostics = [number(float(cell[name]), 3) for name in ("rhat", "ess", "drift")]
        rows.append([mark, *settings, estimate, *diagnostics, str(cell["verdict"].values)])
    print(table(["", "ε", "nβ", "γ", "λ̂ ± SE", "R̂", "ESS", "drift", "verdict"], rows))
    print(f"\n{result.attrs['recommendation']}")
    exact, _ = dln_learning_coefficient(WIDTHS, RANK)
    print(f"the learning coefficient λ of the true map, in theory: {exact:g}")
    sltfast.plotting.save(sltfast.plotting.sweep_heatmap(result), arguments.figure)


if __name__ == "__main__":
    main()
