"""Exact regret against all walks there are, counted one by one, and against sampled ones."""

import itertools

import pytest
import torch

from sltfast.theory import Gridworld


def policies(world: Gridworld) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(len(world.successor), 4, generator=generator, dtype=torch.float64, requires_grad=True)
    reference = torch.randn(len(world.successor), 4, generator=generator, dtype=torch.float64).softmax(dim=1)
    return logits, logits.softmax(dim=1), reference


@pytest.mark.parametrize("start", [1, 4, 8])
def test_all_walks_of_another_policy_give_regret_and_its_gradient(start: int) -> None:
    """Σ over the 4^H action sequences of p_ref·ℓ is the regret, to rounding."""
    world = Gridworld(3, 5, 0.9)
    logits, policy, reference = policies(world)
    actions = torch.tensor(list(itertools.product(range(4), repeat=world.horizon)))
    walks = world.walk(torch.full((len(actions),), start), actions)
    chance = reference[walks.states, walks.actions].prod(dim=1)
    # past the corner every continuation is counted, with chances that add up to one
    estimate = (chance * world.weighted_regrets(policy, reference, walks)).sum()
    exact = world.regret(policy)[start]
    torch.testing.assert_close(estimate, exact, rtol=1e-12, atol=1e-14)
    by_walks, by_values = (torch.autograd.grad(part, logits, retain_graph=True)[0] for part in (estimate, exact))
    assert by_values.abs().max() > 1e-4
    torch.testing.assert_close(by_walks, by_values, rtol=1e-10, atol=1e-14)


def test_sampled_walks_give_the_regret_within_four_standard_errors() -> None:
    world = Gridworld(3, 6, 0.9)
    _, policy, reference = policies(world)
    mixed = (0.3 * policy + 0.7 * reference).detach()
    walks = world.sample(reference, torch.full((20_000,), 5), seed=1)
    losses = world.weighted_regrets(mixed, reference, walks)
    error = float(losses.std() / len(losses) ** 0.5)
    assert abs(float(losses.mean() - world.regret(mixed)[5])) < 4 * error


def test_the_best_policy_has_no_regret() -> None:
    world = Gridworld(4, 12, 0.9)
    up_then_left = torch.zeros(16, 4, dtype=torch.float64)
    up_then_left[:4, 2] = 1
    up_then_left[4:, 0] = 1
    assert world.regret(up_then_left).abs().max() < 1e-12
    assert float(world.best()[15]) == pytest.approx(0.9**5)


def test_refused() -> None:
    with pytest.raises(ValueError, match="size must be >= 2"):
        Gridworld(1)
    with pytest.raises(ValueError, match=r"policy must be \[16, 4\], got shape \(3, 4\)"):
        Gridworld().regret(torch.ones(3, 4))
