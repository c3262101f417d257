"""Losses of many lanes in one pass: each lane's own, whatever becomes of the others."""

import pytest
import torch
from causal_models import batches, made
from models import Mlp, regression_data, regression_loss
from torch import nn

from sltfast.data import map_leaves
from sltfast.losses import ItemLosses, item_loss

LANES = 3


def times(batch, lanes=LANES):
    return map_leaves(lambda leaf: leaf.repeat(lanes, 1), batch)


def own_unembeddings(model):
    """`lane_weights` of a folded model in which only the head (and what is tied to it) differs from lane to lane."""
    head = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else model.unembed
    generator = torch.Generator().manual_seed(3)
    stacked = {
        id(p): (p + 0.3 * torch.randn((LANES, *p.shape), generator=generator, dtype=p.dtype)).detach().requires_grad_()
        for p in head.parameters()
    }
    return head, stacked, lambda parameter: stacked.get(id(parameter))


@pytest.mark.parametrize("kind", ["plain", "padded right", "padded left", "labels"])
@pytest.mark.parametrize("family", ["neox", "gptj_with_bias", "granite_scaled", "transformer_lens_capped"])
def test_every_lane_has_its_own_unembedding(family, kind):
    model, batch = made(family), batches()[kind]
    head, stacked, lane_weights = own_unembeddings(model)
    loss = item_loss(model, None)
    assert loss.without_logits(model, batch) == ""
    objective = loss.objective(model, times(batch), LANES, 0.5, lane_weights)
    leaves = list(stacked.values())
    found = torch.autograd.grad(objective.total, leaves)
    means = objective.losses.lane_means(LANES)
    plain = item_loss(model, None)  # from logits
    rows = objective.losses.recorded().view(LANES, 6, 8)
    names = {name: stacked[id(parameter)] for name, parameter in head.named_parameters()}
    for lane in range(LANES):
        for name, weights in names.items():
            setattr(head, name, nn.Parameter(weights[lane].detach()))  # not what it was tied to
        alone = plain.objective(model, batch)
        torch.testing.assert_close(means[lane], alone.total.detach(), atol=1e-12, rtol=1e-12)
        torch.testing.assert_close(rows[lane], alone.losses.recorded(), atol=1e-6, rtol=1e-6, equal_nan=True)
        expected = torch.autograd.grad(alone.total, list(head.parameters()))
        for together, one in zip(found, expected, strict=True):
            torch.testing.assert_close(together[lane], 0.5 * one, atol=1e-12, rtol=1e-12)


def test_lanes_share_a_frozen_unembedding():
    model, batch = made("llama"), batches()["padded left"]
    loss = item_loss(model, None)
    assert loss.without_logits(model, batch) == ""
    model.lm_head.requires_grad_(False)
    alone = loss.objective(model, batch)
    together = loss.objective(model, times(batch), LANES)
    torch.testing.assert_close(together.total, LANES * alone.total, atol=1e-12, rtol=1e-12)
    torch.testing.assert_close(together.losses.values, alone.losses.values.repeat(LANES, 1), atol=1e-12, rtol=1e-12)


def test_a_lane_that_is_not_finite_leaves_the_others_alone():
    model, batch = made("neox"), batches()["plain"]
    _, stacked, lane_weights = own_unembeddings(model)
    loss = item_loss(model, None)
    assert loss.without_logits(model, batch) == ""
    (leaf,) = stacked.values()
    (clean,) = torch.autograd.grad(loss.objective(model, times(batch), LANES, lane_weights=lane_weights).total, [leaf])
    with torch.no_grad():
        leaf[1] = torch.nan
    objective = loss.objective(model, times(batch), LANES, lane_weights=lane_weights)
    (found,) = torch.autograd.grad(objective.total, [leaf])
    assert objective.total.isnan()
    assert torch.equal(objective.losses.lane_means(LANES).isnan(), torch.tensor([False, True, False]))
    assert torch.equal(found[[0, 2]], clean[[0, 2]])


@pytest.mark.parametrize("weighted", [False, True])
def test_a_callers_loss_keeps_lanes_apart(weighted):
    weights = torch.tensor([[1.0, 0.0, 2.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]) if weighted else None
    w = torch.tensor([1.0, torch.nan, 2.0], requires_grad=True)

    def losses(model, batch):
        values = (w[:, None] * batch.view(LANES, 3)).reshape(-1)
        return values if weights is None else (values, weights.reshape(-1))

    batch = torch.arange(1.0, 10.0)
    objective = item_loss(Mlp(), losses).objective(Mlp(), batch, LANES, scale=2.0)
    objective.total.backward()
    expected = batch.view(LANES, 3).mean(1) if weights is None else torch.tensor([7 / 3, 0.0, 8.0])
    torch.testing.assert_close(w.grad[[0, 2]], 2 * expected[[0, 2]])
    assert not objective.losses.values.requires_grad
    if weighted:
        assert w.grad[1] == 0  # nothing of that lane counts, so nothing of it is not finite
        assert objective.total.isfinite()


def test_means_of_lanes():
    values = torch.arange(12.0).view(6, 2)
    assert ItemLosses(values, None).lane_means(3).tolist() == [1.5, 5.5, 9.5]
    weights = torch.zeros(6, 2)
    weights[0, 1] = 3
    assert ItemLosses(values, weights).lane_means(3).tolist() == [1.0, 0.0, 0.0]
    assert ItemLosses(values, None).lane_means(2, torch.float64).dtype == torch.float64
    with pytest.raises(ValueError, match="6 rows cannot be shared by 4 lanes"):
        ItemLosses(values, None).lane_means(4)


def test_one_lane_is_the_mean():
    model, data = Mlp(), regression_data(6)
    loss = item_loss(model, regression_loss)
    assert torch.equal(loss.objective(model, data).total, loss(model, data).mean())


def test_ignored_tokens_are_not_multiplied(monkeypatch):
    from sltfast.losses import lane_losses

    seen = []
    token_loss = lane_losses.token_loss
    monkeypatch.setattr(lane_losses, "token_loss", lambda h, *a, **k: seen.append(h.shape[1]) or token_loss(h, *a, **k))
    model, ids = made("neox"), batches()["plain"]
    mask = torch.ones_like(ids)
    mask[:, 4:] = 0
    loss = item_loss(model, None)
    assert loss.without_logits(model, ids) == ""
    loss.objective(model, times({"input_ids": ids, "attention_mask": mask}), LANES)
    loss.objective(model, times(ids), LANES)
    assert seen == [6 * 3, 6 * 8]
