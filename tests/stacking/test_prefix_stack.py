"""Prefix sharing with stacked weights, and with heads that expand late."""

import head_models as hm
import pytest
import torch
from architectures import classification_loss, images
from models import token_rows
from one_lane import EXACT, assert_lanes_exact, stacked
from prefix_models import FAMILIES, Residual, language_model, next_token, seeded

from sltfast.losses import item_loss
from sltfast.losses.unembedding import Unembedding
from sltfast.losses.unembedding_search import find_unembedding
from sltfast.stacking.heads import HeadLanes
from sltfast.stacking.prefix import Expansion, Memo


def shared(stack, loss, batch, memo, key):
    """The loss of a stack's clone under prefix sharing; any other model's as it is."""
    with stack.lifted():
        expansion = Expansion(stack.model, stack.pieces, loss, batch, memo)
    assert expansion.fits(stack.rungs)

    def losses(model, given):
        with expansion.on(stack.lanes if model is stack.model else 1, key if model is stack.model else None):
            return loss(model, given)

    return expansion, losses


@pytest.mark.parametrize("family", FAMILIES)
def test_stacked_block(family):
    model = language_model(family)
    block = FAMILIES[family][1].partition(".1.")[0] + ".1"
    names = [name for name, _ in model.named_parameters() if name.startswith(f"{block}.")]
    stack = stacked(model, names, lanes=3)
    batch, memo = {"input_ids": token_rows(2, 5)}, Memo(10**6)
    expansion, losses = shared(stack, next_token(model), batch, memo, ("step", 0))
    assert expansion.point == block
    for _ in range(2):
        assert_lanes_exact(model, stack, losses, batch, rows=2)
    assert (memo.hits, memo.misses) == (1, 1)


@pytest.mark.parametrize("name", ["lm_head.weight", "model.layers.2.mlp.down_proj.weight", "model.norm.weight"])
def test_losses_without_logits(name):
    model = language_model("llama")
    batch, memo = {"input_ids": token_rows(3, 6)}, Memo(10**6)
    plain, folded = item_loss(model, None), item_loss(model, None)
    stack = stacked(model, [name], lanes=4)
    with stack.lifted():
        folded.unembedding = find_unembedding(stack.model, folded, batch)
        assert isinstance(folded.unembedding, Unembedding), folded.unembedding
        expansion = Expansion(stack.model, [name], lambda m, b: folded(m, b).values, batch, memo)
    assert expansion.point == ("model.layers.2" if ".mlp." in name else name.rpartition(".")[0])
    assert 0 < expansion.suffix_share < 0.7

    def losses(module, given):
        if module is not stack.model:
            return plain(module, given).values
        with expansion.on(stack.lanes, ("step", 3)):
            return folded(module, given, stack.lanes, stack.lane_weights).values

    for _ in range(2):
        assert_lanes_exact(model, stack, losses, batch, rows=3)
    assert (memo.hits, memo.misses) == (1, 1)


def test_stacked_stage_of_a_residual_net():
    model = seeded(Residual).double()
    stack = stacked(model, ["second.inner.weight", "third.outer.bias", "head.weight"], lanes=3)
    x, y = images(4)
    expansion, losses = shared(stack, classification_loss, (x.double(), y), None, None)
    assert expansion.point == "second"
    assert_lanes_exact(model, stack, losses, (x.double(), y), rows=4)


def test_a_unit_around_the_point_does_not_fit():
    model = language_model("llama")
    stack = stacked(model, [FAMILIES["llama"][1]], lanes=2)
    with stack.lifted():
        expansion = Expansion(stack.model, stack.pieces, next_token(model), {"input_ids": token_rows(2, 5)})
    assert expansion.fits(stack.rungs)
    assert expansion.fits({"model.layers.1": "vmap", "model.layers.1.self_attn": "loop"})
    assert not expansion.fits({"model": "vmap"})
    stack.run_whole()
    assert not expansion.fits(stack.rungs)


@pytest.mark.parametrize("padding", ["", "left", "right"])
@pytest.mark.parametrize("name", ["neox", "gpt2", "llama", "qwen2"])
def test_heads_expand_late(name, padding):
    model = hm.model_of(name)
    batch, chains = hm.batch_of(3, 7, padding), 2
    restrictions = hm.restrictions_of(model, 1, [1, 0], kind="group" if name in ("llama", "qwen2") else "head")
    leaves = hm.leaves_of(restrictions, chains)

    def logits(module, given):
        return module(**given).logits

    expected, gradients = hm.one_at_a_time(model, restrictions, leaves, chains, lambda m: logits(m, batch))
    clone, memo = hm.frozen(model), Memo(10**7)
    expansion = Expansion(clone, [segment.name for segment in restrictions[0].segments], logits, batch, memo)
    heads, reason = HeadLanes.of(clone, restrictions, leaves, chains, lambda: logits(clone, batch))
    assert heads is not None, reason
    heads.apply(expansion)
    everything = {key: column.repeat(heads.lanes, 1) for key, column in batch.items()}
    generator = torch.Generator().manual_seed(13)
    weights = [torch.randn(expected[:3].shape, generator=generator, dtype=torch.float64) for _ in range(heads.lanes)]
    found = []
    for key in (None, ("observable", "text", 0), ("observable", "text", 0)):
        with expansion.on(heads.lanes, key):
            found.append(logits(clone, everything))
        assert (found[-1] - expected).abs().max() <= EXACT * expected.abs().max()
        grads = torch.autograd.grad((found[-1] * torch.cat(weights)).sum(), leaves)
        scale = max(gradient.abs().max() for gradient in gradients)
        for one, other in zip(grads, gradients, strict=True):
            assert (one - other).abs().max() <= EXACT * scale
    assert torch.equal(found[1], found[2])
    assert (memo.hits, memo.misses) == (1, 1)
    # at least the block's input, and what the attention computes at w*
    assert memo.kept >= 2
    expansion.restore()
    heads.restore()
    assert torch.equal(logits(clone, batch), logits(model, batch))


def test_expanding_late_elsewhere_is_refused():
    model = hm.model_of("llama")
    restrictions = hm.restrictions_of(model, 1, [1, 0], kind="group")
    leaves = hm.leaves_of(restrictions, 1)
    clone, batch = hm.frozen(model), hm.batch_of(2, 5)
    heads, _ = HeadLanes.of(clone, restrictions, leaves, 1, lambda: clone(**batch).logits)
    expansion = Expansion(clone, ["model.layers.2.mlp.up_proj.weight"], lambda m, b: m(**b).logits, batch)
    with pytest.raises(ValueError, match=r"lanes part at model\.layers\.2 .*, not at model\.layers\.1"):
        expansion.expand_late(heads)
