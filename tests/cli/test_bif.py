"""`sltfast bif` end to end: the pairs it prints are those of the Python call, and the folder it leaves makes a page."""

import json
from pathlib import Path

import numpy as np
import pytest

import sltfast
from sltfast.cli import main
from sltfast.commands.observed import named_files

RUN = [
    "--tokenizer", "bytes", "--lr", "1e-5", "--localization", "1000", "--n-beta", "10", "--num-chains", "2",
    "--num-draws", "12", "--batch-size", "4", "--context", "32", "--quiet",
]  # fmt: skip


def test_pairs_are_those_of_the_python_call(
    model: str, text: str, prose: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from sltfast.inputs.corpus import encode_bytes, pack, tokens_of
    from sltfast.inputs.pretrained import load_model

    folder = tmp_path / "runs"
    given = [model, text, "--observable", f"prose={prose}", *RUN, "--output-dir", str(folder)]
    assert main(["bif", *given, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    rows = {
        name: (pack(tokens_of([Path(path).read_text()], encode_bytes, 0), 32), 3)
        for name, path in (("data", text), ("prose", prose))
    }
    expected = sltfast.bif(
        load_model(model), rows["data"][0], rows, lr=1e-5, localization=1000.0, n_beta=10.0, num_chains=2,
        num_draws=12, batch_size=4, correlation_method="sequence", progress=False,
    )  # fmt: skip
    values = expected["influences"].values.copy()
    np.fill_diagonal(values, 0)
    first = found["pairs"][0]
    assert abs(first["influence"]) == np.abs(values).max()
    assert values[tuple(first["items"])] == first["influence"]
    assert found["definition"] == "−Cov[ℓ_i, ℓ_j]"
    assert main(["report", str(folder), "--tokenizer", "bytes"]) == 0
    assert "Influence" in (folder / "report.html").read_text("utf-8")


def test_the_table_names_the_passages_and_the_next_command(
    model: str, text: str, prose: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--observable", f"prose={prose}", "--queries", "prose", "--normalize"]
    assert main(["bif", model, text, *given, *RUN]) == 0
    said = capsys.readouterr()
    assert said.out.startswith("−Corr[ℓ_i, ℓ_j], the largest (2 chains, 24 draws, 24 passages)")
    assert "prose × prose" in said.out
    assert "Prose says" in said.out
    assert "data × data" not in said.out
    assert "--output-dir keeps what sltfast report shows" in said.out
    assert said.err == ""


def test_texts_too_short_and_names_that_clash_are_refused(
    model: str, text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = tmp_path / "short.txt"
    short.write_text("a" * 40)
    assert main(["bif", model, text, "--observable", f"short={short}", *RUN]) == 2
    assert "observable 'short' has 1 rows, fewer than a batch of 4" in capsys.readouterr().err
    for given, said in (
        (["no-name"], "must be NAME=FILE"),
        (["data=x"], "is what DATA itself is called"),
        (["a=x", "a=y"], "is given twice"),
    ):
        with pytest.raises(ValueError, match=said):
            named_files(given)
