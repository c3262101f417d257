"""What is computed before the first step: whole rows once, everything else on a few tokens where they show as much."""

from collections import Counter

import numpy as np
import pytest
import torch
from hugging_face import tiny
from models import regression_data, regression_loss, token_rows
from torch import nn

import sltfast
from sltfast.losses import check_causal, item_loss
from sltfast.losses.shortened import FEW_TOKENS, shortened
from sltfast.sampler.engines.stacked import StackedEngine
from sltfast.sampler.footprint import LiveBytes
from sltfast.stacking.prefix import Expansion

TOKENS, BATCH = 31, 4
SETTINGS = {
    "lr": 1e-6, "n_beta": 10.0, "num_chains": 2, "num_draws": 3, "batch_size": BATCH, "num_init_loss_batches": 0,
    "progress": False,
}  # fmt: skip
HEADS = {f"l1h{head}": f"l1h{head}" for head in range(4)}


def rows(count=24):
    return token_rows(count, TOKENS, 37)


class Forwards:
    """Counts rows of whole length that go through models of a class, and their backward passes, by phase."""

    def __init__(self, monkeypatch, model) -> None:
        self.rows = Counter()
        self.phase = "before"
        kind, own = type(model), type(model).forward

        def forward(this, input_ids=None, **named):
            self.rows[self.phase, input_ids.shape[1]] += len(input_ids)
            return own(this, input_ids, **named)

        monkeypatch.setattr(kind, "forward", forward)
        from sltfast.sampler.run import Run

        chains = Run.chains

        def run(this, groups):
            self.phase = "steps"
            return chains(this, groups)

        monkeypatch.setattr(Run, "chains", run)


@pytest.mark.parametrize("restrictions", [HEADS, {"l1 mlp": "l1 mlp"}, {"full": None}])
def test_whole_rows_go_through_the_model_once_for_the_trial_and_once_for_their_losses(monkeypatch, restrictions):
    model, data = tiny("Llama").float(), rows()
    forwards = Forwards(monkeypatch, model)
    trees = sltfast.sample_restrictions(model, data, {"seen": (rows(8), 1)}, restrictions, **SETTINGS)
    assert all(tree.attrs["sltfast"]["plan"]["engine"] == "stacked" for tree in trees.values())
    needed = SETTINGS["num_draws"] * BATCH  # the losses at w* of what the chains will see
    observable = 1
    assert forwards.rows["before", TOKENS] <= BATCH + needed + BATCH + observable
    # nothing is found out again in the steps: every forward is one of the batches, or of the observable's
    lanes = 2 * len(restrictions)
    most = SETTINGS["num_draws"] * 2 * BATCH * lanes
    assert forwards.rows["steps", TOKENS] <= most
    assert set(forwards.rows) - {("steps", TOKENS), ("steps", FEW_TOKENS)} == {
        one for one in forwards.rows if one[0] == "before"
    }


def test_engines_after_the_first_are_told_where_lanes_part(monkeypatch):
    traced, built = [], []
    found, made = Expansion._found, StackedEngine.__init__
    monkeypatch.setattr(Expansion, "_found", lambda self, *args: traced.append(1) or found(self, *args))
    monkeypatch.setattr(StackedEngine, "__init__", lambda self, *args: built.append(1) or made(self, *args))
    sltfast.sample_restrictions(tiny("Llama").float(), rows(), None, HEADS, plan=True, **SETTINGS)
    assert len(built) > len(traced) == 1


@pytest.mark.parametrize("name", ["Mistral", "Gemma2"])
@pytest.mark.parametrize("window", [4, 20])
def test_a_mask_that_only_long_rows_need_is_seen_in_them(name, window):
    """A window of 20 tokens masks nothing among 17, so they do not stand for rows of 31."""
    model, data = tiny(name, sliding_window=window).double(), rows()
    trees = sltfast.sample_restrictions(model, data, None, HEADS, **SETTINGS)
    for head, tree in trees.items():
        plan = tree.attrs["sltfast"]["plan"]
        assert plan["engine"] == "stacked", plan["engine_reason"]
        assert plan["lanes_part_at"] == "model.layers.1"
        alone = sltfast.sample(model, data, param_masks=head, engine="sequential", **SETTINGS)
        # float64 sums in another order, three steps
        np.testing.assert_allclose(tree["loss"], alone["loss"], rtol=1e-9)


def test_few_tokens_are_those_of_tokens_alone():
    ids = rows(2)
    assert shortened(ids).shape == (2, FEW_TOKENS)
    assert shortened({"input_ids": ids})["input_ids"].shape == (2, FEW_TOKENS)
    assert shortened(ids[:, :FEW_TOKENS]) is None
    assert shortened({"input_ids": ids, "attention_mask": torch.ones_like(ids)}) is None
    assert shortened(regression_data(4)) is None


class Wrapped(nn.Module):
    """A language model over another one, which may refuse short rows and see later tokens."""

    def __init__(self, fewest: int, *, causal: bool) -> None:
        super().__init__()
        self.table, self.fewest, self.causal = nn.Embedding(37, 37), fewest, causal
        self.config = type("Config", (), {"is_encoder_decoder": False})()

    def forward(self, input_ids):
        if input_ids.shape[1] < self.fewest:
            raise RuntimeError(f"rows of at least {self.fewest} tokens")
        hidden = self.table(input_ids)
        return hidden if self.causal else hidden + hidden.mean(1, keepdim=True)


@pytest.mark.parametrize("fewest", [1, TOKENS])
def test_causality_is_checked_on_few_tokens_or_on_whole_rows(fewest):
    check_causal(Wrapped(fewest, causal=True), item_loss(Wrapped(fewest, causal=True), None), rows(4))
    seeing = Wrapped(fewest, causal=False)
    with pytest.raises(TypeError, match="is not causal"):
        check_causal(seeing, item_loss(seeing, None), rows(4))


def test_passes_are_measured_only_where_many_chains_may_not_fit(monkeypatch):
    """The budget is 8 times what the bound from widths allows, or less; what one chain was seen to take decides."""
    measured = []
    from sltfast.sampler.sizing import Sizing

    own = Sizing._step
    monkeypatch.setattr(Sizing, "_step", lambda self, *args: measured.append(args) or own(self, *args))
    model, settings = tiny("Llama").float(), {**SETTINGS, "num_chains": 8}
    live = LiveBytes()
    with live:
        item_loss(model, None)(model, rows(BATCH)).mean().backward()
    model.zero_grad(set_to_none=True)
    plenty = 2 * (8 * 2 * live.peak + 100 * sum(p.nbytes for p in model.parameters()))
    plan = sltfast.sample(model, rows(), memory_budget=plenty, **settings).attrs["sltfast"]["plan"]
    assert not measured
    assert plan["chains_per_pass"] == 8
    scarce = sltfast.sample(model, rows(), memory_budget=plenty // 8, **settings).attrs["sltfast"]["plan"]
    assert measured
    assert scarce["expected_peak_bytes"] <= plenty // 8


class Batched(nn.Module):
    """Losses that depend on the company of a row, or do not."""

    def __init__(self, *, alone: bool) -> None:
        super().__init__()
        self.layer, self.alone = nn.Linear(3, 1), alone

    def forward(self, x):
        y = self.layer(x).squeeze(-1)
        return y if self.alone else y - y.mean()


@pytest.mark.parametrize("alone", [True, False])
def test_rows_in_other_company_tell_whether_losses_are_theirs_alone(alone):
    model, data = Batched(alone=alone), regression_data(12)
    settings = {**SETTINGS, "loss_fn": regression_loss, "num_draws": 2, "engine": "sequential", "num_chains": 1}
    tree = sltfast.sample(model, data, **settings)
    # whichever way they were had, the losses at w* are those of the batches as drawn: at the first step the chain is
    # there itself (float32, a mean of four numbers of order 1)
    np.testing.assert_allclose(tree["init_loss_trace"][:, 0], tree["loss"][:, 0], rtol=1e-5)
