"""Sign changes and peaks of courses in time whose shape is known."""

import numpy as np
import pytest

from sltfast.analysis import course


def test_parabolas_are_exact():
    """Between 0 and 4 the first, from 4 to 10 the second: a parabola's top is found wherever the points lie."""
    t = np.array([0.5, 1.3, 2.9, 3.7, 4.5, 5.0, 6.2, 8.5, 9.9])
    y = np.where(t < 4, -t * (4 - t), (t - 4) * (10 - t))
    found = course(t, y)
    assert found.peak_times == pytest.approx([2.0, 7.0])
    assert found.peaks == pytest.approx([-4.0, 9.0])
    low, high = y[3], y[4]
    assert found.sign_changes == pytest.approx([3.7 - low * 0.8 / (high - low)])


def test_what_errors_hide_does_not_count():
    t, y = np.arange(6.0), np.array([-2.0, -1.0, 0.1, -0.1, np.nan, 3.0])
    assert len(course(t, y).sign_changes) == 3
    found = course(t, y, 0.2)
    assert found.sign_changes == pytest.approx([2.0])
    assert found.peak_times.tolist() == [0.0, 5.0]
    none = course(t, y, 9.0)
    assert none.peaks.size == none.sign_changes.size == 0
    assert course([0.0, 1.0, 2.0], [1.0, 1.0, 1.0]).peaks.tolist() == [1.0]


def test_refused():
    with pytest.raises(ValueError, match="times must be finite and ascend"):
        course([0.0, 0.0], [1.0, 2.0])
    with pytest.raises(ValueError, match=r"times and values must be \[T\] both"):
        course([0.0, 1.0], [1.0])
    with pytest.raises(ValueError, match="none below 0"):
        course([0.0, 1.0], [1.0, 2.0], -1.0)
    with pytest.raises(ValueError, match="sigmas must be >= 0"):
        course([0.0, 1.0], [1.0, 2.0], sigmas=-1.0)
