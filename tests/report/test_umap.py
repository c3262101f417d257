"""UMAP of the tokens, where umap-learn is installed, as further axes of the plane."""

from typing import Any

import numpy as np
import pytest
from trees import susceptibilities

from sltfast.report import plane
from sltfast.report.limits import Limits
from sltfast.report.response import response_of


def test_two_axes_more_of_the_tokens_that_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in, because compiling UMAP takes most of a minute; the soak test below runs it."""
    seen: list[np.ndarray] = []

    def first_two(points: np.ndarray) -> np.ndarray:
        seen.append(points)
        return points[:, :2]

    monkeypatch.setattr(plane, "umap_plane", first_two)
    section = plane.section("χ", "plane", response_of(susceptibilities()), Limits(points=30), umap=True)
    assert section is not None
    data: Any = section.data
    assert data["axes"][-2:] == ["UMAP 1", "UMAP 2"]
    assert data["points"]["shape"] == [30, len(data["axes"])]
    assert seen[0].shape == (30, 3)
    assert section.shown["notes"] == ["30 of 170 tokens are drawn; the axes are of all"]
    without = plane.section("χ", "plane", response_of(susceptibilities()), Limits(points=30), umap=False)
    assert without is not None
    assert without.data is not None
    assert without.data["axes"] == data["axes"][:-2]


@pytest.mark.soak
def test_groups_stay_apart() -> None:
    generator = np.random.default_rng(0)
    groups = np.repeat([0, 1], 20)
    found = plane.umap_plane(0.1 * generator.standard_normal((40, 3)) + 10 * groups[:, None])
    assert found.shape == (40, 2)
    centres = np.stack([found[groups == group].mean(0) for group in (0, 1)])
    inside = max(np.linalg.norm(found[groups == group] - centres[group], axis=1).max() for group in (0, 1))
    assert np.linalg.norm(centres[0] - centres[1]) > 2 * inside
