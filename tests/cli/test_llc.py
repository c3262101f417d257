"""`sltfast llc` end to end: every kind of data, what it prints, and what it leaves behind."""

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest

import sltfast
from sltfast.cli import main

RUN = [
    "--tokenizer", "bytes", "--lr", "1e-5", "--localization", "1000", "--n-beta", "10", "--num-chains", "2",
    "--num-draws", "12", "--num-burnin-steps", "2", "--batch-size", "4", "--context", "32", "--quiet",
]  # fmt: skip


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["llc", *arguments, "--json"]) == 0
    content: dict[str, Any] = json.loads(capsys.readouterr().out)
    return content


def documents(path: str) -> list[str]:
    return Path(path).read_text("utf-8").splitlines(keepends=True)


@pytest.mark.parametrize("kind", ["text", "folder", "jsonl", "parquet", "disk", "disk dict", "ids"])
def test_every_kind_of_data(
    kind: str, model: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = documents(text)
    data = tmp_path / "data"
    table = datasets.Dataset.from_dict({"text": lines})
    # each document is followed by a separator byte, the whole text by one
    tokens, rows = sum(map(len, lines)) + len(lines), None
    if kind == "text":
        data, tokens = Path(text), sum(map(len, lines)) + 1
    elif kind == "folder":
        data.mkdir()
        for number, line in enumerate(lines):
            (data / f"{number}.txt").write_text(line)
        (data / ".hidden").write_bytes(b"\xff\xfe")
    elif kind == "jsonl":
        data = data.with_suffix(".jsonl")
        data.write_text("\n".join(json.dumps({"text": line}) for line in lines))
    elif kind == "parquet":
        data = data.with_suffix(".parquet")
        table.to_parquet(str(data))
    elif kind == "disk":
        table.save_to_disk(str(data))
    elif kind == "disk dict":
        datasets.DatasetDict({"train": table}).save_to_disk(str(data))
    else:
        rows = 40
        ids = np.arange(rows * 16).reshape(rows, 16) % 256
        datasets.Dataset.from_dict({"input_ids": ids.tolist()}).save_to_disk(str(data))
    capsys.readouterr()
    found = as_json(capsys, model, str(data), *RUN)
    assert found["rows"] == (rows if rows is not None else tokens // 32)
    assert np.isfinite(found["llc_mean"])
    assert len(found["llc_per_chain"]) == 2


def test_the_same_numbers_as_from_python(model: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    from sltfast.inputs.corpus import encode_bytes, pack, tokens_of
    from sltfast.inputs.pretrained import load_model

    rows = pack(tokens_of([Path(text).read_text()], encode_bytes, 0), 32)
    expected = sltfast.llc(
        load_model(model), rows, lr=1e-5, localization=1000.0, n_beta=10.0, num_chains=2, num_draws=12,
        num_burnin_steps=2, batch_size=4, progress=False,
    )  # fmt: skip
    found = as_json(capsys, model, text, *RUN)
    assert found["llc_mean"] == float(expected["llc_mean"])
    assert found["llc_per_chain"] == expected["llc_per_chain"].values.tolist()


def test_the_report_is_for_people(model: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["llc", model, text, *RUN]) == 0
    said = capsys.readouterr()
    for part in ("λ̂ = ", " ± ", "R̂ ", "ESS ", "chain", "verdict", "nβ 10", "γ 1000"):
        assert part in said.out
    assert said.err == ""


def test_progress_bars_go_to_stderr_unless_quiet(model: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["llc", model, text, *[a for a in RUN if a != "--quiet"], "--json"]) == 0
    said = capsys.readouterr()
    assert "step" in said.err
    json.loads(said.out)


def test_n_beta_defaults_to_n_over_log_n(model: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    without = [value for value in RUN if value not in ("--n-beta", "10")]
    found = as_json(capsys, model, text, *without, "--gradient-accumulation-steps", "2")
    assert found["settings"]["n_beta"] == sltfast.default_nbeta(4, 2)


@pytest.mark.parametrize("method", ["sghmc", "sgnht"])
def test_friction_of_the_samplers_with_momentum(
    method: str, model: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given, path = [*RUN, "--sampling-method", method], str(tmp_path / "run.zarr")
    found = as_json(capsys, model, text, *given, "--friction", "0.5", "--output-path", path)
    kept = sltfast.open(path).attrs["metadata"]["config"]["sampler"]["sampling_method_kwargs"]
    assert kept == {"friction": 0.5}
    assert found["llc_mean"] != as_json(capsys, model, text, *given)["llc_mean"]


def test_a_restriction_moves_what_it_names(
    model: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(tmp_path / "run.zarr")
    names = ["--restriction", "*.mlp.*.bias", "--restriction", "gpt_neox.final_layer_norm.bias"]
    found = as_json(capsys, model, text, *RUN, *names, "--output-path", path)
    assert found["restriction"] == names[1::2]
    # dense_h_to_4h.bias 64, dense_4h_to_h.bias 16, final_layer_norm.bias 16
    assert sltfast.open(path).attrs["metrics_numel"] == 64 + 16 + 16


def test_draws_and_figure_are_written_and_read_again(
    model: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, figure = tmp_path / "run.zarr", tmp_path / "trace.png"
    given = [model, text, *RUN, "--output-path", str(path), "--save-metrics", "--save-token-losses"]
    first = as_json(capsys, *given, "--figure", str(figure))
    assert figure.stat().st_size > 1000
    tree = sltfast.open(path)
    assert {"loss", "sampling_loss_micro", "metrics_distance"} <= set(tree.data_vars)
    assert as_json(capsys, *given)["llc_mean"] == first["llc_mean"]


def test_a_configuration_file_and_flags_that_override_it(
    model: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    toml, other = tmp_path / "run.toml", tmp_path / "run.json"
    settings = {
        "model": model, "data": text, "tokenizer": "bytes", "lr": 1e-5, "localization": 1000, "num-chains": 2,
        "num_draws": 12, "batch_size": 4, "context": 32, "quiet": True,
    }  # fmt: skip
    toml.write_text("\n".join(f"{key} = {json.dumps(value)}" for key, value in settings.items()))
    other.write_text(json.dumps(settings))
    found = as_json(capsys, "--config", str(toml))
    assert found["settings"]["localization"] == 1000.0
    assert as_json(capsys, "--config", str(other))["llc_mean"] == found["llc_mean"]
    assert as_json(capsys, "--config", str(toml), "--num-draws", "15")["settings"]["num_draws"] == 15
