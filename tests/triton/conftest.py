"""Tests of the Triton kernels under Triton's interpreter, in a process of their own.

Triton reads TRITON_INTERPRET when a kernel is defined, and its compiler (tests/kernels) cannot share the process.
"""

import os

import pytest

if os.environ.get("TRITON_INTERPRET") != "1":
    raise pytest.UsageError("tests/triton needs TRITON_INTERPRET=1, set before pytest starts (`make test` does)")


def pytest_configure(config: pytest.Config) -> None:
    # NumPy, which interprets the kernels, tells of infinities and NaN that are meant; a GPU does not
    config.addinivalue_line(
        "filterwarnings", "ignore:(overflow|invalid value|divide by zero) encountered:RuntimeWarning"
    )
