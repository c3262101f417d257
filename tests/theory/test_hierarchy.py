"""A linear network that learns a hierarchy: singular values, gradient descent and gradients as the closed forms say."""

import numpy as np
import pytest

from sltfast.theory import Hierarchy

START = 1e-3


def test_singular_values_of_the_tree():
    tree = Hierarchy()
    # a mode that is constant on nodes of sizes 8, 4, 2, 1 has s² = their sum over the levels it is constant on
    np.testing.assert_allclose(tree.s, np.sqrt([15, 7, 3, 3, 1, 1, 1, 1]), rtol=1e-12)
    np.testing.assert_allclose(tree.u * tree.s @ tree.v.T, tree.features, atol=1e-12)
    assert np.abs(np.sign(tree.v[:, 1]).sum()) == 0
    assert len(set(np.sign(tree.v[:4, 1]))) == 1  # animals against plants
    assert tree.features.sum(0).tolist() == [4.0] * 8


def descended(tree, hidden, lr, time):
    """W₁ and W₂ after gradient descent from the closed form's start."""
    first, second = tree.weights(0.0, START, hidden)
    for _ in range(round(time / lr)):
        residual = (second @ first - tree.features) / len(tree.items)
        first, second = first - lr * second.T @ residual, second - lr * residual @ first.T
    return first, second


@pytest.mark.parametrize(("hidden", "noise"), [(8, 0.0), (3, 0.0), (4, 0.3)])
def test_gradient_descent_goes_to_the_closed_form(hidden, noise):
    tree = Hierarchy(noise=noise)
    time = tree.time_of(1, 0.5, START)
    exact = tree.weights(time, START, hidden)
    errors = []
    for lr in (time / 1000, time / 2000):
        errors.append(
            max(float(np.abs(a - b).max()) for a, b in zip(descended(tree, hidden, lr, time), exact, strict=True))
        )
    # Euler's method: half the step, half the error, up to the next order (a few ε·s/P·ln(s/a₀) ≈ 2 %)
    assert errors[0] / errors[1] == pytest.approx(2, rel=0.1)
    assert errors[0] < 0.05


def test_times_are_those_of_the_strengths():
    tree = Hierarchy()
    for mode, fraction in ((0, 0.1), (1, 0.5), (2, 0.9)):
        time = tree.time_of(mode, fraction, START)
        assert tree.strengths(time, START)[mode] == pytest.approx(fraction * tree.s[mode], rel=1e-12)
    assert tree.strengths(0.0, START).tolist() == pytest.approx([START] * 8)
    np.testing.assert_allclose(tree.strengths([1e9], START)[0], tree.s, rtol=1e-12)
    assert (tree.strengths(30.0, START, 3)[3:] == 0).all()


@pytest.mark.parametrize("hidden", [8, 3])
def test_gradient_products_are_those_of_the_weights(hidden):
    tree = Hierarchy(noise=0.2)
    for time in (0.0, 10.0, 20.0, 60.0):
        first, second = tree.weights(time, START, hidden)
        residual = second @ first - tree.features
        gradients = [
            np.concatenate(
                [np.outer(second.T @ residual[:, i], unit).ravel(), np.outer(residual[:, i], first[:, i]).ravel()]
            )
            for i, unit in enumerate(np.eye(8))
        ]
        np.testing.assert_allclose(
            tree.gradient_products(time, START, hidden), np.array(gradients) @ np.array(gradients).T, atol=1e-12
        )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Hierarchy((2, 0)), "branching must be whole numbers >= 1"),
        (lambda: Hierarchy((2, 2)), "items must name the 4 leaves"),
        (lambda: Hierarchy(noise=-1.0), "noise must be finite and >= 0"),
        (lambda: Hierarchy().strengths(-1.0, START), "time must be >= 0"),
        (lambda: Hierarchy().strengths(1.0, 0.0), "start must be finite and > 0"),
        (lambda: Hierarchy().strengths(1.0, START, 0), "hidden must be >= 1"),
        (lambda: Hierarchy().time_of(0, 1.0, START), "fraction must be in"),
    ],
)
def test_bad_arguments(call, message):
    with pytest.raises(ValueError, match=message):
        call()
