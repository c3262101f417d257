"""Settings are checked before anything runs, and the message says what is allowed."""

import inspect
from dataclasses import fields

import numpy as np
import pytest

from sltfast.request import RMSPROP, Request
from sltfast.sampler.config import SamplerConfig, rmsprop_kwargs
from sltfast.sampling import sample

GOOD = {"lr": 1e-3, "n_beta": 10.0}


def test_numpys_numbers_are_taken_and_kept_as_pythons():
    config = SamplerConfig(lr=np.float32(0.5), n_beta=np.float64(10), num_draws=np.int64(3), init_noise=0)
    assert type(config.lr) is type(config.init_noise) is float
    assert type(config.num_draws) is int


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"shuffle": "no"}, "shuffle must be True or False"),
        ({"sampling_method": ["sgld"]}, "sampling_method must be one of"),
        ({"sampling_method": "rmsprop_sgld", "sampling_method_kwargs": {"eps": "x"}}, "must be a finite number"),
        ({"lr": 0.0}, "lr must be > 0, got 0.0"),
        ({"lr": -1e-3}, "lr must be > 0"),
        ({"lr": float("nan")}, "finite"),
        ({"lr": "1e-3"}, "finite number, got '1e-3'"),
        ({"n_beta": -3.0}, r"n_beta must be >= 0, got -3.0 \(see sltfast.default_nbeta"),
        ({"localization": -1.0}, "localization must be >= 0"),
        ({"bounding_box_size": 0.0}, "bounding_box_size must be > 0"),
        ({"num_chains": 0}, "num_chains must be a whole number >= 1"),
        ({"num_draws": 2.5}, "num_draws must be a whole number"),
        ({"batch_size": True}, "batch_size must be a whole number"),
        ({"num_burnin_steps": -1}, "num_burnin_steps"),
        ({"init_seed": -1}, "init_seed"),
        ({"init_seed": 1 << 64}, "below 2"),
        ({"sampling_method": "hmc"}, "sampling_method must be one of"),
        ({"sampling_method": "sghmc", "sampling_method_kwargs": {"friction": 0.0}}, r"friction must be in \(0, 1\]"),
        ({"sampling_method": "sgnht", "sampling_method_kwargs": {"friction": 1.5}}, "friction must be in"),
        ({"sampling_method": "sgnht", "sampling_method_kwargs": {"alpha": 0.9}}, "mean nothing to 'sgnht'"),
        ({"sampling_method_kwargs": {"alpha": 0.9}}, "mean nothing to 'sgmcmc_sgld'"),
        ({"sampling_method": "rmsprop_sgld", "sampling_method_kwargs": {"beta": 0.9}}, "beta"),
        (
            {"sampling_method": "rmsprop_sgld", "sampling_method_kwargs": {"alpha": 1.5}},
            r"rmsprop_alpha .*\[.alpha.\]\) must be in",
        ),
        (
            {"sampling_method": "rmsprop_sgld", "sampling_method_kwargs": {"eps": 0.0}},
            r"rmsprop_eps .*\[.eps.\]\) must be > 0",
        ),
        ({"mode": "test"}, "mode must be"),
    ],
)
def test_bad_settings(change, says):
    with pytest.raises(ValueError, match=says):
        SamplerConfig(**{**GOOD, **change})


def test_draws_are_read_at_the_first_step_of_each_block():
    config = SamplerConfig(**GOOD, num_draws=3, num_burnin_steps=2, num_steps_bw_draws=2)
    assert config.num_steps == 8
    assert [config.draw_at(step) for step in range(8)] == [None, None, 0, None, 1, None, 2, None]


def test_the_two_spellings_of_rmsprop_settings_merge():
    assert rmsprop_kwargs({"alpha": 0.9}, 0.2, None) == {"alpha": 0.9, "eps": 0.2}
    with pytest.raises(ValueError, match="must be a mapping"):
        rmsprop_kwargs(5, None, None)
    with pytest.raises(ValueError, match="specify only one"):
        rmsprop_kwargs({"alpha": 0.9}, None, 0.9)


def test_every_keyword_of_sample_is_a_setting_or_part_of_the_request():
    known = {field.name for kind in (SamplerConfig, Request) for field in fields(kind)} | {*RMSPROP}
    keywords = {p.name for p in inspect.signature(sample).parameters.values() if p.kind is p.KEYWORD_ONLY}
    assert keywords - {"param_masks", "output_path"} == known - {"cells"}
