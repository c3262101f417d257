"""Ctrl-C at any line: the model, the process and the place of results are as before, and the same call works."""

import copy
import random
import sys
import threading

import numpy as np
import pytest
import torch
from models import Mlp, regression_data, regression_loss

import sltfast

DATA = regression_data()
GOOD = {"lr": 1e-3, "n_beta": 10.0, "num_chains": 2, "num_draws": 12, "batch_size": 8, "progress": False}
INTERRUPTS = 12


class Interrupt:
    """A trace function that counts lines of the package and raises KeyboardInterrupt at one of them."""

    def __init__(self, at=0):
        self.lines, self.at = 0, at

    def __call__(self, frame, event, arg):
        # an exception in a generator's own frame may be swallowed by who ends it
        generator = frame.f_code.co_name in ("<genexpr>", "<lambda>", "__del__")
        return self.line if "/sltfast/" in frame.f_code.co_filename and not generator else None

    def line(self, frame, event, arg):
        if event == "line":
            self.lines += 1
            if self.lines == self.at:
                sys.settrace(None)
                raise KeyboardInterrupt
        return self.line

    def during(self, call):
        sys.settrace(self)
        try:
            return call()
        finally:
            sys.settrace(None)


def state_of(model):
    """Everything of the caller's that a run borrows."""
    registries = torch.nn.modules.module
    return {
        "weights": [tensor.clone().numpy() for tensor in model.state_dict().values()],
        "modes": [module.training for module in model.modules()],
        "moving": [parameter.requires_grad for parameter in model.parameters()],
        "gradients": [parameter.grad is None for parameter in model.parameters()],
        "hooks": [(len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in model.modules()],
        "global hooks": [
            len(value) for name, value in vars(registries).items() if name.startswith("_global_") and value
        ],
        "torch": torch.get_rng_state().numpy(),
        "numpy": np.random.get_state()[1].copy(),  # noqa: NPY002
        "python": np.array(random.getstate()[1]),
        "gradients on": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "threads": torch.get_num_threads(),
        "writers": [thread.name for thread in threading.enumerate() if thread.name == "sltfast-writer"],
    }


@pytest.mark.parametrize("place", ["memory", "disk"])
def test_an_interrupt_anywhere_leaves_nothing_behind(place, tmp_path):
    model = Mlp(dropout=0.1).train()

    def run(name):
        path = tmp_path / name if place == "disk" else None
        return sltfast.sample(model, DATA, {"o": (DATA, 1)}, loss_fn=regression_loss, output_path=path, **GOOD)["loss"]

    expected = run("first").values
    counted = Interrupt()
    counted.during(lambda: run("second"))
    chosen = random.Random(0)
    before = copy.deepcopy(state_of(model))
    for k in range(INTERRUPTS):
        at = chosen.randrange(1, int(0.95 * counted.lines))  # how often the clock is looked at moves the count
        with pytest.raises(KeyboardInterrupt):
            Interrupt(at).during(lambda name=f"{k}": run(name))
        np.testing.assert_equal(state_of(model), before, err_msg=f"interrupted at line {at}")
        np.testing.assert_array_equal(run(f"{k}"), expected, err_msg=f"interrupted at line {at}")
        if place == "disk":
            assert [p.name for p in tmp_path.glob(f"{k}*") if p.name.partition(".")[0] == str(k)] == [str(k)]
