"""`sltfast sweep` end to end: its table, JSON, heat map, resumed draws, and what it refuses."""

import json
from pathlib import Path
from typing import Any

import pytest

import sltfast
from sltfast.cli import main

SHORT = [
    "--tokenizer", "bytes", "--n-beta", "10", "--num-chains", "2", "--num-draws", "12", "--num-burnin-steps", "2",
    "--batch-size", "4", "--context", "32", "--quiet",
]  # fmt: skip
RUN = [*SHORT, "--lr", "1e-5,2e-5", "--localization", "1000,3000"]


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["sweep", *arguments, "--json"]) == 0
    content: dict[str, Any] = json.loads(capsys.readouterr().out)
    return content


def test_the_table_has_a_line_for_each_cell(
    model: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    figure = tmp_path / "sweep.png"
    assert main(["sweep", model, text, *RUN, "--figure", str(figure)]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    header, *lines = said.out.splitlines()
    for column in ("ε", "nβ", "γ", "λ̂ ± SE", "MCSE", "R̂", "ESS", "drift", "alive", "verdict"):
        assert column in header
    assert [line.split()[-2] for line in lines[:4]] == ["2"] * 4  # "2 of 2" before the verdict
    assert figure.stat().st_size > 1000


def test_the_same_numbers_as_from_python(model: str, text: str, capsys: pytest.CaptureFixture[str]) -> None:
    from sltfast.inputs.corpus import encode_bytes, pack, tokens_of
    from sltfast.inputs.pretrained import load_model

    rows = pack(tokens_of([Path(text).read_text()], encode_bytes, 0), 32)
    expected = sltfast.sweep(
        load_model(model), rows, lr=[1e-5, 2e-5], localization=[1000.0, 3000.0], n_beta=10.0, num_chains=2,
        num_draws=12, num_burnin_steps=2, batch_size=4, progress=False,
    )  # fmt: skip
    found = as_json(capsys, model, text, *RUN)
    assert len(found["cells"]) == 4
    for cell in found["cells"]:
        at = {name: cell[name] for name in ("lr", "n_beta", "localization")}
        assert cell["llc_mean"] == float(expected["llc_mean"].sel(at))
    assert found["recommendation"] == expected.attrs["recommendation"]


def test_draws_are_kept_and_read_again(
    model: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [model, text, *RUN, "--output-path", str(tmp_path / "sweep.zarr")]
    first = as_json(capsys, *given)
    assert sltfast.open(tmp_path / "sweep.zarr").sizes["chain"] == 8
    assert as_json(capsys, *given)["cells"] == first["cells"]


def test_a_configuration_file_may_hold_lists(
    model: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "sweep.toml"
    path.write_text(f'model = "{model}"\ndata = "{text}"\nlr = [1e-5, 2e-5]\nlocalization = 1000\nnoise_level = 1.0\n')
    found = as_json(capsys, "--config", str(path), *SHORT)
    assert [(cell["lr"], cell["localization"]) for cell in found["cells"]] == [(1e-5, 1000.0), (2e-5, 1000.0)]
    assert "noise_level" not in found["cells"][0]
    path.write_text("lr = ['fast']")
    assert main(["sweep", "--config", str(path)]) == 2
    assert "lr must be a number or a list of numbers, got ['fast']" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (["--lr", "1e-5,1e-5"], "lr holds 1e-05 more than once"),
        (["--lr", "1e-5,-1"], "lr must be > 0, got -1.0"),
        (["--figure", "/no/such/folder/x.png"], "no such folder for the figure"),
    ],
)
def test_a_bad_setting(model: str, text: str, capsys: pytest.CaptureFixture[str], change: list[str], says: str) -> None:
    assert main(["sweep", model, text, *RUN, *change]) == 2
    assert says in capsys.readouterr().err


def test_what_is_no_list_of_numbers_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["sweep", "--lr", "1e-5,,1e-4"])
    assert left.value.code == 2
    assert "argument --lr" in capsys.readouterr().err
