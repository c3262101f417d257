"""What goes wrong is one line on stderr and an exit code: 2 bad input, 3 all chains dead, 130 interrupted."""

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import sltfast
from sltfast.cli import main

RUN = [
    "--tokenizer", "bytes", "--lr", "1e-5", "--localization", "1000", "--num-chains", "2", "--num-draws", "12",
    "--batch-size", "4", "--context", "32", "--quiet",
]  # fmt: skip


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What the command says when it exits with 2: one line."""
    assert main(["llc", *arguments]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("sltfast: ")
    assert said.err.count("\n") == 1
    return said.err


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (["--lr", "-1"], "lr must be > 0, got -1.0"),
        (["--n-beta", "-3"], "n_beta must be >= 0, got -3.0 (see sltfast.default_nbeta(n))"),
        (["--context", "64"], "context must be <= 32 (the model's position limit), got 64"),
        (["--context", "1"], "context must be >= 2"),
        (["--batch-size", "100000"], "fewer than one batch"),
        (["--restriction", "no.such.weight"], "'no.such.weight'"),
        (["--tokenizer", "/no/such/tokenizer"], "/no/such/tokenizer: no such file or directory"),
        (["--figure", "/no/such/folder/x.png"], "no such folder for the figure"),
        (["--sampling-method", "sghmc", "--friction", "1.5"], "friction must be in (0, 1], got 1.5 (1 is SGLD)"),
        (["--friction", "0.5"], "['friction'] mean nothing to 'sgmcmc_sgld' (allowed: none)"),
        (["--threads", "0"], "threads must be >= 1, got 0"),
        (["--max-rows", "0"], "max_rows must be >= 1, got 0"),
    ],
)
def test_a_bad_setting(model: str, text: str, capsys: pytest.CaptureFixture[str], change: list[str], says: str) -> None:
    assert says in refusal(capsys, model, text, *RUN, *change)


def test_what_is_missing(model: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "MODEL is missing" in refusal(capsys)
    assert "DATA is missing" in refusal(capsys, model)
    assert "--lr is missing" in refusal(capsys, model, text)


def test_a_model_without_a_tokenizer_names_the_mend(model: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert "--tokenizer bytes" in refusal(capsys, model, text, *RUN[2:])


def test_data_that_cannot_be_read(model: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    binary, broken, other = tmp_path / "x.txt", tmp_path / "x.jsonl", tmp_path / "y.jsonl"
    binary.write_bytes(b"\xff\xfe\x00")
    broken.write_text('{"text": "a"}\nnot json\n')
    other.write_text('{"content": "a"}\n')
    assert "not UTF-8 text" in refusal(capsys, model, str(binary), *RUN)
    assert "x.jsonl, line 2: not JSON" in refusal(capsys, model, str(broken), *RUN)
    assert "no column 'text'; there is content (use --text-column)" in refusal(capsys, model, str(other), *RUN)
    assert "no such file or folder" in refusal(capsys, model, str(tmp_path / "none.txt"), *RUN)


def test_models_that_cannot_be_found(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "neither config.json nor a .gguf file" in refusal(capsys, str(tmp_path), text, *RUN)
    assert "no such file or directory" in refusal(capsys, "./none", text, *RUN)
    assert "a model is a directory, a .gguf file or a hub name" in refusal(capsys, text, text, *RUN)
    (tmp_path / "a.gguf").touch()
    (tmp_path / "b.gguf").touch()
    assert "several GGUF files (a.gguf, b.gguf)" in refusal(capsys, str(tmp_path), text, *RUN)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("x.toml", "num_draw = 3", "unknown setting 'num_draw'; did you mean num_draws?"),
        ("x.toml", "num_draws = 'many'", "num_draws must be a whole number, got 'many'"),
        ("x.toml", "num_draws = true", "num_draws must be a whole number, got True"),
        ("x.json", '{"mode": "loud"}', "mode must be one of eval, train, got 'loud'"),
        ("x.json", "[1]", "must hold one object"),
        ("x.toml", "num_draws = = 3", "x.toml: "),
        ("x.yaml", "", "ends in .toml or .json"),
    ],
)
def test_a_bad_configuration_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, content: str, says: str
) -> None:
    path = tmp_path / name
    path.write_text(content)
    assert says in refusal(capsys, "--config", str(path))


def test_another_run_in_the_output_path(
    model: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = ["--output-path", str(tmp_path / "run.zarr")]
    assert main(["llc", model, text, *RUN, *path]) == 0
    capsys.readouterr()
    assert "holds another run" in refusal(capsys, model, text, *RUN, *path, "--init-seed", "7")


def test_an_unknown_flag_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["llc", "--no-such-flag"])
    assert left.value.code == 2


@pytest.mark.filterwarnings("ignore::sltfast.ChainDiverged")
def test_all_chains_dead_exits_with_3(model: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["llc", model, text, *RUN, "--lr", "1e30"]) == 3
    assert "every chain diverged" in capsys.readouterr().err


def test_a_traceback_on_demand(model: str, text: str) -> None:
    with pytest.raises(ValueError, match="lr must be > 0"):
        main(["--traceback", "llc", model, text, *RUN, "--lr", "0"])


def test_ctrl_c_leaves_readable_draws(model: str, text: str, tmp_path: Path) -> None:
    path = tmp_path / "run.zarr"
    arguments = [part for part in RUN if part != "--quiet"] + ["--num-draws", "20000", "--num-chains", "1"]
    command = [sys.executable, "-m", "sltfast", "llc", model, text, *arguments, "--output-path", str(path)]
    shown = {name: value for name, value in os.environ.items() if name != "TQDM_DISABLE"}  # benchmarks set it
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=shown)
    assert process.stderr is not None
    said = b""
    while not re.search(rb"1 chain:.* (\d{2,})/20000", said):
        piece = process.stderr.read1(4096)
        assert piece, said.decode()
        said += piece
    process.send_signal(signal.SIGINT)
    _, rest = process.communicate(timeout=120)
    assert process.returncode == 130
    last = rest.decode().strip().splitlines()[-1]
    assert last.startswith("sltfast: interrupted")
    assert str(path) in last
    assert "same command" in last
    tree = sltfast.open(path)
    assert tree.attrs["completed"] == 0
    recorded = int(np.isfinite(tree["loss"].values).sum())
    assert 10 <= recorded < 20000
