"""What must not change a chain: threads, its neighbours, how its coordinates are cut up, the instruction set."""

import pytest
import torch
from langevin_cases import ISAS, WIDEST, Case, make_case, poisoned

from sltfast import _C, ops

BIG = (40_000, 3, 70_001, 0, 16_384)  # several units of work, several threads' worth


def assert_same_bits(a: Case, b: Case) -> None:
    assert torch.equal(a.w.nan_to_num(), b.w.nan_to_num())
    for name in ("v", "momentum", "thermostat", "metrics", "alive", "death_step"):
        if a.keywords.get(name) is not None:
            assert torch.equal(a.keywords[name].nan_to_num(), b.keywords[name].nan_to_num()), name


@pytest.mark.parametrize("method", ops.METHODS)
def test_thread_count(method) -> None:
    case = make_case(BIG, method=method, low_dtype=torch.bfloat16)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = case.run()
        for count in (2, 3, 5):
            torch.set_num_threads(count)
            assert_same_bits(case.run(), alone)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("backend", ["native", "reference"])
@pytest.mark.parametrize("method", ops.METHODS)
@pytest.mark.parametrize("masked", [False, True])
def test_chains_together_or_one_by_one(backend, method, masked) -> None:
    case = make_case(chains=4, method=method, masked=masked, low_dtype=torch.float16)
    together = case.run(backend)
    for c in range(4):
        alone = case.one_chain(c).run(backend)
        assert torch.equal(alone.w[0].nan_to_num(), together.w[c].nan_to_num())
        assert torch.equal(alone.keywords["metrics"][0], together.keywords["metrics"][c])
        for mine, theirs in zip(alone.keywords["low"], together.keywords["low"], strict=True):
            assert torch.equal(mine[0], theirs[c])


@pytest.mark.parametrize("method", ops.METHODS)
def test_instruction_sets_give_the_same_bits(method) -> None:
    case = make_case(method=method, masked=True, measured=False)
    try:
        _C.use_isa(WIDEST)
        widest = case.run()
        for isa in ISAS:
            _C.use_isa(isa)
            other = case.run()
            if method == "sgnht":  # Σm² is a sum: its last digits depend on the width, 64 products of float32 a lane
                now, then = other.keywords.pop("thermostat"), widest.keywords["thermostat"]
                assert torch.allclose(now, then, rtol=0, atol=64 * 2**-23 * 1e-3)
            assert_same_bits(other, widest)
    finally:
        _C.use_isa(WIDEST)


def noise_of(elements: list[tuple[int, int, int, int]], chain: int = 5, masks: list | None = None) -> torch.Tensor:
    """√ε·ξ of segments (numel, element, run, stride), by a step from zero without drift."""
    total = sum(segment[0] for segment in elements)
    offsets = torch.tensor([0, *(segment[0] for segment in elements)]).cumsum(0)[:-1]
    table = torch.tensor([[int(o), *segment] for o, segment in zip(offsets, elements, strict=True)])
    w = torch.zeros(1, total)
    ops.langevin_step_(
        w,
        [torch.empty(0)] * len(elements),
        [torch.zeros(segment[0]) for segment in elements],
        table,
        torch.tensor([[1.0, 0.0, 0.0, 0.0, 1.0, torch.inf]], dtype=torch.float64),
        torch.tensor(3),
        torch.tensor([chain]),
        seed=77,
        masks=masks,
        backend="native",
    )
    return w[0]


FULL = (6000, 0, 6000, 0)  # a [100, 60] matrix


def test_noise_of_a_slice_is_that_of_the_full_model() -> None:
    full = noise_of([FULL]).view(100, 60)
    rows = noise_of([(40 * 60, 13 * 60, 40 * 60, 0)]).view(40, 60)
    assert torch.equal(rows, full[13:53])
    columns = noise_of([(100 * 7, 21, 7, 60)]).view(100, 7)
    assert torch.equal(columns, full[:, 21:28])
    cut = noise_of([(17, 0, 17, 0), (5983, 17, 5983, 0)])
    assert torch.equal(cut, full.flatten())


def test_masks_do_not_shift_the_noise() -> None:
    full = noise_of([FULL])
    mask = torch.rand(6000, generator=torch.Generator().manual_seed(1)) < 0.3
    assert torch.equal(noise_of([FULL], masks=[mask]), full * mask)


def test_chains_and_equal_slices_do_not_share_noise() -> None:
    full = noise_of([FULL])
    assert not torch.isin(full, noise_of([FULL], chain=6)).sum() > 6000 * 6000 * 2.0**-20
    left, right = noise_of([(700, 0, 7, 60)]), noise_of([(700, 7, 7, 60)])
    assert not (left == right).any()


def test_element_beyond_32_bits_of_groups() -> None:
    first = (1 << 34) - 1000
    drawn = noise_of([(3000, first, 3000, 0)])
    strided = noise_of([(3000, first, 2, 2)])
    expected = ops.philox_normals(torch.arange(first, first + 3000), seed=77, stream=ops.STREAM_STEP, step=3, chain=5)
    assert torch.allclose(drawn.double(), expected, rtol=0, atol=2e-6)  # the documented error of a normal
    assert torch.equal(strided, drawn)


def test_prepared_step_is_the_step() -> None:
    case = make_case(method="rmsprop_sgld_hh", low_dtype=torch.bfloat16, masked=True)
    loss = torch.ones(3, dtype=torch.float64)
    direct = case.run(loss=loss)
    prepared = make_case(method="rmsprop_sgld_hh", low_dtype=torch.bfloat16, masked=True)
    move = ops.LangevinStep(
        prepared.w, prepared.anchors, prepared.segments, prepared.hyper, prepared.step, prepared.chains,
        **prepared.keywords,
    )  # fmt: skip
    move(prepared.grads, loss=loss)
    assert_same_bits(prepared, direct)


def test_a_call_leaves_global_randomness_and_inputs_alone() -> None:
    case = make_case(low_dtype=torch.bfloat16, masked=True)
    state = torch.get_rng_state()
    after = case.run()
    assert torch.equal(torch.get_rng_state(), state)
    for before, now in zip(case.grads + case.anchors, after.grads + after.anchors, strict=True):
        assert torch.equal(before, now)
    assert torch.equal(poisoned(3).isnan(), torch.ones(3, dtype=torch.bool))
