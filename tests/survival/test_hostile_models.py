"""Models that hook, share, count, normalise, return anything or have nothing to sample: sampled right, or refused."""

import copy

import numpy as np
import pytest
import torch
from models import Mlp, regression_data, regression_loss
from torch import nn
from torch.nn.utils import parametrizations

import sltfast

DATA = regression_data()
GOOD = {"lr": 1e-3, "n_beta": 10.0, "num_chains": 2, "num_draws": 4, "batch_size": 8, "progress": False}
pytestmark = pytest.mark.filterwarnings("ignore:mode='train'")


class Around(nn.Module):
    """A model of features around a module, one output a row."""

    def __init__(self, inner, out=lambda output: output.squeeze(-1)):
        super().__init__()
        self.inner, self.out = inner, out

    def forward(self, x):
        return self.out(self.inner(x))


def with_layer(change):
    model = Mlp()
    model.first = change(model.first)
    return model


def hooked():
    model = Mlp()
    model.first.register_forward_hook(lambda module, inputs, output: 2 * output)
    model.first.register_forward_pre_hook(lambda module, inputs: None)
    model.second.register_full_backward_hook(lambda *_: None)
    model.second.weight.register_hook(lambda gradient: gradient)
    return model


class Shared(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 1)
        self.b.weight = self.a.weight

    def forward(self, x):
        return self.c(self.b(torch.tanh(self.a(x)))).squeeze(-1)


class Counting(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.count = nn.Linear(3, 1), 0
        self.register_buffer("calls", torch.zeros((), dtype=torch.long))

    def forward(self, x):
        self.calls += 1
        self.count += 1
        return self.linear(x).squeeze(-1)


class Odd(nn.Module):
    """Parameters that are strided, of no dimension, or empty."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.randn(3, 4)[:, ::2].t())
        self.b, self.empty = nn.Parameter(torch.tensor(0.1)), nn.Parameter(torch.zeros(0))

    def forward(self, x):
        return (x @ self.w.t()).sum(-1) + self.b


class Views(nn.Module):
    """Parameters that overlap in one storage."""

    def __init__(self):
        super().__init__()
        base = torch.randn(6)
        self.a, self.b, self.c = nn.Parameter(base[:3]), nn.Parameter(base[3:]), nn.Parameter(base[1:4])

    def forward(self, x):
        return x @ self.a + x @ self.b + x @ self.c


class Flipping(nn.Module):
    """Its forward changes its own mode and keeps its input."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 1)

    def forward(self, x):
        self.train()
        self.kept = x
        return self.linear(x).squeeze(-1)


class Overwriting(nn.Module):
    """Its forward writes to its input."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 1)

    def forward(self, x):
        return self.linear(x.mul_(2)).squeeze(-1)


def with_cycle():
    model = Mlp()
    model.__dict__["itself"] = model
    return model


def made_for_inference():
    with torch.inference_mode():
        return Mlp()


MODELS = {
    "hooks": hooked,
    "weight norm": lambda: with_layer(parametrizations.weight_norm),
    "spectral norm": lambda: with_layer(parametrizations.spectral_norm),
    "old spectral norm": lambda: with_layer(torch.nn.utils.spectral_norm),
    "orthogonal": lambda: with_layer(parametrizations.orthogonal),
    "batch norm": lambda: Around(nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 1))),
    "batch statistics": lambda: Around(nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5, track_running_stats=False),
                                                     nn.Linear(5, 1))),
    "dropout": lambda: Mlp(dropout=0.5).train(),
    "shared": Shared,
    "counting": Counting,
    "odd": Odd,
    "views": Views,
    "flipping": Flipping,
    "overwriting": Overwriting,
    "cycle": with_cycle,
    "inference": made_for_inference,
    "frozen": lambda: Mlp().requires_grad_(False),
    "recurrent": lambda: Around(nn.LSTM(3, 4, batch_first=True), lambda output: output[0][..., 0]),
    "wrapped twice": lambda: nn.DataParallel(torch.compile(Mlp())),
}  # fmt: skip


def belongings(model):
    """Everything of a model that a caller sees."""
    return {
        "state": [tensor.detach().clone().numpy() for tensor in model.state_dict().values()],
        "storage": [parameter.data_ptr() for parameter in model.parameters()],
        "moving": [parameter.requires_grad for parameter in model.parameters()],
        "gradients": [parameter.grad is None for parameter in model.parameters()],
        "modes": [module.training for module in model.modules()],
        "hooks": [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in model.modules()],
        "counts": [getattr(module, "count", None) for module in model.modules()],
        "kept": [hasattr(module, "kept") for module in model.modules()],
    }


@pytest.mark.filterwarnings("ignore:`torch.jit.script_method`:DeprecationWarning")
@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("name", MODELS)
def test_it_is_sampled_and_stays(name, mode):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = MODELS[name]()
    before, data = copy.deepcopy(belongings(model)), [part.clone() for part in DATA]

    def run(engine, **change):
        settings = {**GOOD, **change}
        return sltfast.sample(model, DATA, loss_fn=regression_loss, mode=mode, engine=engine, **settings)["loss"].values

    losses = run("auto")
    assert np.isfinite(losses).all()
    if mode == "eval":  # one chain after another is the model as it is
        np.testing.assert_allclose(run("sequential"), losses, rtol=1e-4)  # 4 steps of fp32 sums in another order
    np.testing.assert_equal(belongings(model), before)
    assert all(torch.equal(now, then) for now, then in zip(DATA, data, strict=True))


class Returning(nn.Module):
    def __init__(self, made):
        super().__init__()
        self.linear, self.made = nn.Linear(3, 1), made

    def forward(self, x):
        return self.made(self.linear(x).squeeze(-1))


@pytest.mark.parametrize("engine", ["auto", "stacked", "vmap", "sequential"])
def test_a_loss_takes_what_the_model_returns(engine):
    torch.manual_seed(0)
    plain, inside = nn.Linear(3, 1), Returning(lambda output: {"out": (output, None)})
    inside.linear.load_state_dict(plain.state_dict())

    def of_dictionary(model, batch):
        return (model(batch[0])["out"][0] - batch[1]) ** 2

    def of_tensor(model, batch):
        return (model(batch[0]).squeeze(-1) - batch[1]) ** 2

    expected = sltfast.sample(plain, DATA, loss_fn=of_tensor, engine="sequential", **GOOD)["loss"]
    got = sltfast.sample(inside, DATA, loss_fn=of_dictionary, engine=engine, **GOOD)["loss"]
    np.testing.assert_allclose(got, expected, rtol=1e-4)  # 4 steps of fp32 sums in another order


def old_weight_norm():
    model = Mlp()
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        torch.nn.utils.weight_norm(model.first)
    return model


def partly_meta():
    model = Mlp()
    model.second.to("meta")
    return model


class Complex(nn.Module):
    def __init__(self, dtype):
        super().__init__()
        self.linear = nn.Linear(3, 1)
        self.c = nn.Parameter(torch.ones(1).to(dtype), requires_grad=False)

    def forward(self, x):
        return self.linear(x).squeeze(-1) * self.c.real.float()


class Clipping(nn.Module):
    """Its forward rescales its own weights in place."""

    def __init__(self, by):
        super().__init__()
        self.linear, self.by = nn.Linear(3, 1), by

    def forward(self, x):
        with torch.no_grad():
            self.by(self.linear.weight)
        return self.linear(x).squeeze(-1)


@pytest.mark.parametrize(
    ("made", "change", "error", "says"),
    [
        (lambda: None, {}, TypeError, "model must be a torch.nn.Module, got NoneType"),
        (lambda: Mlp, {}, TypeError, "got the class Mlp itself"),
        (lambda: "gpt2", {}, TypeError, "got str"),
        (lambda: (lambda x: x), {}, TypeError, "got function"),
        (lambda: Mlp().state_dict(), {}, TypeError, "got OrderedDict"),
        (nn.Identity, {}, ValueError, "no parameters"),
        (lambda: nn.LazyLinear(1), {}, ValueError, "no shape yet"),
        (lambda: Mlp().to("meta"), {}, ValueError, "meta device"),
        (partly_meta, {"param_masks": "first.*"}, ValueError, "'second.weight' is on the meta device"),
        (lambda: Complex(torch.complex64), {"param_masks": "c"}, TypeError, "complex64: only floating-point"),
        (lambda: Complex(torch.int8), {"param_masks": "c"}, TypeError, "int8: only floating-point"),
        (lambda: Complex(torch.float8_e4m3fn), {"param_masks": "c"}, TypeError, "float8_e4m3fn.*can move"),
        (old_weight_norm, {}, TypeError, "cannot be copied.*weight_norm"),
        (lambda: Returning(lambda output: output.detach()), {}, ValueError, "without a gradient"),
        (lambda: Returning(lambda output: output[:, None][:, :0]), {"loss_fn": lambda m, b: m(b[0])}, ValueError,
         "no losses"),
        (lambda: Returning(lambda output: {"o": output}), {"loss_fn": lambda m, b: m(b[0])}, TypeError, "got dict"),
        (lambda: Clipping(lambda w: w.mul_(0.5)), {}, ValueError, "changes parameter 'linear.weight' in place"),
        (lambda: Clipping(lambda w: w.data.clamp_(-0.01, 0.01)), {}, ValueError, "changes parameter 'linear.weight'"),
    ],
    ids=range(18),
)  # fmt: skip
def test_it_is_refused_and_stays(made, change, error, says, tmp_path):
    torch.manual_seed(0)
    model = made()
    before = None if not isinstance(model, nn.Module) else {
        name: tensor.detach().clone() for name, tensor in model.state_dict().items() if type(tensor) is torch.Tensor
    }  # fmt: skip
    with pytest.raises(error, match=says):
        sltfast.sample(model, DATA, output_path=tmp_path / "run", **{"loss_fn": regression_loss, **GOOD, **change})
    assert not list(tmp_path.iterdir())
    for name, tensor in (before or {}).items():
        if not tensor.is_meta:
            assert torch.equal(model.state_dict()[name], tensor)


def test_complex_and_whole_weights_stay_where_others_move():
    for dtype in (torch.complex64, torch.int8, torch.float8_e4m3fn):
        torch.manual_seed(0)
        losses = sltfast.sample(Complex(dtype), DATA, loss_fn=regression_loss, param_masks="linear.*", **GOOD)["loss"]
        assert np.isfinite(losses).all()


def test_a_forward_with_noise_of_its_own_repeats_itself():
    class Noisy(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 1)

        def forward(self, x):
            return self.linear(x).squeeze(-1) + torch.randn(len(x))

    torch.manual_seed(0)
    model = Noisy()
    state = torch.get_rng_state()
    first, second = (sltfast.sample(model, DATA, loss_fn=regression_loss, **GOOD)["loss"] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)
