"""Closed forms and exact references that λ̂ is tested against; plain numpy, no model needed.

Learning coefficients (nβ → ∞): `dln_learning_coefficient`, `rrr_learning_coefficient`,
`monomial_learning_coefficient`, `separable_learning_coefficient`. λ̂ at finite nβ and γ: `quadratic_llc`,
`quadrature_llc`. λ̂ of SGLD at a finite step ε and batch size: `quadratic_llc_sgld`, `quadrature_llc_sgld`,
`LinearRegression`, and the largest step `sgld_stability_limit`; with momentum, `quadratic_llc_sghmc`,
`quadratic_llc_sgnht` and the friction `sgnht_thermostat` that the latter comes to. Covariance of the weights
under SGLD: `quadratic_covariance_sgld`. Influence over training: `Hierarchy`, whose learning by a linear network is
known at every time. Susceptibilities of linear regression, both estimators: `regression_susceptibility`, from the
covariance of its weights, `regression_covariance`. The toy model of superposition, its population loss and polygons:
`superposition_loss`, `superposition_polygon`, `superposition_hessian_rank` (these in torch).
Reinforcement learning with exact regret: `Gridworld` (in torch).
"""

from .gaussian import quadratic_covariance_sgld, quadratic_llc, quadratic_llc_sgld, sgld_stability_limit
from .gridworld import Gridworld
from .hierarchy import Hierarchy
from .learning_coefficients import (
    dln_learning_coefficient,
    monomial_learning_coefficient,
    rrr_learning_coefficient,
    separable_learning_coefficient,
)
from .momentum import quadratic_llc_sghmc, quadratic_llc_sgnht, sgnht_thermostat
from .quadrature import quadrature_llc, quadrature_llc_sgld
from .regression import LinearRegression
from .superposition import Polygon, superposition_hessian_rank, superposition_loss, superposition_polygon
from .susceptibility import regression_covariance, regression_susceptibility

__all__ = [
    "Gridworld",
    "Hierarchy",
    "LinearRegression",
    "Polygon",
    "dln_learning_coefficient",
    "monomial_learning_coefficient",
    "quadratic_covariance_sgld",
    "quadratic_llc",
    "quadratic_llc_sghmc",
    "quadratic_llc_sgld",
    "quadratic_llc_sgnht",
    "quadrature_llc",
    "quadrature_llc_sgld",
    "regression_covariance",
    "regression_susceptibility",
    "rrr_learning_coefficient",
    "separable_learning_coefficient",
    "sgld_stability_limit",
    "sgnht_thermostat",
    "superposition_hessian_rank",
    "superposition_loss",
    "superposition_polygon",
]
