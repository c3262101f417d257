"""Every way of using a parameter that has a rule, and what happens to those that have none."""

import warnings

import one_by_one
import pytest
import torch
from architectures import seeded
from one_by_one import relative, some_direction
from torch import nn
from torch.nn import functional as F

from sltfast import per_sample

EXACT = 1e-12  # thousands of roundings of float64


def squares(model, batch):
    """A loss that every output has a part in, each in its own way."""
    out = model(batch)
    return (out.flatten(1) * torch.linspace(0.5, 2, out.flatten(1).shape[1], dtype=out.dtype)).square().mean(1)


def features(*shape, seed=3):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def tokens(*shape, seed=3):
    return torch.randint(0, 7, shape, generator=torch.Generator().manual_seed(seed))


def assert_exact(model, batch, loss=squares):
    model = model.double()
    rows, v = one_by_one.gradients(model, batch, loss), some_direction(model)
    true = one_by_one.norms(rows)
    assert relative(per_sample.gradient_norms(model, batch, loss), true) < EXACT
    apart = per_sample.inner_products(model, batch, v, loss) - one_by_one.products(rows, v)
    assert float(apart.abs().max()) < EXACT * true.max() * one_by_one.length(v)


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("padding", [0, 2, (1, 0), "same", "valid"])
def test_conv2d(groups, padding):
    stride = 1 if padding == "same" else (2, 1)
    make = lambda: nn.Conv2d(4, 8, (3, 2), stride, padding, dilation=(1, 2), groups=groups)  # noqa: E731
    assert_exact(seeded(make), features(3, 4, 7, 6))


@pytest.mark.parametrize(("stride", "padding"), [(1, "same"), (2, 1), (1, 0)])
def test_conv1d(stride, padding):
    assert_exact(
        seeded(lambda: nn.Conv1d(4, 6, 3, stride, padding, dilation=2, groups=2, bias=False)), features(3, 4, 9)
    )


class Reused(nn.Module):
    """One Linear called twice, its weight transposed a third time: every pair of uses has a cross term."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(5, 5)

    def forward(self, x):
        return torch.tanh(self.inner(torch.tanh(self.inner(x)))) @ self.inner.weight


@pytest.mark.parametrize("positions", [(), (6,), (2, 3)])
def test_a_linear_called_twice(positions):
    assert_exact(seeded(Reused), features(4, *positions, 5))


class Tied(nn.Module):
    """Embedding, looked up twice, and unembedding of one weight, the smallest model with such cross terms."""

    def __init__(self, padding_idx=None):
        super().__init__()
        self.embed = nn.Embedding(7, 4, padding_idx=padding_idx)

    def forward(self, ids):
        x = torch.tanh(self.embed(ids) + self.embed(ids.roll(1, 1)).flip(1))
        return F.linear(x, self.embed.weight)


@pytest.mark.parametrize("padding_idx", [None, 0, -1])
def test_tied_embedding(padding_idx):
    assert_exact(seeded(lambda: Tied(padding_idx)), tokens(5, 6))


class Positions(nn.Module):
    """Learned positions for all items at once: an embedding of [T] or [1, T], and a bare parameter
    [1, T, d]; and a first token [1, 1, d].
    """

    def __init__(self, rows):
        super().__init__()
        self.embed, self.position = nn.Embedding(7, 4), nn.Embedding(9, 4)
        self.bare = nn.Parameter(torch.zeros(1, 6, 4))
        self.gain = nn.Parameter(torch.ones(6, 1))
        self.shift, self.first = nn.Parameter(torch.zeros(())), nn.Parameter(torch.zeros(1, 1, 4))
        self.rows = rows

    def forward(self, ids):
        where = torch.arange(6) if self.rows is None else torch.arange(6).expand(self.rows, 6)
        x = self.embed(ids) + self.position(where).to(torch.float64) + self.bare
        x = torch.tanh(x * self.gain / (2 + self.shift))
        return torch.cat([self.first.expand(len(ids), -1, -1), x], 1).cumsum(1)


@pytest.mark.parametrize("rows", [None, 1])
@pytest.mark.parametrize("items", [1, 2, 3, 5])
def test_positions_shared_by_the_items(rows, items):
    assert_exact(seeded(lambda: Positions(rows)), tokens(items, 6))


class Scaled(nn.Module):
    """Gains as RMS norms spell them: w·x, (1 + w)·x, (1 − w), through dtypes, in place."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Parameter(torch.zeros(5)) for _ in range(4))
        self.norm, self.layer = nn.RMSNorm(5), nn.LayerNorm((3, 5))

    def forward(self, x):
        x = self.layer(self.norm(x * 1.5)) * (1.0 + self.a.double())
        x = self.b * x.tanh() + (1 - self.c) * x.sin()
        x += self.d
        return x - torch.exp(self.a)


def test_elementwise_gains():
    assert_exact(seeded(Scaled), features(4, 3, 5))


def test_an_unused_and_a_frozen_parameter():
    model = seeded(Reused)
    model.spare = nn.Linear(2, 2)
    model.inner.bias.requires_grad_(False)
    batch = features(3, 5)
    rows = one_by_one.gradients(seeded(Reused).double(), batch, squares)
    true = one_by_one.norms([{"inner.weight": row["inner.weight"]} for row in rows])
    assert relative(per_sample.gradient_norms(model.double(), batch, squares), true) < EXACT


class Unruly(nn.Module):
    """A Linear, whose weight is also used in a way without a rule, and a bilinear layer without one."""

    def __init__(self):
        super().__init__()
        self.plain, self.linear, self.pair = nn.Linear(4, 4), nn.Linear(4, 4), nn.Bilinear(4, 4, 3)

    def forward(self, x):
        x = self.linear(torch.tanh(self.plain(x)))
        return self.pair(x, x.sin()) * self.linear.weight.norm()


def test_unknown_uses_are_taken_one_by_one_and_said():
    model, batch = seeded(Unruly).double(), features(4, 4)
    rows, v = one_by_one.gradients(model, batch, squares), some_direction(model)
    with pytest.warns(
        UserWarning, match=r"^3 parameters .* no rule for \(linear.weight, pair.weight, pair.bias; .* 4 more passes"
    ):
        got = per_sample.gradient_norms(model, batch, squares)
    assert relative(got, one_by_one.norms(rows)) < EXACT
    with pytest.warns(UserWarning, match="no rule"):
        inner = per_sample.inner_products(model, batch, v, squares)
    assert relative(inner, one_by_one.products(rows, v)) < 1e-10  # products may cancel a digit or two
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # what is left out needs no rule
        known = per_sample.gradient_norms(model, batch, squares, param_masks="plain.*")
    true = one_by_one.norms([{n: g for n, g in row.items() if n.startswith("plain")} for row in rows])
    assert relative(known, true) < EXACT


class UnrulyFirst(nn.Module):
    """What has no rule comes first: what follows owes its gradient to it alone."""

    def __init__(self):
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.after, self.gain = nn.Linear(4, 4), nn.RMSNorm(4)

    def forward(self, x):
        return self.gain(self.after(self.attention(x, x, x, need_weights=False)[0]))


def test_what_follows_an_unknown_use_is_not_missed():
    model, batch = seeded(UnrulyFirst).double(), features(4, 5, 4)
    true = one_by_one.norms(one_by_one.gradients(model, batch, squares))
    with pytest.warns(UserWarning, match=r"^4 parameters .* no rule for \(attention"):
        got = per_sample.gradient_norms(model, batch, squares, check=False)
    assert relative(got, true) < EXACT


@pytest.mark.parametrize("model", [Reused, Scaled])
def test_a_tensor_of_the_callers_that_requires_a_gradient(model):
    prompt = torch.ones(5, dtype=torch.float64, requires_grad=True)

    def prompted(model, batch):
        return squares(model, batch * prompt)

    model, batch = seeded(model).double(), features(4, 3, 5)
    true = one_by_one.norms(one_by_one.gradients(model, batch, prompted))
    assert relative(per_sample.gradient_norms(model, batch, prompted, check=False), true) < EXACT
    assert prompt.grad is None


class SequenceFirst(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)

    def forward(self, x):
        return self.linear(x.transpose(0, 1)).tanh().cumsum(0).transpose(0, 1)


@pytest.mark.parametrize(("items", "positions"), [(3, 3), (3, 6), (3, 5)])
def test_items_that_are_not_first_are_noticed(items, positions):
    model, batch = seeded(SequenceFirst).double(), features(items, positions, 4)
    true = one_by_one.norms(one_by_one.gradients(model, batch, squares))
    with pytest.warns(UserWarning, match="taken one item at a time"):
        got = per_sample.gradient_norms(model, batch, squares)
    assert relative(got, true) < EXACT


def test_recomputed_activations_are_not_missed():
    from torch.utils.checkpoint import checkpoint

    class Checkpointed(Reused):
        def forward(self, x):
            return checkpoint(super().forward, torch.tanh(self.inner(x)), use_reentrant=False)

    model, batch = seeded(Checkpointed).double(), features(4, 5)
    model.inner.bias.requires_grad_(False)
    plain = seeded(Checkpointed).double()
    plain.forward = lambda x: Reused.forward(plain, torch.tanh(plain.inner(x)))
    rows = one_by_one.gradients(plain, batch, squares)
    true = one_by_one.norms([{"inner.weight": row["inner.weight"]} for row in rows])
    with pytest.warns(UserWarning, match="taken one item at a time"):
        got = per_sample.gradient_norms(model, batch, squares)
    assert relative(got, true) < EXACT


@pytest.mark.parametrize("tracked", [True, False])
def test_batch_norm_needs_running_statistics(tracked):
    model = seeded(lambda: nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4, track_running_stats=tracked)))
    batch = features(6, 4)
    if tracked:
        assert_exact(model.train().double().eval(), batch)
        return
    with pytest.raises(ValueError, match=r"statistics of the batch.*track_running_stats=True"):
        per_sample.gradient_norms(model.double(), batch, squares)


def test_a_loss_that_mixes_items_is_refused():
    def contrastive(model, batch):
        return model(batch).sub(model(batch).mean(0)).square().mean(1)

    with pytest.raises(ValueError, match=r"loss of item \d is .* in its batch and .* alone"):
        per_sample.gradient_norms(seeded(Reused).double(), features(5, 5), contrastive)


@pytest.mark.parametrize("room", [1, 4000])
def test_working_a_few_items_at_a_time_changes_nothing(monkeypatch, room):
    from architectures import classification_loss, cnn, images

    from sltfast.per_sample import uses

    (x, y), mask = images(), {"embed.weight": features(7, 4) < 0}
    calls = [
        lambda: per_sample.gradient_norms(cnn().double(), (x.double(), y), classification_loss),
        lambda: per_sample.gradient_norms(seeded(Tied).double(), tokens(5, 6), squares),
        lambda: per_sample.gradient_norms(seeded(Tied).double(), tokens(5, 6), squares, param_masks=mask),
    ]
    together = [call() for call in calls]
    monkeypatch.setattr(uses, "ROOM", room)
    for before, call in zip(together, calls, strict=True):
        assert relative(call(), before) < EXACT


class Both(nn.Module):
    """One parameter as a matrix and as a gain, and a table that is looked up and scales: uses without a common form."""

    def __init__(self):
        super().__init__()
        self.square, self.table = nn.Parameter(torch.zeros(5, 5)), nn.Embedding(5, 5)

    def forward(self, x):
        x = torch.tanh(x @ self.square) * self.square
        return x * self.table.weight + self.table(x.argmax(2))


def test_uses_of_different_kinds_of_one_parameter():
    assert_exact(seeded(Both), features(4, 5, 5))
