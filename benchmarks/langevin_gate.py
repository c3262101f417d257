"""No ratio without equality: one step of ours, its noise given, against the formula written out in eager float64."""

import sys

import torch

from sltfast import ops
from sltfast.ops.langevin_arguments import MOMENTUM_METHODS, RMSPROP_METHODS

LR, N_BETA, GAMMA, FRICTION = 1e-3, 10.0, 100.0, 0.1


def refuse_unless_equal(methods: tuple[str, ...] = ops.METHODS, numel: int = 5000, chains: int = 3) -> None:
    """Exit with a message if a method's new weights differ from the formula by more than their rounding.

    float32 rounds the increment's terms and the sum: 8 roundings of terms below |w| + 1.
    """
    random = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(shape, generator=random)  # noqa: E731
    for method in methods:
        w, g, xi, anchor = draw(chains, numel), draw(chains, numel), draw(chains, numel), draw(numel)
        v = draw(chains, numel) ** 2 if method in RMSPROP_METHODS else None
        m = 0.02 * draw(chains, numel) if method in MOMENTUM_METHODS else None
        x = w.double()
        drift = N_BETA * g.double() + GAMMA * (x - anchor.double())
        precondition = torch.ones_like(x)
        if v is not None:
            mean = 0.99 * v.double() + 0.01 * g.double() ** 2
            if method == "rmsprop_sgld_hh":
                mean = mean / (1 - 0.99**4)
            precondition = 1 / (mean.sqrt() + 0.1)
        heat = FRICTION if m is not None else 1.0
        move = (heat * LR * precondition).sqrt() * xi.double() - 0.5 * LR * precondition * drift
        if m is not None:
            move = move + (1 - FRICTION) * m.double()
        expected = x + move
        hyper = torch.tensor([[LR, N_BETA, GAMMA, 0.0, 1.0, torch.inf]] * chains, dtype=torch.float64)
        thermostat = torch.full((chains,), FRICTION, dtype=torch.float64) if method == "sgnht" else None
        ops.langevin_step_(
            w, [g], [anchor], torch.tensor([[0, numel, 0, numel, 0]]), hyper, torch.tensor(3), torch.arange(chains),
            seed=1, method=method, v=v, momentum=m, thermostat=thermostat, noise=[xi], friction=FRICTION,
            backend="native",
        )  # fmt: skip
        worst = ((w - expected).abs() / (expected.abs() + 1)).max().item()
        if not worst < 8 * 2.0**-24:
            sys.exit(f"{method}: the step is off by {worst:.1e} of 1 + |w|; no time is worth reporting")
