"""How dog and sparrow influence each other while a linear network learns what animals are, then what birds are (20 s).

python examples/influence_over_training.py --figure influence.png
"""

import argparse

import numpy as np
import torch
from torch import Tensor, nn

import sltfast
from sltfast.plotting.style import FAINT, LLC_COLOUR, LOSS_COLOUR, new_figure
from sltfast.tables import plus_minus, table
from sltfast.theory import Hierarchy

START, HIDDEN, RATE = 1e-3, 8, 0.01
LOCALIZATION = 1e6  # chains stay so near that losses are linear in the weights
MODES = ("all items", "animals | plants", "mammals | birds")


def squared_error(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Half the squared distance of each item's features."""
    x, y = batch
    return 0.5 * (model(x) - y).square().sum(dim=1)


def trained(tree: Hierarchy, data: tuple[Tensor, Tensor], steps: list[int]) -> dict[int, dict[str, Tensor]]:
    """Weights after each number of steps of gradient descent from small weights along the modes."""
    model = network(tree)
    with torch.no_grad():
        for layer, weight in zip(model, tree.weights(0.0, START, HIDDEN), strict=True):
            layer.weight.copy_(torch.from_numpy(weight))
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    kept = {}
    for step in range(max(steps) + 1):
        if step in steps:
            kept[step] = {name: weight.clone() for name, weight in model.state_dict().items()}
        optimizer.zero_grad()
        squared_error(model, data).mean().backward()
        optimizer.step()
    return kept


def network(tree: Hierarchy) -> nn.Sequential:
    features, items = tree.features.shape
    return nn.Sequential(nn.Linear(items, HIDDEN, bias=False), nn.Linear(HIDDEN, features, bias=False)).double()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoints", type=int, default=16)
    parser.add_argument("--draws", type=int, default=150, help="of each of 32 chains")
    parser.add_argument("--figure", default="influence_over_training.png", help="write the figure to this file")
    arguments = parser.parse_args()

    torch.set_num_threads(1)  # the model is too small for more
    tree = Hierarchy()
    data = torch.eye(len(tree.items)).double(), torch.from_numpy(tree.features.T.copy())
    span = tree.time_of(0, 0.01, START), tree.time_of(2, 0.9, START)
    steps = (np.linspace(*span, arguments.checkpoints) / RATE).round().astype(int).tolist()
    result = sltfast.influence_over_checkpoints(
        trained(tree, data, steps),
        data,
        {"items": (data, 1)},
        model=network(tree),
        loss_fn=squared_error,
        lr=2 / LOCALIZATION,  # a step at which the chains forget all, and their variance is twice that of small steps
        n_beta=1000.0,
        localization=LOCALIZATION,
        batch_size=len(tree.items),
        num_chains=32,
        num_draws=arguments.draws,
        num_burnin_steps=5,
    )
    pair = result.sel(query=tree.items.index("sparrow"), item=tree.items.index("dog"))
    influence, error = (pair[name].values * LOCALIZATION / 2 for name in ("influences", "influences_se"))
    times = np.array(steps) * RATE
    fine = np.linspace(*span, 400)
    exact = -tree.gradient_products(fine, START, HIDDEN)[:, tree.items.index("dog"), tree.items.index("sparrow")]
    at_steps = np.interp(times, fine, exact)
    learned = tree.strengths(times, START)[:, :3] / tree.s[:3]
    rows = [
        [str(step), plus_minus(value, se), f"{truth:.3f}", *(f"{share:.0%}" for share in shares)]
        for step, value, se, truth, shares in zip(steps, influence, error, at_steps, learned, strict=True)
    ]
    print(table(["step", "dog → sparrow, × γ", "exact", *MODES], rows))
    flip = fine[int(np.argmax(np.diff(np.sign(exact)) != 0))] / RATE
    print(f"\nuntil step {flip:.0f} more dogs help with sparrows (influence < 0), then they stand in the way")
    print(f"correlation with the exact course: {np.corrcoef(influence, at_steps)[0, 1]:.3f}")

    with new_figure(6.6, 5.0) as figure:
        above, below = figure.subplots(2, 1, sharex=True)
        shares = tree.strengths(fine, START)[:, :3] / tree.s[:3]
        for name, share, style in zip(MODES, shares.T, ("-", "--", ":"), strict=True):
            above.plot(fine / RATE, share, style, color=LOSS_COLOUR, label=name)
        above.set_ylabel("learned, of each mode")
        above.legend(loc="lower right")
        below.axhline(0, color=FAINT, linewidth=1)
        below.plot(fine / RATE, exact, color=FAINT, label="exact")
        below.errorbar(steps, influence, yerr=error, fmt="o", color=LLC_COLOUR, capsize=3, label="sampled ± SE")
        below.set_ylabel("influence of dog on sparrow, × γ")
        below.set_xlabel("training step")
        below.legend(loc="lower right")
    sltfast.plotting.save(figure, arguments.figure)


if __name__ == "__main__":
    main()
