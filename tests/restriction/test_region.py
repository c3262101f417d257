"""Regions and segments: the same coordinates as a mask, in the same form however they were asked for."""

import pytest
import torch
from torch import nn

from sltfast.restriction import Rectangle, Region, Restriction
from sltfast.restriction.region import MOST_RECTANGLES


def painted(plane, rectangles):
    grid = torch.zeros(plane, dtype=torch.bool)
    for r in rectangles:
        grid[slice(*r.rows), slice(*r.columns)] = True
    return grid


def drawn_rectangles(plane, count, generator):
    def interval(size):
        start, end = sorted(torch.randint(0, size + 1, (2,), generator=generator).tolist())
        return start, end

    return [Rectangle(interval(plane[0]), interval(plane[1])) for _ in range(count)]


@pytest.mark.parametrize("plane", [(1, 1), (1, 7), (5, 1), (9, 11), (0, 3), (3, 0)])
@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_unions_of_rectangles_are_their_masks(plane, count):
    generator = torch.Generator().manual_seed(count)
    for _ in range(20):
        rectangles = drawn_rectangles(plane, count, generator)
        region, mask = Region.of_rectangles(plane, rectangles), painted(plane, rectangles)
        assert torch.equal(region.dense(), mask.reshape(-1))
        assert region.numel == int(mask.sum())
        assert region == Region.of_mask(plane, mask.reshape(-1))
        halves = [Region.of_rectangles(plane, rectangles[i::2]) for i in range(2)]
        assert halves[0].union(halves[1]) == region


def test_what_few_rectangles_do_not_tell_stays_a_mask():
    plane = (40, 40)
    checks = (torch.arange(40)[:, None] + torch.arange(40)) % 2 == 0
    region = Region.of_mask(plane, checks.reshape(-1))
    assert region.rectangles == ()
    assert torch.equal(region.mask, checks.reshape(-1))
    points = [Rectangle((i, i + 1), (i, i + 1)) for i in range(40)]
    assert len(Region.of_rectangles(plane, points).rectangles) == 40
    many = [Rectangle((i, i + 1), (j, j + 1)) for i in range(0, 40, 2) for j in range(0, 40, 2)]
    assert len(many) > MOST_RECTANGLES
    assert torch.equal(Region.of_rectangles(plane, many).mask, painted(plane, many).reshape(-1))
    with_point = region.union(Region.of_rectangles(plane, [Rectangle((0, 1), (1, 2))]))
    assert with_point.numel == 801
    assert region.union(Region.of_mask(plane, ~checks.reshape(-1))).is_whole


@pytest.mark.parametrize("rectangles", [MOST_RECTANGLES, MOST_RECTANGLES + 1])
def test_rectangles_are_counted_alike_from_both_sides(rectangles):
    plane = (2 * MOST_RECTANGLES + 2, 3)
    rows = [Rectangle((2 * i, 2 * i + 1), (0, 3)) for i in range(rectangles)]
    from_rows, from_mask = Region.of_rectangles(plane, rows), Region.of_mask(plane, painted(plane, rows).reshape(-1))
    assert len(from_rows.rectangles) == len(from_mask.rectangles) == rectangles * (rectangles <= MOST_RECTANGLES)
    assert torch.equal(from_rows.dense(), from_mask.dense())


class Shapes(nn.Module):
    """A scalar, vector, matrix, kernel and a matrix whose storage is transposed."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(0)

        def parameter(*shape):
            return nn.Parameter(torch.randn(shape, generator=generator))

        self.scalar, self.vector, self.matrix = parameter(), parameter(6), parameter(5, 4)
        self.kernel = parameter(3, 2, 2, 2)
        self.transposed = nn.Parameter(torch.randn(4, 5, generator=generator).t())


def test_a_segment_says_where_its_coordinates_are():
    model = Shapes()
    generator = torch.Generator().manual_seed(1)
    flat = torch.cat([p.detach().reshape(-1) for p in model.parameters()])
    for _ in range(30):
        masks = {n: torch.rand(p.shape, generator=generator) < 0.4 for n, p in model.named_parameters()}
        masks["kernel"][:] = False
        masks["kernel"][1:, 1] = True
        masks["vector"] = masks["vector"] | (torch.arange(6) >= 4)
        restriction = Restriction.of(model, masks)
        reached = []
        for segment in restriction.segments:
            i = torch.arange(segment.numel)
            elements = segment.element + (i // segment.run) * segment.stride + i % segment.run
            assert torch.equal(flat[elements], segment.anchor())
            assert torch.Size(segment.shape).numel() == segment.numel == segment.moving
            reached += elements.tolist()
        expected = torch.cat([masks[n].reshape(-1) for n, _ in model.named_parameters()]).nonzero().flatten().tolist()
        assert sorted(reached) == expected
        dense = restriction.dense()
        assert dense.numel == restriction.numel == len(expected)
        for segment in dense.segments:
            if segment.mask is not None:
                assert torch.equal(segment.mask, masks[segment.name].reshape(-1))


def test_shapes_of_segments():
    masks = {n: None for n, _ in Shapes().named_parameters()}
    assert [s.shape for s in Restriction.of(Shapes(), masks).segments] == [(), (6,), (5, 4), (3, 2, 2, 2), (5, 4)]
    rows, columns = torch.zeros(5, 4, dtype=torch.bool), torch.zeros(5, 4, dtype=torch.bool)
    rows[1:3], columns[:, 2:] = True, True
    parts = {"vector": torch.arange(6) < 2, "matrix": rows, "transposed": columns, "kernel": torch.ones(3, 2, 2, 2) > 0}
    segments = Restriction.of(Shapes(), parts).segments
    assert [(s.name, s.shape, s.run, s.stride) for s in segments] == [
        ("vector", (2,), 2, 0),
        ("matrix", (2, 4), 8, 0),
        ("kernel", (3, 2, 2, 2), 24, 0),
        ("transposed", (5, 2), 2, 4),
    ]


def test_a_contiguous_block_is_the_callers_storage():
    model = Shapes()
    rows = torch.zeros(5, 4, dtype=torch.bool)
    rows[1:3] = True
    segment = Restriction.of(model, {"matrix": rows}).segments[0]
    assert segment.anchor().data_ptr() == model.matrix[1].data_ptr()


def test_column_ranges_of_a_fused_projection_are_three_segments():
    model = nn.Linear(24, 8, bias=False)
    mask = torch.zeros(8, 24, dtype=torch.bool)
    for start in (2, 10, 18):
        mask[:, start : start + 2] = True
    segments = Restriction.of(model, {"weight": mask}).segments
    assert [(s.rows, s.columns, s.mask) for s in segments] == [((0, 8), (c, c + 2), None) for c in (2, 10, 18)]


def test_only_what_moves_must_be_finite():
    model = nn.Linear(4, 4, bias=False)
    with torch.no_grad():
        model.weight[0, 0] = float("nan")
    mask = torch.zeros(4, 4, dtype=torch.bool)
    mask[1:] = True
    assert Restriction.of(model, {"weight": mask}).numel == 12
    mask[0, 0] = True
    with pytest.raises(ValueError, match="1 NaN"):
        Restriction.of(model, {"weight": mask})


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_finite_weights_whose_sum_overflows_move(dtype):
    model = nn.Linear(8, 8, bias=False, dtype=dtype)
    nn.init.constant_(model.weight, torch.finfo(dtype).max)
    assert Restriction.of(model).numel == 64
    with torch.no_grad():
        model.weight[0, 0], model.weight[0, 1] = float("inf"), -float("inf")
    with pytest.raises(ValueError, match="2 NaN or infinite"):
        Restriction.of(model)
