"""Another run at a path is refused with what differs; the same run is taken up, whoever asks for it."""

import functools
import json
import os
import re
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from models import Mlp, regression_data, regression_loss

import sltfast
from sltfast.results import loss_values as values_of_losses
from sltfast.results.content import content
from sltfast.results.differences import LISTED
from sltfast.results.digest import Digest

SETTINGS = {"lr": 1e-3, "n_beta": 10.0, "localization": 1.0, "num_chains": 2, "num_draws": 4, "batch_size": 8}


def run(path, model=None, data=None, seen=None, loss_fn=regression_loss, **changes):
    data = regression_data() if data is None else data
    seen = {"o": (regression_data(seed=5), 1)} if seen is None else seen
    settings = {"progress": False, **SETTINGS, **changes}
    return sltfast.sample(Mlp() if model is None else model, data, seen, loss_fn=loss_fn, output_path=path, **settings)


def refused(path, **changes):
    with pytest.raises(sltfast.OutputMismatch) as caught:
        run(path, **changes)
    return str(caught.value)


def grown(model):
    model.first.weight.data[2, 1] += 1e-6
    return model


def swapped(data):
    """Two rows that the first batch does not hold change places: every sum stays what it is."""
    x, y = (part.clone() for part in data)
    for part in (x, y):
        part[[0, 1]] = part[[1, 0]]
    return x, y


def other_observable(row):
    x, y = regression_data(seed=5)
    y[row] += 1e-6
    return {"o": ((x, y), 1)}


CHANGES = {
    "a weight": (lambda: {"model": grown(Mlp())}, r"the model's weights \(1 of them: first.weight\)"),
    "architecture": (lambda: {"model": Mlp(dropout=0.5)}, r"the model's architecture \(Mlp of 26 weights in 4 tensors"),
    "data": (lambda: {"data": swapped(regression_data())}, r"data \(40 rows, \w+ there, 40 rows, \w+ now\)"),
    "an observable": (lambda: {"seen": other_observable(3)}, r"observable o \(40 rows, \w+; 8 read, \w+ there"),
    "its rows": (lambda: {"obs_seed": 7}, "observable o"),
    "its name": (lambda: {"seen": {"p": (regression_data(seed=5), 1)}}, r"observable p \(nothing there"),
    "none": (lambda: {"seen": {}}, r"arrays \(.*loss_o.* only there\)"),
    "masks": (lambda: {"param_masks": "first.*"}, "restriction .26 coordinates of 4 tensors, .* 20 coordinates of 2"),
    "order": (lambda: {"shuffle": False}, r"shuffle \(True there, False now\)"),
    "chains": (lambda: {"num_chains": 3}, r"num_chains \(2 there, 3 now\)"),
    "draws": (lambda: {"num_draws": 9}, r"num_draws \(4 there, 9 now\)"),
    "moments": (lambda: {"record": "moments", "sampling_task": "o", "num_blocks": 2}, "record"),
    "weights at draws": (lambda: {"record_weights": "first.bias"}, "record_weights"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_differs_is_listed(change, tmp_path):
    run(tmp_path / "run")
    make, says = CHANGES[change]
    message = refused(tmp_path / "run", **make())
    assert re.search(says, message), message
    assert "overwrite=True" in message
    assert "values of the loss" not in message  # they follow from the rest


def test_many_differences_are_counted(tmp_path):
    run(tmp_path / "run")
    changes = {"lr": 2e-3, "n_beta": 3.0, "localization": 2.0, "num_chains": 1, "num_draws": 3, "batch_size": 4}
    message = refused(tmp_path / "run", **changes, init_seed=1, model=Mlp(3))
    told = message.partition("it differs in ")[2].partition(". That run")[0].split("; ")
    assert len(told) == LISTED + 1
    assert told[-1] == "and 3 more"  # seven settings, weights, the observable's rows


def test_an_unfinished_run_says_how_to_go_on(tmp_path, monkeypatch):
    from sltfast.sampler.flight import Flight

    with monkeypatch.context() as patch:
        patch.setattr(Flight, "step", lambda self, step: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            run(tmp_path / "run")
    assert "That run is unfinished, and the call that began it goes on" in refused(tmp_path / "run", lr=2e-3)
    assert run(tmp_path / "run").attrs["completed"] == 1
    assert "That run is complete" in refused(tmp_path / "run", lr=2e-3)


class Normed(Mlp):
    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(3)

    def forward(self, x):
        return super().forward(self.norm(x))


def test_buffers_count_but_not_counters(tmp_path):
    run(tmp_path / "run", model=Normed())
    counted, shifted = Normed(), Normed()
    counted.norm.num_batches_tracked += 5
    shifted.norm.running_mean += 1e-3
    assert run(tmp_path / "run", model=counted).attrs["completed"] == 1
    assert "the model's buffers (1 of them: norm.running_mean)" in refused(tmp_path / "run", model=shifted)


class Sum:
    """A loss that is an object; it holds what can be neither copied nor read."""

    def __init__(self, factor=1.0, locked=False):
        self.factor, self.tags = factor, {"a", "b", "c", "d"}
        self.lock = threading.Lock() if locked else None

    def scaled(self, values):
        return self.factor * values

    def __call__(self, model, batch):
        return self.scaled(regression_loss(model, batch))


class Doubled(Sum):
    def scaled(self, values):
        return 2 * self.factor * values


def power(model, batch, exponent):
    x, y = batch
    return (model(x) - y).abs() ** exponent


FACTOR = 1.0


def by_global(model, batch):
    return FACTOR * regression_loss(model, batch)


def closing_over(factor):
    return lambda model, batch: factor * regression_loss(model, batch)


def evaluated(text):
    """A function whose source is nowhere."""
    space = {"regression_loss": regression_loss}
    exec(f"def typed(model, batch): return {text}", space)
    return space["typed"]


@pytest.mark.parametrize(
    ("make", "other"),
    [
        (lambda: Sum(), lambda: Sum(2.0)),
        (lambda: Sum(locked=True), lambda: Sum(3.0, locked=True)),
        (lambda: Sum(), lambda: Doubled()),
        (lambda: functools.partial(power, exponent=2), lambda: functools.partial(power, exponent=1)),
        (lambda: closing_over(1.0), lambda: closing_over(2.0)),
        (lambda: evaluated("regression_loss(model, batch)"), lambda: evaluated("1.5 * regression_loss(model, batch)")),
        (lambda: Sum().__call__, lambda: Sum(2.0).__call__),
    ],
    ids=["object", "object with a lock", "subclass", "partial", "closure", "no source", "method"],
)
def test_losses_of_every_kind(tmp_path, make, other):
    run(tmp_path / "run", loss_fn=make())
    assert run(tmp_path / "run", loss_fn=make()).attrs["completed"] == 1
    message = refused(tmp_path / "run", loss_fn=other())
    assert "its values on the first batch at w* differ too: mean" in message


def test_globals_of_a_loss_count(tmp_path, monkeypatch):
    run(tmp_path / "run", loss_fn=by_global)
    monkeypatch.setattr(sys.modules[__name__], "FACTOR", 1.5)
    assert "differ too" in refused(tmp_path / "run", loss_fn=by_global)


def hidden(factor):
    """A loss whose factor nothing can read: a generator's frame keeps it."""

    def endless():
        while True:
            yield factor

    source = endless()

    class Hidden:
        __slots__ = ("source",)

        def __call__(self, model, batch):
            return next(self.source) * regression_loss(model, batch)

    made = Hidden()
    made.source = source
    return made


def test_what_cannot_be_read_is_told_apart_by_values(tmp_path):
    first, second = Digest().add(hidden(1.0)), Digest().add(hidden(2.0))
    assert first.hexdigest() == second.hexdigest()
    assert first.unread == ["builtins.generator"]
    run(tmp_path / "run", loss_fn=hidden(1.0))
    assert run(tmp_path / "run", loss_fn=hidden(1.0)).attrs["completed"] == 1
    stored = sltfast.open(tmp_path / "run").attrs["sltfast"]["identity"]
    assert stored["loss"].endswith("but for builtins.generator")
    message = refused(tmp_path / "run", loss_fn=hidden(1.0 + 1e-6))
    assert "values of the loss on the first batch at w*" in message
    assert "on the very same machine" in message


def test_a_loss_with_another_text_and_the_same_values_is_refused_with_a_hint(tmp_path):
    run(tmp_path / "run", loss_fn=closing_over(1.0))
    message = refused(tmp_path / "run", loss_fn=regression_loss)
    assert "its values on the first batch at w* agree: another text, closure or state" in message


def test_a_loss_that_counts_its_calls_is_taken_before_the_first(tmp_path):
    class Counting:
        def __init__(self):
            self.calls = 0

        def __call__(self, model, batch):
            self.calls += 1
            return regression_loss(model, batch)

    run(tmp_path / "run", loss_fn=Counting())
    used = Counting()
    assert run(tmp_path / "run", loss_fn=used).attrs["completed"] == 1
    assert used.calls > 0
    assert "counter" in refused(tmp_path / "run", loss_fn=used)


def test_values_of_other_machines_may_differ_by_rounding(monkeypatch):
    from sltfast.losses import ItemLosses

    def recorded(change=0.0, place=None):
        values = torch.linspace(0.5, 3.0, 12).reshape(4, 3)
        values[1, 2] += change
        with monkeypatch.context() as patch:
            if place is not None:
                patch.setattr(values_of_losses, "_place", lambda device: place)
            return values_of_losses.loss_values(ItemLosses(values, None), torch.device("cpu"), torch.float32)

    ulp = 2 * float(np.spacing(np.float32(1.6)))
    assert values_of_losses.values_differ(recorded(), json.loads(json.dumps(recorded()))) == ""
    assert "very same machine" in values_of_losses.values_differ(recorded(), recorded(ulp))
    for place in ("cpu other, 8 threads, torch 2", "Some GPU, 1 threads, torch 2"):
        assert values_of_losses.values_differ(recorded(), recorded(ulp, place)) == ""
        # a tolerance of 1e3·2⁻²³·(1 + 3) is 4.8e-4 in the mean of a row of three
        assert "rows differ by up to 0.0003" not in values_of_losses.values_differ(recorded(), recorded(1e-3, place))
        assert "rows differ by up to 0.00333" in values_of_losses.values_differ(recorded(), recorded(1e-2, place))


def test_threads_are_part_of_the_machine(monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 63)
    assert ", 63 threads, torch" in values_of_losses._place(torch.device("cpu"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.int64, torch.uint8, torch.bool])
@pytest.mark.parametrize("shape", [(), (1,), (63,), (5, 7), (300, 701)])
def test_content_sees_every_bit_and_the_order(dtype, shape):
    generator = torch.Generator().manual_seed(1)
    tensor = torch.randint(0, 100, shape, generator=generator).to(dtype)
    seen = {content(tensor)}
    assert content(tensor.clone()) in seen
    if tensor.ndim == 2:
        assert content(tensor.t().contiguous().t()) in seen  # the values, not how they lie
    flat = tensor.reshape(-1)
    for place in {0, flat.numel() // 2, flat.numel() - 1}:
        other = flat.clone()
        other[place] = ~other[place] if dtype == torch.bool else other[place] + 1
        seen.add(content(other))
    assert len(seen) == 1 + len({0, flat.numel() // 2, flat.numel() - 1})
    if flat.numel() > 1 and dtype != torch.bool:
        mirrored, negated = flat.flip(0), flat.clone()
        negated[: flat.numel() // 2 * 2] *= -1 if dtype != torch.uint8 else 3
        assert content(mirrored) != content(flat)
        assert content(negated) != content(flat)


def test_a_view_at_an_odd_place_is_read(tmp_path):
    whole = torch.arange(9, dtype=torch.float32)
    assert content(whole[1:]) == content(whole[1:].clone())
    assert content(whole[:0]) == content(torch.empty(0))


SCRIPT = """
import torch, sltfast
from models import Mlp, regression_data
from test_run_identity import Sum, run
from sltfast.results.digest import Digest
print(Digest().add(Sum()).add({"a": {"x", "y", "z"}}).hexdigest())
"""


def test_a_digest_is_the_same_in_every_process():
    here = os.path.dirname(__file__)
    paths = os.pathsep.join([here, os.path.join(here, "..", ".."), *sys.path])
    seen = set()
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": paths}
        done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        seen.add(done.stdout)
    assert len(seen) == 1


def test_a_configs_path_and_version_do_not_count():
    from models import tiny_neox

    from sltfast.results.identity import model_identity

    first, second, third = tiny_neox(), tiny_neox(), tiny_neox()
    second.config._name_or_path, second.config.transformers_version = "elsewhere", "0"
    third.config.rotary_pct = 0.5
    assert model_identity(first) == model_identity(second)
    assert model_identity(first)["architecture"] != model_identity(third)["architecture"]
