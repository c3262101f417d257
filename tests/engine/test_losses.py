"""Losses per item: next-token cross-entropy by hand, padding, labels, and what a loss function must return."""

import pytest
import torch
from models import Mlp, regression_data, regression_loss, tiny_neox, token_rows
from torch import nn

from sltfast.losses import IGNORE_INDEX, ItemLosses, check_causal, check_tokens, is_language_model, item_loss


def by_hand(model, ids):
    """−log p(x_{t+1} | x_{≤t}) through an explicit log-softmax in float64."""
    logits = model(ids).logits.double()
    return -logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]


def test_next_token_loss_is_the_log_probability():
    model, ids = tiny_neox(), token_rows(3)
    losses = item_loss(model, None)(model, ids)
    assert losses.weights is None
    # fp32 cross-entropy of logits of order 1: a few units in the last place
    torch.testing.assert_close(losses.values.double(), by_hand(model, ids), atol=2e-6, rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.int32, torch.uint8, torch.int64])
def test_any_whole_number_type_will_do(dtype):
    model, ids = tiny_neox(), token_rows(3)
    assert torch.equal(item_loss(model, None)(model, ids.to(dtype)).values, item_loss(model, None)(model, ids).values)


def test_padding_changes_nothing_for_the_real_tokens():
    model, ids = tiny_neox(), token_rows(2, tokens=6)
    padded = torch.cat([ids, torch.full((2, 3), 7)], dim=1)
    mask = torch.cat([torch.ones(2, 6), torch.zeros(2, 3)], dim=1).long()
    loss = item_loss(model, None)
    short, long = loss(model, ids), loss(model, {"input_ids": padded, "attention_mask": mask})
    assert long.weights.sum() == 10
    torch.testing.assert_close(long.mean(), short.mean(), atol=1e-6, rtol=1e-6)
    assert long.recorded()[:, 5:].isnan().all()


def test_left_padding_leaves_out_the_token_predicted_from_padding():
    model, ids = tiny_neox(), token_rows(1, tokens=5)
    mask = torch.tensor([[0, 0, 1, 1, 1]])
    assert item_loss(model, None)(model, {"input_ids": ids, "attention_mask": mask}).weights.tolist() == [[0, 0, 1, 1]]


def gpt2():
    from transformers import GPT2Config, GPT2LMHeadModel

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        config = GPT2Config(
            vocab_size=32, n_embd=16, n_layer=2, n_head=2, n_positions=16, bos_token_id=0, eos_token_id=0
        )
        return GPT2LMHeadModel(config).eval()


@pytest.mark.parametrize("left", [True, False])
def test_learned_positions_do_not_see_padding(left):
    model, ids = gpt2(), token_rows(2, tokens=6)
    padding, zeros, ones = torch.full((2, 3), 7), torch.zeros(2, 3), torch.ones(2, 6)
    padded = {
        "input_ids": torch.cat([padding, ids] if left else [ids, padding], dim=1),
        "attention_mask": torch.cat([zeros, ones] if left else [ones, zeros], dim=1),
    }
    loss = item_loss(model, None)
    torch.testing.assert_close(loss(model, padded).mean(), loss(model, ids).mean(), atol=1e-6, rtol=1e-6)


def test_models_that_see_the_future_are_refused():
    from transformers import BertConfig, BertForMaskedLM, BertModel

    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    config = BertConfig(vocab_size=32, initializer_range=0.2, **size)
    model = BertForMaskedLM(config).eval()
    with pytest.raises(TypeError, match=r"BertForMaskedLM is not causal.*give loss_fn"):
        check_causal(model, item_loss(model, None), token_rows(3))
    model = tiny_neox()
    check_causal(model, item_loss(model, None), token_rows(3))
    with pytest.raises(TypeError, match=r"BertModel gives no next-token logits"):
        item_loss(BertModel(config), None)(BertModel(config), token_rows(3))


def test_encoder_decoders_need_a_loss_function():
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(vocab_size=32, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    with pytest.raises(TypeError, match="give loss_fn"):
        item_loss(T5ForConditionalGeneration(config), None)


def test_labels_choose_the_tokens_that_count():
    model, ids = tiny_neox(), token_rows(2, tokens=5)
    labels = ids.clone()
    labels[:, :3] = IGNORE_INDEX
    losses = item_loss(model, None)(model, {"input_ids": ids, "labels": labels})
    torch.testing.assert_close(losses.mean().double(), by_hand(model, ids)[:, 2:].mean(), atol=2e-6, rtol=1e-6)


def test_a_batch_of_padding_alone_weighs_nothing():
    losses = ItemLosses(torch.ones(2, 3, requires_grad=True), torch.zeros(2, 3))
    assert losses.mean() == 0


def test_transformer_lens_models_are_language_models():
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    config = HookedTransformerConfig(n_layers=1, d_model=16, n_ctx=16, d_head=8, d_vocab=32, act_fn="gelu", seed=0)
    model, ids = HookedTransformer(config), token_rows(2)
    assert is_language_model(model)
    logits = model(ids).double()
    expected = -logits[:, :-1].log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0]
    torch.testing.assert_close(item_loss(model, None)(model, ids).values.double(), expected, atol=2e-6, rtol=1e-6)


def test_other_models_need_a_loss_function():
    with pytest.raises(TypeError, match=r"Mlp is not recognised.*loss_fn\(model, batch\)"):
        item_loss(Mlp(), None)
    with pytest.raises(TypeError, match="must be callable"):
        item_loss(Mlp(), "mse")


@pytest.mark.parametrize(
    ("returned", "error", "says"),
    [
        (torch.tensor(1.0), ValueError, r"shape \[4\].*reduction='none'"),
        (torch.ones(3), ValueError, r"shape \[4\]"),
        (torch.ones(4, dtype=torch.int64), TypeError, "float tensor"),
        (1.0, TypeError, "got float"),
        ((torch.ones(4), torch.ones(3)), ValueError, r"weights of shape \(3,\)"),
    ],
)
def test_a_loss_function_must_return_one_loss_per_item(returned, error, says):
    with pytest.raises(error, match=says):
        item_loss(Mlp(), lambda model, batch: returned)(Mlp(), torch.zeros(4, 3))


def test_weights_weigh():
    def weighted(model, batch):
        values = regression_loss(model, batch)
        return values, torch.arange(len(values))

    model, data = Mlp(), regression_data(4)
    values = regression_loss(model, data)
    expected = (values * torch.arange(4)).sum() / 6
    torch.testing.assert_close(item_loss(model, weighted)(model, data).mean(), expected)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (torch.zeros(3, 4), "whole numbers"),
        (torch.zeros(3, dtype=torch.int64), r"\[rows, tokens\]"),
        (torch.zeros(3, 1, dtype=torch.int64), "at least 2 tokens"),
        (torch.full((3, 4), 32), r"32\.\.32.*0\.\.31"),
        (torch.full((3, 4), -1), r"-1\.\.-1"),
        ({"tokens": torch.zeros(3, 4)}, "needs a column input_ids"),
        ({"input_ids": torch.zeros(3, 4).long(), "attention_mask": torch.ones(3, 5)}, "attention_mask has shape"),
        ({"input_ids": torch.zeros(3, 4).long(), "labels": torch.full((3, 4), IGNORE_INDEX)}, "no token is left"),
        ({"input_ids": torch.zeros(3, 4).long(), "attention_mask": torch.zeros(3, 4)}, "no token is left"),
        ({"input_ids": torch.zeros(3, 4).long(), "labels": torch.full((3, 4), 99)}, r"labels span 99\.\.99"),
    ],
)
def test_tokens_that_cannot_be_predicted_are_refused(data, says):
    with pytest.raises(ValueError, match=says):
        check_tokens(tiny_neox(), data)


def test_only_modules_with_input_ids_count_as_language_models():
    assert is_language_model(tiny_neox())
    assert not is_language_model(nn.Linear(2, 2))
