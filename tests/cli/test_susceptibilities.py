"""`sltfast susceptibilities` end to end: the numbers of the Python call, and a folder that makes a page."""

import json
from pathlib import Path

import pytest

import sltfast
from sltfast.cli import main
from sltfast.inputs.corpus import encode_bytes, pack, tokens_of

RUN = [
    "--tokenizer", "bytes", "--lr", "1e-5", "--localization", "1000", "--n-beta", "10", "--num-chains", "2",
    "--num-draws", "12", "--batch-size", "4", "--context", "32", "--quiet",
]  # fmt: skip


def test_components_are_those_of_the_python_call(
    model: str, text: str, prose: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from sltfast.inputs.pretrained import load_model

    folder = tmp_path / "runs"
    given = [model, text, "--observable", f"prose={prose}", *RUN, "--output-dir", str(folder)]
    assert main(["susceptibilities", *given, "--restrictions", "all heads", "l0 mlp", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)["components"]
    assert [one["name"] for one in found] == ["full", "l0h0", "l0h1", "l0 mlp"]
    rows = {
        name: (pack(tokens_of([Path(path).read_text()], encode_bytes, 0), 32), 3)
        for name, path in (("data", text), ("prose", prose))
    }
    expected = sltfast.susceptibilities(
        load_model(model), rows["data"][0], rows, ["all heads", "l0 mlp"], sampling_task="data", lr=1e-5,
        localization=1000.0, n_beta=10.0, num_chains=2, num_draws=12, batch_size=4, progress=False,
    )  # fmt: skip
    for one in found:
        chi = expected["datasets"].to_dataset().sel(wr=one["name"], dataset="prose")
        assert one["datasets"]["prose"] == {"sus": float(chi["sus"]), "se": float(chi["se"])}
        assert one["llc_mean"] == float(expected["components"]["llc_mean"].sel(wr=one["name"]))
    assert main(["report", str(folder), "--tokenizer", "bytes", "--no-umap"]) == 0
    page = (folder / "report.html").read_text("utf-8")
    for part in ("Susceptibilities by data set", "Susceptibilities token by token", "Learning coefficients"):
        assert part in page


def test_the_table_is_for_people(model: str, text: str, prose: str, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--observable", f"prose={prose}", "--restrictions", "l0h1", "--include-sampling-task"]
    assert main(["susceptibilities", model, text, *given, *RUN]) == 0
    said = capsys.readouterr()
    for part in ("component", "λ̂ ± SE", "χ data", "χ prose", "full", "l0h1", "--output-dir keeps"):
        assert part in said.out
    assert said.err == ""


def test_what_is_missing_is_one_line(model: str, text: str, prose: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["susceptibilities", model, text, *RUN]) == 2
    assert "there is no observable beside the sampling task 'data'" in capsys.readouterr().err
    given = ["--observable", f"prose={prose}", "--restrictions", "l7h0"]
    assert main(["susceptibilities", model, text, *given, *RUN]) == 2
    assert "l7h0" in capsys.readouterr().err
    assert main(["susceptibilities", model, text, *given, *RUN, "--sampling-task", "verse"]) == 2
    assert "'verse' is none of the observables" in capsys.readouterr().err
