"""More than 2³¹ coordinates: the arithmetic of positions, on memory that is reserved and not touched."""

import torch

from sltfast import ops


def test_a_segment_beyond_two_to_the_31() -> None:
    offset, n, element = 2**31 + 48, 1000, 2**35 + 8
    anchor = torch.linspace(-1, 1, n)
    grads = [torch.linspace(2, 3, n)]
    hyper = torch.tensor([[1e-3, 10.0, 5.0, 0.5, 1.0, torch.inf]], dtype=torch.float64)
    moved = {}
    for start, backend in ((0, "reference"), (0, "native"), (offset, "native")):
        w = torch.empty(1, start + n)  # the pages before the segment are never read or written
        w[0, start:] = anchor
        ops.langevin_step_(
            w, grads, [anchor], torch.tensor([[start, n, element, n, 0]]), hyper, torch.tensor(3), torch.tensor([1]),
            seed=5, backend=backend,
        )  # fmt: skip
        moved[start, backend] = w[0, start:].clone()
    assert torch.equal(moved[offset, "native"], moved[0, "native"])
    # normals within 2e-6 of the reference's, times √ε; the rest is rounding of values near 1
    assert (moved[0, "native"] - moved[0, "reference"]).abs().max() < 1e-3**0.5 * 2e-6 + 4 * 2**-24


def test_a_second_chain_beyond_two_to_the_31() -> None:
    row, n = 2**31 + 64, 16
    w = torch.empty(2, row)
    w[:, :n] = 1.0
    hyper = torch.tensor([[1.0, 0.0, 0.0, 0.0, 1.0, torch.inf]] * 2, dtype=torch.float64)
    ops.langevin_step_(
        w, [torch.zeros(2, n)], [torch.ones(n)], torch.tensor([[0, n, 0, n, 0]]), hyper, torch.tensor(0),
        torch.tensor([0, 1]), seed=5, backend="native",
    )  # fmt: skip
    for chain in range(2):
        xi = ops.philox_normals(torch.arange(n), seed=5, stream=ops.STREAM_STEP, step=0, chain=chain)
        # 1 + ξ is rounded once
        assert (w[chain, :n].double() - 1 - xi).abs().max() < 2e-6 + 8 * 2**-24
