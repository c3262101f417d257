"""Moments of observables by block of draws: those of the traces of the same run, flat in draws, resumed bit for bit."""

import random

import numpy as np
import pytest
import torch
from models import ONES, Mlp, Quadratic, quadratic_loss, regression_data, regression_loss, tiny_neox, token_rows
from stored_moments import EPSILON, assert_moments, assert_pairs, two_pass
from torch import nn

import sltfast
from sltfast.results.layout import ArraySpec
from sltfast.sampler import flight, recorder
from sltfast.sampler.footprint import LiveBytes

SETTINGS = {
    "lr": 1e-3, "n_beta": 10.0, "localization": 1.0, "num_chains": 3, "num_draws": 11, "batch_size": 4,
    "num_init_loss_batches": 0, "save_token_losses": False, "progress": False, "device": "cpu",
}  # fmt: skip
BLOCKS = 4
COVARIANCES = {"record": "covariances", "num_blocks": 2, "num_draws": 60}  # of fewer draws the traces are smaller
MOMENTS = {"record": "moments", "sampling_task": "task", "num_blocks": BLOCKS}


def network(path=None, **changes):
    data = regression_data()
    seen = {"task": (data, 2), "other": (regression_data(seed=5), 1)}
    return sltfast.sample(Mlp(), data, seen, loss_fn=regression_loss, output_path=path, **{**SETTINGS, **changes})


@pytest.mark.parametrize("engine", ["stacked", "sequential", "vmap"])
def test_moments_are_those_of_the_traces(engine):
    steps = {"engine": engine, "num_burnin_steps": 2, "num_steps_bw_draws": 2}
    traces, tree = network(**steps), network(**steps, **MOMENTS)
    assert_moments(tree, traces, "task", ["task", "other"], BLOCKS)
    np.testing.assert_array_equal(tree["loss"], traces["loss"])
    for name in ("task", "other"):
        assert tree[f"moment_comoment_{name}"].dims == ("chain", "block", f"batch_{name}", "token_pos")
        assert tree[f"moment_comoment_{name}"].dtype == np.float64
        assert f"loss_{name}" not in tree
        for kept in (f"mean_loss_{name}", f"init_loss_{name}", f"init_mean_loss_{name}"):
            np.testing.assert_array_equal(tree[kept], traces[kept])
    assert tree.attrs["sltfast"]["record"] == "moments"
    assert tree.attrs["sltfast"]["sampling_task"] == "task"


@pytest.mark.parametrize("blocks", [1, 11])
def test_one_block_and_a_block_a_draw(blocks):
    tree = network(**{**MOMENTS, "num_blocks": blocks})
    assert_moments(tree, network(), "task", ["task", "other"], blocks)
    assert tree["moment_draws"].values.sum(1).tolist() == [11.0] * 3


@pytest.mark.parametrize("engine", ["stacked", "sequential"])
def test_covariances_are_those_of_the_traces(engine):
    traces, tree = network(engine=engine, num_draws=60), network(engine=engine, **COVARIANCES)
    assert_pairs(tree, traces, ["task", "other"], 2)
    assert tree["moment_items_mean"].shape == (3, 2, 12)
    assert not [name for name in tree.dataset.data_vars if name.startswith("loss_")]


PADDED = {"input_ids": token_rows(), "attention_mask": torch.ones(24, 9, dtype=torch.long)}
PADDED["attention_mask"][::3, 5:] = 0


def test_padding_has_no_moments():
    seen = {"task": (PADDED, 2), "a b": (token_rows(tokens=6, seed=4), 1)}
    traces = sltfast.sample(tiny_neox(), PADDED, seen, **SETTINGS)
    tree = sltfast.sample(tiny_neox(), PADDED, seen, **SETTINGS, **MOMENTS)
    assert_moments(tree, traces, "task", ["task", "a_b"], BLOCKS)
    padding = np.isnan(tree["init_loss_task"].values)
    assert 0 < padding.sum() < padding.size
    for name in ("moment_mean_task", "moment_m2_task", "moment_comoment_task"):
        np.testing.assert_array_equal(np.isnan(tree[name].values), np.broadcast_to(padding, tree[name].shape))
    # float64 means of float32 records
    means = np.nanmean(traces["loss_task"].values, axis=(2, 3), dtype=np.float64)
    np.testing.assert_allclose(tree["mean_loss_task"], means, rtol=300 * EPSILON)
    assert float(tree["init_mean_loss_task"]) == pytest.approx(np.nanmean(tree["init_loss_task"]), rel=300 * EPSILON)


def test_restrictions_that_share_a_pass_have_moments_of_their_own():
    names = {"h0": "l0h0", "h1": "l0h1", "mlp": "l1 mlp"}
    given = (tiny_neox(), token_rows(), {"task": (token_rows(), 1), "b": (token_rows(seed=4), 2)}, names)
    traces = sltfast.sample_restrictions(*given, **SETTINGS)
    trees = sltfast.sample_restrictions(*given, **SETTINGS, **MOMENTS)
    pairs = sltfast.sample_restrictions(*given, **{**SETTINGS, **COVARIANCES, "num_draws": 11})
    for name in names:
        assert_moments(trees[name], traces[name], "task", ["task", "b"], BLOCKS)
        assert_pairs(pairs[name], traces[name], ["task", "b"], 2)
    assert trees["h0"].attrs["sltfast"]["plan"]["restrictions_per_pass"] == 2


def cliff(model, batch):
    """NaN where the first coordinate exceeds a limit: some chains fall, by their own noise."""
    return torch.where(model.w[0] > 0.45, torch.nan, quadratic_loss(model, batch))


@pytest.mark.parametrize("path", [None, "run"], ids=["memory", "disk"])
def test_a_block_that_a_chain_did_not_live_through_is_not_recorded(path, tmp_path):
    steps = {"num_draws": 30, "num_chains": 4, "lr": 1e-2, "batch_size": 8, "loss_fn": cliff, "num_steps_bw_draws": 2}
    blocks, seen = 7, {"task": (ONES, 1)}
    found = []
    for changes in ({}, {**MOMENTS, "num_blocks": blocks}):
        where = path and tmp_path / f"{path}{len(found)}"
        arguments = {**SETTINGS, **steps, **changes, "output_path": where}
        with pytest.warns(sltfast.ChainDiverged):
            found.append(sltfast.sample(Quadratic(torch.ones(3)), ONES, seen, **arguments))
    traces, tree = found
    death = tree["death_step"].values
    assert (death > 0).any()
    assert (death < 0).any()
    last = np.array([max(d for d in range(30) if d * blocks // 30 == k) for k in range(blocks)])
    lived = (death[:, None] < 0) | (2 * last < death[:, None])
    assert lived[death >= 0].any()  # some blocks of chains that died later
    expected = two_pass(traces, "task", ["task"], blocks)
    for name, values in expected.items():
        values[~lived] = np.nan
        # sums of up to 5 values below 1, as in ``assert_moments``
        np.testing.assert_allclose(tree[name].values, values, rtol=0, atol=50 * EPSILON, err_msg=name)


def test_a_model_in_float64_is_observed_in_float64():
    """Every item of the quadratic has the same loss, so all moments of y are those of φ."""
    model = Quadratic(torch.ones(3, dtype=torch.float64), centre=1e3, dtype=torch.float64)
    arguments = {**SETTINGS, "batch_size": 8, "loss_fn": quadratic_loss, **MOMENTS}
    tree = sltfast.sample(model, ONES, {"task": (ONES, 1)}, **arguments)
    for of_loss, of_phi in (("comoment", "phi_m2"), ("m2", "phi_m2"), ("mean", "phi")):
        one = tree[f"moment_{of_phi}"].values[..., None, None]
        np.testing.assert_allclose(
            tree[f"moment_{of_loss}_task"], np.broadcast_to(one, (3, BLOCKS, 8, 1)), rtol=1e3 * EPSILON
        )  # float32 would leave 2⁻²⁴


def weighted(model, batch):
    x, y = batch
    return regression_loss(model, (x, y)), torch.where(x[:, 0] > 0, 1.0 + x[:, 0] ** 2, 0.0)


def test_weights_count_in_means():
    data = regression_data()
    tree = sltfast.sample(Mlp(), data, {"task": (data, 10)}, **{**SETTINGS, "loss_fn": weighted, "obs_seed": 3})
    rows = random.Random(3).sample(range(40), 40)
    weights = weighted(Mlp(), data)[1].detach().double().numpy()[rows]
    assert 0 < (weights == 0).sum() < 40
    for losses, mean in (
        (tree["loss_task"].values[..., 0], tree["mean_loss_task"].values),
        (tree["init_loss_task"].values[..., 0], tree["init_mean_loss_task"].values),
    ):
        assert (np.isnan(losses) == (weights == 0)).all()
        expected = np.nansum(weights * losses.astype(np.float64), axis=-1) / weights.sum()
        np.testing.assert_allclose(mean, expected, rtol=50 * EPSILON)  # sums of 40 positive numbers


def test_a_sequence_without_weight_has_no_covariances():
    data = regression_data()
    seen = {"task": (data, 10)}
    arguments = {**SETTINGS, "loss_fn": weighted}
    traces = sltfast.sample(Mlp(), data, seen, **arguments | {"num_draws": 180})
    tree = sltfast.sample(Mlp(), data, seen, **arguments | {**COVARIANCES, "num_blocks": 1, "num_draws": 180})
    counts = np.isfinite(tree["init_loss_task"].values[:, 0])
    assert 0 < counts.sum() < 40
    both = np.broadcast_to(counts[:, None] & counts, (3, 1, 40, 40))
    np.testing.assert_array_equal(np.isfinite(tree["moment_items_comoment"].values), both)
    losses = traces["loss_task"].values[..., counts, 0].astype(np.float64)
    off = losses - losses.mean(1, keepdims=True)
    found = tree["moment_items_comoment"].values[both].reshape(3, counts.sum(), counts.sum())
    # losses of size 1 to 10 that are kept in float32 and move by 0.1 to 1: rounding in float64 alone
    np.testing.assert_allclose(found, np.einsum("cdi,cdj->cij", off, off), rtol=0, atol=2e4 * EPSILON)


class Normalised(nn.Module):
    """Batch statistics in train mode: a row's loss depends on its batch."""

    def __init__(self):
        super().__init__()
        self.mlp, self.norm = Mlp(), nn.BatchNorm1d(3)

    def forward(self, x):
        return self.mlp(self.norm(x))


def test_losses_that_depend_on_the_batch_are_taken_on_the_batches_of_the_draws():
    data, model = regression_data(), Normalised()
    arguments = {**SETTINGS, "mode": "train", "loss_fn": regression_loss, "lr": 1e-16}
    with pytest.warns(UserWarning, match="mode='train'"):
        tree = sltfast.sample(model, data, {"task": (data, 3)}, **arguments)
    # 1e-16·ε of noise moves nothing: draws are at w*, in float32
    np.testing.assert_allclose(tree["loss_task"].values[0, -1], tree["init_loss_task"].values, rtol=1e-5)
    assert model.norm.num_batches_tracked == 0


class Interrupt(Exception):
    """Stands for whatever stops a run."""


@pytest.mark.parametrize(("kind", "stop"), [(MOMENTS, 9), (MOMENTS, 12), (MOMENTS, 13), (COVARIANCES, 73)])
def test_a_resumed_run_is_bit_identical(kind, stop, tmp_path, monkeypatch):
    """Of 11 draws, one every other step, the fifth is amid a block and the seventh begins one."""
    monkeypatch.setattr(flight, "STATE_SECONDS", 0.0)  # a state before every step
    monkeypatch.setattr(flight, "STATE_COST", 0)
    plan = {**kind, "engine": "stacked", "chains_per_pass": 2, "num_steps_bw_draws": 2}
    made, step = [], flight.Flight.step

    def stopping(self, t):
        if len(made) == stop:
            raise Interrupt
        made.append(t)
        step(self, t)

    with monkeypatch.context() as patch:
        patch.setattr(flight.Flight, "step", stopping)
        with pytest.raises(Interrupt):
            network(tmp_path / "run", **plan)
        interrupted = sltfast.open(tmp_path / "run")
        lived = np.isfinite(interrupted["moment_draws"].values)
        made.clear()
        stop = -1
        resumed = network(tmp_path / "run", **plan)
    assert made[0] > 0
    straight = network(**plan)
    assert set(resumed.dataset.data_vars) == set(straight.dataset.data_vars)
    for name in straight.dataset.data_vars:
        np.testing.assert_array_equal(resumed[name].values, straight[name].values, err_msg=name)
        if "block" in straight[name].dims:
            np.testing.assert_array_equal(interrupted[name].values[lived], straight[name].values[lived], err_msg=name)
    assert lived.any()
    assert not lived.all()


def test_another_task_or_other_blocks_at_the_same_path_are_refused(tmp_path):
    network(tmp_path / "run", **MOMENTS)
    for change in ({"sampling_task": "other"}, {"num_blocks": 5}):
        with pytest.raises(sltfast.OutputMismatch, match="record"):
            network(tmp_path / "run", **{**MOMENTS, **change})
    with pytest.raises(sltfast.OutputMismatch, match="arrays"):
        network(tmp_path / "run")


@pytest.mark.parametrize("kind", [MOMENTS, COVARIANCES], ids=["moments", "covariances"])
def test_memory_is_flat_in_draws(kind, monkeypatch):
    """What a step leaves behind does not grow; what is recorded of items is the same for 60 draws and for 240."""
    monkeypatch.setattr(recorder, "FLUSH_STEPS", 1)  # a step's rows are handed over at its end
    live, left, sizes = LiveBytes(), [], []
    step = flight.Flight.step

    def watched(self, t):
        with live:
            step(self, t)
        left.append(live.now)

    monkeypatch.setattr(flight.Flight, "step", watched)
    for draws in (60, 240):
        left.clear()
        tree = network(**{**kind, "engine": "stacked", "num_draws": draws})
        of_blocks = [one.nbytes for one in tree.dataset.data_vars.values() if "block" in one.dims]
        of_draws = [one.nbytes for one in tree.dataset.data_vars.values() if "draw" in one.dims]
        sizes.append(sum(of_blocks))
        assert sum(of_draws) == 2 * 8 * 3 * draws  # the mean losses of two observables in three chains
        assert max(left[3:]) == left[3]
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize(("kind", "others"), [(MOMENTS, -3), (COVARIANCES, 0)], ids=["moments", "covariances"])
def test_the_plan_counts_the_accumulators(kind, others, tmp_path, monkeypatch, capsys):
    held, begin = [], flight.Flight.begin

    def watched(self):
        result = begin(self)
        held.append(sum(tensor.nbytes for tensor in self.moments.tensors.values()))
        return result

    with monkeypatch.context() as patch:
        patch.setattr(flight.Flight, "begin", watched)
        tree = network(**kind, engine="stacked", plan=True)
    of_blocks = [one for one in tree.dataset.data_vars.values() if "block" in one.dims]
    block = sum(one.nbytes // one.shape[1] for one in of_blocks)
    centred = 3 * 2 * 8 * (8 if kind is MOMENTS else 12)  # in three lanes two rows of losses of the larger observable
    # φ's count, mean and M2 stand in both observables' states
    assert lane_records(tree) == held[0] + 3 * 8 * others + centred + 2 * block
    assert "lane records" in capsys.readouterr().out
    on_disk = network(tmp_path / "run", **kind, engine="stacked", plan=True)
    of_rows = [v for v in on_disk.dataset.data_vars.values() if v.dims[1:2] in (("step",), ("draw",), ("block",))]
    paired = 8 * 3 * on_disk.sizes["step"]  # losses at w* are no rows
    waiting = sum(one.nbytes for one in of_rows) - paired  # short rows: all of a run of 60 steps stand in one chunk
    assert lane_records(on_disk) == lane_records(tree) + waiting
    assert lane_records(network(plan=True, engine="stacked")) == 0


def lane_records(tree):
    return tree.attrs["sltfast"]["plan"]["peak_by_part_bytes"]["lane_records"]


def test_a_chunk_holds_blocks_of_16_megabytes_at_most():
    for row, rows in ((1, 50), (1 << 20, 2), (1 << 22, 1)):
        spec = ArraySpec("moment_mean_a", ("chain", "block", "x"), (3, 64, row), "float64", "block")
        assert spec.chunks == (1, rows, row)


DATA = (regression_data(), 1)
BAD = [
    ({"record": "means"}, ValueError, "record must be one of traces, moments, covariances, got 'means'"),
    ({"sampling_task": 3}, TypeError, "sampling_task must be None or the name of an observable, got 3"),
    ({"num_blocks": 0}, ValueError, "num_blocks must be a whole number >= 1, got 0"),
    ({"num_blocks": 2.0}, ValueError, "num_blocks must be a whole number >= 1, got 2.0"),
    ({"num_blocks": 12}, ValueError, "num_blocks must be at most num_draws, 11, .* got 12"),
    ({"sampling_task": None}, ValueError, r"needs a sampling_task, one of the observables \['task'\]"),
    ({"sampling_task": "taks"}, ValueError, "'taks' is none of the observables .*did you mean 'task'"),
    ({"record": "traces", "sampling_task": "x"}, ValueError, "'x' is none of the observables"),
    ({"observables": None}, ValueError, "record='moments' needs observables"),
    ({**COVARIANCES, "num_draws": 1}, ValueError, "num_blocks must be at most num_draws, 1"),
    (
        # 8·K·N·(N + 1) bytes against 4·D·N·T
        {**COVARIANCES, "num_draws": 19, "observables": {"task": (regression_data(), 1)}},
        ValueError,
        r"of 4 sequences in 2 blocks would keep 320 bytes a chain, the traces of 19 draws 304: .* at least 20 draws",
    ),
]


@pytest.mark.parametrize(("change", "kind", "says"), BAD)
def test_what_cannot_be_recorded_is_refused(change, kind, says):
    arguments = {"observables": {"task": DATA}, **SETTINGS, **MOMENTS, "loss_fn": regression_loss, **change}
    with pytest.raises(kind, match=says):
        sltfast.sample(Mlp(), regression_data(), **arguments)


def test_an_observable_without_a_finite_loss_at_the_start_is_refused():
    x, y = regression_data()
    y = y.clone()
    y[7] = torch.inf
    with pytest.raises(ValueError, match=r"NaN or infinite on rows \[7\] of observable 'task'"):
        sltfast.sample(Mlp(), regression_data(), {"task": ((x, y), 10)}, loss_fn=regression_loss, **SETTINGS)
    x = -x.abs()
    with pytest.raises(ValueError, match="observable 'task' weights that are negative, infinite or all 0"):
        sltfast.sample(Mlp(), regression_data(), {"task": ((x, y), 10)}, loss_fn=weighted, **SETTINGS)
