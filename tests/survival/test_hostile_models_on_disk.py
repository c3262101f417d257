"""Models on disk that are cut, garbled, of another shape or malicious: one line that names them, and no code is run."""

import json
import os
import pickle
import shutil

import numpy as np
import pytest
import torch
from models import tiny_neox

from sltfast.inputs.pretrained import load_model, load_tokens
from sltfast.inputs.weights import read_weights

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("model") / "tiny"
    tiny_neox().save_pretrained(path)
    return path


@pytest.fixture
def model(whole, tmp_path):
    """A copy to damage."""
    return shutil.copytree(whole, tmp_path / "tiny")


def refused(path, call=load_model):
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        call(str(path) if call is not read_weights else path)
    said = str(caught.value)
    assert str(path) in said
    assert "weights_only" not in said  # what torch would advise is to run it
    return said


@pytest.mark.parametrize("size", [0, 4, 8, 100, 12000, -1])
def test_weights_that_are_cut(size, model):
    content = (model / WEIGHTS).read_bytes()[:size]
    (model / WEIGHTS).write_bytes(content)
    refused(model)
    assert "no whole .safetensors file" in refused(model / WEIGHTS, read_weights)


def test_weights_that_are_garbled(model):
    content = (model / WEIGHTS).read_bytes()
    for garbage in (b"\x00" * 5000, b"\xff" * 8 + content[8:], b"PK\x03\x04" + content, b"{}"):
        (model / WEIGHTS).write_bytes(garbage)
        refused(model)
        refused(model / WEIGHTS, read_weights)
    (model / WEIGHTS).unlink()
    refused(model)
    (model / WEIGHTS).mkdir()
    refused(model)


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04" + b"\0" * 100, b"\x80\x02", b"\x93NUMPY" + b"\0" * 9])
def test_torch_files_that_are_none(content, tmp_path):
    (tmp_path / "w.pt").write_bytes(content)
    assert "no state dict can be read from it" in refused(tmp_path / "w.pt", read_weights)


@pytest.mark.parametrize("content", [[], 1, {"a": 1}, torch.ones(2), {"model": {"a": "b"}}], ids=str)
def test_torch_files_of_other_things(content, tmp_path):
    torch.save(content, tmp_path / "w.pt")
    assert "no state dict of tensors" in refused(tmp_path / "w.pt", read_weights)


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_size": "16"}, {"hidden_size": [16]}, {"hidden_size": -16}, {"hidden_size": 32}, {"vocab_size": 10**15},
        {"num_attention_heads": 0}, {"num_attention_heads": 3}, {"num_hidden_layers": 3}, {"model_type": "nope"},
        {"hidden_act": "nope"}, {"vocab_size": None}, {"model_type": "bert", "architectures": ["BertModel"]},
    ],
    ids=str,
)  # fmt: skip
def test_configurations_that_do_not_fit(change, model):
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | change))
    refused(model)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"5", b"\xff\xfe", b"{}", None])
def test_configurations_that_are_none(content, model):
    (model / "config.json").unlink()
    if content is not None:
        (model / "config.json").write_bytes(content)
    refused(model)


def test_unknown_keys_of_a_configuration_change_nothing(model):
    config = json.loads((model / "config.json").read_text())
    expected = load_model(str(model)).state_dict()
    (model / "config.json").write_text(json.dumps(config | {"bogus": 1}))
    for name, weight in load_model(str(model)).state_dict().items():
        assert torch.equal(weight, expected[name])


class Malicious:
    """What creates a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_pickled_code_is_never_run(model, tmp_path):
    traced = tmp_path / "code was run"
    (model / WEIGHTS).unlink()
    code = Malicious(str(traced))
    raw = pickle.dumps(code)
    torch.save({"weight": torch.ones(1), "code": code}, model / "pytorch_model.bin")
    assert "never run here" in refused(model)
    assert "never run here" in refused(model / "pytorch_model.bin", read_weights)
    assert "never run here" in refused(model, read_weights)
    (model / "pytorch_model.bin").write_bytes(raw)
    assert "never run here" in refused(model)
    refused(model / "pytorch_model.bin", read_weights)
    np.save(tmp_path / "w.npy", np.array([code], dtype=object), allow_pickle=True)
    os.replace(tmp_path / "w.npy", tmp_path / "w.pt")
    refused(tmp_path / "w.pt", read_weights)
    assert not traced.exists()
    pickle.loads(raw)  # which would have run it
    assert traced.exists()


CODE = """
open({path!r}, "w").close()
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM
class Config(GPTNeoXConfig):
    model_type = "custom"
class Model(GPTNeoXForCausalLM):
    config_class = Config
"""


def test_code_beside_the_weights_is_never_run_and_nobody_is_asked(model, tmp_path, monkeypatch):
    traced = tmp_path / "code was run"
    (model / "code.py").write_text(CODE.format(path=str(traced)))
    config = json.loads((model / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "code.Config", "AutoModelForCausalLM": "code.Model", "AutoTokenizer": "code.C"}
    (model / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": ["code.C", None]}}))

    def asked(*_):
        raise AssertionError("a question at the terminal")

    monkeypatch.setattr("builtins.input", asked)
    (model / "config.json").write_text(json.dumps(config))
    load_model(str(model))  # an architecture that transformers has itself: its own code is taken
    refused(model, lambda path: load_tokens(None, path))
    (model / "config.json").write_text(json.dumps(config | {"model_type": "custom"}))
    assert "load it yourself" in refused(model)
    assert "load it yourself" in refused(model, lambda path: load_tokens(None, path))
    assert not traced.exists()
