"""Whatever goes through the model together, a coordinate of a chain draws the same noise, bit for bit."""

import pytest
import torch
from models import tiny_neox, token_rows

import sltfast
from sltfast.sampler.flight import Flight

SETTINGS = {
    "lr": 1e-3, "n_beta": 0.0, "localization": 10.0, "num_chains": 3, "num_draws": 5, "batch_size": 4,
    "num_init_loss_batches": 0, "save_token_losses": False, "progress": False,
}  # fmt: skip


def last_weights(monkeypatch, run):
    """Every chain's coordinates after its last step, by (restriction, chain, element of the full model)."""
    found = {}
    finish = Flight.finish

    def keeping(self):
        for block in self.engine.arena.blocks:
            for share, target in zip(block.shares, self.targets, strict=True):
                cell = self.problem.cells[target.cell]
                mask_of = {k: mask for k, mask in enumerate(share.masks) if mask.numel()}
                for index, (offset, numel, element, length, stride) in enumerate(share.table.tolist()):
                    at = torch.arange(numel)
                    elements = element + at // length * stride + at % length
                    moving = mask_of.get(index, torch.ones(numel, dtype=torch.bool))
                    for lane, w in enumerate(block.w[share.lanes, offset : offset + numel]):
                        chain = target.chain + lane
                        keys = ((cell.name, chain, e) for e in elements[moving].tolist())
                        found.update(zip(keys, w[moving].tolist(), strict=True))
        finish(self)

    with monkeypatch.context() as patch:
        patch.setattr(Flight, "finish", keeping)
        run()
    return found


@pytest.mark.parametrize("method", ["sgmcmc_sgld", "sghmc"])
def test_engines_and_passes_of_any_size_draw_the_same_noise(monkeypatch, method):
    # at nβ = 0 no gradient has a part in the weights, so that they are the noise's alone
    model, data = tiny_neox(), token_rows()

    def weights(**plan):
        run = {**SETTINGS, "sampling_method": method, **plan}
        return last_weights(monkeypatch, lambda: sltfast.sample(model, data, **run))

    alone = weights(engine="sequential")
    assert len(alone) == 3 * sum(p.numel() for p in model.parameters())
    for plan in ({"engine": "stacked"}, {"engine": "stacked", "chains_per_pass": 2}, {"engine": "vmap"}):
        assert weights(**plan) == alone


def test_a_head_among_others_draws_the_noise_of_the_full_run(monkeypatch):
    model, data = tiny_neox(), token_rows()
    full = last_weights(monkeypatch, lambda: sltfast.sample(model, data, **SETTINGS))
    heads = {"l1h0": "l1h0", "l1h1": "l1h1"}
    together = last_weights(monkeypatch, lambda: sltfast.sample_restrictions(model, data, {}, heads, **SETTINGS))
    assert {name for name, _, _ in together} == set(heads)
    assert all(full["", chain, element] == w for (_, chain, element), w in together.items())
