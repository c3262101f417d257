"""Learning coefficients that theory knows, by temperature and by volume; the toy model's opposing staircases (2 min).

    python examples/foundations.py --figure foundations.png

Linear networks and reduced rank regression (λ of Aoyagi 2024, Aoyagi & Watanabe 2005) by the slope of E[L] against
1/nβ; monomials by the exponent of the volume of small losses; the polygons of the toy model of superposition (Chen et
al. 2310.06301), where loss falls from step to step and λ rises.
"""

import argparse
import itertools
import math
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

import sltfast
from sltfast import theory
from sltfast.analysis import VolumeExponent, volume_exponent
from sltfast.demo.checks import Checks
from sltfast.plotting.style import CHAIN_COLOURS, FAINT, LLC_COLOUR, LOSS_COLOUR, new_figure
from sltfast.tables import plus_minus, table

LINEAR = (([5, 3, 5], 2), ([6, 6, 6], 3), ([3, 2, 3], 1), ([4, 4, 4, 4], 2))
WIDE = (([20, 20, 20, 20], 5), ([10, 8, 6, 8, 10], 3))
MONOMIALS = (((1, 1), "w₁²w₂²"), ((1, 2), "w₁²w₂⁴"), ((2, 2), "w₁⁴w₂⁴"))
POLYGONS = (("5-gon", 5, -1.0), ("5⁺-gon", 5, 1 / 12), ("6-gon", 6, -1.0))
TEMPERATURES = [12500.0, 25000.0, 50000.0]


class Superposition(nn.Module):
    """W and b of a polygon; the loss needs no data, for its mean over them is known."""

    def __init__(self, point: theory.Polygon) -> None:
        super().__init__()
        self.weight = nn.Parameter(point.weight.float())
        self.bias = nn.Parameter(point.bias.float())


def population_loss(model: Superposition, batch: tuple[Tensor, ...]) -> Tensor:
    return theory.superposition_loss(model.weight, model.bias).expand(len(batch[0]))


def squared_error(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    """Half the squared distance, one loss a row."""
    x, y = batch
    return 0.5 * (model(x) - y).square().sum(dim=1)


def linear_network(widths: list[int], rank: int) -> tuple[nn.Module, tuple[Tensor, Tensor]]:
    """A network at a true map of the rank; inputs of covariance 1, so that L = ½|B_L ⋯ B_1 − B|² exactly."""
    model = nn.Sequential(*(nn.Linear(a, b, bias=False) for a, b in itertools.pairwise(widths)))
    with torch.no_grad():
        for layer in model:
            layer.weight.zero_()
            layer.weight[:rank, :rank] = torch.eye(rank)
    x = math.sqrt(widths[0]) * torch.eye(widths[0])
    return model, (x, model(x).detach())


def temperatures(model: nn.Module, data: Any, loss: Any, draws: int, scale: float, localization: float) -> xr.Dataset:
    """The slope of E[L] against 1/nβ; ε·nβ stays the same as nβ grows."""
    return sltfast.llc_temperatures(
        model,
        data,
        loss_fn=loss,
        lr=2e-6 / scale,
        n_betas=[scale * n_beta for n_beta in TEMPERATURES],
        localization=localization,
        sampling_method="sghmc",
        num_chains=8,
        num_burnin_steps=draws // 2,
        num_draws=draws,
        batch_size=len(data[0]),
        progress=False,
    )


def logarithms(multiplicity: int) -> float:
    """What m > 1 takes from the slope: d/dT of T·(m − 1)/log(1/T) at the middle temperature T = 1/nβ."""
    log = math.log(TEMPERATURES[1])
    return (multiplicity - 1) * (1 / log + 1 / log**2)


def linear_networks(cases: Any, draws: int, checks: Checks) -> dict[str, tuple[xr.Dataset, float]]:
    found, rows = {}, []
    for widths, rank in cases:
        name = "×".join(map(str, widths)) + f" rank {rank}"
        exact, m = theory.dln_learning_coefficient(widths, rank)
        model, data = linear_network(widths, rank)
        result = temperatures(model, data, squared_error, draws, 1.0, 1.0)
        slope, se = float(result["slope"]), float(result["slope_se"])
        rows.append([name, f"{exact:g}", str(m), plus_minus(slope, se), f"{float(result['slope_rhat']):.3f}"])
        # four standard errors, and 4 % for finite nβ and γ
        checks.within(f"λ of {name}", slope, exact - logarithms(m), 4 * se + 0.04 * exact)
        found[name] = result, exact
    print(table(["linear network", "λ", "m", "slope", "R̂"], rows))
    return found


def monomials(count: int, checks: Checks) -> dict[str, tuple[VolumeExponent, float]]:
    w = np.random.default_rng(0).uniform(-1, 1, (2, count))
    found = {}
    for k, name in MONOMIALS:
        exact, m = theory.monomial_learning_coefficient(k)
        fit = volume_exponent(w[0] ** (2 * k[0]) * w[1] ** (2 * k[1]), multiplicity=m, smallest=1000 / count)
        # four standard errors; with m = 2 the logarithm's constant is unknown, 3 % where −log ε is above 5
        checks.within(f"λ of {name} by volume", fit.exponent, exact, 4 * fit.se + 0.03 * exact * (m - 1))
        found[name] = fit, exact
    return found


def polygons(draws: int, checks: Checks) -> list[tuple[str, float, xr.Dataset, float]]:
    steps = []
    for name, corners, spare in POLYGONS:
        point = theory.superposition_polygon(corners, 6, spare)
        exact = theory.superposition_hessian_rank(point) / 2
        dummy = torch.zeros(1, 1)
        result = temperatures(Superposition(point), (dummy, dummy), population_loss, draws, 2.0, 100.0)
        slope, se = float(result["slope"]), float(result["slope_se"])
        checks.within(f"λ of the {name}", slope, exact, 4 * se + 0.04 * exact)
        steps.append((name, float(theory.superposition_loss(*point)), result, exact))
    losses = [loss for _, loss, _, _ in steps]
    checks.holds("the loss falls", losses == sorted(losses, reverse=True), " → ".join(f"{x:.4f}" for x in losses))
    slopes = [float(result["slope"]) for _, _, result, _ in steps]
    checks.holds("λ rises from the first", min(slopes[1:]) > slopes[0], " → ".join(f"{x:.2f}" for x in slopes))
    return steps


def draw(linear: Any, volumes: Any, steps: Any, path: str) -> None:
    with new_figure(10.5, 3.4) as figure:
        left, middle, right = figure.subplots(1, 3)
        for colour, (name, (result, exact)) in zip(CHAIN_COLOURS, linear.items(), strict=False):
            t = 1e5 / result["n_beta"].values
            y = 1e5 * (result["mean_excess"].values - float(result["intercept"]))
            left.errorbar(
                t, y, yerr=1e5 * result["mean_excess_se"].values, fmt="o", color=colour, capsize=2, label=name
            )
            left.plot([0, t.max()], [0, exact * t.max()], color=colour, linewidth=1)
        left.set(
            xlabel="temperature 1/nβ, × 10⁻⁵", ylabel="E[L] − intercept, × 10⁻⁵ nats", title="slope λ; lines: theory"
        )
        for colour, (name, (fit, exact)) in zip(CHAIN_COLOURS, volumes.items(), strict=False):
            middle.loglog(
                fit.thresholds, fit.volumes, "o", color=colour, markersize=3.5, label=f"{name}: λ = {exact:g}"
            )
            m = 1 if name == "w₁²w₂⁴" else 2
            line = fit.thresholds**exact * (-np.log(fit.thresholds)) ** (m - 1)
            middle.loglog(fit.thresholds, line * fit.volumes[-1] / line[-1], color=colour, linewidth=1)
        middle.set_xlim(left=1e-24)  # room for the legend
        middle.set(xlabel="threshold ε", ylabel="volume V(ε)", title="exponent λ; lines: theory")
        at = np.arange(len(steps))
        right.plot(at, [loss for _, loss, _, _ in steps], "s-", color=LOSS_COLOUR)
        right.set_ylabel("loss", color=LOSS_COLOUR)
        right.set(ylim=(0.03, 0.085), xlim=(-0.4, 2.4), title="opposing staircases")
        right.set_xticks(at, [name for name, *_ in steps])
        other = right.twinx()
        other.grid(False)
        other.hlines(
            [exact for *_, exact in steps], at - 0.3, at + 0.3, color=FAINT, linewidth=4, label="λ: rank H / 2"
        )
        slopes = [(float(r["slope"]), float(r["slope_se"])) for _, _, r, _ in steps]
        other.errorbar(at, *np.transpose(slopes), fmt="o", color=LLC_COLOUR, capsize=3, label="λ: slope ± SE")
        other.set_ylim(5, 9.5)
        for axes, where in ((left, "upper left"), (middle, "upper left"), (other, "lower center")):
            axes.legend(loc=where, fontsize=8)
    sltfast.plotting.save(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=8000, help="of each of 8 chains a temperature")
    parser.add_argument("--networks", type=int, default=len(LINEAR), help="how many of the linear networks")
    parser.add_argument("--samples", type=int, default=2_000_000, help="of the prior, for volumes")
    parser.add_argument("--full", action="store_true", help="wider and deeper networks and ten times the draws")
    parser.add_argument("--figure", default="foundations.png", help="write the figure to this file")
    arguments = parser.parse_args()

    torch.set_num_threads(1)  # the models are too small for more
    checks = Checks()
    draws = arguments.draws * (10 if arguments.full else 1)
    linear = linear_networks(LINEAR[: arguments.networks] + (WIDE if arguments.full else ()), draws, checks)
    volumes = monomials(arguments.samples, checks)
    steps = polygons(draws, checks)
    draw(linear, volumes, steps, arguments.figure)
    checks.finish()


if __name__ == "__main__":
    main()
