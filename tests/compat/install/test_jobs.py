"""What 2.x is used for, as scripts that import devinterp: a first look, a calibration, a grid with nβ = 0."""

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import Qwen2Config, Qwen2ForCausalLM

from sltfast.compat import install, uninstall

FIRST_LOOK = """
from devinterp.slt.llc import llc
from devinterp.slt.susceptibilities import susceptibilities
from devinterp.slt.weight_restrictions import create_param_masks, preview_weight_restriction
from devinterp.utils import default_nbeta

settings = dict(lr=1e-4, n_beta=default_nbeta(4), num_chains=2, num_draws=10, batch_size=4, num_init_loss_batches=4)
estimate = llc(model=model, dataset=rows, observables={"text": (rows, 1)}, **settings)
parts = {"full": None, "l0h0": create_param_masks(model, "l0h0"), "l0h1": create_param_masks(model, "l0h1")}
responses = susceptibilities(
    model=model, dataset=rows, observables={"text": (rows, 1), "code": (other, 1)},
    weight_restrictions=parts, sampling_task="text", **settings,
)
preview_weight_restriction(model, parts["l0h0"], plain=True)
by_hand = llc(model, rows, {}, param_masks={"model.layers.0.mlp.up_proj.weight": None}, **settings)
"""

CALIBRATION = """
from devinterp.slt.llc import llc

found = {}
for lr in (1e-5, 1e-3):
    for localization in (1.0, 100.0):
        run = llc(model, rows, {}, lr=lr, localization=localization, n_beta=10.0, num_chains=2, num_draws=12,
                  batch_size=4, num_init_loss_batches=4)
        found[lr, localization] = (float(run["llc_mean"]), float(run["llc_std"]), run["loss_trace"].values)
"""

GRID = """
import itertools
from devinterp.slt.bif import bif
from devinterp.slt.sampling import sample

found = {}
for n_beta, lr, eps in itertools.product((0.0, 10.0), (1e-4,), (0.1, 1.0)):
    tree = sample(model, rows, {"query": (rows, 1), "pool": (other, 2)}, lr=lr, n_beta=n_beta, localization=100.0,
                  num_chains=2, num_draws=8, num_burnin_steps=4, num_steps_bw_draws=2, batch_size=4,
                  num_init_loss_batches=1, sampling_method="rmsprop_sgld", rmsprop_eps=eps, save_metrics=True)
    found[n_beta, eps] = tree.load()
influences = bif(model, rows, {"query": (rows, 1), "pool": (other, 2)}, lr=1e-4, n_beta=10.0, num_chains=2, num_draws=8,
                 batch_size=4, num_init_loss_batches=1, correlation_method="sequence")
"""


@pytest.fixture(autouse=True)
def two() -> Iterator[None]:
    install("2", replace=True)
    yield
    uninstall()


@pytest.fixture(scope="module")
def given() -> dict[str, Any]:
    """A small Qwen2 and two data sets of random tokens."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    config = Qwen2Config(vocab_size=64, num_key_value_heads=2, max_position_embeddings=32, use_cache=False, **sizes)
    rng = np.random.default_rng(0)

    def rows() -> Dataset:
        return Dataset.from_dict({"input_ids": rng.integers(0, 64, (24, 12)).tolist()}).with_format("torch")

    return {"model": Qwen2ForCausalLM(config), "rows": rows(), "other": rows()}


def run(script: str, given: dict[str, Any]) -> dict[str, Any]:
    scope = dict(given)
    exec(compile(script, "job.py", "exec"), scope)
    return scope


@pytest.mark.filterwarnings("ignore::sltfast.compat.CompatWarning", "ignore:Sampling without output_path")
def test_first_look_in_bfloat16(given: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    model = copy.deepcopy(given["model"]).to(torch.bfloat16)
    before = {name: p.clone() for name, p in model.named_parameters()}
    scope = run(FIRST_LOOK, {**given, "model": model})
    assert np.isfinite(scope["estimate"]["llc_mean"])
    assert scope["estimate"]["loss_trace"].shape == (2, 10)
    sus = scope["responses"]["susceptibilities"].dataset
    assert list(sus["wr"].values) == ["l0h0", "l0h1"]
    assert sus.sizes["sus_flat"] == 4 * 11  # tokens that are predicted, of 'code'
    assert np.isfinite(sus["sus"]).all()
    assert "q_proj" in capsys.readouterr().out
    assert np.isfinite(scope["by_hand"]["llc_mean"])
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_calibration(given: dict[str, Any]) -> None:
    """A smaller step moves the chains less, and every run begins at the same loss."""
    found = run(CALIBRATION, given)["found"]
    moved = {key: np.abs(trace - trace[:, :1]).mean() for key, (_, _, trace) in found.items()}
    assert all(np.isfinite(mean) and spread > 0 for mean, spread, _ in found.values())
    starts = [trace[:, 0] for _, _, trace in found.values()]
    assert np.ptp(starts) < 1e-6  # one batch at w*: float32 rounding of a mean loss of about 4
    assert moved[1e-5, 1.0] != moved[1e-3, 1.0]


@pytest.mark.filterwarnings("ignore::sltfast.compat.CompatWarning", "ignore:Sampling without output_path")
def test_grid_with_a_prior_only_baseline(given: dict[str, Any]) -> None:
    scope = run(GRID, given)
    for (n_beta, _), tree in scope["found"].items():
        assert tree["loss_pool"].shape == (2, 8, 8, 11)
        assert tree["sampling_loss_micro"].shape == (2, 4 + 8 * 2, 4, 11)
        gradient = tree["metrics_scaled_grad"].values
        assert (gradient == 0).all() if n_beta == 0 else (gradient > 0).all()
        assert (tree["metrics_noise"].values > 0).all()
    influences = scope["influences"]["influences"].values
    assert influences.shape == (12, 12)
    np.testing.assert_allclose(np.diag(influences), 1.0, atol=1e-5)
