"""Norms and inner products against plain autograd on batches of one, and against torch.func's vmap(grad)."""

import copy

import one_by_one
import pytest
import torch
from architectures import LANGUAGE_MODELS, VISION_AND_REGRESSION, gpt2, llama, padded_rows, seeded
from models import token_rows
from one_by_one import relative, some_direction
from torch import nn

from sltfast import per_sample

# At most a few thousand roundings of float64 (1.1e-16) meet in one item's sum.
EXACT = 1e-12
# RMS norms of Hugging Face compute in float32 whatever the model's precision: some tens of its roundings (6e-8).
WITH_FLOAT32_INSIDE = 2e-6
CASES = [*LANGUAGE_MODELS, *VISION_AND_REGRESSION]


def case(name):
    """(model, batch, loss of sltfast, loss of one item)."""
    if name in LANGUAGE_MODELS:
        return LANGUAGE_MODELS[name](), token_rows(5), None, one_by_one.next_token_loss
    make, data, loss = VISION_AND_REGRESSION[name]
    return make(), data(), loss, loss


def doubled(batch):
    return tuple(x.double() if x.is_floating_point() else x for x in batch) if isinstance(batch, tuple) else batch


@pytest.mark.parametrize("name", CASES)
def test_float64_is_exact(name):
    model, batch, loss_fn, alone = case(name)
    model, batch = model.double(), doubled(batch)
    rows, v = one_by_one.gradients(model, batch, alone), some_direction(model)
    norms, inner = per_sample.gradient_norms(model, batch, loss_fn), per_sample.inner_products(model, batch, v, loss_fn)
    assert norms.dtype == torch.float64
    limit = WITH_FLOAT32_INSIDE if name.startswith(("llama", "gemma", "qwen")) else EXACT
    assert relative(norms, one_by_one.norms(rows)) < limit
    scale = one_by_one.norms(rows).max() * one_by_one.length(v)
    assert float((inner - one_by_one.products(rows, v)).abs().max()) < limit * scale


@pytest.mark.parametrize("name", CASES)
def test_float32_is_as_good_as_autograd(name):
    model, batch, loss_fn, alone = case(name)
    true = one_by_one.norms(one_by_one.gradients(copy.deepcopy(model).double(), doubled(batch), alone))
    eager = one_by_one.norms(one_by_one.gradients(model, batch, alone))
    got = per_sample.gradient_norms(model, batch, loss_fn)
    assert got.dtype == torch.float32
    # twice the error of autograd in float32, and 8 roundings where that happens to be nothing
    assert relative(got, true) <= 2 * relative(eager, true) + 8 * torch.finfo(torch.float32).eps


TWO = pytest.mark.parametrize(("make", "limit"), [(gpt2, EXACT), (llama, WITH_FLOAT32_INSIDE)], ids=["gpt2", "llama"])


@TWO
def test_padding_and_ignored_labels(make, limit):
    model, batch = make().double(), padded_rows()
    rows = one_by_one.gradients(model, batch)
    got = per_sample.gradient_norms(model, batch)
    assert got[3] == 0
    assert relative(got, one_by_one.norms(rows)) < limit
    v = some_direction(model)
    apart = per_sample.inner_products(model, batch, v) - one_by_one.products(rows, v)
    assert float(apart.abs().max()) < limit * one_by_one.length(v) * got.max()


@TWO
@pytest.mark.parametrize(("rows", "tokens"), [(1, 9), (3, 2), (1, 2), (5, 5), (2, 4)])
def test_batches_of_awkward_shapes(make, limit, rows, tokens):
    """One item, one prediction, as many items as tokens, twice as many tokens as items."""
    model, batch = make().double(), token_rows(rows, tokens=tokens)
    true = one_by_one.norms(one_by_one.gradients(model, batch))
    assert relative(per_sample.gradient_norms(model, batch), true) < limit


@pytest.mark.parametrize("tokens", [1, 7])
def test_sequences_of_one(tokens):
    """A language model head on classes, where a single token is a sequence."""
    model = llama().double()
    batch = token_rows(4, tokens=tokens)

    def loss(model, batch):
        return model(batch).logits[:, -1].logsumexp(-1)

    true = one_by_one.norms(one_by_one.gradients(model, batch, loss))
    assert relative(per_sample.gradient_norms(model, batch, loss), true) < WITH_FLOAT32_INSIDE


def vmapped(model: nn.Module, batch, loss) -> dict[str, torch.Tensor]:
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    buffers = dict(model.named_buffers())

    def single(parameters, item):
        def call(x):
            return torch.func.functional_call(model, (parameters, buffers), (x,))

        return loss(call, tuple(part[None] for part in item)).sum()

    return torch.func.vmap(torch.func.grad(single), in_dims=(None, 0))(parameters, batch)


@pytest.mark.parametrize("name", list(VISION_AND_REGRESSION))
def test_agrees_with_vmap_of_grad(name):
    make, data, loss = VISION_AND_REGRESSION[name]
    model, batch = make().double(), doubled(data())
    if name == "cnn":
        for module in model.modules():
            if isinstance(module, nn.ReLU):
                module.inplace = False
    rows = vmapped(model, batch, loss)
    true = sum(g.flatten(1).square().sum(1) for g in rows.values()).sqrt()
    assert relative(per_sample.gradient_norms(model, batch, loss), true) < EXACT
    weights = torch.linspace(-1, 2, len(true), dtype=torch.float64)
    for key, total in per_sample.weighted_sum(model, batch, weights, loss).items():
        torch.testing.assert_close(total, torch.einsum("b,b...->...", weights, rows[key]), rtol=EXACT, atol=EXACT)


def test_a_language_model_agrees_with_vmap_of_grad():
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    size = {"vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = GPTNeoXConfig(intermediate_size=24, max_position_embeddings=64, attn_implementation="eager", **size)
    model, ids = seeded(lambda: GPTNeoXForCausalLM(config)).double(), token_rows(4)
    model.config.use_cache = False
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    mask = torch.full((9, 9), -torch.inf, dtype=torch.float64).triu(1)[None, None]

    def single(parameters, row):
        logits = torch.func.functional_call(model, parameters, (row[None],), {"attention_mask": mask}).logits
        return nn.functional.cross_entropy(logits[0, :-1], row[1:])

    rows = torch.func.vmap(torch.func.grad(single), in_dims=(None, 0))(parameters, ids)
    true = sum(g.flatten(1).square().sum(1) for g in rows.values()).sqrt()
    assert relative(per_sample.gradient_norms(model, ids), true) < EXACT
