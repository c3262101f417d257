"""What the demonstration trains and how it samples."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class TrainingPlan:
    """A GPT-NeoX language model over bytes and its training run.

    Attributes:
        hidden_size, layers, heads: the architecture; the MLP is four times as wide.
        context: tokens in a row.
        max_rows: rows of the corpus to keep, or None for all.
        steps, batch_size, learning_rate: AdamW, linear warm-up, cosine decay to a tenth.
        checkpoints: how many to keep, evenly spaced in log(step) from steps/40 to steps.
        seed: of the initial weights and the order of rows.
    """

    hidden_size: int = 64
    layers: int = 2
    heads: int = 4
    context: int = 64
    max_rows: int | None = None
    steps: int = 1000
    batch_size: int = 32
    learning_rate: float = 4e-3
    checkpoints: int = 10
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("hidden_size", "layers", "heads", "steps", "batch_size", "checkpoints"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be >= 1, got {getattr(self, name)}")
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate must be > 0, got {self.learning_rate}")
        if self.hidden_size % self.heads:
            raise ValueError(f"hidden_size must be a multiple of heads, got {self.hidden_size} and {self.heads}")

    def checkpoint_steps(self) -> list[int]:
        """The training steps whose weights are kept, ascending; fewer than asked where they coincide."""
        first = max(1.0, self.steps / 40)
        kept = np.geomspace(self.steps, first, self.checkpoints)  # from the end: one checkpoint is the last
        return sorted({int(step) for step in kept.round()})

    def rate(self, step: int) -> float:
        """Learning rate of a step in 0 … steps − 1."""
        warm = min(1.0, (step + 1) / min(50, self.steps))
        return self.learning_rate * warm * (0.55 + 0.45 * float(np.cos(np.pi * step / self.steps)))


@dataclass(frozen=True)
class SamplingPlan:
    """How λ̂ is estimated at every checkpoint; one setting for all, so that they can be compared.

    The defaults were chosen by a sweep over nβ in 10 … 1000, γ in 1e3 … 3e4 and εγ in 0.1 … 0.2:

    * γ = 3000 holds the chains where the excess loss is about 0.2 nats at the end of training. At γ = 1000 it is 0.5,
      a third of the loss itself and hardly local; at 10000, λ̂ is below 1 early and 6 at the end: little to see.
    * nβ = 100. Larger nβ/γ pulls chains downhill wherever w* is no minimum yet: at training step 30, λ̂ was −25 for
      300/3000 and −2.5 for 100/3000, which is positive from about step 40 on.
    * ε = 0.15/γ. Flat directions forget in 2/(εγ) = 13 steps and the excess loss in half of that, so 40 steps of
      burn-in and 100 draws are plenty, and the step's bias, 1/(1 − εγ/4), stays below 4 %.
    """

    lr: float = 5e-5
    n_beta: float = 100.0
    localization: float = 3000.0
    num_chains: int = 4
    num_burnin_steps: int = 40
    num_draws: int = 100
    batch_size: int = 8
    init_seed: int = 100

    @property
    def observed_draws(self) -> int:
        """Draws at which observables are read: at every other step, since neighbours hardly differ."""
        return max(2, self.num_draws // 2)


@dataclass(frozen=True)
class Plan:
    """The whole demonstration."""

    training: TrainingPlan = field(default_factory=TrainingPlan)
    sampling: SamplingPlan = field(default_factory=SamplingPlan)


SMALL = Plan()
FULL = Plan(
    TrainingPlan(hidden_size=128, layers=4, context=128, steps=6000, learning_rate=2e-3, checkpoints=16),
    SamplingPlan(num_draws=400, num_burnin_steps=100, batch_size=16),
)
