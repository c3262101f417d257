"""The optimisers' steps against devinterp's, bit for bit."""

import warnings
from collections.abc import Callable
from typing import Any

import devinterp.optim as theirs
import pytest
import torch
from torch import Tensor, nn

import sltfast.compat.devinterp.optim as ours
from sltfast.compat.defects import CompatWarning, forget_warnings
from sltfast.compat.devinterp.optim.sketch import SKETCH_QUANTITIES

pytestmark = pytest.mark.filterwarnings("ignore")
SIZES = ((5, 3), (4,), (2, 2, 3))
METHODS = ("sgld", "rmsprop_sgld", "sgnht", "SGLD", "SGNHT")
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {},
    "prior": {"localization": 3.0, "weight_decay": 0.2},
    "box": {"bounding_box_size": 0.05},
    "metrics": {"localization": 3.0, "save_metrics": True, "sketch_dim": 7},
    "quiet": {"noise_level": 0.0, "weight_decay": 0.1},
}


def build(package: Any, method: str) -> Callable[..., Any]:
    return getattr(package.SGMCMC, method, None) or getattr(package, method)


def walk(package: Any, method: str, dtype: torch.dtype, masked: bool, settings: dict[str, Any]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(3)
    params = [nn.Parameter(torch.randn(size, generator=generator, dtype=dtype)) for size in SIZES]
    groups: list[dict[str, Any]] = [{"params": [param]} for param in params]
    if masked:
        for group, param in zip(groups, params, strict=True):
            group["mask"] = torch.rand(param.shape, generator=generator) > 0.4
    with torch.random.fork_rng():
        torch.manual_seed(8)
        optimizer = build(package, method)(groups, lr=0.01, nbeta=7.0, **settings)
        for step in range(5):
            for place, param in enumerate(params):
                absent = place == 1 and step == 2 and method != "SGNHT"  # a group without gradients is 0/0 in theirs
                gradient = torch.randn(param.shape, generator=generator, dtype=dtype)
                param.grad = None if absent else gradient
            optimizer.step()
        after = {f"w{place}": param.detach() for place, param in enumerate(params)} | {"stream": torch.randn(3)}
    if settings.get("save_metrics"):
        metrics = optimizer.get_metrics()
        after |= {name: getattr(metrics, name) for name in (*metrics.NORM_FIELDS, *metrics.DOT_FIELDS)}
        after["numel"] = torch.tensor(metrics.numel)
        after |= {f"sketch {name}": getattr(optimizer.get_sketches(), name) for name in SKETCH_QUANTITIES}
    return after


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("masked", [False, True], ids=["whole", "masked"])
@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("method", METHODS)
def test_weights_and_records_are_theirs(
    method: str, name: str, masked: bool, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = build(ours, method)
    settings = SETTINGS[name]
    if method.lower() == "sgnht":
        kept = ("bounding_box_size",) if method == "SGNHT" else ("bounding_box_size", "save_metrics", "sketch_dim")
        settings, masked = {key: value for key, value in settings.items() if key in kept}, False
    assert known is not None
    # devinterp's check of its own sums fails by rounding in float64; python -O leaves it out
    monkeypatch.setattr(torch.testing, "assert_close", lambda *a, **k: None)
    mine, other = (walk(package, method, dtype, masked, settings) for package in (ours, theirs))
    assert mine.keys() == other.keys()
    for key, value in mine.items():
        assert value.dtype == other[key].dtype, key
        assert torch.equal(value, other[key]), key


def weights_after(make: Callable[[list[nn.Parameter]], Any], steps: int = 4, **step: Any) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    param = nn.Parameter(torch.randn(6, generator=generator))
    optimizer = make([param])
    for _ in range(steps):
        param.grad = torch.randn(6, generator=generator)
        optimizer.step(**step)
    return param.detach()


def test_without_noise_it_is_sgd() -> None:
    sgld = weights_after(lambda p: ours.SGMCMC.sgld(p, lr=0.1, nbeta=2.0, noise_level=0.0))
    assert torch.equal(sgld, weights_after(lambda p: torch.optim.SGD(p, lr=0.1)))


def test_rmsprop_that_forgets_nothing_is_sgld() -> None:
    draws = [torch.Generator().manual_seed(5) for _ in range(2)]
    plain = weights_after(lambda p: ours.SGMCMC.sgld(p, lr=0.1, nbeta=3.0), noise_generator=draws[0])
    shaped = weights_after(
        lambda p: ours.SGMCMC.rmsprop_sgld(p, lr=0.1, nbeta=3.0, alpha=1.0, eps=1.0), noise_generator=draws[1]
    )
    assert torch.equal(plain, shaped)


def test_noise_comes_from_the_generator_given() -> None:
    before = torch.random.get_rng_state()
    make = lambda p: ours.SGMCMC.sgld(p, lr=0.1, nbeta=3.0)  # noqa: E731
    one, same, other = (weights_after(make, noise_generator=torch.Generator().manual_seed(s)) for s in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert torch.equal(before, torch.random.get_rng_state())


def test_a_mask_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match="Mask shape"):
        ours.SGMCMC.sgld([{"params": nn.Parameter(torch.zeros(3)), "mask": torch.ones(2)}], nbeta=2.0)


def test_single_chains_have_their_default() -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        ours.SGLD([nn.Parameter(torch.zeros(2))], nbeta=2.0)
    assert any("deprecated" in str(one.message) for one in said)


def test_what_is_wrong_with_devinterps_is_said_once() -> None:
    forget_warnings()
    half, whole = nn.Parameter(torch.zeros(2, dtype=torch.bfloat16)), nn.Parameter(torch.zeros(2))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        ours.SGMCMC.sgld([half], nbeta=2.0)
        ours.SGMCMC.sgld([half], nbeta=2.0)
        ours.SGMCMC.sgnht([whole], nbeta=2.0)
    forget_warnings()
    said = [one for one in said if one.category is CompatWarning]
    texts = [str(one.message) for one in said]
    assert len(texts) == 2
    assert "float32 copy" in texts[0]
    assert "friction" in texts[1]
    assert all(
        one.filename == __file__ for one in said if one.category is CompatWarning and "friction" in str(one.message)
    )
