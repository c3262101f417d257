"""What the regimes measure with: the products of a model, counts of a step, models, and the peers' loops."""

import math
from importlib import import_module

import pytest
import torch
from torch import nn

import sltfast
from benchmarks import floors
from benchmarks.agreement import estimates_agree, of_ours, of_trace
from benchmarks.case import Disagreement
from benchmarks.counting import a_step
from benchmarks.floors import Product
from benchmarks.models import Shape, language_level, mlp, neox, next_token_losses, tokens, toy
from benchmarks.other_ops import hidden_states, other_ops_of
from benchmarks.peers.eager_loop import eager_loop
from benchmarks.peers.vmap_loop import VmapLoop
from benchmarks.regimes import REGIMES, chosen
from benchmarks.regimes.estimates import ours
from benchmarks.regimes.restrictions import floor_products, other_ops_behind
from sltfast.sampler.transition import Transition

SETTINGS = {"lr": 1e-5, "n_beta": 100.0, "localization": 100.0, "num_chains": 4, "num_draws": 40, "batch_size": 32}
SHAPE = Shape(layers=2, width=16, heads=2, vocabulary=64, tokens=8, batch=4, chains=2)


def test_the_products_of_two_layers() -> None:
    """Forward two; backward two by weights and one by hidden states: none by the data, which need no gradient."""
    model = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, 2))
    products = floors.products_of(lambda: model(torch.ones(7, 3)).sum())
    sizes = sorted((p.m, p.k, p.n) for p in products.elements())
    assert sizes == sorted([(7, 3, 5), (7, 5, 2), (2, 7, 5), (5, 7, 3), (7, 2, 5)])
    assert floors.flops(products) == 2 * (2 * 7 * 3 * 5 + 3 * 7 * 5 * 2)


@pytest.mark.parametrize("shared", [False, True])
def test_floors_run(shared: bool) -> None:
    products = floors.Products({Product(1, 4, 3, 2, False, True): 2, Product(3, 4, 3, 2, True, False): 1})
    floors.gemms(products, 3, shared=shared)()
    floors.triad(10, 2)()


def test_the_floor_of_heads_leaves_out_what_lies_below() -> None:
    model = neox(SHAPE)
    prefix, suffix, forward = floor_products(model, "gpt_neox.layers.1", tokens(64, 8, rows=4))
    whole = floors.products_of(lambda: next_token_losses(model, tokens(64, 8, rows=4)).mean())
    assert floors.flops(prefix) + floors.flops(forward) == floors.flops(whole) / 3
    assert floors.flops(forward) == 2 * 4 * 8 * 16 * 64  # behind the last layer is the unembedding
    assert floors.flops(suffix) == 2 * floors.flops(forward)
    assert all(p.requires_grad for p in model.parameters())


def test_other_ops_are_neither_products_nor_views_and_run_again() -> None:
    """A linear map, a view, relu: forward relu; backward its own, and the sum that makes the bias's gradient."""
    model, x = nn.Sequential(nn.Linear(3, 5), nn.Unflatten(1, (5, 1)), nn.ReLU()), torch.ones(7, 3)
    ops = other_ops_of(lambda: model(x))
    assert ops.names == {"relu": 1, "threshold_backward": 1, "sum": 1}
    before = [p.detach().clone() for p in model.parameters()]
    ops.again()
    assert all(torch.equal(p, old) for p, old in zip(model.parameters(), before, strict=True))


def test_other_ops_behind_a_layer_leave_out_what_lies_below() -> None:
    model, ids = neox(SHAPE), tokens(64, 8, rows=4)
    whole = other_ops_of(lambda: hidden_states(model, ids)).names
    attention = "_scaled_dot_product_flash_attention_for_cpu"
    assert whole[attention] == whole[f"{attention}_backward"] == SHAPE.layers
    step, seen = (ops.names for ops in other_ops_behind(model, "gpt_neox.layers.0", ids))
    assert step[attention] == step[f"{attention}_backward"] == seen[attention] == SHAPE.layers - 1
    assert seen["gelu"] == 1
    assert "gelu_backward" not in seen
    assert all(p.requires_grad for p in model.parameters())


class TwoLaunches:
    """An update of two ops, one of them in place, and one value read."""

    def __init__(self) -> None:
        self.w = torch.ones(4)

    def step(self) -> float:
        self.w.add_(torch.ones_like(self.w)[:2].sum())
        return float(self.w[0])


def test_counts_of_a_step() -> None:
    update = TwoLaunches()

    def several(steps: int) -> None:
        for _ in range(steps):
            torch.zeros(2).exp().numpy()
            update.step()

    counts = a_step(several, TwoLaunches, "step")
    assert counts["update launches"] == 3  # ones_like, sum, add_
    assert counts["model launches"] == 2  # zeros, exp
    assert counts["host syncs"] == 1
    assert counts["copies to the host"] == 1
    assert counts["update bytes"] == (16 + 16) + (8 + 4) + (2 * 16 + 4)


def test_our_update_is_counted() -> None:
    problem = toy(rows=64, training_steps=0)

    def several(draws: int) -> None:
        settings = {**SETTINGS, "num_chains": 1, "num_draws": draws}
        sltfast.sample(problem.model, problem.data, loss_fn=problem.loss, device="cpu", progress=False, **settings)

    counts = a_step(several, Transition, "step")
    assert counts["update launches"] >= 1
    assert counts["update bytes"] >= 16 * 18  # three reads and a write of every coordinate


def test_the_vmap_loop_samples_what_we_sample() -> None:
    problem = mlp((8, 16, 4), rows=64)
    trace = VmapLoop(problem.model, problem.loss, problem.data, SETTINGS)()
    assert trace.shape == (4, 40)
    found = of_trace(trace, problem.level(), SETTINGS["n_beta"])
    ours_found = of_ours(ours(problem.model, problem.data, SETTINGS, loss_fn=problem.loss))
    assert estimates_agree({"ours": ours_found, "vmap loop": found})
    with pytest.raises(Disagreement):
        estimates_agree({"ours": ours_found, "at half the temperature": found._replace(value=20 * found.value)})


def test_the_eager_loop_samples_what_we_sample() -> None:
    model, ids = neox(SHAPE), tokens(64, 8, rows=32)
    settings = {**SETTINGS, "batch_size": 4, "num_chains": 2}
    with torch.no_grad():
        assert math.isclose(language_level(model, ids), float(next_token_losses(model, ids).mean()), rel_tol=1e-5)
    found = of_trace(eager_loop(model, ids, settings), language_level(model, ids), settings["n_beta"])
    assert estimates_agree({"ours": of_ours(ours(model, ids, settings)), "eager loop": found})


def test_the_registry_leads_to_modules() -> None:
    for name, regime in REGIMES.items():
        module = import_module(f"benchmarks.regimes.{regime.module}")
        assert callable(module.cases), name
    assert "P13" not in chosen(None, full=False)
    assert chosen(["p13", "P2"], full=False) == ["P2", "P13"]
    assert chosen(None, full=True) == list(REGIMES)
