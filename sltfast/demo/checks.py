"""What a study claims, line by line, and an exit status that says whether all of it held."""

from __future__ import annotations

import sys


class Checks:
    """Claims of one run: each is printed when it is made, and ``finish`` ends the process by their outcome.

        checks = Checks()
        checks.within("λ of the 6-gon", 8.47, 8.5, 0.34)
        checks.holds("loss falls from 5 to 6", True, "0.069 → 0.048")
        checks.finish()

    Attributes:
        failed: the claims that did not hold, by name.
    """

    def __init__(self) -> None:
        self.failed: list[str] = []
        self._count = 0

    def holds(self, claim: str, true: bool, found: str) -> None:
        """A claim that is true or not, with what was found."""
        self._count += 1
        if not true:
            self.failed.append(claim)
        sys.stdout.write(f"{'holds' if true else 'FAILS'}: {claim}: {found}\n")

    def within(self, claim: str, value: float, expected: float, tolerance: float) -> None:
        """A number against what theory expects of it; NaN does not hold."""
        found = f"{value:.4g}, expected {expected:.4g} ± {tolerance:.2g}"
        self.holds(claim, abs(value - expected) <= tolerance, found)

    def finish(self) -> None:
        """Says how many claims held.

        Raises:
            SystemExit: one did not (status 1).
        """
        sys.stdout.write(f"{self._count - len(self.failed)} of {self._count} checks hold\n")
        if self.failed:
            raise SystemExit(1)
