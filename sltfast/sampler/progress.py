"""What a waiting person sees: chains, step rate, time left and the running estimate."""

from __future__ import annotations

import threading
import time
from types import TracebackType

import numpy as np

REFRESH_SECONDS = 0.25


class Progress:
    """A progress bar over all chain-steps; silent when not ``shown``."""

    def __init__(self, total: int, *, shown: bool) -> None:
        self._bar = None
        self._drawn = time.monotonic()
        self._lock = threading.Lock()
        self._sum, self._count = 0.0, 0
        if shown:
            from tqdm.auto import tqdm

            self._bar = tqdm(total=total, unit="step", desc="losses at w*", dynamic_ncols=True)

    def baseline(self) -> None:
        """A batch was forwarded at w*."""
        if self._bar is not None and time.monotonic() - self._drawn > REFRESH_SECONDS:
            self._bar.set_postfix_str("pairing", refresh=True)
            self._drawn = time.monotonic()

    def starts(self, what: str) -> None:
        """Chains, or a restriction's, set out."""
        if self._bar is not None:
            self._sum, self._count = 0.0, 0
            self._bar.set_description_str(what, refresh=False)

    def steps(self, excess: np.ndarray) -> None:
        """Lanes made steps; ``excess`` is nβ·[ℓ(w_t; b_t) − ℓ(w*; b_t)] of each, [L, steps], NaN where not counted."""
        if self._bar is None:
            return
        with self._lock:
            self._sum += float(np.nansum(excess))
            self._count += int(np.isfinite(excess).sum())
            phase = f"λ̂ {self._sum / self._count:.3g}" if self._count else "burn-in"
            self._bar.set_postfix_str(phase, refresh=False)
            self._bar.update(excess.size)

    def skip(self, steps: int) -> None:
        """Steps that an earlier call made already, or that dead chains will not make."""
        if self._bar is not None and steps:
            self._bar.update(steps)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
