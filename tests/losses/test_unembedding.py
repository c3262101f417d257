"""Losses without logits: equal to cross-entropy of the model's own logits, for every way that models form them."""

import inspect

import pytest
import torch
from causal_models import FAMILIES, batches, made
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sltfast import ops
from sltfast.losses import IGNORE_INDEX, Unembedding, find_unembedding, item_loss, lane_losses
from sltfast.sampler.precision import computing, use_tf32

EPS = {torch.float64: 2.0**-53, torch.float32: 2.0**-24}


def by_hand(model, batch):
    """Mean loss and its gradients from logits; the losses per token, NaN where ignored."""
    columns = batch if isinstance(batch, dict) else {"input_ids": batch}
    ids, mask = columns["input_ids"], columns.get("attention_mask")
    targets = columns.get("labels", ids)[:, 1:].clone()
    given = {}
    if mask is not None:
        targets[(mask[:, 1:] == 0) | (mask[:, :-1] == 0)] = IGNORE_INDEX
        given = {"attention_mask": mask}
        if "position_ids" in inspect.signature(model.forward).parameters:
            given["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
    output = model(ids, **given)
    logits = output if isinstance(output, torch.Tensor) else output.logits
    flat, y = logits[:, :-1].flatten(0, 1), targets.flatten()
    values = F.cross_entropy(flat, y, reduction="none", ignore_index=IGNORE_INDEX).view(targets.shape)
    return F.cross_entropy(flat, y, ignore_index=IGNORE_INDEX), values.masked_fill(targets == IGNORE_INDEX, torch.nan)


def gradients(model, total):
    found = torch.autograd.grad(total, list(model.parameters()), allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for g, p in zip(found, model.parameters(), strict=True)]


def without_logits(model, batch, precision=None):
    loss = item_loss(model, None)
    assert loss.without_logits(model, batch, precision) == ""
    return loss


CASES = [
    (family, kind, dtype)
    for family in FAMILIES
    for kind in batches()
    for dtype in (torch.float64, torch.float32)
    # in float64 its attention makes NaN of a token that sees nothing but padding
    if (family, kind, dtype) != ("gemma2_capped", "padded left", torch.float64)
]


@pytest.mark.parametrize(("family", "kind", "dtype"), CASES)
def test_equals_cross_entropy_of_logits(family, kind, dtype):
    model, batch = made(family, dtype), batches()[kind]
    mean, values = by_hand(model, batch)
    expected = gradients(model, mean)
    loss = without_logits(model, batch)
    objective = loss.objective(model, batch)
    # float32 logits of size z are known to d·eps·z, and losses and gradients follow them; float64 is held to the goal
    close = {"atol": 1e-12, "rtol": 1e-12} if dtype == torch.float64 else {"atol": 64 * EPS[dtype] * 8, "rtol": 1e-5}
    torch.testing.assert_close(objective.total, mean, **close)
    recorded = values.detach().float()
    torch.testing.assert_close(objective.losses.recorded(), recorded, equal_nan=True, atol=4e-6, rtol=1e-6)
    torch.testing.assert_close(gradients(model, objective.total), expected, **close)
    again = loss(model, batch)
    torch.testing.assert_close(again.recorded(), recorded, equal_nan=True, atol=4e-6, rtol=1e-6)
    torch.testing.assert_close(gradients(model, again.mean()), expected, **close)
    assert torch.equal(again.recorded().isnan(), recorded.isnan())


@pytest.mark.parametrize(
    ("family", "scale", "softcap"),
    [("neox", 1.0, None), ("gemma2_capped", 1.0, 3.0), ("cohere_scaled", 0.3, None), ("granite_scaled", 1 / 7, None)],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_rule_is_the_configs(family, scale, softcap, dtype):
    model = made(family, dtype)
    found = find_unembedding(model, item_loss(model, None), batches()["plain"])
    assert isinstance(found, Unembedding)
    assert (found.rule.scale, found.rule.softcap) == (scale, softcap)


class Head(nn.Linear):
    """A head that is no product of its weight and its input."""

    def forward(self, x):
        return super().forward(x).sin()


class Moved(nn.Module):
    """Logits that a further parameter scales."""

    def __init__(self, inner):
        super().__init__()
        self.inner, self.temperature = inner, nn.Parameter(torch.ones(()))
        self.config = inner.config

    def get_output_embeddings(self):
        return self.inner.lm_head

    def forward(self, input_ids):
        return self.inner(input_ids).logits * self.temperature


def with_hook(model):
    model.lm_head.register_forward_hook(lambda module, given, out: out)
    return model


def with_another_head(model):
    model.lm_head = Head(16, 37, dtype=torch.float64)
    return model


def with_a_computed_weight(model):
    from torch.nn.utils import parametrizations

    parametrizations.weight_norm(model.lm_head)
    return model


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (with_another_head, "'lm_head' is no linear layer but Head"),
        (with_hook, "'lm_head' has hooks"),
        (with_a_computed_weight, "the weight of 'lm_head' is computed from others"),
        (Moved, "depend on weights that move"),
    ],
)
def test_other_heads_keep_their_logits(change, reason):
    model, ids = change(made("neox")), batches()["plain"]
    loss = item_loss(model, None)
    assert reason in loss.without_logits(model, ids)
    assert loss.unembedding is None
    output = model(ids)
    logits = (output if isinstance(output, torch.Tensor) else output.logits)[:, :-1]
    expected = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
    torch.testing.assert_close(loss.objective(model, ids).total, expected, atol=1e-12, rtol=1e-12)


def test_a_callers_loss_is_left_as_it_is():
    model, ids = made("neox"), batches()["plain"]
    loss = item_loss(model, lambda model, batch: model(batch).logits.square().mean((1, 2)))
    assert loss.without_logits(model, ids) == "the loss is the caller's own function"


def test_autocast_multiplies_in_bfloat16(monkeypatch):
    seen = []
    monkeypatch.setattr(
        lane_losses, "token_loss", lambda *a, **k: seen.append(k["precision"]) or ops.token_loss(*a, **k)
    )
    model, ids = made("llama", torch.float32), batches()["plain"]
    with computing("bf16", torch.device("cpu")):
        expected = item_loss(model, None)(model, ids).values
        loss = without_logits(model, ids, "bf16")
        values = loss(model, ids).values
        total = loss.objective(model, ids).total
    loss(model, ids)
    assert seen == ["bf16", "bf16", "fp32"]
    assert values.dtype == torch.float32
    # autocast rounds logits, of up to 8 here, to 8 bits; ours are not rounded
    torch.testing.assert_close(values, expected, atol=8 * 2.0**-8, rtol=0)
    assert all(torch.isfinite(g).all() for g in gradients(model, total))


def test_emulated_tf32_keeps_the_logits():
    model, ids = made("llama", torch.float32), batches()["plain"]
    use_tf32(model)
    assert "TF32" in item_loss(model, None).without_logits(model, ids, "tf32")


def test_the_model_is_left_as_it_was():
    model, ids = made("neox"), batches()["plain"]
    before = model(ids).logits
    loss = without_logits(model, ids)
    loss.objective(model, ids)
    assert "forward" not in vars(model.lm_head)
    assert torch.equal(model(ids).logits, before)


class LargestTensor(TorchDispatchMode):
    """Elements of the largest tensor that any op gives back."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, torch.Tensor):
                self.elements = max(self.elements, leaf.numel())
        return out


def test_logits_are_never_whole():
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    size = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    vocabulary, tokens = 8192, 8 * 64
    config = GPTNeoXConfig(vocab_size=vocabulary, max_position_embeddings=64, **size)
    model = GPTNeoXForCausalLM(config)
    ids = torch.randint(vocabulary, (8, 64), generator=torch.Generator().manual_seed(0))
    loss = without_logits(model, ids)
    with LargestTensor() as largest:
        loss.objective(model, ids).total.backward()
        with torch.no_grad():
            loss(model, ids)
    assert vocabulary * 16 <= largest.elements < vocabulary * tokens // 8
