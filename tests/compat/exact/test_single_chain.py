"""``sample_single_chain`` and its kin are devinterp's: what callbacks see, seeds, order, failures."""

import inspect
import random
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from devinterp.optim import SGMCMC
from devinterp.slt import sampler as theirs
from devinterp.slt.lm_loss import make_evaluate_fn as their_evaluate_fn

from sltfast.compat.devinterp.slt import sampler as own
from sltfast.compat.devinterp.slt.lm_loss import make_evaluate_fn
from sltfast.compat.exact_run.walk import ChainFailed
from tests.compat.exact.conftest import Reads

CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "burn-in, steps between, accumulation": {
        "num_burnin_steps": 2,
        "num_steps_bw_draws": 3,
        "gradient_accumulation_steps": 2,
    },
    "once, unshuffled": {"epoch_mode": "once", "shuffle": False, "num_draws": 3},
    "init noise": {"init_noise": 0.1},
}


def heard(module: Any, data: Dataset, **settings: Any) -> list[Any]:
    """All that the three kinds of callbacks are told, in order."""
    said: list[Any] = []

    def micro(loss: Any, input_ids: Any, chain: int, step: int, micro_step: int) -> None:
        said.append(("micro", loss.tolist(), input_ids.tolist(), chain, step, micro_step))

    def step(chain: int, step: int, optimizer: Any) -> None:
        gradients = [group["params"][0].grad.tolist() for group in optimizer.param_groups]
        said.append(("step", chain, step, gradients))

    def draw(loss: Any, draw: int, chain: int, model: Any, optimizer: Any) -> None:
        weights = [parameter.tolist() for parameter in model.parameters()]
        said.append(("draw", loss.tolist(), draw, chain, weights, model.training, torch.is_grad_enabled()))

    module.sample_single_chain(
        ref_model=Reads(dropout=0.1),
        dataset=data,
        evaluate=(make_evaluate_fn if module is own else their_evaluate_fn)(),
        sampling_method=SGMCMC.sgld,
        callbacks=[draw],
        step_callback=step,
        micro_callback=micro,
        **{
            "param_masks": {"out.weight": None, "embed.weight": torch.ones(11, 5)},
            "sampling_method_kwargs": {"lr": 1e-3, "nbeta": 3.0},
            "num_draws": 4,
            "chain": 3,
            "seed": 5,
            "dataloader_seed": 6,
            "batch_size": 4,
            **settings,
        },
    )
    return said


@pytest.mark.parametrize("case", CASES)
def test_callbacks_hear_what_devinterps_hear(data: Dataset, case: str) -> None:
    assert heard(own, data, **CASES[case]) == heard(theirs, data, **CASES[case])


def test_without_a_seed_the_global_generator_runs_on(data: Dataset) -> None:
    torch.manual_seed(8)
    wanted = heard(theirs, data, seed=None), torch.rand(1)
    torch.manual_seed(8)
    assert (heard(own, data, seed=None), torch.rand(1)) == wanted


def test_signature() -> None:
    wanted, got = (inspect.signature(module.sample_single_chain).parameters for module in (theirs, own))
    assert list(got) == [*wanted, "exact"]
    given = {name: one.default for name, one in wanted.items() if name != "sampling_method"}
    assert given == {name: got[name].default for name in given}


def test_seeds_and_counts() -> None:
    drawn = []
    for module in (theirs, own):
        module.set_seed(11)
        drawn.append((torch.rand(2).tolist(), np.random.rand(2).tolist(), random.random()))  # noqa: NPY002
        assert module.calculate_num_steps(num_draws=3, num_steps_bw_draws=4, num_burnin_steps=5) == 17
    assert drawn[0] == drawn[1]
    assert not own.is_transformer_lens_model(Reads())


@pytest.mark.filterwarnings("ignore:.*unequal to one")
def test_a_chain_that_fails_says_so_and_returns(data: Dataset) -> None:
    with pytest.warns(ChainFailed, match="Chain failed: .*chain 3, step 1"):
        heard(own, data, sampling_method_kwargs={"lr": 1e-3, "nbeta": 3.0, "noise_level": float("inf")})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epoch_mode": "twice"}, r"epoch_mode: 'twice' \(allowed"),
        ({"epoch_mode": "once", "num_draws": 5}, "need 5 batches, have 4"),
        ({"batch_size": 20}, "fewer rows than one batch"),
        ({"param_masks": {"nowhere": None}}, "names 'nowhere'"),
    ],
)
def test_bad_arguments(data: Dataset, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        heard(own, data, **settings)
