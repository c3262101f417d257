"""A chain that diverges is told with its step, its loss, its farthest coordinate and the setting to turn."""

import numpy as np
import pytest
import torch
from models import ONES, Mlp, Quadratic, quadratic_loss, regression_data, regression_loss, tiny_neox, token_rows

import sltfast
from sltfast.arena import Arena
from sltfast.restriction import Restriction
from sltfast.results.stopped import LISTED, told
from sltfast.sampler.config import SamplerConfig
from sltfast.sampler.divergence import farthest, knob

SETTINGS = {
    "lr": 1e-2, "n_beta": 10.0, "num_chains": 4, "num_draws": 30, "batch_size": 8, "localization": 1.0,
    "progress": False,
}  # fmt: skip


def cliff(limit):
    def loss(model, batch):
        return torch.where(model.w[0] > limit, torch.nan, quadratic_loss(model, batch))

    return loss


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_a_stopped_chain_is_on_record_and_no_other_feels_it(place, tmp_path):
    path = None if place == "memory" else tmp_path / "run"
    with pytest.warns(sltfast.ChainDiverged, match=r"\(its loss was nan\), farthest w\[\d\] = .* from w\*: it was"):
        tree = sltfast.sample(Quadratic(torch.ones(3)), ONES, loss_fn=cliff(0.45), output_path=path, **SETTINGS)
    deaths = tree.attrs["sltfast"]["deaths"]
    steps = tree["death_step"].values
    assert sorted(deaths) == [str(chain) for chain in np.flatnonzero(steps >= 0)]
    assert 0 < len(deaths) < 4
    # where chains that see no cliff are, recorded coordinate by coordinate
    whole = sltfast.sample(Quadratic(torch.ones(3)), ONES, loss_fn=quadratic_loss, record_weights="w", **SETTINGS)
    for chain, found in deaths.items():
        step = found["step"]
        assert step == steps[int(chain)]
        assert found["loss"] == "nan"
        apart = whole["displacement"].values[int(chain), step - 1]  # after the step before
        assert found["index"] == [int(np.abs(apart).argmax())]
        assert found["distance"] == pytest.approx(np.abs(apart).max(), rel=1e-6)
        assert found["value"] == pytest.approx(apart[np.abs(apart).argmax()], rel=1e-6)
        assert "noise alone leads as far" in found["advice"]
    for chain in np.flatnonzero(steps < 0):
        np.testing.assert_array_equal(tree["loss"][chain], whole["loss"][chain])  # bit for bit
    for chain in np.flatnonzero(steps >= 0):
        np.testing.assert_array_equal(tree["loss"][chain, : steps[chain]], whole["loss"][chain, : steps[chain]])
    result = sltfast.compute_llc(tree)
    assert result.attrs["deaths"] == told(deaths)
    if place == "disk":
        assert sltfast.open(path).attrs["sltfast"]["deaths"] == deaths


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        ({"lr": 1e12}, r"lr·\(localization \+ llc_weight_decay\)/2 = 5e\+11 is at least 2"),
        ({"lr": 10.0, "localization": 0.1}, "the step overshoots: lower lr first"),
        ({"lr": 10.0, "localization": 0.1, "bounding_box_size": 1e30}, r"n_beta or localization \(lr=10"),
    ],
)
def test_the_knob_is_named(changes, advice):
    with pytest.warns(sltfast.ChainDiverged, match=advice), pytest.raises(sltfast.AllChainsDied) as caught:
        sltfast.sample(
            Quadratic(torch.ones(3)), ONES, loss_fn=quadratic_loss, **{**SETTINGS, "num_draws": 400, **changes}
        )
    for found in caught.value.samples.attrs["sltfast"]["deaths"].values():
        assert found["distance"] > 1e10


@pytest.mark.parametrize("method", ["sgmcmc_sgld", "rmsprop_sgld", "sghmc", "sgnht"])
def test_noise_alone_is_told_from_an_overshoot(method):
    config = SamplerConfig(lr=1e-2, n_beta=10.0, sampling_method=method, localization=1.0)
    assert "noise alone" in knob(config, 0, 100, 0.5, 10)
    assert "overshoots" in knob(config, 0, 100, 1e3, 10)


@pytest.mark.parametrize("masks", [None, ["l1h1"], {"gpt_neox.layers.0.mlp.dense_h_to_4h.weight": None}])
def test_the_farthest_coordinate_is_found_in_its_parameter(masks):
    model = tiny_neox()
    if isinstance(masks, dict):
        name = next(iter(masks))
        masks = {name: torch.rand(dict(model.named_parameters())[name].shape, generator=torch.Generator()) > 0.5}
    restriction = Restriction.of(model, masks)
    read_as = {name: parameter.dtype for name, parameter in model.named_parameters()}
    arena = Arena([restriction], read_as, 2, torch.device("cpu"))
    arena.reset()
    segment = restriction.segments[-1]
    block = arena.blocks[0]
    place = segment.numel - 2 if segment.mask is None else int(segment.mask.nonzero()[-1])
    block.rows(len(restriction.segments) - 1)[1, place] += 7.0
    if segment.mask is not None:  # what stays does not count
        block.rows(0)[1, int((~segment.mask).nonzero()[0])] += 100.0
    found = farthest(arena, 1)
    parameter = dict(model.named_parameters())[found.parameter]
    assert found.parameter == segment.name
    assert found.distance == pytest.approx(7.0, rel=1e-6)
    assert found.value == pytest.approx(float(parameter.detach()[found.place]) + 7.0, rel=1e-6)


def test_chains_of_one_restriction_are_kept_with_it():
    names = {"a": "l0 mlp", "b": "l1 mlp"}
    settings = {"n_beta": 5.0, "num_draws": 6, "batch_size": 4, "num_chains": 2, "progress": False}
    told_of = pytest.warns(sltfast.ChainDiverged, match=r"of [ab] diverged .* farthest gpt_neox")
    with told_of, pytest.raises(sltfast.AllChainsDied) as caught:
        sltfast.sample_restrictions(tiny_neox(), token_rows(), None, names, lr=1e30, **settings)
    for name, tree in caught.value.samples.items():
        deaths = tree.attrs["sltfast"]["deaths"]
        assert sorted(deaths) == ["0", "1"]
        assert all(f"layers.{'ab'.index(name)}.mlp" in found["parameter"] for found in deaths.values())


def test_a_blow_up_that_stays_finite_is_told_by_the_verdict():
    """It is not stopped, for no bound on a loss holds for every model; the trace that runs away says so."""
    tree = sltfast.sample(
        Quadratic(torch.ones(3)), ONES, loss_fn=quadratic_loss, **{**SETTINGS, "lr": 0.5, "localization": 0.0}
    )
    assert tree["alive"].values.all()
    assert float(tree["loss"][:, -1].min()) > 1e3
    result = sltfast.compute_llc(tree)
    assert result.attrs["verdict"] == "diverged"
    assert "lower lr first" in result.attrs["advice"]
    assert "deaths" not in result.attrs


def test_many_stopped_chains_are_counted():
    death = {"step": 3, "loss": "inf", "where": "w[0] = 1, 1 from w*"}
    lines = told({str(chain): death for chain in range(LISTED + 3)})
    assert lines.endswith("; and 3 more")
    assert lines.startswith("chain 0 at step 3: loss inf, farthest w[0] = 1, 1 from w*; chain 1")
    assert told({}) == ""


def test_deaths_before_an_interruption_stay_on_record(tmp_path, monkeypatch):
    from sltfast.sampler import recorder
    from sltfast.sampler.flight import Flight

    step_of = Flight.step

    def stopping(self, at):
        if (self.chains, at) == ([3], 5):
            raise ZeroDivisionError
        step_of(self, at)

    arguments = {**SETTINGS, "loss_fn": cliff(0.2), "engine": "sequential", "output_path": tmp_path / "run"}
    monkeypatch.setattr(recorder, "FLUSH_STEPS", 1)
    with monkeypatch.context() as patch:
        patch.setattr(Flight, "step", stopping)
        with pytest.warns(sltfast.ChainDiverged), pytest.raises(ZeroDivisionError):
            sltfast.sample(Quadratic(torch.ones(3)), ONES, **arguments)
    before = sltfast.open(tmp_path / "run").attrs["sltfast"]["deaths"]
    assert before
    monkeypatch.setattr("sltfast.sampler.flight.warnings.warn", lambda *told, **more: None)
    tree = sltfast.sample(Quadratic(torch.ones(3)), ONES, **arguments)
    assert before.items() <= tree.attrs["sltfast"]["deaths"].items()


def test_the_command_line_and_the_page_tell_it():
    from sltfast.commands.estimate import as_json, as_text
    from sltfast.report.found import gather
    from sltfast.report.runs import estimated, section

    with pytest.warns(sltfast.ChainDiverged):
        tree = sltfast.sample(Quadratic(torch.ones(3)), ONES, loss_fn=cliff(0.45), **SETTINGS)
    result = sltfast.compute_llc(tree)
    facts = {"model": "m", "rows": 8, "context": 1, "seconds": 1.0}
    assert f"died      {result.attrs['deaths']}" in as_text(result, facts)
    assert as_json(result, facts)["deaths"] == result.attrs["deaths"]
    runs, refused = estimated(gather(tree))
    assert any(result.attrs["deaths"] in warning for warning in section(runs, refused).warnings)
    healthy = sltfast.llc(Mlp(), regression_data(), loss_fn=regression_loss, **{**SETTINGS, "lr": 1e-4})
    assert "died " not in as_text(healthy, facts)
