"""Names of parts as restrictions of their own: every head, every component, the full model beside them."""

import pytest
import torch
from models import Mlp, tiny_neox

from sltfast.restriction.components import components

HEADS = ["l0h0", "l0h1", "l1h0", "l1h1"]


def test_names_are_restrictions_called_like_themselves():
    model = tiny_neox()
    assert components(model, ["l0h1", "l1 mlp"]) == {"full": None, "l0h1": "l0h1", "l1 mlp": "l1 mlp"}
    assert list(components(model, "all heads")) == ["full", *HEADS]
    assert components(model, ["l0h0", "full"]) == {"l0h0": "l0h0", "full": None}
    everything = components(model, ["all"])
    assert list(everything)[:3] == ["full", "embed", "unembed"]
    assert set(everything) == {"full", "embed", "unembed", *HEADS, "l0 mlp", "l1 mlp"}
    # asked for twice, it is there once
    assert list(components(model, ["l0h1", "all heads"])) == ["full", "l0h1", "l0h0", "l1h0", "l1h1"]


def test_a_mapping_is_taken_as_it_is():
    mask = {"first.weight": torch.ones(5, 3, dtype=torch.bool)}
    asked = {"one": mask, "full": None, "two": ["first.bias", "second.bias"]}
    assert components(Mlp(), asked) == asked
    assert list(components(Mlp(), {"one": mask})) == ["full", "one"]


def test_a_tied_unembedding_is_no_component_of_its_own():
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(GPT2Config(vocab_size=16, n_positions=16, n_embd=8, n_layer=1, n_head=2))
    assert list(components(model, "all")) == ["full", "embed", "l0 mlp", "l0h0", "l0h1"]


def test_what_names_nothing_is_refused():
    with pytest.raises(ValueError, match=r"'all' means every head and MLP .* none can be told in Mlp"):
        components(Mlp(), ["all"])
    with pytest.raises(TypeError, match=r"a list of names of parts, .* got 3"):
        components(Mlp(), 3)
    with pytest.raises(TypeError, match=r"got \['first.bias', None\]"):
        components(Mlp(), ["first.bias", None])
    with pytest.raises(TypeError, match=r"must be strings, got \['1'\]"):
        components(Mlp(), {1: None})
    for nothing in ([], {}):
        with pytest.raises(ValueError, match="weight_restrictions is empty"):
            components(Mlp(), nothing)
