"""w − w* on chosen coordinates, as it stands at every draw."""

import numpy as np
import pytest
import torch
from models import ONES, Mlp, Quadratic, quadratic_loss, regression_data, regression_loss, tiny_neox, token_rows
from torch import nn

import sltfast

SHORT = {"lr": 1e-3, "n_beta": 10.0, "num_chains": 3, "num_draws": 6, "progress": False}
THINNED = {"num_burnin_steps": 3, "num_steps_bw_draws": 2}


def mlp(record, **changes):
    kept = {"loss_fn": regression_loss, "batch_size": 8, **SHORT, **changes}
    return sltfast.sample(Mlp(), regression_data(), record_weights=record, **kept)


@pytest.mark.parametrize("engine", ["stacked", "vmap", "sequential"])
def test_what_is_recorded_is_what_observables_see(engine):
    h = torch.linspace(0.5, 2.0, 7)
    tree = sltfast.sample(
        Quadratic(h, centre=0.4), ONES, {"seen": (ONES, 1)}, loss_fn=quadratic_loss, batch_size=4, engine=engine,
        record_weights="w", **SHORT, **THINNED,
    )  # fmt: skip
    apart = tree["displacement"]
    assert apart.dims == ("chain", "draw", "coordinate")
    assert apart.shape == (3, 6, 7)
    assert apart.dtype == np.float32
    losses = 0.5 * (h.numpy() * apart.values**2).sum(-1)
    # w = w* + δ is rounded to float32 near 0.4: 2⁻²⁶ in each δ of some 0.05, twice that share of its square
    np.testing.assert_allclose(tree["loss_seen"].values[..., 0, 0], losses, rtol=1e-4)
    assert tree["element"].values.tolist() == list(range(7))


@pytest.mark.parametrize("engine", ["stacked", "vmap", "sequential"])
def test_a_choice_is_a_part_of_all(engine):
    chosen = {
        "second.weight": torch.tensor([[True, False, True, True, False]]),
        "first.weight": torch.tensor([[False, True, False]]).expand(5, 3),
    }
    everything, part = mlp("*", engine=engine), mlp(chosen, engine=engine)
    sizes = {name: p.numel() for name, p in Mlp().named_parameters()}
    flat = torch.cat(
        [chosen.get(name, torch.zeros(size, dtype=torch.bool)).reshape(-1) for name, size in sizes.items()]
    )
    elements = flat.nonzero().flatten().numpy()
    assert part["element"].values.tolist() == elements.tolist()
    np.testing.assert_array_equal(part["displacement"].values, everything["displacement"].values[..., elements])
    assert everything.sizes["coordinate"] == sum(sizes.values())
    assert part.attrs["sltfast"]["weights"]["first.weight"] == {"element": 0, "shape": [5, 3]}


def test_engines_agree_on_the_weights():
    one, other = mlp("*", engine="stacked"), mlp("*", engine="sequential")
    # 6 steps of float32 updates on weights of order 1
    np.testing.assert_allclose(one["displacement"], other["displacement"], atol=1e-5)


def test_restrictions_that_share_a_pass_record_their_own():
    model, rows = tiny_neox(), token_rows()
    kept = {"batch_size": 4, **SHORT}
    together = sltfast.sample_restrictions(
        model, rows, None, {"head": "l0h1", "layer": "l0", "full": None}, record_weights="l0h1", **kept
    )
    moved = sltfast.create_param_masks(model, "l0h1")
    for name, masks in (("head", "l0h1"), ("layer", "l0"), ("full", None)):
        alone = sltfast.sample(model, rows, param_masks=masks, record_weights=moved, engine="sequential", **kept)
        # 6 steps of float32 updates
        np.testing.assert_allclose(together[name]["displacement"], alone["displacement"], atol=1e-5)
        assert np.isfinite(alone["displacement"]).all()
        assert (alone["displacement"].values != 0).all()


def test_what_two_congruent_restrictions_have_in_common():
    model, rows, kept = tiny_neox(), token_rows(), {"batch_size": 4, **SHORT}
    norm = "gpt_neox.layers.0.input_layernorm.weight"
    restrictions = {head: [head, norm] for head in ("l0h0", "l0h1")}
    together = sltfast.sample_restrictions(model, rows, None, restrictions, record_weights=norm, **kept)
    for name, masks in restrictions.items():
        alone = sltfast.sample(model, rows, param_masks=masks, record_weights=norm, engine="sequential", **kept)
        np.testing.assert_allclose(together[name]["displacement"], alone["displacement"], atol=1e-5)
    # the same noise, other gradients: the heads that move differ
    first, second = (together[name]["displacement"].values for name in restrictions)
    assert (first != second).any()


def test_each_precision_of_a_mixed_model():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Parameter(torch.full((4,), 0.5, dtype=torch.bfloat16))
            self.b = nn.Parameter(torch.full((3,), 0.5, dtype=torch.float64))
            self.c = nn.Parameter(torch.full((2,), 0.5, dtype=torch.bfloat16))

        def forward(self):
            return sum(((p.double() - 0.5) ** 2).sum() for p in (self.a, self.b, self.c))

    tree = sltfast.sample(
        Mixed(), ONES, loss_fn=quadratic_loss, batch_size=4, record_weights=["c", "b"], localization=10.0, **SHORT
    )
    assert tree["element"].values.tolist() == [4, 5, 6, 7, 8]
    apart = tree["displacement"].values
    # the masters of bfloat16 weights are float32: steps of √ε = 0.03 are no multiples of bfloat16's spacing at 0.5
    assert (apart != torch.tensor(apart + 0.5).bfloat16().float().numpy() - 0.5).all()
    assert np.abs(apart).max() < 0.5


def test_a_chain_that_died_has_no_weights():
    model = Quadratic(torch.ones(3))
    with pytest.warns(sltfast.ChainDiverged), pytest.raises(sltfast.AllChainsDied) as caught:
        sltfast.sample(
            model, ONES, loss_fn=quadratic_loss, batch_size=4, record_weights="w", lr=100.0, n_beta=10.0, num_chains=2,
            num_draws=60, progress=False,
        )  # fmt: skip
    apart, death = caught.value.samples["displacement"].values, caught.value.samples["death_step"].values
    for chain in range(2):
        assert np.isfinite(apart[chain, : death[chain]]).all()
        assert np.isnan(apart[chain, death[chain] :]).all()


def test_on_disk_and_back(tmp_path):
    memory, written = mlp("first.*"), mlp("first.*", output_path=tmp_path / "run.zarr")
    np.testing.assert_array_equal(memory["displacement"].values, written["displacement"].values)
    again = sltfast.open(tmp_path / "run.zarr")
    assert again["element"].values.tolist() == memory["element"].values.tolist()
    with pytest.raises(sltfast.OutputMismatch, match="record_weights"):
        mlp("second.*", output_path=tmp_path / "run.zarr")


def test_recording_changes_nothing():
    with_weights, without = mlp("*"), mlp(None)
    np.testing.assert_array_equal(with_weights["loss"].values, without["loss"].values)
    assert "displacement" not in without


@pytest.mark.parametrize(
    ("record", "error", "message"),
    [
        ("second.*", ValueError, r"does not move \(5 of second.weight, 1 of second.bias\): choose among those"),
        ({"first.weight": torch.ones(5, 3)}, ValueError, r"does not move \(10 of first.weight\)"),
        ("third", ValueError, "names 'third'"),
        (3, TypeError, "names and glob patterns"),
    ],
)
def test_weights_that_cannot_be_recorded(record, error, message):
    mask = torch.zeros(5, 3, dtype=torch.bool)
    mask[:, 1] = True
    with pytest.raises(error, match=message):
        mlp(record, param_masks={"first.weight": mask})
