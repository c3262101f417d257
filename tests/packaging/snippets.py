"""Code blocks of the README and the pages, and what they print beside what the text says they print."""

import math
import re

NUMBER = r"-?\d+\.\d+"
ESTIMATE = re.compile(rf"({NUMBER}) ± ({NUMBER})")


def blocks_of(text: str) -> list[tuple[str, str]]:
    """Language and body of every fenced block of a page, in order."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def assert_as_shown(printed: str, shown: str) -> None:
    """Words agree exactly, estimates within four standard errors of their difference.

    Another machine's arithmetic leads a chain elsewhere, so numbers with a point in them may differ; those that come
    with an error, ``a ± b``, only by what their errors allow.
    """
    assert re.sub(NUMBER, "#", printed).split() == re.sub(NUMBER, "#", shown).split()
    got, said = ESTIMATE.findall(printed), ESTIMATE.findall(shown)
    assert len(got) == len(said)
    for (value, error), (value_said, error_said) in zip(got, said, strict=True):
        assert abs(float(value) - float(value_said)) <= 4 * math.hypot(float(error), float(error_said))
