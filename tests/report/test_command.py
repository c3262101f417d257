"""`sltfast report`: runs on disk, a folder of them, and what goes wrong."""

from pathlib import Path

import pytest
import torch
import xarray as xr
from trees import influences, susceptibilities

import sltfast
from sltfast import analysis
from sltfast.cli import main
from sltfast.report.found import gather


def text_runs(folder: Path) -> None:
    """A full run and two parts, with results beside them, as the calls with ``output_path`` leave them."""
    model = torch.nn.Sequential(torch.nn.Embedding(256, 4), torch.nn.Linear(4, 256))

    def loss(model: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
        logits = model(ids[:, :-1]).flatten(0, 1)
        return torch.nn.functional.cross_entropy(logits, ids[:, 1:].flatten(), reduction="none").unflatten(
            0, (len(ids), -1)
        )

    rows = torch.randint(256, (32, 6), generator=torch.Generator().manual_seed(0))
    parts = {"full": None, "l10": ["0.weight"], "l2": ["1.bias"]}
    settings = {"lr": 1e-4, "n_beta": 5.0, "num_draws": 15, "num_chains": 2, "batch_size": 4, "localization": 100.0}
    sltfast.sample_restrictions(
        model, rows, {}, parts, loss_fn=loss, output_path=folder / "llm.zarr", progress=False, **settings
    )
    susceptibilities().to_zarr(folder / "llm.susceptibilities.zarr", consolidated=False)
    influences().to_zarr(folder / "llm.bif.zarr", consolidated=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("runs")
    text_runs(path)
    return path


def test_a_folder_of_runs_and_results(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = [(one.kind, one.name) for one in gather(folder)]
    # the runs' common stem is left out, and 2 comes before 10
    assert found == [
        ("run", "full"),
        ("run", "l2"),
        ("run", "l10"),
        ("susceptibilities", "llm.susceptibilities"),
        ("influences", "llm.bif"),
    ]
    assert main(["report", str(folder), "--tokenizer", "bytes", "--no-umap"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(f"written: {folder / 'report.html'}")
    text = (folder / "report.html").read_text("utf-8")
    for part in ("Learning coefficients", "Loss traces", "Susceptibilities token by token", "Influence", "Provenance"):
        assert part in text
    assert sltfast.compute_llc(sltfast.open(folder / "llm_l2.zarr")).attrs["advice"] in text


def test_a_single_run_beside_which_the_page_goes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(folder / "llm_l2.zarr"), "--title", "one <part>"]) == 0
    assert "llm_l2.html" in capsys.readouterr().out
    text = (folder / "llm_l2.html").read_text("utf-8")
    assert "<h1>one &lt;part&gt;</h1>" in text
    assert "Susceptibilities" not in text


def test_an_interrupted_run_and_one_without_a_draw(folder: Path, tmp_path: Path) -> None:
    tree = sltfast.open(folder / "llm_full.zarr").to_dataset().load()
    tree.attrs["completed"] = 0
    half, none = tree.copy(deep=True), tree.copy(deep=True)
    half["loss"][1, 8:] = float("nan")
    none["loss"][:] = float("nan")
    page = sltfast.write_report({"half": half, "none": none}, tmp_path / "page.html").read_text("utf-8")
    top = page[page.index("Before you read on") : page.index("</aside>")]
    assert "half: the run was interrupted" in top
    assert "none: interrupted before its first step" in top


def test_a_run_without_a_living_chain(folder: Path, tmp_path: Path) -> None:
    dead = sltfast.open(folder / "llm_full.zarr").to_dataset().load()
    dead["loss"][:, 3:] = float("nan")
    dead["death_step"][:] = 3
    page = sltfast.write_report(dead, tmp_path / "page.html").read_text("utf-8")
    assert "are left out of every mean: this run (2 of 2)" in page
    assert "0 of 2" in page


def test_a_sweep_is_a_row_for_each_cell(tmp_path: Path) -> None:
    model = torch.nn.Linear(2, 1)
    data = torch.utils.data.TensorDataset(torch.randn(16, 2), torch.randn(16, 1))

    def loss(model: torch.nn.Module, batch: list[torch.Tensor]) -> torch.Tensor:
        return ((model(batch[0]) - batch[1]) ** 2).squeeze(-1)

    path = tmp_path / "sweep.zarr"
    sltfast.sweep(
        model, data, lr=[1e-4, 1e-3], n_beta=5.0, localization=10.0, loss_fn=loss, num_draws=12, num_chains=2,
        batch_size=4, output_path=path, progress=False,
    )  # fmt: skip
    text = sltfast.write_report(path, tmp_path / "sweep.html").read_text("utf-8")
    assert '<th scope="row">sweep ε 0.0001, nβ 5, γ 10</th>' in text
    assert '<th scope="row">sweep ε 0.001, nβ 5, γ 10</th>' in text


def test_what_cannot_be_reported_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err.strip() == f"sltfast: {tmp_path / 'none'}: no such run, result or folder"


def test_results_read_from_disk_are_the_response_matrix_that_they_were(folder: Path) -> None:
    kept = xr.open_datatree(folder / "llm.susceptibilities.zarr", engine="zarr", consolidated=False)
    xr.testing.assert_equal(analysis.response_matrix(kept), analysis.response_matrix(susceptibilities()))
