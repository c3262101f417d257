"""Settings that nobody thought of, of calls, faces, grids, files and commands: kept as given, or refused in words."""

import argparse
import inspect
import itertools
import json
import math
import string
from fractions import Fraction

import numpy as np
import pytest
from fuzzing import EXAMPLES, ODD, Properties, outcome
from hypothesis import strategies as st
from pydantic import ValidationError

import sltfast
from sltfast.cli import parser
from sltfast.commands import llc, sweep
from sltfast.commands.settings import resolve as settings_of
from sltfast.compat.devinterp.optim.absent import Absent
from sltfast.compat.devinterp.slt.config import SamplerConfig as TheirConfig
from sltfast.compat.fast_run.settings import engine_config, merged_rmsprop
from sltfast.grid import ALWAYS, Grid
from sltfast.request import RMSPROP, Request, resolve
from sltfast.sampler.config import CELL_SETTINGS, SETTINGS, SamplerConfig

PROPERTIES = Properties()

FINITE = st.one_of(
    st.floats(0, 1e300, allow_subnormal=False), st.integers(0, 9), st.floats(0, 1e9, width=32).map(np.float32),
    st.integers(0, 99).map(np.int16), st.fractions(0, 9),
)  # fmt: skip
ABOVE = FINITE.filter(bool)
COUNT = st.one_of(st.integers(1, 10**30), st.integers(1, 99).map(np.uint8))
SWITCH = st.one_of(st.booleans(), st.booleans().map(np.bool_))
ALLOWED = {
    **dict.fromkeys(("n_beta", "localization", "noise_level", "llc_weight_decay"), FINITE),
    "lr": ABOVE, "bounding_box_size": st.none() | ABOVE, "init_noise": st.none() | FINITE,
    "chains_per_pass": st.none() | COUNT, "memory_budget": st.none() | COUNT, "sampling_task": st.none() | st.text(),
    **dict.fromkeys(
        ("batch_size", "num_chains", "num_draws", "num_steps_bw_draws", "gradient_accumulation_steps", "num_blocks",
         "batches_per_draw"), COUNT,
    ),
    **dict.fromkeys(("num_burnin_steps", "num_init_loss_batches", "obs_seed"), st.just(0) | COUNT),
    "init_seed": st.integers(0, 2**64 - 1),
    **dict.fromkeys(
        ("save_metrics", "shuffle", "match_sampling_input_ids_across_chains", "save_token_losses", "dataset_init_loss",
         "overwrite", "progress", "plan"), SWITCH,
    ),
    "mode": st.sampled_from(["eval", "train"]), "engine": st.sampled_from(["auto", "stacked", "vmap", "sequential"]),
    "record": st.sampled_from(["traces", "moments", "covariances"]), "step_capture": st.sampled_from(["auto", True]),
}  # fmt: skip
OTHERS = {name: values for name, values in ALLOWED.items() if name not in ("lr", "n_beta")}
KEYWORDS = sorted({*SamplerConfig.__dataclass_fields__, *Request.__dataclass_fields__, *RMSPROP} - {"cells"})
PASSED_ON = {"loss_fn", "device", "record_weights", "buffer_size", "precision"}  # read where the model and the data are


def held(value):
    """A setting as a plain value."""
    return value.item() if isinstance(value, np.generic) else value


def test_every_keyword_of_sample_is_fuzzed():
    of_sample = set(inspect.signature(sltfast.sample).parameters)
    elsewhere = {"model", "dataset", "observables", "param_masks", "output_path"}
    assert of_sample - elsewhere == set(KEYWORDS)


@PROPERTIES.of(st.fixed_dictionaries({"lr": ABOVE, "n_beta": FINITE}, optional=OTHERS))
def settings_that_are_allowed(given):
    config, request = resolve(None, given)
    for name, value in given.items():
        kept = getattr(config if hasattr(config, name) else request, name)
        plain = held(value)
        assert kept == (float(plain) if isinstance(plain, Fraction) else plain)
        assert type(kept) in (int, float, bool, str, type(None))


@PROPERTIES.of(st.dictionaries(st.one_of(st.sampled_from(KEYWORDS), st.text(max_size=12)), ODD, min_size=1, max_size=4))
def settings_of_any_kind(changes):
    shorthands = [name.removeprefix("rmsprop_") for name in RMSPROP if name in changes]
    found = outcome(lambda: resolve(None, {"lr": 1e-3, "n_beta": 10.0, **changes}), names=[*changes, *shorthands])
    if found is None:
        assert set(changes) - PASSED_ON, "nothing that is read here was given"
        return
    config, request = found
    for name in set(changes) - PASSED_ON - {*RMSPROP, "sampling_method_kwargs", "batch_size"}:
        kept = getattr(config if hasattr(config, name) else request, name)
        assert kept == held(changes[name]) or kept == float(changes[name])
    again = SamplerConfig(**{key: value for key, value in config.as_dict().items() if key != "cells"})
    assert again == config
    assert "precision" in changes or json.loads(json.dumps(config.as_dict())) == {**config.as_dict(), "cells": []}
    assert all(math.isfinite(value) for value in config.hyper(0)[:-1])


KWARGS = st.dictionaries(
    st.one_of(st.sampled_from(["alpha", "eps", "friction", "x"]), ODD.filter(lambda key: key.__hash__)), FINITE | ODD
)


@PROPERTIES.of(st.sampled_from(sorted(SETTINGS)), KWARGS)
def settings_of_methods(method, kwargs):
    given = {"lr": 1.0, "n_beta": 1.0, "sampling_method": method, "sampling_method_kwargs": kwargs}
    found = outcome(lambda: resolve(None, given), names=["sampling_method_kwargs", "friction"])
    if found is None:
        return
    config, _ = found
    assert set(kwargs) <= set(SETTINGS[method])
    for name, default in SETTINGS[method].items():
        assert config.setting(name) == float(kwargs.get(name, default))
    assert json.loads(json.dumps(config.as_dict()))["sampling_method_kwargs"] == config.sampling_method_kwargs


THEIRS = {
    name: ODD | ALLOWED.get(name, st.sampled_from(["sgmcmc_sgld", "rmsprop_sgld", "once", "cycle"]))
    for name in TheirConfig.model_fields
    if name not in ("sampling_method_kwargs", "lr", "n_beta")
}
THEIR_KWARGS = st.dictionaries(
    st.sampled_from(["alpha", "eps", "add_grad_correction", "sketch_dim", "x"]), FINITE | ODD, max_size=2
)


@PROPERTIES.of(
    st.fixed_dictionaries({"lr": ABOVE, "n_beta": FINITE}, optional=THEIRS),
    st.sampled_from(["sgmcmc_sgld", "rmsprop_sgld"]),
    THEIR_KWARGS | ODD,
    st.none() | FINITE | ODD,
    st.none() | FINITE | ODD,
)
def settings_of_devinterps_face(given, method, kwargs, eps, alpha):
    names = ["sampling_method_kwargs", "rmsprop_eps", "rmsprop_alpha"]
    merged = outcome(lambda: merged_rmsprop(method, kwargs, eps, alpha), names=names)
    if merged is None:
        return
    given = {"sampling_method": method, **given}
    try:
        config = TheirConfig(**given, sampling_method_kwargs=merged)
    except ValidationError as error:  # which the face documents
        named = {str(one["loc"][0]) for one in error.errors()}
    else:
        named = None
    if named is not None:
        assert named <= {*given, "sampling_method_kwargs"}
        return
    known = (ValueError, TypeError, Absent)
    engine = outcome(lambda: engine_config(config), known, names=[*given, *merged, "sampling_method_kwargs"])
    if engine is None:
        return
    for name, value in config.model_dump(exclude={"epoch_mode", "sampling_method_kwargs"}).items():
        zero = name in ("lr", "bounding_box_size") and value == 0
        assert getattr(engine, name) == (5e-324 if zero else value)
    for name in {"alpha", "eps"} & set(merged):
        assert engine.setting(name) == float(merged[name])


AXIS = st.one_of(FINITE, st.lists(FINITE, max_size=3), st.lists(FINITE | ODD, max_size=3).map(tuple), ODD)


@PROPERTIES.of(
    st.fixed_dictionaries(
        dict.fromkeys(ALWAYS, AXIS), optional=dict.fromkeys(sorted({*CELL_SETTINGS} - {*ALWAYS}), AXIS)
    )
)
def grids(axes):
    found = outcome(lambda: Grid.of(axes), names=list(axes))
    if found is None:
        return
    grid, fixed = found
    assert set(grid.dims) | set(fixed) == set(axes)
    for name in grid.dims:
        value = axes[name]
        wanted = list(np.atleast_1d(value)) if not isinstance(value, list | tuple) else value
        assert sorted(math.inf if one is None else float(one) for one in wanted) == list(grid.axes[name])
    assert len(grid.cells) == math.prod(grid.shape)
    assert Grid.of_cells(grid.cells) == grid


def test_a_sequence_without_end_is_no_axis():
    with pytest.raises(ValueError, match="lr has more than 10000 values"):
        Grid.of({"lr": itertools.count(1), "n_beta": 1.0, "localization": 0.0})


JSON = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-9, 9), st.just(10**400), st.floats(), st.text(max_size=5),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)  # fmt: skip
COMMANDS = {"llc": llc.SETTINGS, "sweep": sweep.SETTINGS}
KEYS = sorted({setting.name for known in COMMANDS.values() for setting in known})


@PROPERTIES.of(
    st.sampled_from(sorted(COMMANDS)), st.one_of(JSON, st.dictionaries(st.sampled_from(KEYS), JSON, max_size=3))
)
def files_of_settings_in_json(folder, command, content):
    path = folder / "x.json"
    path.write_text(json.dumps(content), "utf-8")
    names = list(content) if isinstance(content, dict) else ["one object"]
    found = outcome(lambda: settings_of(COMMANDS[command], argparse.Namespace(), str(path)), names=names)
    if found is None:
        return
    assert set(found) == {setting.name for setting in COMMANDS[command]}
    for name, value in content.items():
        kept = found[name]
        assert (
            list(kept) == (value if isinstance(value, list) else [value])
            if type(kept) in (list, tuple)
            else (kept == value or (kept != kept and value != value))
        )


DEEP = st.sampled_from([b"[" * 10**5, b'{"a":' * 10**5, b"a = " + b"[" * 10**5, b"a." * 5000 + b"a = 1"])


@PROPERTIES.of(
    st.one_of(st.binary(max_size=40), st.text(string.printable, max_size=40).map(str.encode), DEEP),
    st.sampled_from(["toml", "json", "yaml"]),
)
def files_of_settings_of_any_bytes(folder, content, kind):
    path = folder / f"x.{kind}"
    path.write_bytes(content)
    outcome(lambda: settings_of(llc.SETTINGS, argparse.Namespace(), str(path)), names=[str(path)])


PARSER = parser()
WORDS = st.one_of(
    st.sampled_from([setting.flag for setting in (*llc.SETTINGS, *sweep.SETTINGS)]),
    st.sampled_from(["nan", "-1", "1e-5", "3", "1,2", "1,,2", "9" * 5000, "--", "-", "%s", "--lr=", "--no-shuffle"]),
    st.text(max_size=6),
)


@PROPERTIES.of(st.sampled_from(sorted(COMMANDS)), st.lists(WORDS, max_size=5))
def arguments_of_commands(command, words):
    try:
        arguments = PARSER.parse_args([command, "model", "data", *words])
    except SystemExit as error:
        code = error.code
    else:
        code = None
    if code is not None:
        assert code == 2 or any(word.startswith(("-h", "--h")) for word in words)
        return
    found = settings_of(COMMANDS[command], arguments, None)
    kinds = {setting.name: setting.kind for setting in COMMANDS[command]}
    defaults = {setting.name: setting.default for setting in COMMANDS[command]}
    for name, value in found.items():
        assert isinstance(value, kinds[name]) if hasattr(arguments, name) else value == defaults[name]


@pytest.mark.parametrize("name", KEYS)
def test_a_misspelt_setting_names_the_nearest(name, tmp_path):
    wrong = f"{name[:2]}_{name[2:]}q"
    (tmp_path / "x.json").write_text(json.dumps({wrong: 1}))
    with pytest.raises(ValueError, match=rf"unknown setting '{wrong}'; (did you mean|it may hold) .*\w"):
        settings_of(llc.SETTINGS, argparse.Namespace(), str(tmp_path / "x.json"))


@PROPERTIES.parametrized
def test_fuzz(name, tmp_path):
    PROPERTIES.hold(name, tmp_path)


@pytest.mark.soak
@PROPERTIES.parametrized
def test_a_hundred_times_as_many_examples(name, tmp_path):
    PROPERTIES.hold(name, tmp_path, 100 * EXAMPLES)
