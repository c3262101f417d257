"""What a waiting person sees: chains, step rate, time left and the running estimate."""

from __future__ import annotations

import time
from types import TracebackType

import numpy as np

REFRESH_SECONDS = 0.25


class Progress:
    """A progress bar over all chain-steps; silent when not ``shown``."""

    def __init__(self, total: int, num_chains: int, n_beta: float, *, shown: bool) -> None:
        self.num_chains, self.n_beta = num_chains, n_beta
        self._bar = None
        self._pending, self._drawn = 0, time.monotonic()
        if shown:
            from tqdm.auto import tqdm

            self._bar = tqdm(total=total, unit="step", desc="losses at w*", dynamic_ncols=True)

    def baseline(self) -> None:
        """A batch was forwarded at w*."""
        if self._bar is not None and time.monotonic() - self._drawn > REFRESH_SECONDS:
            self._bar.set_postfix_str("pairing", refresh=True)
            self._drawn = time.monotonic()

    def step(self, chain: int, excess: np.ndarray, recorded: int, burnin: int) -> None:
        """A chain made a step; ``excess[:recorded]`` are its paired differences so far."""
        if self._bar is None:
            return
        self._pending += 1
        if recorded < len(excess) and time.monotonic() - self._drawn < REFRESH_SECONDS:
            return
        kept = excess[min(burnin, recorded - 1) : recorded]
        phase = "burn-in" if recorded <= burnin else f"λ̂ {self.n_beta * float(np.nanmean(kept)):.3g}"
        self._bar.set_description_str(f"chain {chain + 1}/{self.num_chains}", refresh=False)
        self._bar.set_postfix_str(phase, refresh=False)
        self._bar.update(self._pending)
        self._pending, self._drawn = 0, time.monotonic()

    def skip(self, steps: int) -> None:
        """Steps that an earlier call made already, or that a dead chain will not make."""
        if self._bar is not None:
            self._bar.update(steps)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.update(self._pending)
            self._bar.close()
