"""A gridworld whose regret is known exactly, and estimated from the trajectories of another policy."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

MOVES = ((-1, 0), (1, 0), (0, -1), (0, 1))
"""Up, down, left, right; a move into the wall stays."""


@dataclass(frozen=True)
class Trajectories:
    """N walks of H steps.

    Attributes:
        states: int64 [N, H], the cell before each action.
        actions: int64 [N, H], numbers into ``MOVES``.
        returns: float64 [N], discounted reward of each walk.
        regrets: float64 [N], what the best policy gets from the same start, less the return.
    """

    states: Tensor
    actions: Tensor
    returns: Tensor
    regrets: Tensor


class Gridworld:
    """Cheese in the corner: a square of cells, a reward of 1 on arrival in cell 0, where the walk ends.

    Args:
        size: cells along a side, >= 2.
        horizon: H >= 1, steps of a walk.
        discount: in (0, 1], of a reward for every step before it.

    Attributes:
        successor: int64 [S, 4], the next cell.

    Raises:
        ValueError: a size, horizon or discount out of range.

    Source: Elliott et al. 2601.07524.
    """

    def __init__(self, size: int = 4, horizon: int = 12, discount: float = 0.9) -> None:
        if size < 2 or horizon < 1 or not 0 < discount <= 1:
            found = f"{size}, {horizon}, {discount!r}"
            raise ValueError(f"size must be >= 2, horizon >= 1 and discount in (0, 1], got {found}")
        self.size, self.horizon, self.discount = size, horizon, discount
        cells = torch.cartesian_prod(torch.arange(size), torch.arange(size))  # [S, 2]
        moved = (cells[:, None] + torch.tensor(MOVES)).clamp(0, size - 1)  # [S, 4, 2]
        self.successor = moved[..., 0] * size + moved[..., 1]
        self.successor[0] = 0
        self._reward = (self.successor == 0).double()
        self._reward[0] = 0

    def regret(self, policy: Tensor) -> Tensor:
        """G(π; s) = V*(s) − V^π(s) [S] of every start s, exactly, by going back from the horizon; differentiable.

            V_0 = 0,   V_h(s) = Σ_a π(a|s)·(r(s, a) + δ·V_{h−1}(s')),   V* with max_a in place of Σ_a π.

        Args:
            policy: π(a|s) [S, 4].

        Raises:
            ValueError: a policy of another shape.
        """
        self._check(policy, "policy")
        value = torch.zeros(len(policy), dtype=policy.dtype)
        for _ in range(self.horizon):
            value = (policy * (self._reward + self.discount * value[self.successor])).sum(dim=1)
        return self.best() - value

    def best(self) -> Tensor:
        """V*(s) [S], float64: δ^(d−1) at a distance of d steps from the corner, where d is within the horizon."""
        value = torch.zeros(len(self.successor), dtype=torch.float64)
        for _ in range(self.horizon):
            value = (self._reward + self.discount * value[self.successor]).amax(dim=1)
        return value

    def walk(self, starts: Tensor, actions: Tensor) -> Trajectories:
        """The trajectories of given actions, int64 [N, H], from given cells, int64 [N]."""
        state, states, returns = starts, [], torch.zeros(len(starts), dtype=torch.float64)
        for step in range(self.horizon):
            states.append(state)
            returns = returns + self.discount**step * self._reward[state, actions[:, step]]
            state = self.successor[state, actions[:, step]]
        return Trajectories(torch.stack(states, dim=1), actions, returns, self.best()[starts] - returns)

    def sample(self, policy: Tensor, starts: Tensor, *, seed: int = 0) -> Trajectories:
        """A walk of a policy π(a|s) [S, 4] from each of the cells ``starts``, int64 [N]; same seed, same walks."""
        self._check(policy, "policy")
        generator, state, actions = torch.Generator().manual_seed(seed), starts, []
        for _ in range(self.horizon):
            action = torch.multinomial(policy[state], 1, generator=generator).squeeze(1)
            actions.append(action)
            state = self.successor[state, action]
        return self.walk(starts, torch.stack(actions, dim=1))

    def weighted_regrets(self, policy: Tensor, reference: Tensor, walks: Trajectories) -> Tensor:
        """One loss a trajectory of the reference policy, [N], whose mean estimates the regret of ``policy``.

            ℓ_i = (Π_t π(a_t|s_t)/π_ref(a_t|s_t))·(V*(s_0) − R_i),   E_ref[ℓ | s_0] = G(π; s_0),

        over the steps before arrival. The estimate is unbiased where π_ref(a|s) > 0, and so is its gradient; a loss is
        negative where a walk beats V*, which no walk does here. Its variance grows as π leaves π_ref.

        Raises:
            ValueError: a policy of another shape.
        """
        self._check(policy, "policy")
        self._check(reference, "reference")
        ratio = (policy / reference)[walks.states, walks.actions]  # [N, H]
        weight = torch.where(walks.states == 0, torch.ones_like(ratio), ratio).prod(dim=1)
        return weight * walks.regrets

    def _check(self, policy: Tensor, name: str) -> None:
        if policy.shape != self.successor.shape:
            raise ValueError(f"{name} must be [{len(self.successor)}, 4], got shape {tuple(policy.shape)}")
