"""λ̂ of one- and two-dimensional potentials by numerical quadrature: the truth without a closed form."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .checks import above_zero, at_least_zero

__all__ = ["quadrature_llc", "quadrature_llc_sgld"]

Array = NDArray[np.float64]

NEGLIGIBLE = 45.0  # e^−45 of the peak density is below double precision
GRADINGS = (1e-6, 1e-2)  # finest scale of the nodes over the radius: spikes at w*, then ridges away from it
MOST_NODES = {1: 2**17, 2: 2**12}
PANEL = 16  # Gauss–Legendre nodes a panel


def quadrature_llc(
    potential: Callable[..., ArrayLike],
    n_beta: float,
    localization: float = 0.0,
    *,
    center: float | Sequence[float] = 0.0,
    radius: float | None = None,
    tolerance: float = 1e-5,
) -> float:
    """λ̂ of the localized posterior of a potential in one or two dimensions, by quadrature.

        λ̂ = nβ (E[L] − L(w*)),    E over p(w) ∝ exp(−nβ L(w) − ½ γ |w − w*|²) on |w_i − w*_i| <= R.

    Composite Gauss–Legendre in u with w − w* = s sinh u, so the nodes resolve a spike at w* of any width;
    their number is doubled until two successive values agree.

    Args:
        potential: L, called with one array of coordinates per dimension (broadcastable against each other),
            returning L.
        n_beta: nβ >= 0.
        localization: γ >= 0.
        center: w*, one number or two.
        radius: R > 0; with γ > 0 it may be omitted and is then √(90/γ), beyond which the density is < e^−45.
        tolerance: two successive values must agree to tolerance · (1 + |λ̂|).

    Returns:
        λ̂, about a digit better than `tolerance`.

    Raises:
        ValueError: a bad argument, no radius at γ = 0, or a potential that is not finite on the domain.
        ArithmeticError: no convergence: the potential is too rough for the largest rule.
    """
    n_beta = at_least_zero("n_beta", n_beta)
    gamma = at_least_zero("localization", localization)
    origin = np.atleast_1d(np.asarray(center, dtype=np.float64))
    if origin.shape not in ((1,), (2,)):
        raise ValueError(f"center must be one number or two (1-D and 2-D potentials only), got {center!r}")
    reach = domain_radius(gamma, radius)
    for grading in GRADINGS:
        nodes, last = 128, float("nan")
        while nodes <= MOST_NODES[len(origin)]:
            value = graded_mean(potential, n_beta, gamma, origin, reach, grading, nodes)
            if abs(value - last) <= tolerance * (1 + abs(value)):
                return value
            nodes, last = 2 * nodes, value
    raise ArithmeticError(
        f"the quadrature did not reach tolerance={tolerance:g} with {MOST_NODES[len(origin)]} nodes a "
        "dimension (use a smaller radius or n_beta, or a larger tolerance)"
    )


def quadrature_llc_sgld(
    potential: Callable[[Array], ArrayLike],
    gradient: Callable[[Array], ArrayLike],
    n_beta: float,
    localization: float,
    lr: float,
    *,
    center: float = 0.0,
    radius: float | None = None,
) -> float:
    """Stationary λ̂ of full-batch SGLD at step ε on a one-dimensional potential: the step bias included.

    The stationary density of the Markov chain w' = w − (ε/2)(nβ L'(w) + γ (w − w*)) + √ε ξ solves

        π(w') = ∫ N(w'; w − (ε/2)(nβ L'(w) + γ (w − w*)), ε) π(w) dw,

    discretised on a grid of spacing √ε/3, where the trapezoidal rule is exact to rounding (Nyström). The
    domain is where the posterior exceeds e^−45 of its peak: SGLD on potentials steeper than a parabola has no
    stationary law beyond.

    Args:
        potential: L on an array of w.
        gradient: L' on an array of w.
        n_beta: nβ >= 0.
        localization: γ >= 0.
        lr: ε > 0.
        center: w*.
        radius: half width of the interval searched for the domain; with γ > 0 it may be omitted.

    Returns:
        nβ (E_π[L] − L(w*)).

    Raises:
        ValueError: a bad argument, a potential that is not finite, or a step so small or large that the grid
            would not fit the domain (more than 8000 points) or the chain would leave it.
    """
    n_beta = at_least_zero("n_beta", n_beta)
    gamma = at_least_zero("localization", localization)
    step = above_zero("lr", lr)
    reach = domain_radius(gamma, radius)
    zero = float(np.asarray(potential(np.array([center])))[0])

    coarse = np.linspace(-reach, reach, 100_001)
    energy = n_beta * (finite(potential(center + coarse)) - zero) + 0.5 * gamma * coarse**2
    width = float(np.max(np.abs(coarse[energy < energy.min() + NEGLIGIBLE]))) + 6 * step**0.5
    count = 2 * int(np.ceil(3 * width / step**0.5)) + 1
    if count > 8000:
        raise ValueError(f"lr={lr!r} needs {count} > 8000 grid points over ±{width:.3g} (use a larger lr)")
    offset = np.linspace(-width, width, count)
    mean = offset - step / 2 * (n_beta * finite(gradient(center + offset)) + gamma * offset)
    inside = np.abs(offset) <= width - 6 * step**0.5
    if np.max(np.abs(mean[inside])) > np.max(np.abs(offset[inside])):
        raise ValueError(f"lr={lr!r} is too large: a step from the edge of the posterior overshoots it")

    kernel = np.exp(-((offset[None, :] - mean[:, None]) ** 2) / (2 * step))  # [from, to]
    kernel /= np.maximum(kernel.sum(axis=1, keepdims=True), np.finfo(float).tiny)
    # π (P − 1) = 0 with Σ π = 1 in place of one of the dependent equations.
    system = kernel.T - np.eye(count)
    system[count // 2] = 1.0
    unit = np.zeros(count)
    unit[count // 2] = 1.0
    density = np.linalg.solve(system, unit)
    return float(n_beta * (density @ finite(potential(center + offset)) - zero))


def domain_radius(gamma: float, radius: float | None) -> float:
    """The radius given, or the one beyond which the localization alone makes the density negligible."""
    if radius is not None:
        return above_zero("radius", radius)
    if gamma == 0.0:
        raise ValueError("radius must be given when localization is 0 (nothing else bounds the domain)")
    return float(np.sqrt(2 * NEGLIGIBLE / gamma))


def graded_mean(
    potential: Callable[..., ArrayLike],
    n_beta: float,
    gamma: float,
    origin: Array,
    reach: float,
    grading: float,
    nodes: int,
) -> float:
    """nβ (E[L] − L(w*)) by the rule w − w* = s sinh u, s = grading · reach, `nodes` nodes a dimension."""
    offset, weight = graded_rule(reach, grading, nodes)
    zero = float(np.asarray(potential(*(np.array([o]) for o in origin))).reshape(-1)[0])
    peak, mass, moment = -np.inf, 0.0, 0.0
    blocks = max(1, nodes * nodes // 2**20) if len(origin) == 2 else 1
    for row in np.array_split(np.arange(nodes), blocks):
        if len(origin) == 1:
            drop = finite(potential(origin[0] + offset)) - zero
            square, measure = offset**2, weight
        else:
            first: Any = offset[row][:, None]
            drop = finite(potential(origin[0] + first, origin[1] + offset[None, :])) - zero
            square, measure = first**2 + offset[None, :] ** 2, weight[row][:, None] * weight[None, :]
        exponent = -n_beta * drop - 0.5 * gamma * square
        top = max(peak, float(exponent.max()))
        density = np.exp(exponent - top) * measure
        rescale = np.exp(peak - top)
        mass = mass * rescale + float(density.sum())
        moment = moment * rescale + float((density * drop).sum())
        peak = top
    return n_beta * moment / mass


def graded_rule(reach: float, grading: float, nodes: int) -> tuple[Array, Array]:
    """Nodes and weights on [−reach, reach], composite Gauss–Legendre in u = asinh(w/s)."""
    point, gauss = np.polynomial.legendre.leggauss(PANEL)
    scale = grading * reach
    edge = np.linspace(-np.arcsinh(1 / grading), np.arcsinh(1 / grading), nodes // PANEL + 1)
    half = np.diff(edge) / 2
    u = ((edge[:-1] + half)[:, None] + half[:, None] * point).ravel()
    return scale * np.sinh(u), (half[:, None] * gauss).ravel() * scale * np.cosh(u)


def finite(values: ArrayLike) -> Array:
    """The values of the potential as float64; ValueError when one is not finite."""
    array = np.asarray(values, dtype=np.float64)
    if not np.all(np.isfinite(array)):
        raise ValueError("the potential or its gradient is not finite on the domain (use a smaller radius)")
    return array
