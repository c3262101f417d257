"""How items influence each other while a network learns what they share: influence peaks, and changes sign. (2 minutes)

A deep linear network learns a hierarchy level by level, at times that theory knows: the influence of dog on sparrow
peaks as each level that they share is learned, and changes sign in between. A small language model: how much the
tokens of one kind influence each other, kind by kind, along training (Lee et al. 2510.12071).

python examples/influence_dynamics.py --figure influence_dynamics.png
"""

import argparse
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

import sltfast
from sltfast.analysis import Course, course
from sltfast.demo.checks import Checks
from sltfast.demo.kinds import KINDS, VOCABULARY, known_text
from sltfast.demo.language_model import trained_language_model
from sltfast.plotting.style import CHAIN_COLOURS, FAINT, LLC_COLOUR, LOSS_COLOUR, new_figure
from sltfast.tables import plus_minus, table
from sltfast.theory import Hierarchy

START, HIDDEN, RATE = 1e-3, 8, 0.01
LOCALIZATION = 1e6  # chains stay so near that losses are linear in the weights
BATCH = 8  # rows of text a step, and the unit in which rows that influence each other are read
MODES = ("all items", "animals | plants", "mammals | birds")


@dataclass(frozen=True)
class Pair:
    """The influence of dog on sparrow, × γ, by step: sampled, and exact on a fine grid."""

    steps: np.ndarray
    sampled: np.ndarray
    error: np.ndarray
    fine: np.ndarray
    exact: np.ndarray
    shares: np.ndarray  # [fine, 3], learned of each mode


def squared_error(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Half the squared distance of each item's features."""
    x, y = batch
    return 0.5 * (model(x) - y).square().sum(dim=1)


def network(tree: Hierarchy) -> nn.Sequential:
    features, items = tree.features.shape
    return nn.Sequential(nn.Linear(items, HIDDEN, bias=False), nn.Linear(HIDDEN, features, bias=False)).double()


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


def dog_on_sparrow(tree: Hierarchy, checkpoints: int, draws: int) -> Pair:
    """Influence along the training of a linear network, beside its closed form at high γ."""
    data = torch.eye(len(tree.items)).double(), torch.from_numpy(tree.features.T.copy())
    span = tree.time_of(0, 0.01, START), tree.time_of(2, 0.9, START)
    steps = (np.linspace(*span, checkpoints) / RATE).round().astype(int).tolist()
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
        num_draws=draws,
        num_burnin_steps=5,
        progress=False,
    )
    dog, sparrow = tree.items.index("dog"), tree.items.index("sparrow")
    pair = result.sel(query=sparrow, item=dog)
    influence, error = (pair[name].values * LOCALIZATION / 2 for name in ("influences", "influences_se"))
    fine = np.linspace(*span, 2000)
    exact = -tree.gradient_products(fine, START, HIDDEN)[:, dog, sparrow]
    shares = tree.strengths(fine, START)[:, :3] / tree.s[:3]
    return Pair(np.array(steps), influence, error, fine / RATE, exact, shares)


def check_hierarchy(checks: Checks, tree: Hierarchy, pair: Pair) -> Course:
    """The sampled course against the closed form, and its peaks against the times at which levels are learned."""
    at_steps = np.interp(pair.steps, pair.fine, pair.exact)
    learned = tree.strengths(pair.steps * RATE, START)[:, :3] / tree.s[:3]
    rows = [
        [str(step), plus_minus(value, se), f"{truth:.3f}", *(f"{share:.0%}" for share in shares)]
        for step, value, se, truth, shares in zip(pair.steps, pair.sampled, pair.error, at_steps, learned, strict=True)
    ]
    print(table(["step", "dog → sparrow, × γ", "exact", *MODES], rows))
    found, theory = course(pair.steps, pair.sampled, pair.error), course(pair.fine, pair.exact)
    far = float((np.abs(pair.sampled - at_steps) / pair.error).max())
    checks.holds("sampled influence is the exact one (4 SE)", far < 4, f"at most {far:.1f} SE apart")
    shown = f"{found.peaks.round(3).tolist()}"
    checks.holds("it is negative, then positive", np.sign(found.peaks).tolist() == [-1, 1], f"peaks {shown}")
    if len(found.peaks) != 2:
        return found
    apart = float(pair.steps[1] - pair.steps[0])  # what lies between two checkpoints is read off a line or a parabola
    zero = float(theory.sign_changes[0])
    slope = abs(float(np.gradient(pair.exact, pair.fine)[np.searchsorted(pair.fine, zero)]))
    wander = 4 * float(np.interp(zero, pair.steps, pair.error)) / slope
    checks.within("step of the sign change", found.sign_changes[0], zero, apart / 2 + wander)
    for mode, (step, exact) in enumerate(zip(found.peak_times, theory.peak_times, strict=True)):
        checks.within(f"step of peak {mode + 1}", step, exact, apart)
        first, last = (tree.time_of(mode, share, START) / RATE for share in (0.1, 0.9))
        while_learned = f"{first:.0f} < {step:.0f} < {last:.0f}"
        checks.holds(f"peak while '{MODES[mode]}' goes from 10% to 90%", first < step < last, while_learned)
    return found


def language_model(steps: int, count: int, draws: int, rows: int) -> xr.Dataset:
    """Influence of kinds of tokens on each other (correlations), at checkpoints of a small transformer's training."""
    text, probe = known_text(1024, seed=0), known_text(rows, seed=1)
    when = {int(step) for step in np.geomspace(10, steps - 1, count).round()}
    kept = {}

    def watch(step: int, model: nn.Module) -> None:
        if step in when:
            kept[step] = {name: weight.detach().clone() for name, weight in model.state_dict().items()}

    model = trained_language_model(text.tokens, vocabulary=VOCABULARY, steps=steps, hidden_size=32, watch=watch)
    kinds, labels, observables = torch.from_numpy(probe.kinds), {}, {}
    for number, name in enumerate(KINDS):
        of_kind = (kinds == number) & (torch.arange(kinds.shape[1]) > 0)
        has = of_kind.any(dim=1)  # a sequence's loss is the mean over its tokens of this kind
        targets = torch.where(of_kind, probe.tokens, -100)
        observables[name] = ({"input_ids": probe.tokens[has], "labels": targets[has]}, int(has.sum()) // BATCH)
        labels[name] = [name] * int(has.sum())
    return sltfast.influence_over_checkpoints(
        kept,
        {"input_ids": text.tokens, "labels": text.tokens},
        observables,
        labels=labels,
        exclude_self=True,
        normalize=True,
        model=model,
        lr=1e-4,
        n_beta=30.0,
        localization=300.0,
        batch_size=BATCH,
        num_chains=4,
        num_draws=draws,
        num_burnin_steps=20,
        progress=False,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoints", type=int, default=16)
    parser.add_argument("--draws", type=int, default=150, help="of each of 32 chains")
    parser.add_argument("--steps", type=int, default=1200, help="of the language model's training")
    parser.add_argument("--text-draws", type=int, default=60, help="of each of 4 chains of the language model")
    parser.add_argument("--rows", type=int, default=32, help="32 or more, of text whose tokens influence each other")
    parser.add_argument("--full", action="store_true", help="a longer training, 24 checkpoints, for a GPU")
    parser.add_argument("--figure", default="influence_dynamics.png", help="write the figure to this file")
    arguments = parser.parse_args()
    if arguments.full:
        arguments.checkpoints, arguments.steps, arguments.text_draws, arguments.rows = 24, 10_000, 500, 256

    torch.set_num_threads(1)  # the models are too small for more
    checks, tree = Checks(), Hierarchy()
    pair = dog_on_sparrow(tree, arguments.checkpoints, arguments.draws)
    check_hierarchy(checks, tree, pair)
    result = language_model(arguments.steps, min(arguments.checkpoints, 12), arguments.text_draws, arguments.rows)
    same = {name: result.sel(group_1=name, group_2=name) for name in KINDS}
    rows = [
        [
            str(step),
            *(plus_minus(*(float(one[key][at]) for key in ("influences", "influences_se"))) for one in same.values()),
        ]
        for at, step in enumerate(result["step"].values)
    ]
    print("\na language model: influence of tokens on others of their kind, −R")
    print(table(["step", *KINDS], rows))
    draw(arguments.figure, pair, same)
    checks.finish()


def draw(path: str, pair: Pair, same: dict[str, xr.Dataset]) -> None:
    """The modes and the influence of dog on sparrow; kinds of tokens, each on itself."""
    with new_figure(9.0, 4.6) as figure:
        grid = figure.add_gridspec(2, 2)
        above, below, right = (figure.add_subplot(part) for part in (grid[0, 0], grid[1, 0], grid[:, 1]))
        for name, share, style in zip(MODES, pair.shares.T, ("-", "--", ":"), strict=True):
            above.plot(pair.fine, share, style, color=LOSS_COLOUR, label=name)
        above.set_ylabel("learned, of each mode")
        above.legend(loc="lower right")
        below.axhline(0, color=FAINT, linewidth=1)
        below.plot(pair.fine, pair.exact, color=FAINT, label="exact")
        below.errorbar(pair.steps, pair.sampled, yerr=pair.error, fmt="o", color=LLC_COLOUR, markersize=4, capsize=2)
        below.set_ylabel("dog on sparrow, × γ")
        below.set_xlabel("step of a linear network's training")
        right.axhline(0, color=FAINT, linewidth=1)
        for (name, values), colour in zip(same.items(), CHAIN_COLOURS, strict=False):
            steps, mean, error = values["step"].values, values["influences"].values, values["influences_se"].values
            right.errorbar(steps, mean, yerr=error, color=colour, marker="o", markersize=3, capsize=2, label=name)
        right.set_xscale("log")
        right.set_xlabel("step of a language model's training")
        right.set_ylabel("influence on tokens of the same kind, −R")
        right.legend()
    sltfast.plotting.save(figure, path, dpi=100)


if __name__ == "__main__":
    main()
