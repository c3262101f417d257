"""Learning a hierarchy by a two-layer linear network: data, singular modes, and their exact course in time."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .checks import above_zero, at_least_zero

__all__ = ["ITEMS", "Hierarchy"]

Array = NDArray[np.float64]
ITEMS = ("dog", "cat", "sparrow", "robin", "oak", "pine", "rose", "daisy")
"""Leaves of the default tree: animals (mammals, birds) and plants (trees, flowers)."""


class Hierarchy:
    """Items at the leaves of a tree; a feature is a node, and an item has those of its ancestors and its own.

    A linear network ŷ = W₂W₁x reads items as unit vectors x_i and descends

        L = (1/P) Σ_i ℓ_i,   ℓ_i = ½|W₂W₁x_i − y_i|².

    With Y = [y_1 … y_P] = U·diag(s)·Vᵀ and small, balanced weights along these modes at time 0 (W₁ = √a·R·Vᵀ,
    W₂ = U·√a·Rᵀ), gradient flow keeps the modes apart, each with a strength a_α(t) of its own:

        da/dt = (2/P)·a·(s − a),   a(t) = s·E/(E − 1 + s/a₀),   E = exp(2st/P).

    Modes are learned one after another, the strong ones first: all items; animals against plants; mammals against
    birds and trees against flowers; each item against its sibling.

    Attributes:
        items: names of the P leaves.
        features: Y [F, P].
        u, s, v: [F, R], [R] descending, [P, R]: Y = u·diag(s)·vᵀ.

    Args:
        branching: children of a node, level by level from the root.
        items: a name for every leaf.
        noise: standard deviation of numbers added to Y, which sets apart modes that a regular tree makes equal.
        seed: of that noise.

    Raises:
        ValueError: another number of names than leaves, or a level without a branch.

    Source: Saxe, McClelland & Ganguli 1312.6120 and 1810.10531 (PNAS 2019); influence along it: Lee et al. 2510.12071.
    """

    def __init__(
        self, branching: Sequence[int] = (2, 2, 2), items: Sequence[str] = ITEMS, *, noise: float = 0.0, seed: int = 0
    ) -> None:
        if not branching or any(int(b) != b or b < 1 for b in branching):
            raise ValueError(f"branching must be whole numbers >= 1, level by level, got {tuple(branching)}")
        leaves = int(np.prod(branching))
        if len(items) != leaves:
            raise ValueError(f"items must name the {leaves} leaves of branching {tuple(branching)}, got {len(items)}")
        self.items = tuple(items)
        sizes = [leaves // int(nodes) for nodes in np.cumprod([1, *branching])]
        tree = np.concatenate([np.kron(np.eye(leaves // size), np.ones(size)) for size in sizes])  # [F, P]
        shaken = np.random.default_rng(seed).normal(size=tree.shape)
        self.features: Array = tree + at_least_zero("noise", noise) * shaken
        u, s, vh = np.linalg.svd(self.features, full_matrices=False)
        self.u: Array = u
        self.s: Array = s
        self.v: Array = vh.T

    def strengths(self, time: ArrayLike, start: float, hidden: int | None = None) -> Array:
        """a_α(t) [*time, R] from a_α(0) = ``start``; 0 for modes beyond ``hidden``, which the network cannot hold.

        Args:
            time: t >= 0 of gradient flow on L (steps × ε of gradient descent, as ε → 0).
            start: a₀ > 0.
            hidden: units between W₁ and W₂; None: as many as there are modes.

        Raises:
            ValueError: a time below 0, or a start that is not positive.
        """
        t = np.asarray(time, np.float64)
        if not (t >= 0).all():
            raise ValueError(f"time must be >= 0, got {t.min()!r}")
        decay = np.exp(-2 * self.s * t[..., None] / len(self.items))  # 1/E, which does not overflow
        values: Array = self.s / (1 - decay + decay * self.s / above_zero("start", start))
        values[..., self._held(hidden) :] = 0
        return values

    def time_of(self, mode: int, fraction: float, start: float) -> float:
        """When a mode has learned a fraction of its strength, a_α(t) = f·s_α:

            t = (P/2s)·[ln(s/a₀ − 1) + ln(f/(1 − f))].

        Args:
            mode: α, 0 the strongest.
            fraction: f, in (a₀/s, 1).
            start: a₀.

        Raises:
            ValueError: a fraction that the mode has from the start on, or never.
        """
        s = float(self.s[mode])
        if not above_zero("start", start) / s <= fraction < 1:
            raise ValueError(f"fraction must be in [{start / s:.3g}, 1) for mode {mode}, got {fraction!r}")
        return len(self.items) / (2 * s) * float(np.log(s / start - 1) + np.log(fraction / (1 - fraction)))

    def weights(self, time: float, start: float, hidden: int | None = None) -> tuple[Array, Array]:
        """W₁ [hidden, P] and W₂ [F, hidden] at a time, one hidden unit a mode (R = 1)."""
        held = self._held(hidden)
        root = np.sqrt(self.strengths(time, start, hidden)[:held])
        return root[:, None] * self.v[:, :held].T, self.u[:, :held] * root

    def gradient_products(self, time: ArrayLike, start: float, hidden: int | None = None) -> Array:
        """⟨∇ℓ_i, ∇ℓ_j⟩ [*time, P, P] over all weights, exactly.

            ⟨∇ℓ_i, ∇ℓ_j⟩ = ⟨r_i, r_j⟩·⟨h_i, h_j⟩ + δ_ij·|W₂ᵀr_i|²,
            ⟨r_i, r_j⟩ = Σ_α (s − a)²·v_αi·v_αj,   ⟨h_i, h_j⟩ = Σ_α a·v_αi·v_αj,   |W₂ᵀr_i|² = Σ_α a·(s − a)²·v_αi²,

        r_i the residual and h_i = W₁x_i. At high γ the influence of i on j is −⟨∇ℓ_i, ∇ℓ_j⟩/γ: it peaks while a mode is
        learned and both factors are there, and changes sign where ⟨r_i, r_j⟩ does.
        """
        a = self.strengths(time, start, hidden)
        left = np.square(self.s - a)
        residuals = np.einsum("...a,ia,ja->...ij", left, self.v, self.v)
        hidden_units = np.einsum("...a,ia,ja->...ij", a, self.v, self.v)
        own = np.einsum("...a,ia->...i", a * left, self.v**2)
        products: Array = residuals * hidden_units + own[..., None] * np.eye(len(self.items))
        return products

    def _held(self, hidden: int | None) -> int:
        """Modes that have a hidden unit."""
        if hidden is None:
            return len(self.s)
        if hidden < 1:
            raise ValueError(f"hidden must be >= 1, got {hidden!r}")
        return min(int(hidden), len(self.s))
