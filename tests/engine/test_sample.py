"""sample(): the tree it returns, the trajectory it follows, and the draws it reads."""

import numpy as np
import pytest
import torch
from models import ONES, Mlp, Quadratic, quadratic_loss, regression_data, regression_loss, tiny_neox, token_rows

import sltfast
from sltfast import ops

QUIET = {"progress": False}
SMALL = {"lr": 1e-3, "n_beta": 10.0, "localization": 1.0, "num_chains": 2, "num_draws": 4, "batch_size": 8, **QUIET}


def run(**changes):
    return sltfast.sample(Mlp(), regression_data(), **{"loss_fn": regression_loss, **SMALL, **changes})


def test_the_tree_has_devinterps_names_dims_and_precisions():
    ids = token_rows()
    tree = sltfast.sample(
        tiny_neox(),
        ids,
        {"a b": (ids, 2), "0": (token_rows(tokens=5), 1)},
        gradient_accumulation_steps=2,
        num_burnin_steps=1,
        num_steps_bw_draws=2,
        save_metrics=True,
        **SMALL,
    )
    seen = {name: (v.dims, v.shape, str(v.dtype)) for name, v in tree.dataset.data_vars.items()}
    expected = {
        "init_loss": (("chain", "token_pos"), (2, 8), "float32"),
        "sampling_loss": (("chain", "draw", "batch", "token_pos"), (2, 4, 8, 8), "float32"),
        "sampling_loss_micro": (("chain", "step", "batch_sampling", "token_pos"), (2, 9, 16, 8), "float32"),
        "sampling_input_ids_micro": (("chain", "step", "batch_sampling", "token"), (2, 9, 16, 9), "int64"),
        "loss_a_b": (("chain", "draw", "batch_a_b", "token_pos"), (2, 4, 16, 8), "float32"),
        "input_ids_a_b": (("batch_a_b", "token"), (16, 9), "int64"),
        "rows_a_b": (("batch_a_b",), (16,), "int64"),
        "loss__0": (("chain", "draw", "batch__0", "token_pos__0"), (2, 4, 8, 4), "float32"),
        "metrics_distance": (("chain", "step"), (2, 9), "float32"),
        "loss": (("chain", "step"), (2, 9), "float64"),
        "init_loss_trace": (("chain", "step"), (2, 9), "float64"),
        "alive": (("chain",), (2,), "bool"),
        "death_step": (("chain",), (2,), "int64"),
    }
    assert {name: seen[name] for name in expected} == expected
    assert tree.attrs["completed"] == 1
    assert tree.attrs["metrics_numel"] == sum(p.numel() for p in tiny_neox().parameters())
    assert tree.attrs["metadata"]["config"]["sampler"]["n_beta"] == 10.0
    assert tree["posterior/excess_loss"].dims == ("chain", "draw")
    assert tree["sample_stats/diverging"].dims == ("chain", "draw")
    for name, variable in tree.dataset.data_vars.items():
        assert np.isfinite(variable.values).all(), name


def test_recorded_losses_agree_with_each_other():
    tree = run(num_burnin_steps=1, num_steps_bw_draws=2).dataset
    micro = tree["sampling_loss_micro"].values
    # float32 records of losses whose mean is kept in float64
    np.testing.assert_allclose(micro.mean((2, 3)), tree["loss"], rtol=1e-6)
    np.testing.assert_array_equal(tree["sampling_loss"], micro[:, 1::2])
    # the first step is at w*; the same float32 sums in another order
    np.testing.assert_allclose(tree["loss"][:, 0], tree["init_loss_trace"][:, 0], rtol=1e-6)


def test_sampled_ids_are_the_rows_whose_losses_are_recorded():
    model, ids = tiny_neox(), token_rows()
    tree = sltfast.sample(model, ids, **SMALL).dataset
    first = torch.tensor(tree["sampling_input_ids_micro"].values[0, 0])
    with torch.no_grad():
        logits = model(first).logits
    expected = -logits[:, :-1].log_softmax(-1).gather(-1, first[:, 1:, None])[..., 0]
    np.testing.assert_allclose(tree["sampling_loss_micro"].values[1, 0], expected, atol=2e-6)


def test_the_trajectory_is_the_update_rule_with_counted_noise():
    """w_{t+1} = w_t − ε/2·(nβ·h·w_t + γ·w_t) + √ε·ξ(seed, t, chain, element), rebuilt from the noise alone."""
    curvature = torch.tensor([0.5, 2.0, 4.0], dtype=torch.float64)
    steps, lr, n_beta, gamma = 6, 1e-2, 5.0, 3.0
    tree = sltfast.sample(
        Quadratic(curvature, dtype=torch.float64),
        ONES,
        loss_fn=quadratic_loss,
        lr=lr,
        n_beta=n_beta,
        localization=gamma,
        num_chains=2,
        num_draws=steps,
        batch_size=8,
        init_seed=7,
        **QUIET,
    )
    for chain in range(2):
        w = torch.zeros(3, dtype=torch.float64)
        for step in range(steps):
            expected = 0.5 * (curvature * w**2).sum()
            # the kernel's normals are fp32, exact to about 1e-6
            assert float(tree["loss"][chain, step]) == pytest.approx(float(expected), rel=1e-5)
            xi = ops.philox_normals(torch.arange(3), seed=7, stream=ops.STREAM_STEP, step=step, chain=chain).double()
            w = w - lr / 2 * (n_beta * curvature * w + gamma * w) + lr**0.5 * xi


def test_observables_are_read_after_the_step_on_fixed_rows():
    x, y = regression_data()
    tree = run(observables={"some": ((x, y), 2)}).dataset
    assert tree["loss_some"].shape == (2, 4, 16, 1)
    assert np.array_equal(tree["loss_some"], run(observables={"some": ((x, y), 2)})["loss_some"])
    # full-batch: the losses after step d are those before step d + 1, row by row
    full = run(observables={"all": ((x, y), 1)}, batch_size=40, shuffle=False).dataset
    after, before = full["loss_all"].values[:, :-1], full["sampling_loss_micro"].values[:, 1:]
    np.testing.assert_allclose(np.sort(after, axis=2), np.sort(before, axis=2), rtol=1e-6)


def test_the_same_seed_gives_the_same_run_and_another_seed_another():
    first, again, other = run(), run(), run(init_seed=101)
    np.testing.assert_array_equal(first["loss"], again["loss"])
    assert not np.array_equal(first["loss"], other["loss"])
    assert not np.array_equal(first["loss"][0], first["loss"][1])


def test_chains_share_their_batches_unless_told_otherwise():
    shared, apart = run(), run(match_sampling_input_ids_across_chains=False)
    assert np.array_equal(shared["init_loss_trace"][0], shared["init_loss_trace"][1])
    assert not np.array_equal(apart["init_loss_trace"][0], apart["init_loss_trace"][1])


def test_more_chains_do_not_change_the_first_ones():
    np.testing.assert_array_equal(run(num_chains=1)["loss"], run(num_chains=3)["loss"][:1])


def test_a_restriction_moves_its_coordinates_with_the_full_runs_noise():
    """With nβ = γ = 0 a chain is its noise: the restricted chain moves as the full one on those coordinates."""

    def weights_seen(model, batch):
        return (model.first.weight.sum() + 0 * model.second.bias.sum()).expand(len(batch[0]))

    only = sltfast.sample(
        Mlp(),
        regression_data(),
        loss_fn=weights_seen,
        param_masks="first.weight",
        **{**SMALL, "n_beta": 0.0, "localization": 0.0},
    )
    full = sltfast.sample(
        Mlp(), regression_data(), loss_fn=weights_seen, **{**SMALL, "n_beta": 0.0, "localization": 0.0}
    )
    np.testing.assert_array_equal(only["loss"], full["loss"])


def test_masked_coordinates_do_not_move():
    mask = torch.zeros(5, dtype=torch.bool)
    mask[2] = True

    def seen(model, batch):
        return model.first.bias.expand(len(batch[0]), 5)

    tree = sltfast.sample(
        Mlp(), regression_data(), loss_fn=seen, param_masks={"first.bias": mask}, **{**SMALL, "num_draws": 6}
    )
    recorded = tree["sampling_loss_micro"].values[:, :, 0]
    still = [0, 1, 3, 4]
    np.testing.assert_array_equal(recorded[..., still], np.broadcast_to(recorded[:, :1, still], (2, 6, 4)))
    assert (np.diff(recorded[..., 2], axis=1) != 0).all()


def test_a_box_bounds_every_coordinate():
    def seen(model, batch):
        return model.first.bias.expand(len(batch[0]), 5)

    tree = sltfast.sample(
        Mlp(), regression_data(), loss_fn=seen, bounding_box_size=0.01, param_masks="first.bias", **{**SMALL, "lr": 0.1}
    )
    apart = np.abs(tree["sampling_loss_micro"].values[:, :, 0] - Mlp().first.bias.detach().numpy())
    assert apart.max() <= 0.01 + 1e-7
    assert (apart[:, 1:] > 0.0099).any()


@pytest.mark.filterwarnings("ignore:noise_level 1e-06 is not 1")
def test_initial_noise_moves_the_start_but_not_the_centre():
    tree = run(init_noise=0.1, num_chains=1)
    assert float(tree["loss"][0, 0]) != float(tree["init_loss_trace"][0, 0])
    pulled = run(init_noise=0.1, num_chains=1, localization=900.0, n_beta=0.0, noise_level=1e-6, num_draws=30, lr=1e-3)
    # (1 − εγ/2)^30 = 0.55^30: the noise at the start is gone and the chain is back at w*
    assert abs(float(pulled["loss"][0, -1] - pulled["init_loss_trace"][0, -1])) < 1e-4


def test_metrics_are_those_of_the_step():
    tree = run(save_metrics=True, localization=0.0).dataset
    assert (tree["metrics_localization"].values == 0).all()
    # |√ε·ξ| over 26 coordinates: √(ε·26) up to chi-distributed noise
    assert 0.3 < float((tree["metrics_noise"].values / (1e-3 * 26) ** 0.5).min()) < 2
    np.testing.assert_allclose(tree["metrics_scaled_grad"], tree["metrics_unscaled_grad"])
    assert (tree["metrics_distance"].values[:, 0] == 0).all()


@pytest.mark.parametrize("method", ["rmsprop_sgld", "rmsprop_sgld_hh"])
def test_rmsprop_variants_run_and_differ_from_sgld(method):
    tree = run(sampling_method=method, rmsprop_eps=0.2, rmsprop_alpha=0.9)
    assert tree.attrs["metadata"]["config"]["sampler"]["sampling_method_kwargs"] == {"eps": 0.2, "alpha": 0.9}
    assert not np.allclose(tree["loss"], run()["loss"])


def test_losses_that_depend_on_the_batch_are_paired_batch_by_batch():
    """Standardising over the batch couples its items: row-wise pairing would leave a difference at the first step."""

    def coupled(model, batch):
        losses = regression_loss(model, batch)
        return losses / losses.detach().mean()

    tree = run(loss_fn=coupled)
    np.testing.assert_allclose(tree["loss"][:, 0], tree["init_loss_trace"][:, 0], rtol=1e-6)  # float32 rounding
    plan = tree.attrs["sltfast"]["plan"]
    assert plan["engine"] == "vmap"  # items of several chains in one batch would be coupled too
    assert "stacked: its losses differ from one chain's" in plan["engine_reason"]


def test_init_loss_is_the_mean_over_the_first_batches():
    tree = run(num_init_loss_batches=3, num_draws=3)
    assert float(tree["init_loss"][0, 0]) == pytest.approx(float(tree["init_loss_trace"][0, :3].mean()), rel=1e-6)
    assert "init_loss" not in run(num_init_loss_batches=0)


def test_progress_goes_to_stderr_and_can_be_silenced(capsys):
    run(progress=True)
    shown = capsys.readouterr()
    assert "chain" in shown.err
    assert shown.out == ""
    run(progress=False)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({}, "was not measured to be faster"),
        ({"sampling_method": "rmsprop_sgld"}, "only 'sgld' needs no state"),
        ({"gradient_accumulation_steps": 2}, "2 micro-batches"),
        ({"save_metrics": True}, "metrics are asked for"),
    ],
)
def test_the_plan_says_why_the_step_is_not_taken_where_the_gradient_is_formed(settings, reason):
    tree = sltfast.sample(
        Mlp(), regression_data(), loss_fn=regression_loss, lr=1e-3, n_beta=1.0, num_chains=1, num_draws=1,
        batch_size=4, progress=False, **settings,
    )  # fmt: skip
    plan = tree.attrs["sltfast"]["plan"]
    assert plan["update"] == "langevin_step_"
    assert reason in plan["not_fused"]


def test_the_plan_of_a_scattered_mask_names_the_mask():
    mask = torch.rand(16, 16, generator=torch.Generator().manual_seed(0)) < 0.5  # no few rectangles tell it
    tree = sltfast.sample(
        torch.nn.Linear(16, 16), torch.randn(8, 16), loss_fn=lambda model, x: model(x).square(), lr=1e-3, n_beta=1.0,
        param_masks={"weight": mask}, num_chains=1, num_draws=1, batch_size=4, progress=False,
    )  # fmt: skip
    assert "a mask says which" in tree.attrs["sltfast"]["plan"]["not_fused"]
