"""The coefficient along a training run: each checkpoint as if alone, read from any format, kept, and taken up again."""

import warnings

import numpy as np
import pytest
import torch
from models import Mlp, regression_data, regression_loss, tiny_neox, token_rows
from safetensors.torch import save_file, save_model

import sltfast
from sltfast.inputs import skeleton
from sltfast.inputs.checkpoints import list_checkpoints
from sltfast.inputs.pretrained import load_model
from sltfast.inputs.weights import NotTheseWeights, fill, names_in, read_weights
from sltfast.sampler.run import Run

SETTINGS = {"lr": 1e-3, "n_beta": 10.0, "localization": 5.0, "num_chains": 2, "num_draws": 16, "batch_size": 8}
QUIET = {"progress": False, "loss_fn": regression_loss}
TOKENS = {"lr": 1e-4, "n_beta": 10.0, "localization": 100.0, "num_chains": 2, "num_draws": 5, "batch_size": 4}
COMPARED = ("llc_mean", "llc_se", "llc_mcse", "llc_per_chain", "init_loss", "rhat", "ess", "drift", "alive")


def over(checkpoints, **changes):
    return sltfast.over_checkpoints(checkpoints, regression_data(), **{**SETTINGS, **QUIET, **changes})


def alone(model, **changes):
    return sltfast.llc(model, regression_data(), **{**SETTINGS, **QUIET, **changes})


def assert_each_is_its_own_run(result, models, estimate):
    """The same arithmetic on the same weights: equal to the last bit."""
    assert result.sizes["step"] == len(models)
    for index, model in enumerate(models):
        expected, found = estimate(model), result.isel(step=index)
        for name in COMPARED:
            np.testing.assert_array_equal(found[name].values, expected[name].values, err_msg=f"{name} {index}")
        np.testing.assert_array_equal(found["excess_trace"].values, expected["excess_trace"].values)
        assert str(found["verdict"].values) == expected.attrs["verdict"]


def neox(seed: int, **changes) -> torch.nn.Module:
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    sizes = {"vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = GPTNeoXConfig(
        **sizes, intermediate_size=32, max_position_embeddings=16, bos_token_id=0, eos_token_id=0, **changes
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return GPTNeoXForCausalLM(config).eval()


@pytest.mark.parametrize("tied", [False, True])
def test_hugging_face_folders_fill_one_skeleton(tied, tmp_path, monkeypatch):
    models = {step: neox(step, tie_word_embeddings=tied) for step in (1, 10, 200)}
    for step, model in models.items():
        model.save_pretrained(tmp_path / f"step-{step}")
    (tmp_path / "notes.txt").write_text("not a checkpoint")
    written = {path: path.read_bytes() for path in tmp_path.rglob("*.safetensors")}
    built = []

    def counted(*arguments, **options):
        built.append(arguments)
        return load_model(*arguments, **options)

    monkeypatch.setattr(skeleton, "load_model", counted)
    rows = token_rows()
    result = sltfast.over_checkpoints(str(tmp_path / "*"), rows, progress=False, **TOKENS)
    assert len(built) == 1
    assert result["step"].values.tolist() == [1, 10, 200]
    assert result["checkpoint"].values.tolist() == [str(tmp_path / f"step-{step}") for step in models]
    assert_each_is_its_own_run(
        result, models.values(), lambda model: sltfast.llc(model, rows, progress=False, **TOKENS)
    )
    assert {path: path.read_bytes() for path in written} == written


def test_folders_of_different_architectures_are_each_built(tmp_path):
    models = [neox(1), neox(2, rotary_pct=0.5), neox(3)]
    for step, model in enumerate(models):
        model.save_pretrained(tmp_path / f"checkpoint-{step}")
    rows = token_rows()
    result = sltfast.over_checkpoints([tmp_path / f"checkpoint-{k}" for k in range(3)], rows, progress=False, **TOKENS)
    assert_each_is_its_own_run(result, models, lambda model: sltfast.llc(model, rows, progress=False, **TOKENS))


def test_names_that_transformers_converts_are_left_to_it(tmp_path):
    models = [neox(1), neox(2)]
    for step, model in enumerate(models):
        model.save_pretrained(tmp_path / f"step{step}")
    file = tmp_path / "step1" / "model.safetensors"
    # what a bare GPTNeoXModel would save: no prefix
    bare = {key.removeprefix("gpt_neox."): value for key, value in read_weights(file).items()}
    save_file(bare, file, {"format": "pt"})
    rows = token_rows()
    result = sltfast.over_checkpoints(str(tmp_path / "step*"), rows, progress=False, **TOKENS)
    assert_each_is_its_own_run(result, models, lambda model: sltfast.llc(model, rows, progress=False, **TOKENS))


@pytest.mark.parametrize("kind", ["safetensors", "torch", "wrapped", "ddp", "modules", "dicts", "folders", "mapping"])
def test_every_kind_of_checkpoint(kind, tmp_path):
    models, given = {7: Mlp(1), 30: Mlp(2)}, []
    for step, model in models.items():
        state = model.state_dict()
        path = tmp_path / f"mlp_{step}.pt"
        if kind == "safetensors":
            path = path.with_suffix(".safetensors")
            save_file(state, path)
        elif kind == "wrapped":
            torch.save({"model_state_dict": state, "step": step, "loss": 0.1}, path)
        elif kind == "ddp":
            torch.save({f"module.{key}": value for key, value in state.items()}, path)
        elif kind == "folders":
            path = tmp_path / f"epoch {step}"
            path.mkdir()
            torch.save(state, path / "weights.pt")
            torch.save({}, path / "optimizer.pt")
        else:
            torch.save(state, path)
        given.append({"modules": model, "dicts": state}.get(kind, path))
    if kind == "mapping":
        given = {"step 7": str(given[0]), 30.0: given[1]}
    skeleton_model = Mlp(5)
    before = {name: value.clone() for name, value in skeleton_model.state_dict().items()}
    result = over(given, model=skeleton_model)
    assert result["step"].values.tolist() == ([0, 1] if kind in ("modules", "dicts") else [7, 30])
    assert_each_is_its_own_run(result, models.values(), alone)
    assert all(torch.equal(before[name], value) for name, value in skeleton_model.state_dict().items())


class Tied(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = torch.nn.Linear(3, 3, bias=False), torch.nn.Linear(3, 3, bias=False)
        self.leave.weight = self.enter.weight
        self.register_buffer("scale", torch.ones(3))
        with torch.no_grad():
            self.enter.weight.copy_(torch.eye(3) + 0.1)

    def forward(self, x):
        return (self.leave(torch.tanh(self.enter(x))) * self.scale).sum(-1)


def test_tied_weights_stay_tied_and_buffers_are_loaded(tmp_path):
    models = [Tied(), Tied()]
    with torch.no_grad():
        models[1].enter.weight.mul_(0.5)
        models[1].scale.mul_(2.0)
    torch.save(models[0].state_dict(), tmp_path / "step-0.pt")  # both names
    save_model(models[1], tmp_path / "step-1.safetensors")  # one name
    result = over(str(tmp_path / "step-*"), model=Tied())
    assert_each_is_its_own_run(result, models, alone)


def test_frozen_weights_stay_frozen():
    model = Mlp(1)
    model.first.requires_grad_(False)
    result = over({3: Mlp(1).state_dict()}, model=model)
    assert_each_is_its_own_run(result, [model], alone)
    assert float(result["llc_mean"][0]) != float(alone(Mlp(1))["llc_mean"])


def test_runs_are_kept_and_only_what_is_missing_is_run(tmp_path, monkeypatch):
    models = {step: Mlp(step) for step in (5, 50)}
    folder = tmp_path / "deep" / "runs"
    first = over({5: models[5]}, output_path=folder)
    counted = []
    chains = Run.chains
    monkeypatch.setattr(Run, "chains", lambda self, groups: (counted.append(1), chains(self, groups))[1])
    both = over(models, output_path=folder)
    assert len(counted) == 1
    assert sorted(path.name for path in folder.iterdir()) == ["step-000005.zarr", "step-000050.zarr"]
    assert sltfast.open(folder / "step-000050.zarr").attrs["completed"] == 1
    assert both.isel(step=[0]).drop_vars("checkpoint").equals(first.drop_vars("checkpoint"))
    monkeypatch.setattr(Run, "chains", None)
    assert over(models, output_path=folder).equals(both)
    with pytest.raises(sltfast.OutputMismatch, match="model") as caught:
        over({5: Mlp(6)}, output_path=folder)
    assert caught.value.__notes__ == ["at step 5: Mlp at step 5"]
    with pytest.raises(sltfast.OutputMismatch, match="is a run; the runs of checkpoints need a folder"):
        over(models, output_path=folder / "step-000005.zarr")


class Sharp(Mlp):
    """A regression whose loss is as sharp as its checkpoint says."""

    def __init__(self, seed: int, sharpness: float = 1.0) -> None:
        super().__init__(seed)
        self.register_buffer("sharpness", torch.tensor(sharpness))

    def forward(self, x):
        return super().forward(x) * self.sharpness


def explosive() -> Sharp:
    """Each step multiplies the distance by some ε·nβ·sharpness²/2 = 5e7, and float32 ends at 3e38."""
    return Sharp(3, 1e5)


def test_a_checkpoint_whose_chains_die_is_nan_and_named_and_the_rest_goes_on(tmp_path):
    models = {1: Sharp(1), 2: explosive(), 3: Sharp(2)}
    with pytest.warns(sltfast.ChainDiverged, match=r"step 2 \(Sharp at step 2\): 2 of 2 chains") as told:
        result = over(models, output_path=tmp_path)
    assert len(told) == 1
    assert result["verdict"].values.tolist()[1] == "diverged"
    assert result["chains_alive"].values.tolist() == [2, 0, 2]
    assert np.isnan(result["llc_mean"].values).tolist() == [False, True, False]
    assert_each_is_its_own_run(result.isel(step=[0, 2]), [models[1], models[3]], alone)
    with pytest.warns(sltfast.ChainDiverged):
        assert over(models, output_path=tmp_path).equals(result)
    with pytest.warns(sltfast.ChainDiverged), pytest.raises(sltfast.AllChainsDied, match="of any checkpoint"):
        over([explosive()])


def test_steps_are_told_from_names(tmp_path):
    def steps(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(Mlp().state_dict(), path)
        return [checkpoint.step for checkpoint in list_checkpoints([tmp_path / name for name in names])]

    assert steps("a/step9-seed1.pt", "a/step10-seed1.pt") == [9, 10]
    assert steps("b/run2_x000300.pt", "b/run2_x000020.pt") == [20, 300]
    assert steps("c/checkpoint-7/model.pt", "c/checkpoint-5/model.pt") == [5, 7]
    assert steps("d/last.pt", "d/best.pt") == [0, 1]
    assert [c.step for c in list_checkpoints(["a/b@step3", "a/b@step1"])] == [1, 3]


def test_revisions_on_the_hub_are_loaded_by_name(monkeypatch):
    asked = []
    monkeypatch.setattr(
        skeleton, "load_model", lambda name, *, dtype, revision: (asked.append((name, dtype, revision)), tiny_neox())[1]
    )
    given = ["owner/name@step1", "owner/name@step2"]
    result = sltfast.over_checkpoints(given, token_rows(), dtype="float64", progress=False, **TOKENS)
    assert asked == [("owner/name", "float64", "step1"), ("owner/name", "float64", "step2")]
    assert result["step"].values.tolist() == [1, 2]


def test_what_is_no_list_of_checkpoints_is_refused(tmp_path):
    (tmp_path / "x.txt").touch()
    for name in ("best", "last"):
        torch.save(Mlp().state_dict(), tmp_path / f"{name}.pt")
    for given, error, says in (
        ([], ValueError, "no checkpoints were given"),
        ({}, ValueError, "no checkpoints were given"),
        (3, TypeError, "got int"),
        (Mlp(), TypeError, "got Mlp"),
        ([3], TypeError, "step 0: a checkpoint is a path, a module or a state dict, got int"),
        (Mlp().state_dict(), TypeError, "one state dict is no list of checkpoints"),
        ({"early": Mlp()}, ValueError, "a step must be a number, or a name that holds one, got 'early'"),
        ({1: Mlp(), "1": Mlp()}, ValueError, "are both of step 1"),
        (str(tmp_path / "none-*"), FileNotFoundError, "no such checkpoint"),
        (str(tmp_path / "*.txt"), FileNotFoundError, "what matches is none"),
        (str(tmp_path / "*.pt"), ValueError, "the steps cannot be told from names"),
        ({1: str(tmp_path / "*.pt")}, ValueError, "matches 2 checkpoints, give one"),
        (tmp_path / "x.txt", ValueError, "is no checkpoint"),
    ):
        with pytest.raises(error, match=says):
            over(given)


def test_weights_that_are_not_the_model_s_are_refused_and_nothing_is_copied(tmp_path):
    good, model = Mlp(1).state_dict(), Mlp(2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    tied = Tied().state_dict()
    for target, weights, says in (
        (model, {k: v for k, v in good.items() if k != "second.bias"}, "lacks 1 weights of the model: second.bias"),
        (model, {**good, "third.bias": good["second.bias"]}, "holds 1 weights that the model has not: third.bias"),
        (model, {**good, "second.bias": torch.zeros(2)}, r"second.bias has shape \[2\], in the model \[1\]"),
        (Tied(), {**tied, "leave.weight": torch.zeros(3, 3)}, "enter.weight and leave.weight differ"),
    ):
        with pytest.raises(NotTheseWeights, match=says):
            fill(target, weights, "it")
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    torch.save(good, tmp_path / "step-1.pt")
    with pytest.raises(ValueError, match="holds weights alone: give model="):
        over(str(tmp_path / "step-*.pt"))
    torch.save(Mlp(), tmp_path / "step-1.pt")
    with pytest.raises(ValueError, match=r"no state dict can be read from it .*save model.state_dict\(\)"):
        over(str(tmp_path / "step-*.pt"), model=Mlp())
    torch.save({"step": 3}, tmp_path / "step-1.pt")
    with pytest.raises(ValueError, match=r"no state dict of tensors in it \(keys \['step'\]\)"):
        over(str(tmp_path / "step-*.pt"), model=Mlp())


def test_the_caller_s_world_is_left_alone_and_progress_is_shown(capsys):
    model = Mlp(1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        over([model, Mlp(2)], progress=True)
    assert told == []
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    shown = capsys.readouterr().err
    assert "2/2" in shown
    assert "λ̂" in shown


def test_a_figure_of_the_trajectory():
    result = over({0: Mlp(1), 10: Mlp(2), 100: Mlp(3)})
    figure = sltfast.plotting.plot_checkpoints(result)
    above, below = figure.axes
    assert below.get_xscale() == "symlog"
    (loss,) = [line for line in above.lines if line.get_label() == "checkpoints"]
    assert list(loss.get_ydata()) == result["init_loss"].values.tolist()
    with pytest.raises(ValueError, match=r"must be that of sltfast\.over_checkpoints"):
        sltfast.plotting.plot_checkpoints(result.isel(step=0))


def test_names_are_learned_from_what_a_loader_did():
    model = Mlp(1)
    state = {key: value.clone() for key, value in model.state_dict().items()}
    own = {key: key for key in state}
    assert names_in(model, state) == own
    assert names_in(model, {**state, "mask": torch.ones(5)}) == own
    renamed = {("old" if key == "second.weight" else key): value for key, value in state.items()}
    assert names_in(model, renamed) == {**{k: k for k in state if k != "second.weight"}, "old": "second.weight"}
    assert names_in(model, {k: v for k, v in state.items() if k != "second.weight"}) is None
    assert names_in(model, {**state, "second.weight": state["second.weight"] + 1}) is None
    with torch.no_grad():
        model.first.bias.fill_(0.5)
        model.second.weight.fill_(0.5)
    alike = {f"old.{key}": value for key, value in model.state_dict().items()}
    assert names_in(model, alike) is not None  # shapes tell them apart
    assert names_in(model, {**alike, "again": alike["old.first.bias"]}) is None
