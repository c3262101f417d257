"""Properties held against examples that nobody thought of, the same in every process."""

import inspect
import traceback
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import sltfast

EXAMPLES = 100
PACKAGE = Path(sltfast.__file__).parent


class Properties:
    """Properties of one test file, each with the strategies of its arguments."""

    def __init__(self):
        self.known = {}

    def of(self, *strategies):
        """Enter a function; its argument ``folder``, if it has one, is a folder to write to."""
        return lambda check: self.known.setdefault(check.__name__, (check, strategies))[0]

    def parametrized(self, test):
        """The test once a property, by name."""
        return pytest.mark.parametrize("name", list(self.known))(test)

    def hold(self, name, folder, examples=EXAMPLES):
        check, strategies = self.known[name]
        place = {"folder": folder} if "folder" in inspect.signature(check).parameters else {}
        profile = settings(
            derandomize=True, database=None, deadline=None, max_examples=examples,
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        profile(given(*strategies)(check))(**place)


def outcome(call, errors=(ValueError, TypeError), names=()):
    """What a call returns; None where it raises an error of ours, in words that hold one of the names given."""
    try:
        return call()
    except errors as error:
        told = error
    last = Path(traceback.extract_tb(told.__traceback__)[-1].filename)
    assert last.is_relative_to(PACKAGE), f"{told!r} comes from {last}"
    text = str(told)
    assert len(text) in range(10, 900), text
    assert not names or any(name in text or repr(name)[:100] in text for name in names), f"{names}: {text}"
    return None


class Mute:
    """What cannot be shown."""

    def __repr__(self):
        raise RuntimeError("no words")


UNSHOWN = {"mute": Mute(), "digits": -(10**5000), "a list": [10**5000], "a fraction": Fraction(10**5000, 3)}
ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.binary(max_size=4),
    st.lists(st.integers(), max_size=2), st.dictionaries(st.text(max_size=3), st.floats(), max_size=2),
    st.complex_numbers(), st.fractions(), st.sampled_from(sorted(UNSHOWN)).map(lambda kind: UNSHOWN[kind]),
    st.sampled_from([
        10**400, -(10**400), Fraction(10**400), np.float32(1), np.int8(3), np.bool_(True), np.float64("nan"),
        np.array(1.0), np.arange(3), torch.tensor(1.0), torch.ones(3), object, {}, (),
    ]),
)  # fmt: skip
