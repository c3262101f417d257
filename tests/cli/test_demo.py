"""The demonstration at a tiny size: what it leaves, that it goes on where it stopped, and its corpus."""

import csv
import itertools
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import sltfast
from sltfast.cli import main
from sltfast.demo import FULL, SMALL, Plan, TrainingPlan, train
from sltfast.demo.follow import python_rows
from sltfast.inputs.corpus import BYTES, encode_bytes, pack, standard_library_documents, tokens_of

TINY = [
    "--steps", "12", "--checkpoints", "3", "--hidden-size", "16", "--layers", "1", "--heads", "2", "--context", "16",
    "--max-rows", "200", "--num-chains", "2", "--num-draws", "8", "--num-burnin-steps", "2", "--quiet",
]  # fmt: skip


def test_table_files_and_a_second_run_that_reads_the_first(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "demo"
    command = ["demo", *TINY, "--output-dir", str(folder)]
    assert main(command) == 0
    said = capsys.readouterr()
    assert said.err == ""
    header = next(line for line in said.out.splitlines() if "train loss" in line)
    for column in ("step", "λ̂ ± SE", "R̂", "ESS", "verdict"):
        assert column in header
    for column in ("component", "χ code", "χ prose"):
        assert column in said.out
    with (folder / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [1, 3, 12]
    for name in ("llc_over_training.png", "traces.png", "last_checkpoint.png"):
        assert (folder / name).stat().st_size > 1000
    tree = sltfast.open(folder / "draws" / "step-000012.zarr")
    assert tree.sizes["chain"] == 2
    assert tree.attrs["completed"] == 1

    weights = folder / "checkpoints" / "step-000012" / "model.safetensors"
    written = weights.stat().st_mtime_ns
    assert main([*command, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    again = found["checkpoints"]
    assert [one["name"] for one in found["components"]] == ["full", "l0h0", "l0h1"]
    assert set(found["components"][1]["datasets"]) == {"code", "prose"}
    assert {name for pair in found["pairs"] for name in pair["observables"]} <= {"code", "prose"}
    page = (folder / "report.html").read_text("utf-8")
    for part in ("step-000012", "Susceptibilities token by token", "Influence"):
        assert part in page
    assert weights.stat().st_mtime_ns == written
    assert [point["llc_mean"] for point in again] == [float(row["llc"]) for row in rows]


def test_quiet_means_quiet(tmp_path: Path) -> None:
    environment = {key: value for key, value in os.environ.items() if key != "HF_HUB_DISABLE_PROGRESS_BARS"}
    command = [sys.executable, "-m", "sltfast", "demo", *TINY, "--output-dir", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""


def test_another_demonstration_in_the_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["demo", *TINY, "--output-dir", str(tmp_path)]
    assert main(command) == 0
    capsys.readouterr()
    assert main([*command, "--seed", "5"]) == 2
    assert "holds a training run with other settings or text" in capsys.readouterr().err


def test_a_checkpoint_is_a_model_for_the_command_line(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = TrainingPlan(hidden_size=16, layers=1, heads=2, context=16, steps=2, checkpoints=1)
    trained = train(plan, python_rows(16, 100), tmp_path, progress=False)
    run = ["--tokenizer", "bytes", "--lr", "1e-5", "--num-draws", "6", "--batch-size", "4", "--quiet", "--json"]
    assert main(["llc", str(trained.checkpoints[2]), text, *run]) == 0
    assert json.loads(capsys.readouterr().out)["context"] == 16


def test_training_is_seeded_and_leaves_the_global_generator_alone(tmp_path: Path) -> None:
    plan = TrainingPlan(hidden_size=16, layers=1, heads=2, context=16, steps=3, checkpoints=1)
    rows = python_rows(16, 100)
    before = torch.get_rng_state()
    first = train(plan, rows, tmp_path / "a", progress=False)
    assert torch.equal(torch.get_rng_state(), before)
    assert train(plan, rows, tmp_path / "b", progress=False).losses == first.losses


def test_checkpoints_are_spaced_evenly_in_the_logarithm() -> None:
    steps = SMALL.training.checkpoint_steps()
    assert len(steps) == 10
    assert (steps[0], steps[-1]) == (SMALL.training.steps // 40, SMALL.training.steps)
    ratios = [later / earlier for earlier, later in itertools.pairwise(steps)]
    # 40^(1/9) = 1.507; rounding to whole steps moves a ratio by up to 0.5/25 + 0.5/38 of itself
    assert ratios == pytest.approx([40 ** (1 / 9)] * 9, rel=0.034)


@pytest.mark.parametrize("plan", [SMALL, FULL])
def test_the_step_size_is_stable_and_its_bias_small(plan: Plan) -> None:
    """The step's bias on directions that only γ holds is 1/(1 − εγ/4): less than 4 %."""
    sampling = plan.sampling
    assert 1 / (1 - sampling.lr * sampling.localization / 4) < 1.04
    # the chain itself on such a direction, w ← (1 − εγ/2) w + √ε ξ from w*: its variance, whose law's is 1/γ
    shrink = 1 - sampling.lr * sampling.localization / 2
    variances = [0.0]
    for _ in range(1000):
        variances.append(shrink**2 * variances[-1] + sampling.lr)
    assert variances[-1] * sampling.localization == pytest.approx(1 / (1 - 0.15 / 4), rel=1e-12)  # εγ = 0.15: 3.9 %
    # burn-in of three forgetting times 2/(εγ) leaves less than e⁻⁶ of the variance to come
    assert 1 - variances[sampling.num_burnin_steps] / variances[-1] < math.exp(-6)
    assert sampling.num_burnin_steps >= 3 * 2 / (sampling.lr * sampling.localization)


def test_a_plan_refuses_what_cannot_be_trained() -> None:
    with pytest.raises(ValueError, match="multiple of heads, got 10 and 4"):
        TrainingPlan(hidden_size=10)
    with pytest.raises(ValueError, match="steps must be >= 1, got 0"):
        TrainingPlan(steps=0)


def test_the_corpus_is_real_code_and_prose() -> None:
    documents = standard_library_documents()
    text = "".join(documents)
    assert len(text) > 2_000_000
    assert "def namedtuple(" in text
    assert "standard type hierarchy" in text  # pydoc's TYPES
    assert documents == standard_library_documents()


def test_packing_joins_documents_and_drops_the_rest() -> None:
    rows = pack(tokens_of(["abc", "", "dé"], encode_bytes, 0), 4)
    assert rows.tolist() == [[97, 98, 99, 0], [100, 0xC3, 0xA9, 0]]
    assert rows.max() < BYTES
    assert pack(iter([[1, 2, 3, 4, 5]]), 2, max_rows=1).tolist() == [[1, 2]]
    with pytest.raises(ValueError, match="the data holds 3 tokens, fewer than one row of 4"):
        pack(iter([[1, 2, 3]]), 4)
