"""Memos: what is kept, for how long, within which budget; and forwards that skip what lies below."""

from collections import Counter

import pytest
import torch
from architectures import classification_loss, images
from models import token_rows
from prefix_models import FAMILIES, Residual, cloned, each_lane, language_model, lens, next_token, seeded

from sltfast.stacking.prefix import Expansion
from sltfast.stacking.prefix.memo import KeptValues, Memo

LANES = 3


def tensor(numbers, dtype=torch.float32):
    return torch.arange(float(numbers)).to(dtype)


def test_first_come_first_kept():
    memo = Memo(100)
    for name in ("a", "b", "c"):
        memo.keep((name,), "block", tensor(10))
    assert [memo.has((name,), "block") for name in ("a", "b", "c")] == [True, True, False]
    assert memo.statistics()._asdict() == {
        "hits": 0, "misses": 0, "kept": 2, "refused": 1, "bytes": 80, "peak_bytes": 80,
    }  # fmt: skip
    memo.clear()
    assert memo.bytes == 0
    assert not memo.has(("a",), "block")


def test_a_step_gives_way_to_the_next_and_its_room_stays():
    memo = Memo(100)
    memo.keep(("step", 1, 0), "low", tensor(5))
    memo.keep(("step", 1, 1), "low", tensor(5))
    memo.keep(("step", 2, 0), "low", tensor(5))
    assert not memo.has(("step", 1, 0), "low")
    assert memo.bytes == 20
    memo.keep(("text",), "low", tensor(15))
    assert memo.bytes == 80
    memo.keep(("more",), "low", tensor(1))  # 20 bytes are free, and a step may need them
    assert not memo.has(("more",), "low")
    memo.keep(("step", 2, 1), "low", tensor(5))
    assert memo.bytes == memo.peak_bytes == 100
    memo.keep(("step", 3, 0), "low", tensor(5))
    assert memo.bytes == 80


def test_rounding_is_seen_from_the_first_use_on():
    memo = Memo(100, store_dtype=torch.bfloat16)
    x = torch.linspace(0, 1, 7)
    seen = memo.keep(("text",), "block", x)
    assert memo.bytes == 14
    assert torch.equal(seen, x.bfloat16().float())
    assert torch.equal(memo.get(("text",), "block", (x.dtype, x.device)), seen)
    memo.keep(("text",), "ids", torch.arange(3))
    assert memo.get(("text",), "ids").dtype == torch.int64


def test_what_is_kept_cannot_be_written_to():
    memo = Memo(1000)
    x = tensor(4)
    memo.keep(("text",), "block", x)
    x.zero_()
    memo.get(("text",), "block").zero_()
    assert torch.equal(memo.get(("text",), "block"), tensor(4))


def test_values_of_any_make():
    memo = Memo(100)
    values = KeptValues(memo)
    at = (("text",), "mlp", 0)
    values[at] = {"x": (tensor(5), [tensor(5)], None)}
    assert memo.bytes == 40
    assert values[at]["x"][0] is values[at]["x"][0]
    values[("text",), "mlp", 1] = tensor(20)
    assert list(values) == [at]
    assert len(values) == 1
    with pytest.raises(TypeError, match="forgets a step as a whole"):
        del values[at]


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [((-1,), ValueError, "bytes >= 0, got -1"), ((1, torch.int8), TypeError, "floating-point dtype or None")],
)
def test_bad_memos(arguments, error, match):
    with pytest.raises(error, match=match):
        Memo(*arguments)


def counted(model):
    """How often each module runs its own arithmetic, and on how many rows."""
    runs, rows = Counter(), {}
    for name, module in model.named_modules():
        if not list(module.children()) and next(module.parameters(), None) is not None:

            def forward(x, *args, own=module.forward, name=name, **kwargs):
                runs[name] += 1
                rows[name] = len(x)
                return own(x, *args, **kwargs)

            module.forward = forward
    return runs, rows


@pytest.mark.parametrize("family", FAMILIES)
def test_the_prefix_runs_once_on_one_lane_and_then_not_at_all(family):
    model = cloned(language_model(family))
    runs, rows = counted(model)
    name = FAMILIES[family][1]
    block = name.partition(".1.")[0]
    loss, batch = next_token(model), {"input_ids": token_rows(5, 4)}
    expansion = Expansion(model, [name], loss, batch, Memo(10**6))
    below = {leaf for leaf in runs if leaf.startswith(f"{block}.0.")}
    above = {leaf for leaf in runs if leaf.startswith((f"{block}.1.", f"{block}.2."))}
    embedding = {leaf for leaf in runs if (not leaf.startswith(f"{block}.") and "embed" in leaf) or ".wte" in leaf}
    assert below
    assert embedding
    results = []
    for nth in range(3):
        runs.clear(), rows.clear()
        with expansion.on(LANES, ("step", 4)):
            results.append(loss(model, each_lane(batch, LANES)))
        assert [runs[leaf] for leaf in below | embedding] == [int(nth == 0)] * len(below | embedding)
        assert {rows[leaf] for leaf in below if leaf in rows} <= {5, 5 * 4}
        assert all(runs[leaf] == 1 for leaf in above)
        assert {rows[leaf] for leaf in above} <= {LANES * 5, LANES * 5 * 4}
    assert torch.equal(results[0], results[1])
    assert torch.equal(results[0], results[2])


def test_one_run_serves_the_passes_of_lower_blocks():
    original = language_model("llama")
    loss, memo = next_token(original), Memo(10**6)
    batch = {"input_ids": token_rows(3, 6)}
    passes = {}
    for layer in (2, 1, 0):
        model = cloned(original)
        moving = [f"model.layers.{layer}.mlp.up_proj.weight"]
        passes[layer] = model, Expansion(model, moving, loss, batch, memo)
    assert memo.wanted == {f"model.layers.{layer}" for layer in range(3)}
    plain = loss(original, batch)
    for model, expansion in passes.values():
        with expansion.on(LANES, ("text", 0)):
            assert torch.equal(loss(model, each_lane(batch, LANES)).view(LANES, *plain.shape)[0], plain)
    assert (memo.hits, memo.misses, memo.kept) == (2, 1, 3)
    assert memo.bytes == 3 * plain.element_size() * 3 * 6 * 16


def test_a_run_goes_on_from_the_highest_block_that_is_remembered():
    original = language_model("gpt_neox")
    loss, memo = next_token(original), Memo(10**6)
    batch = {"input_ids": token_rows(3, 6)}
    low, high = cloned(original), cloned(original)
    below = Expansion(low, ["gpt_neox.layers.1.input_layernorm.weight"], loss, batch, memo)
    above = Expansion(high, ["gpt_neox.layers.2.input_layernorm.weight"], loss, batch, memo)
    with below.on(LANES, ("text", 0)):
        plain = loss(low, each_lane(batch, LANES))
    runs, _ = counted(high)
    above.restore()
    above = Expansion(high, ["gpt_neox.layers.2.input_layernorm.weight"], loss, batch, memo)
    runs.clear()
    with above.on(LANES, ("text", 0)):
        assert torch.equal(loss(high, each_lane(batch, LANES)), plain)
    assert runs["gpt_neox.embed_in"] == runs["gpt_neox.layers.0.mlp.dense_h_to_4h"] == 0
    assert runs["gpt_neox.layers.1.mlp.dense_h_to_4h"] == 1
    with above.on(LANES, ("text", 0)):
        assert torch.equal(loss(high, each_lane(batch, LANES)), plain)
    assert runs["gpt_neox.layers.1.mlp.dense_h_to_4h"] == 1


@pytest.mark.parametrize("budget", [0, 2000])
def test_without_room_the_prefix_runs_again(budget):
    model = cloned(language_model("llama"))
    loss, memo = next_token(model), Memo(budget)
    batches = [{"input_ids": token_rows(2, 6, seed=seed)} for seed in range(3)]
    expansion = Expansion(model, ["model.layers.1.mlp.up_proj.weight"], loss, batches[0], memo)
    for _ in range(2):
        for i, batch in enumerate(batches):
            with expansion.on(LANES, ("text", i)):
                values = loss(model, each_lane(batch, LANES))
            assert torch.equal(values[:2], loss(model, batch))
    assert memo.bytes <= budget
    assert (memo.hits, memo.misses) == (budget // 2000, 6 - budget // 2000)


def test_a_loss_that_runs_the_model_twice():
    model = cloned(language_model("llama"))
    once = next_token(model)

    def loss(module, batch):
        flipped = {name: column.flip(1) for name, column in batch.items()}
        return once(module, batch) - 0.5 * once(module, flipped)

    batch = {"input_ids": token_rows(3, 6)}
    expansion = Expansion(model, ["model.layers.1.mlp.up_proj.weight"], loss, batch, Memo(10**6))
    assert expansion.point == "model.layers.1", expansion.reason
    for _ in range(3):
        with expansion.on(LANES, ("text", 0)):
            values = loss(model, each_lane(batch, LANES))
        assert torch.equal(values[:3], loss(model, batch))


@pytest.mark.parametrize("lanes", [1, 4])
def test_bfloat16_memo(lanes):
    model = cloned(lens())
    loss, batch = next_token(model), {"input_ids": token_rows(3, 6)}
    memo = Memo(10**6, store_dtype=torch.bfloat16)
    expansion = Expansion(model, ["blocks.2.mlp.W_in"], loss, batch, memo)
    values = []
    for _ in range(2):
        with expansion.on(lanes, ("text", 0)):
            values.append(loss(model, each_lane(batch, lanes)))
    assert torch.equal(*values)
    assert memo.bytes == 2 * 3 * 6 * 16
    plain = loss(model, batch)
    # activations are rounded to 8 bits once, and what they do to a loss near 3 is of that order
    assert 0 < (values[0][:3] - plain).abs().max() < 2**-8 * 10


def test_one_lane_in_place():
    """A remembered activation enters a module that writes on its input."""
    model = cloned(seeded(Residual).double())
    x, y = images(4)
    batch = (x.double(), y)
    expansion = Expansion(model, ["head.weight"], classification_loss, batch, Memo(10**6))
    plain = classification_loss(model, batch)
    for _ in range(3):
        with expansion.on(1, ("text", 0)):
            assert torch.equal(classification_loss(model, batch), plain)
