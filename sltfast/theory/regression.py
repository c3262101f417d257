"""λ̂ of mini-batch SGLD on linear regression: exact second moments, multiplicative noise included."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .checks import above_zero, at_least_zero
from .gaussian import quadratic_llc

__all__ = ["LinearRegression"]

Array = NDArray[np.float64]


class LinearRegression:
    """Least squares ℓ_i(w) = ½ (x_i · w − y_i)² on fixed data, at its optimum w*.

    Attributes:
        x: [n, d] features.
        y: [n] targets.
        optimum: [d] w* = (Σ x_i x_iᵀ)⁻¹ Σ x_i y_i.
        residuals: [n] e_i = x_i · w* − y_i.
        hessian: [d, d] H = (1/n) Σ x_i x_iᵀ, of the mean loss.
    """

    def __init__(self, x: ArrayLike, y: ArrayLike) -> None:
        self.x: Array = np.asarray(x, dtype=np.float64)
        self.y: Array = np.asarray(y, dtype=np.float64)
        if self.x.ndim != 2 or self.y.shape != self.x.shape[:1]:
            raise ValueError(f"x must be [n, d] and y [n], got shapes {self.x.shape} and {self.y.shape}")
        n, d = self.x.shape
        if n < d or np.linalg.matrix_rank(self.x) < d:
            raise ValueError(f"x must have full column rank, got {n} rows of {d} features")
        self.hessian: Array = self.x.T @ self.x / n
        self.optimum: Array = np.linalg.solve(self.hessian, self.x.T @ self.y / n)
        self.residuals: Array = self.x @ self.optimum - self.y

    def llc(self, n_beta: float, localization: float = 0.0) -> float:
        """λ̂ = ½ tr[nβ H (nβ H + γ)⁻¹], the limit of full batches and small steps; see `quadratic_llc`."""
        return quadratic_llc(np.maximum(np.linalg.eigvalsh(self.hessian), 0.0), n_beta, localization)

    def gradient_noise(self, batch_size: int) -> Array:
        """[d, d] covariance of the gradient at w* of the mean loss of b rows drawn without replacement.

            C = (1/b)(1 − b/n) · 1/(n − 1) Σ e_i² x_i x_iᵀ.

        Args:
            batch_size: b, 1 … n.

        Raises:
            ValueError: b outside 1 … n.
        """
        gradients = self.residuals[:, None] * self.x
        return self._batch_factor(batch_size) * gradients.T @ gradients

    def llc_sgld(
        self, n_beta: float, localization: float, lr: float, batch_size: int, noise_level: float = 1.0
    ) -> float:
        """Stationary mean of nβ E[ℓ(w_t; b_t) − ℓ(w*; b_t)] of mini-batch SGLD at step ε, exactly.

        With H_b the Hessian of a batch and ζ_b its gradient at w*, δ' = δ − (ε/2)(nβ (H_b δ + ζ_b) + γ δ) +
        √ε σ ξ, so S = E δδᵀ solves the linear equation

            S = A S A + (ε nβ/2)² (E[(H_b − H) S (H_b − H)] + C) + ε σ² 1,   A = 1 − (ε/2)(nβ H + γ),
            E[(H_b − H) S (H_b − H)] = (1/b)(1 − b/n) · 1/(n − 1) Σ (x_i x_iᵀ − H) S (x_i x_iᵀ − H),

        and λ̂ = ½ nβ tr(H S). Batches are drawn without replacement inside a batch and independently from
        step to step. Reshuffling epochs of K = n/b batches changes the C term by a fraction of order
        2/(K ε a): take K ≫ 2/(ε a), or `quadratic_llc_sgld(batches_per_epoch=K)` where H_b does not vary.

        Args:
            n_beta: nβ >= 0.
            localization: γ >= 0.
            lr: ε > 0.
            batch_size: b, 1 … n (all the micro-batches of a step together).
            noise_level: σ >= 0.

        Raises:
            ValueError: a bad argument, or a step at which the second moment does not stay bounded.
        """
        n_beta = at_least_zero("n_beta", n_beta)
        gamma = at_least_zero("localization", localization)
        step = above_zero("lr", lr)
        sigma = at_least_zero("noise_level", noise_level)
        d = len(self.hessian)
        eye = np.eye(d)
        kick = (step * n_beta / 2) ** 2
        factor = self._batch_factor(batch_size)

        a = eye - step / 2 * (n_beta * self.hessian + gamma * eye)
        outer = np.einsum("ni,nj->nij", self.x, self.x) - self.hessian  # [n, d, d]
        flat = outer.reshape(len(self.x), d * d)
        # Σ_n (X_n S X_n)_ij = Σ_kl (Σ_n X_n,ik X_n,lj) S_kl, X_n symmetric
        spread = (flat.T @ flat).reshape(d, d, d, d).transpose(0, 2, 1, 3).reshape(d * d, d * d)
        step_map = np.kron(a, a) + kick * factor * spread
        if np.max(np.abs(np.linalg.eigvals(step_map))) >= 1:
            raise ValueError(f"lr={lr!r} is too large: the second moment of SGLD grows (use a smaller lr)")
        source = kick * self.gradient_noise(batch_size) + step * sigma**2 * eye
        second = np.linalg.solve(np.eye(d * d) - step_map, source.ravel()).reshape(d, d)
        return float(0.5 * n_beta * np.trace(self.hessian @ second))

    def _batch_factor(self, batch_size: int) -> float:
        """(1/b)(1 − b/n)/(n − 1): from summed squared deviations to the variance of a batch mean."""
        n = len(self.x)
        if not 1 <= batch_size <= n:
            raise ValueError(f"batch_size must be in 1 … {n} (the number of rows), got {batch_size!r}")
        return 0.0 if batch_size == n else (1 / batch_size) * (1 - batch_size / n) / (n - 1)
