"""A model trained on bytes, its χ and BIF by the public calls, and the page of the folder that they leave."""

from pathlib import Path
from typing import Any

import pytest
import torch
import xarray as xr
from browser import opened
from playwright.sync_api import Browser

import sltfast
from sltfast.demo import TrainingPlan, train
from sltfast.demo.follow import kinds_of_text, python_rows
from sltfast.inputs.pretrained import load_model

SAMPLING: dict[str, Any] = {
    "lr": 1e-4, "n_beta": 30.0, "localization": 1000.0, "num_chains": 2, "num_draws": 16, "num_burnin_steps": 4,
    "batch_size": 4, "progress": False,
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("trained")
    plan = TrainingPlan(hidden_size=16, layers=2, heads=2, context=24, steps=40, checkpoints=1, max_rows=400)
    rows = python_rows(plan.context, plan.max_rows)
    model = load_model(str(train(plan, rows, folder / "checkpoints", progress=False).checkpoints[40]))
    texts = {"corpus": (rows, 1), **{kind: (text, 2) for kind, text in kinds_of_text(plan.context).items()}}
    place = folder / "runs" / "llm.zarr"
    place.parent.mkdir()
    sltfast.susceptibilities(
        model, rows, texts, ["all heads"], sampling_task="corpus", record="traces", output_path=place, **SAMPLING
    )
    influence = folder / "runs" / "passages.zarr"
    sltfast.bif(model, rows, texts, correlation_method="sequence", normalize=True, output_path=influence, **SAMPLING)
    sltfast.write_report(folder / "runs", folder / "report.html", "bytes", title="Trained on bytes", umap=False)
    torch.set_num_threads(threads)
    return folder


def test_hovering_reads_what_was_estimated(folder: Path, chromium: Browser, tmp_path: Path) -> None:
    path = folder / "runs" / "llm.susceptibilities.zarr"
    flat = xr.open_datatree(path, engine="zarr", consolidated=False)["susceptibilities"].to_dataset()
    number = list(flat.attrs["dataset_id_to_name"]).index("prose")
    here = ((flat["dataset_id"] == number) & (flat["batch"] == 3) & (flat["target_position"] == 9)).values
    component = [str(name) for name in flat["wr"].values].index("l1h1")
    value, se = (float(flat[name].values[here, component][0]) for name in ("sus", "se"))
    with opened(chromium, folder / "report.html") as (page, complaints):
        page.locator('[data-role="component"]').select_option(label="l1h1")
        page.locator('[data-role="dataset"]').select_option(label="prose")
        token = page.locator('.text .t[data-row="3"][data-position="9"]')
        token.hover()
        said = page.locator("#tip").inner_text().split("χ = ")[1]
        # value and error are rounded to the place of the error's second digit: by less than 0.05 of it
        assert [float(part) for part in said.split(" ± ")] == pytest.approx([value, se], rel=0, abs=0.05 * se)
        token.click()
        assert len(page.locator(".profile tr").all()) == 5
        page.screenshot(path=tmp_path / "page.png", full_page=True)
        assert complaints == []


def test_neighbours_are_those_of_the_matrix(folder: Path, chromium: Browser) -> None:
    result = xr.open_datatree(folder / "runs" / "passages.bif.zarr", engine="zarr", consolidated=False).to_dataset()
    values, se = result["influences"].values[2].copy(), result["influences_se"].values[2]
    values[2] = 0.0
    least = int(values.argmin())
    with opened(chromium, folder / "report.html") as (page, complaints):
        page.locator('[data-role="query"]').select_option("2")
        first = page.locator('[data-role="lists"] summary').first.inner_text()
        assert f"{least} · {result['observable'].values[least]}" in first
        assert float(first.split(" ± ")[0]) == pytest.approx(float(values[least]), abs=float(se[least]))
        text = bytes(result["input_ids"].values[2].tolist()).decode("ascii")
        assert page.locator('[data-role="self"]').inner_text().strip() == text.replace("\0", "\\x00").strip()
        assert complaints == []
