"""A network on handwritten digits becomes more complex as it learns, and harder to compress (a minute).

    python examples/compressibility.py --figure compressibility.png

Along training: λ̂, and how far the weights can be quantised, factorised and pruned before the loss rises by a tolerance
(Urdshals et al. 2510.12077). The digits are scikit-learn's, 1,797 of 8 × 8 pixels.
"""

import argparse

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

import sltfast
from sltfast.analysis import critical_compression, rank_correlation
from sltfast.demo.checks import Checks
from sltfast.plotting.style import CHAIN_COLOURS, LLC_COLOUR, LOSS_COLOUR, new_figure
from sltfast.tables import number, plus_minus, table

SCHEMES = {"quantisation": "levels of a weight", "factorisation": "rank of a matrix", "pruning": "weights kept"}


def squared_error(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Half the squared distance from the digit's unit vector: a loss that does not saturate as cross-entropy does."""
    return 0.5 * (model(batch[0]) - batch[1]).square().sum(dim=1)


def digits() -> tuple[Tensor, Tensor]:
    found = load_digits()
    x = torch.tensor(found.data / 16, dtype=torch.float32)
    return x, nn.functional.one_hot(torch.tensor(found.target), 10).float()


def trained(data: tuple[Tensor, Tensor], hidden: int, steps: list[int]) -> tuple[nn.Module, dict[int, dict]]:
    """The network and its weights after each number of steps."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, hidden), nn.Tanh(), nn.Linear(hidden, 10))
        with torch.no_grad():
            model[0].weight.mul_(0.1)  # small, so that the rank of a matrix is that of what was learned
            model[2].weight.mul_(0.1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    generator = torch.Generator().manual_seed(1)
    kept = {}
    for step in range(max(steps) + 1):
        if step in steps:
            kept[step] = {name: value.clone() for name, value in model.state_dict().items()}
        rows = torch.randint(len(data[0]), (128,), generator=generator)
        optimizer.zero_grad()
        squared_error(model, (data[0][rows], data[1][rows])).mean().backward()
        optimizer.step()
    return model, kept


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=3000, help="of training")
    parser.add_argument("--checkpoints", type=int, default=10)
    parser.add_argument("--draws", type=int, default=300, help="of each of 4 chains")
    parser.add_argument("--tolerance", type=float, default=0.02, help="rise of the loss")
    parser.add_argument("--full", action="store_true", help="512 hidden units, 40 checkpoints, 2,000 draws")
    parser.add_argument("--figure", default="compressibility.png", help="write the figure to this file")
    arguments = parser.parse_args()
    hidden = 24
    if arguments.full:
        hidden, arguments.checkpoints, arguments.draws = 512, 40, 2000
    else:
        torch.set_num_threads(1)  # the model is too small for more

    data = digits()
    steps = sorted({round(step) for step in np.geomspace(4, arguments.steps, arguments.checkpoints)})
    model, kept = trained(data, hidden, steps)
    result = sltfast.over_checkpoints(
        kept,
        data,
        model=model,
        loss_fn=squared_error,
        lr=1e-4,
        n_beta=300.0,
        localization=300.0,
        num_burnin_steps=arguments.draws,
        num_draws=arguments.draws,
        batch_size=256,
    )

    def mean_loss(of: nn.Module) -> float:
        with torch.no_grad():
            return float(squared_error(of, data).mean())

    levels: dict[str, list[int]] = {scheme: [] for scheme in SCHEMES}
    for step in steps:
        model.load_state_dict(kept[step])
        for scheme, found in levels.items():
            found.append(critical_compression(model, mean_loss, arguments.tolerance, scheme).level)
    rows = [
        [str(step), number(float(at["init_loss"])), plus_minus(float(at["llc_mean"]), float(at["llc_se"]))]
        + [str(found[index]) for found in levels.values()]
        for index, step in enumerate(steps)
        for at in [result.isel(step=index)]
    ]
    print(table(["step", "loss", "λ̂", *SCHEMES.values()], rows))
    checks = Checks()
    llc = result["llc_mean"].values
    for scheme, found in levels.items():
        tau, chance = rank_correlation(llc, found)
        told = f"Spearman {tau:.2f} over {len(steps)} checkpoints; by chance with probability {chance:.1g}"
        checks.holds(f"what {scheme} leaves grows with λ̂", tau > 0.5, told)
    draw(steps, result, levels, arguments.figure)
    checks.finish()


def draw(steps: list[int], result, levels: dict[str, list[int]], path: str) -> None:
    with new_figure(9.0, 3.6) as figure:
        left, right = figure.subplots(1, 2)
        left.semilogx(steps, result["init_loss"].values, "s-", color=LOSS_COLOUR, label="loss")
        left.set(xlabel="training step", ylabel="loss")
        other = left.twinx()
        other.grid(False)
        llc, se = result["llc_mean"].values, result["llc_se"].values
        other.errorbar(steps, llc, yerr=se, fmt="o-", color=LLC_COLOUR, capsize=3, label="λ̂ ± SE (right)")
        figure.legend(loc="outside upper left", ncols=2)
        for colour, (scheme, found) in zip(CHAIN_COLOURS, levels.items(), strict=False):
            share = np.array(found) / max(found)
            right.plot(llc, share, "o", color=colour, label=f"{SCHEMES[scheme]} (of {max(found)})")
        right.set(xlabel="λ̂", ylabel="critical level, of the largest")
        right.legend(loc="upper left")
    sltfast.plotting.save(figure, path)


if __name__ == "__main__":
    main()
