"""precision=…: what the model computes in, over float32 masters and without a global flag."""

import numpy as np
import pytest
import torch
from models import Mlp, regression_data, regression_loss, tiny_neox, token_rows

import sltfast
from sltfast.clone import structural_clone
from sltfast.ops.tf32 import round_tf32, tf32_linear
from sltfast.sampler.precision import PRECISIONS, use_tf32

CPU = torch.device("cpu")
SMALL = {
    "lr": 1e-3, "n_beta": 10.0, "localization": 10.0, "num_chains": 2, "num_draws": 10, "batch_size": 8,
    "progress": False,
}  # fmt: skip


def flags() -> tuple:
    return (
        torch.get_float32_matmul_precision(),
        torch.backends.cuda.matmul.allow_tf32,
        torch.backends.cudnn.allow_tf32,
        torch.is_autocast_enabled("cpu"),
        torch.is_autocast_cache_enabled(),
        torch.get_default_dtype(),
    )


def test_rounding_is_to_nearest_with_ties_away():
    ulp = 2.0**-10
    x = torch.tensor([1.0, 1 + 0.49 * ulp, 1 + 0.5 * ulp, 1 + 0.51 * ulp, -1 - 0.5 * ulp, 0.0, -0.0])
    expected = torch.tensor([1.0, 1.0, 1 + ulp, 1 + ulp, -1 - ulp, 0.0, -0.0])
    assert torch.equal(round_tf32(x), expected)
    assert torch.equal(torch.signbit(round_tf32(x)), torch.signbit(expected))
    odd = torch.tensor([torch.inf, -torch.inf, torch.nan])
    assert torch.equal(round_tf32(odd).nan_to_num(nan=7.0), odd.nan_to_num(nan=7.0))
    random = torch.randn(4096, generator=torch.Generator().manual_seed(0))
    rounded = round_tf32(random)
    assert ((rounded.view(torch.int32) & 0x1FFF) == 0).all()
    assert ((rounded - random).abs() <= random.abs() * 2.0**-11).all()


@pytest.mark.parametrize("shape", [(5, 7), (2, 3, 7)])
def test_linear_rounds_the_operands_of_all_three_products(shape):
    random = torch.Generator().manual_seed(1)
    x = torch.randn(shape, generator=random).requires_grad_()
    w = torch.randn(4, 7, generator=random).requires_grad_()
    b = torch.randn(4, generator=random).requires_grad_()
    d = torch.randn((*shape[:-1], 4), generator=random)
    y = tf32_linear(x, w, b)
    y.backward(d)
    rx, rw, rd = (round_tf32(t.detach()).double() for t in (x, w, d))
    # sums of at most 10 exact products in float32: ten roundings of partial sums below 30
    close = {"rtol": 0, "atol": 10 * 30 * 2.0**-24}
    torch.testing.assert_close(y.double(), rx @ rw.t() + b.double(), **close)
    torch.testing.assert_close(x.grad.double(), rd @ rw, **close)
    torch.testing.assert_close(w.grad.double(), rd.flatten(0, -2).t() @ rx.flatten(0, -2), **close)
    torch.testing.assert_close(b.grad, d.flatten(0, -2).sum(0))


def test_tf32_reaches_linear_and_conv1d_and_leaves_strangers():
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=16, n_positions=8)).eval()
    clone = structural_clone(model, CPU)
    changed = use_tf32(clone)
    assert {name.rsplit(".", 1)[-1] for name in changed} == {"c_attn", "c_proj", "c_fc", "lm_head"}
    ids = token_rows(2, 8, 16)
    with torch.no_grad():
        exact, low = model(ids).logits, clone(ids).logits
    assert not torch.equal(exact, low)
    assert (exact - low).abs().max() < 2.0**-11 * 16 * exact.abs().max()  # a handful of operands rounded to 2⁻¹¹

    class Strange(torch.nn.Linear):
        def forward(self, x):
            return 2 * super().forward(x)

    assert use_tf32(torch.nn.Sequential(Strange(2, 2))) == []


@pytest.mark.parametrize("precision", PRECISIONS)
def test_no_flag_and_no_weight_of_the_caller_changes(precision):
    model = tiny_neox().bfloat16()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    forwards = [module.forward.__func__ for module in model.modules()]
    at_start = flags()
    sltfast.sample(model, token_rows(), precision=precision, **SMALL)
    assert flags() == at_start
    assert all(p.dtype == torch.bfloat16 and torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert [module.forward.__func__ for module in model.modules()] == forwards


def test_each_precision_computes_differently_and_walks_the_same_path():
    traces = {
        precision: sltfast.sample(tiny_neox(), token_rows(), precision=precision, **SMALL)["loss"].values
        for precision in (None, *PRECISIONS)
    }
    np.testing.assert_array_equal(traces[None], traces["fp32"])
    # losses of 3.5 nats over 64 tokens: a few spacings of bf16's, of TF32's mantissa
    for precision, atol in (("tf32", 3e-3), ("bf16", 2e-2)):
        assert not np.array_equal(traces[precision], traces["fp32"])
        np.testing.assert_allclose(traces[precision], traces["fp32"], atol=atol)


def test_fp32_of_a_low_precision_model_is_the_upcast_model():
    low = tiny_neox().bfloat16()
    expected = sltfast.sample(tiny_neox().bfloat16().float(), token_rows(), **SMALL)["loss"].values
    got = sltfast.sample(low, token_rows(), precision="fp32", **SMALL)["loss"].values
    np.testing.assert_array_equal(got, expected)


def test_the_callers_autocast_gives_way_to_a_named_precision():
    plain = sltfast.sample(Mlp(), regression_data(), loss_fn=regression_loss, **SMALL)["loss"]
    with torch.autocast("cpu", torch.bfloat16):
        named = sltfast.sample(Mlp(), regression_data(), loss_fn=regression_loss, precision="fp32", **SMALL)["loss"]
    np.testing.assert_array_equal(named, plain)


def test_bad_precisions_are_refused():
    arguments = {"loss_fn": regression_loss, **SMALL}
    with pytest.raises(ValueError, match="one of fp32, tf32, bf16, got 'fp8'"):
        sltfast.sample(Mlp(), regression_data(), precision="fp8", **arguments)
    with pytest.raises(ValueError, match=r"float64 weights .*leave precision=None"):
        sltfast.sample(Mlp().double(), regression_data(), precision="bf16", **arguments)


@pytest.mark.parametrize("masks", ["l1h0", "l0h1", ["l1h0", "l0 mlp"]], ids=str)
@pytest.mark.parametrize("engine", ["auto", "stacked"])
def test_parts_of_weights_move_under_autocast(masks, engine):
    settings = {"lr": 1e-3, "n_beta": 10.0, "num_chains": 2, "num_draws": 5, "batch_size": 4, "progress": False}
    settings |= {"param_masks": masks, "precision": "bf16"}
    folded = sltfast.sample(tiny_neox(), token_rows(), engine=engine, **settings)
    alone = sltfast.sample(tiny_neox(), token_rows(), engine="sequential", **settings)
    # a head that is folded rounds its products apart from those of w*: a few roundings of bf16, 2⁻⁸, in losses of 3.5
    np.testing.assert_allclose(folded["loss"], alone["loss"], rtol=4 * 2**-8)
