"""Random arguments of `ops.langevin_step_`, with NaN wherever the op must not look or must write."""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sltfast import _C, ops

ISAS: list[str] = _C.build_facts()["isa_runnable"]
WIDEST = ISAS[-1]
SIZES = (0, 1, 3, 4, 5, 63, 1000, 2051)  # across the vector widths, the chunk of 1024 and their tails
STATE = {  # what a method keeps beside w, shaped like it: made up as scale times a power of a normal
    "sgld": {},
    "rmsprop_sgld": {"v": (1.0, 2)},
    "rmsprop_sgld_hh": {"v": (1.0, 2)},
    "sghmc": {"momentum": (0.02, 1)},  # √(ε/2) at the ε of `make_case`
    "sgnht": {"momentum": (0.02, 1)},
}
EPSILON = {torch.float32: 2.0**-23, torch.float64: 2.0**-52}


@dataclass
class Case:
    """Arguments of one call; `run` leaves them alone."""

    w: Tensor
    grads: list[Tensor]
    anchors: list[Tensor]
    segments: Tensor
    hyper: Tensor
    step: Tensor
    chains: Tensor
    keywords: dict[str, Any] = field(default_factory=dict)

    def run(self, backend: str = "native", **changes: Any) -> "Case":
        """A copy on which the op has run."""
        after = copy.deepcopy(self)
        after.keywords |= changes
        ops.langevin_step_(
            after.w,
            after.grads,
            after.anchors,
            after.segments,
            after.hyper,
            after.step,
            after.chains,
            backend=backend,
            **after.keywords,
        )
        return after

    def rows(self, of: Tensor | None = None) -> list[Tensor]:
        """[C, n_s] of every segment of `w` (or of a tensor like it)."""
        of = self.w if of is None else of
        return [of[:, o : o + n] for o, n in self.segments[:, :2].tolist()]

    def one_chain(self, c: int) -> "Case":
        """Chain c alone."""
        one = copy.deepcopy(self)
        one.w, one.hyper, one.chains = one.w[c : c + 1].clone(), one.hyper[c : c + 1], one.chains[c : c + 1]
        one.grads = [g.reshape(len(self.chains), -1)[c] if g.numel() else g for g in one.grads]
        for name in ("v", "momentum", "thermostat", "loss", "alive", "death_step", "metrics"):
            if one.keywords.get(name) is not None:
                one.keywords[name] = one.keywords[name][c : c + 1].clone()
        for name in ("low", "noise"):
            if one.keywords.get(name):
                one.keywords[name] = [x[c : c + 1].clone() for x in one.keywords[name]]
        return one


def poisoned(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """NaN everywhere."""
    return torch.full(shape, math.nan, dtype=dtype)


def make_case(
    sizes: Sequence[int] = SIZES,
    *,
    chains: int = 3,
    dtype: torch.dtype = torch.float32,
    grad_dtype: torch.dtype | None = None,
    anchor_dtype: torch.dtype | None = None,
    low_dtype: torch.dtype | None = None,
    method: str = "sgld",
    masked: bool = False,
    external_noise: bool = False,
    measured: bool = True,
    box: float = math.inf,
    runs: tuple[int, int] | None = None,
    seed: int = 0,
) -> Case:
    """Segments of the given sizes with odd gaps of NaN between them, so that no row or segment is aligned.

    `runs` = (run, stride) turns every segment into a slice; without it a segment is a whole tensor. Hyperparameters
    differ by chain.
    """
    random = torch.Generator().manual_seed(seed)

    def normal(*shape: int, dtype: torch.dtype = dtype) -> Tensor:
        return torch.randn(shape, generator=random, dtype=torch.float64).to(dtype)

    rows, offset, element = [], 1, 2
    for n in sizes:
        run, stride = runs if runs and n else (max(n, 1), 0)
        rows.append((offset, n, element, run, stride))
        offset += n + 3
        element += (n // run + 1) * max(stride, n) + 5
    segments = torch.tensor(rows, dtype=torch.int64).reshape(-1, 5)
    w = poisoned(chains, offset, dtype=dtype)
    anchors = [normal(n, dtype=anchor_dtype or dtype) for n in sizes]
    for (start, n, *_), anchor in zip(rows, anchors, strict=True):
        w[:, start : start + n] = anchor.to(dtype) + 0.1 * normal(chains, n)
    hyper = torch.tensor(
        [[1e-3 * (1 + c), 10.0 + c, 5.0 * c, 0.5 * c, 1.0 + 0.5 * c, box] for c in range(chains)],
        dtype=torch.float64,
    ).reshape(-1, 6)
    keywords: dict[str, Any] = {"seed": 1234567890123 + seed, "method": method}
    keywords["alive"] = torch.ones(chains, dtype=torch.bool)
    keywords["death_step"] = torch.full((chains,), -1)
    if measured:
        keywords["metrics"] = poisoned(chains, 9, dtype=torch.float64)
    for name, (scale, power) in STATE[method].items():
        keywords[name] = poisoned(chains, offset, dtype=dtype)
        for start, n, *_ in rows:
            keywords[name][:, start : start + n] = scale * normal(chains, n) ** power
    if method == "sgnht":
        keywords["thermostat"] = 0.2 + 0.1 * torch.arange(chains, dtype=torch.float64)
    if low_dtype is not None:
        keywords["low"] = [poisoned(chains, n, dtype=low_dtype) for n in sizes]
    if masked:
        keywords["masks"] = [torch.rand(n, generator=random) < 0.5 for n in sizes]
    if external_noise:
        keywords["noise"] = [normal(chains, n) for n in sizes]
    return Case(
        w=w,
        grads=[normal(chains, n, dtype=grad_dtype or dtype) for n in sizes],
        anchors=anchors,
        segments=segments,
        hyper=hyper,
        step=torch.tensor(7),
        chains=torch.arange(chains) * 3 + 1,
        keywords=keywords,
    )


def positional(case: Case) -> tuple[Any, ...]:
    """The op's arguments in the schema's order."""
    k = case.keywords
    return (
        case.w, case.grads, case.anchors, case.segments, case.hyper, case.step, case.chains,
        k["seed"], 0, k["method"], k.get("v"), k.get("momentum"), k.get("thermostat"),
        k.get("low", []), k.get("masks", []), k.get("loss"),
        k.get("alive"), k.get("death_step"), k.get("metrics"), k.get("noise", []), 0.99, 0.1,
        k.get("friction", 0.1), k.get("stochastic_rounding", False),
    )  # fmt: skip


def rounding_bound(before: Case, noise_error: float) -> list[Tensor]:
    """How far two correct steps may lie apart, [C, n_s] a segment.

    u = eps/2 is half an ulp. Each side rounds the new w once (2·u·|w| together). The native side forms the increment
    in w's precision: six roundings on the longest path of the drift (difference, prior, d, √G's two, product) and six
    in G itself (v, correction, root, sum, quotient, root), each at most u relative, and the noise product likewise;
    the normal itself is within `noise_error`. A momentum adds its own rounded product, (1 − ζ) being rounded too.
    """
    u = EPSILON[before.w.dtype] / 2
    bounds = []
    keywords = before.keywords
    columns = before.hyper.unsqueeze(-1).unbind(1)
    lr, n_beta, gamma, decay, sigma, _ = columns  # [C, 1] each
    count = len(before.chains)
    friction = keywords.get("friction", 0.1) if keywords["method"] in ("sghmc", "sgnht") else 1.0
    for s, w in enumerate(before.rows()):
        w = w.double()
        g = before.grads[s].reshape(count, -1).double() if before.grads[s].numel() else torch.zeros_like(w)
        anchor = before.anchors[s].reshape(-1).double()
        precondition = torch.ones_like(w)
        if keywords.get("v") is not None:
            alpha, eps = keywords.get("rms_alpha", 0.99), keywords.get("rms_eps", 0.1)
            v = alpha * before.rows(keywords["v"])[s].double() + (1 - alpha) * g * g
            if keywords["method"] == "rmsprop_sgld_hh":
                v = v / (1 - alpha ** (int(before.step) + 1))
            precondition = 1 / (v.sqrt() + eps)
        drift = lr / 2 * precondition * (n_beta * g.abs() + gamma * (w - anchor).abs() + decay * w.abs())
        kick = (friction * lr * precondition).sqrt() * sigma
        if keywords.get("momentum") is not None:
            drift = drift + before.rows(keywords["momentum"])[s].double().abs()  # 0 <= 1 − ζ <= 1
        reach = w.abs() + anchor.abs() + drift + 7 * kick  # no |ξ| exceeds √(64 ln 2) < 7
        bounds.append(2 * u * reach + 12 * u * (drift + 7 * kick) + kick * noise_error)
    return bounds
