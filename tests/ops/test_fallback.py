"""Without the native extension the reference runs, and says so once."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WITHOUT_EXTENSION = """
import sys, warnings
sys.modules["sltfast._C"] = None
import torch
from sltfast import ops

w = torch.zeros(1, 4)
hyper = torch.tensor([[1.0, 0.0, 0.0, 0.0, 1.0, torch.inf]], dtype=torch.float64)
arguments = ([torch.ones(4)], [torch.zeros(4)], torch.tensor([[0, 4, 0, 4, 0]]), hyper, torch.tensor(0))
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for _ in range(2):
        ops.langevin_step_(w, *arguments, torch.tensor([0]), seed=1)
assert (w != 0).all()
assert len(caught) == 1, caught
assert "native extension is not loaded" in str(caught[0].message)
assert caught[0].filename == "<string>", caught[0].filename
assert "not loaded" in ops.backend.refusals("langevin_step_")["native"]
assert ops.backend.build_facts() == {}
try:
    ops.langevin_step_(w, *arguments, torch.tensor([0]), seed=1, backend="native")
except RuntimeError as error:
    assert "pip install" in str(error)
else:
    raise AssertionError("backend='native' ran without the extension")
"""


def test_reference_runs_with_one_warning() -> None:
    run = subprocess.run([sys.executable, "-c", WITHOUT_EXTENSION], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
