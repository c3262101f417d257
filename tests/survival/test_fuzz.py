"""Settings, restrictions, data and files that nobody thought of: a valid object, or an error that the package raises."""

import argparse
import json
import math
import string
import traceback
from contextlib import suppress

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from models import Mlp, tiny_neox

from sltfast.commands import llc
from sltfast.commands.settings import resolve as settings_of
from sltfast.data import as_source, leaves
from sltfast.observables import LONGEST_NAME, observable_id
from sltfast.request import resolve
from sltfast.restriction import Restriction, create_param_masks
from sltfast.results.identity import restriction_digest
from sltfast.results.journal import Journal, read_journal
from sltfast.results.layout import ArraySpec
from sltfast.results.place import place_of
from sltfast.results.state import read_state
from sltfast.sampler.config import SETTINGS, SamplerConfig

fuzzed = settings(
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=120,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.filter_too_much],
)
ODD = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.binary(max_size=4),
    st.lists(st.integers(), max_size=2), st.dictionaries(st.text(max_size=3), st.floats(), max_size=2), st.complex_numbers(),
    st.sampled_from([10**400, -(10**400), np.float32(1), np.int8(3), np.bool_(True), np.nan, torch.tensor(1.0), object]),
)  # fmt: skip


def outcome(call, *errors):
    """What a call returns; None where it raises one of our errors, in words, from a line of ours."""
    try:
        return call()
    except errors or (ValueError, TypeError) as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        assert "/sltfast/" in last.filename, f"{error!r} comes from {last.filename}:{last.lineno}"
        assert 10 < len(str(error)) < 700
        return None


NAMES = sorted(
    {*SamplerConfig.__dataclass_fields__, "engine", "record", "num_blocks", "obs_seed", "plan", "memory_budget"}
    - {"cells"}
)


@fuzzed
@given(st.dictionaries(st.one_of(st.sampled_from(NAMES), st.text(max_size=12)), ODD, max_size=4))
def test_settings_of_the_sampler(changes):
    found = outcome(lambda: resolve(None, {"lr": 1e-3, "n_beta": 10.0, **changes}))
    if found is None:
        return
    config, _ = found
    again = SamplerConfig(**{key: value for key, value in config.as_dict().items() if key != "cells"})
    assert again == config
    assert json.loads(json.dumps(config.as_dict())) == {**config.as_dict(), "cells": []}
    assert all(math.isfinite(value) for value in config.hyper(0)[:-1])
    assert config.num_steps >= 1


@fuzzed
@given(st.sampled_from(sorted(SETTINGS)), st.dictionaries(st.sampled_from(["alpha", "eps", "friction", "x"]), ODD))
def test_settings_of_methods(method, kwargs):
    config = outcome(lambda: SamplerConfig(lr=1.0, n_beta=1.0, sampling_method=method, sampling_method_kwargs=kwargs))
    if config is not None:
        assert all(math.isfinite(config.setting(name)) for name in SETTINGS[config.method])


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-9, 9), st.floats(allow_nan=False), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=6,
)
KEYS = sorted(setting.name for setting in llc.SETTINGS)


@fuzzed
@given(st.one_of(JSON, st.dictionaries(st.sampled_from(KEYS), JSON, max_size=3)))
def test_files_of_settings_in_json(tmp_path, content):
    (tmp_path / "x.json").write_text(json.dumps(content), "utf-8")
    found = outcome(lambda: settings_of(llc.SETTINGS, argparse.Namespace(), str(tmp_path / "x.json")), ValueError)
    if found is not None:
        assert set(found) == set(KEYS)
        assert isinstance(content, dict)


@fuzzed
@given(
    st.one_of(st.binary(max_size=40), st.text(string.printable, max_size=40).map(str.encode)),
    st.sampled_from(["toml", "json"]),
)
def test_files_of_settings_of_any_bytes(tmp_path, content, kind):
    (tmp_path / f"x.{kind}").write_bytes(content)
    outcome(lambda: settings_of(llc.SETTINGS, argparse.Namespace(), str(tmp_path / f"x.{kind}")), ValueError)


@pytest.mark.parametrize("name", KEYS)
def test_a_misspelt_setting_names_the_nearest(name, tmp_path):
    wrong = name[:-1] + "q" if len(name) < 4 else name[:2] + name[3:]
    if wrong in KEYS:
        return
    (tmp_path / "x.json").write_text(json.dumps({wrong: 1}))
    with pytest.raises(ValueError, match="unknown setting.*(did you mean|it may hold)"):
        settings_of(llc.SETTINGS, argparse.Namespace(), str(tmp_path / "x.json"))


LANGUAGE_MODEL, SMALL = tiny_neox(), Mlp()
PARTS = st.one_of(
    st.sampled_from(
        ["full", "all", "embed", "unembed", "l0", "l1 attn", "l0  mlp", "l0h1", "l1g0", "all heads", "l0h*"]
    ),
    st.from_regex(r"l[0-9]{1,2}( attn| mlp|h[0-9]{1,2}|g[0-9])?", fullmatch=True),
    st.sampled_from([name for name, _ in LANGUAGE_MODEL.named_parameters()]),
    st.text("lh01 *?[].mt", max_size=8),
    st.text(max_size=5),
)


@fuzzed
@given(st.one_of(PARTS, st.lists(PARTS, max_size=3), ODD))
def test_restrictions_by_name(names):
    restriction = outcome(lambda: Restriction.of(LANGUAGE_MODEL, names))
    if restriction is None or names is None or isinstance(names, dict):
        return
    masks = create_param_masks(LANGUAGE_MODEL, names)
    again = Restriction.of(LANGUAGE_MODEL, masks)
    assert restriction_digest(again) == restriction_digest(restriction)
    assert again.numel == restriction.numel > 0


MASKS = st.one_of(
    st.none(),
    arrays_of.arrays(
        st.sampled_from(["?", "f4", "i8", "u1"]), st.sampled_from([(5, 3), (5,), (1, 5), (1,), (3, 5), (0,)]),
        elements=st.integers(0, 1), fill=st.nothing(),
    ).map(torch.from_numpy),
    ODD,
)  # fmt: skip


@fuzzed
@given(
    st.dictionaries(
        st.one_of(
            st.sampled_from(["first.weight", "first.bias", "second.weight"]),
            ODD.filter(lambda key: isinstance(key, str | int | None)),
        ),
        MASKS,
        max_size=3,
    )
)
def test_restrictions_by_mask(masks):
    restriction = outcome(lambda: Restriction.of(SMALL, masks))
    if restriction is None:
        return
    shapes = dict(SMALL.named_parameters())
    chosen = {name: torch.ones(shapes[name].shape) if mask is None else mask for name, mask in masks.items()}
    assert restriction.numel == sum(int(mask.bool().sum()) for mask in chosen.values())
    again = Restriction.of(SMALL, {name: mask.bool() for name, mask in chosen.items()})
    assert restriction_digest(again) == restriction_digest(restriction)


SHAPES = arrays_of.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
ARRAYS = arrays_of.arrays(
    st.sampled_from(["f4", "f8", ">f4", "f2", "i8", "u2", "u8", "?", "c8", "U2", "O", "M8[D]", "f4,f4"]), SHAPES
)
TENSORS = arrays_of.arrays(st.sampled_from(["f4", "i8", "?", "c8"]), SHAPES).map(torch.from_numpy)
PART = st.one_of(ARRAYS, TENSORS, st.lists(st.integers(0, 9), max_size=4), ODD)
DATA = st.one_of(
    PART, st.tuples(PART, PART), st.lists(PART, max_size=3), st.dictionaries(st.text(max_size=3), PART, max_size=3),
    st.lists(st.tuples(TENSORS, st.integers(0, 3)), max_size=3), st.dictionaries(st.text(max_size=2), TENSORS, max_size=2),
)  # fmt: skip


@settings(fuzzed, max_examples=250)
@given(DATA, st.one_of(st.none(), st.integers(1, 5), ODD))
def test_data_sets(data, buffer_size):
    source = outcome(lambda: as_source(data, buffer_size=buffer_size))
    if source is None:
        return
    assert len(source) >= 1
    whole = leaves(source.fetch(np.arange(len(source))))
    assert whole
    for row in range(len(source)):
        one = leaves(source.fetch(np.array([row])))
        assert all(
            torch.equal(part[row : row + 1], own) for part, own in zip(whole, one, strict=True) if own.isfinite().all()
        )
    assert as_source(source) is source
    assert source.fingerprint() == as_source(data, buffer_size=buffer_size).fingerprint()


@fuzzed
@given(st.text())
def test_names_of_observables(name):
    found = outcome(lambda: observable_id(name))
    if found is not None:
        assert found.isidentifier() or not found.isascii()
        assert observable_id(found) == found
        assert len(found.encode()) <= LONGEST_NAME + 1
        assert "/" not in found


@fuzzed
@given(st.one_of(st.text(max_size=300), ODD))
def test_paths(path):
    with suppress(OSError):  # what the system says of a name
        outcome(lambda: place_of(path))


SPECS = [ArraySpec("a", ("chain", "step"), (2, 9), "float64", "step")]


@fuzzed
@given(st.binary(max_size=120), st.integers(0, 200), st.binary(max_size=6))
def test_journals_and_states_of_any_bytes(tmp_path, tail, cut, noise):
    path = tmp_path / "x"
    path.unlink(missing_ok=True)
    journal = Journal(path, SPECS)
    written = [np.full((1, 1), float(row)) for row in range(4)]
    for row, values in enumerate(written):
        journal.append(0, 0, row, values)
    journal.close()
    content = path.read_bytes()
    kept = content[: min(cut, len(content))]
    path.write_bytes(kept + noise + tail)
    for record, values in zip(read_journal(path, SPECS), written, strict=False):
        np.testing.assert_array_equal(record.values, values)
    path.write_bytes(tail)
    with pytest.warns(UserWarning, match="is damaged"):
        assert read_state(path) is None
