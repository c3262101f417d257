"""`sltfast campaign` end to end: cells are single calls, killed campaigns go on, what cannot be is refused first."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import sltfast
from sltfast.campaign.cells import groups
from sltfast.campaign.configuration import read
from sltfast.campaign.cost import Cost
from sltfast.campaign.record import duration
from sltfast.cli import main
from sltfast.inputs.corpus import encode_bytes, pack, tokens_of

SETTINGS = """
tokenizer = "bytes"
context = 32
[data]
corpus = "{text}"
prose = ["{prose}"]
[settings]
lr = 1e-5
localization = 1000
n_beta = 10
num_chains = 2
num_draws = {draws}
batch_size = 4
"""
PATIENCE = 120  # seconds before a test gives a process up


@pytest.fixture
def config(model: str, text: str, prose: str, tmp_path: Path) -> Path:
    """A campaign of one model, two settings, two data sets and three restrictions, in `runs`."""
    path = tmp_path / "study.toml"
    places = f'model = "{model}"\nrestrictions = ["full", "all heads"]\noutput_dir = "{tmp_path / "runs"}"\n'
    variants = "[variants.cold]\nn_beta = 100\n[variants.warm]\n"
    path.write_text(places + SETTINGS.format(text=text, prose=prose, draws=12) + variants)
    return path


def changed(config: Path, old: str, new: str) -> Path:
    """The same file with a part of it replaced."""
    content = config.read_text()
    assert old in content
    config.write_text(content.replace(old, new, 1))
    return config


def rows_of(path: str) -> object:
    return pack(tokens_of([Path(path).read_text()], encode_bytes, 0), 32)


def stored(folder: Path) -> dict[str, np.ndarray]:
    """Every array of every run in a folder, by run and name."""
    return {
        f"{store.name}/{name}": variable.values
        for store in sorted(folder.glob("*_*.zarr"))
        for name, variable in sltfast.open(store).to_dataset().data_vars.items()
    }


def recorded(store: Path) -> int:
    """Steps that a run, there or not yet, has on disk."""
    try:
        return int(np.isfinite(sltfast.open(store)["loss"].values).sum())
    except (OSError, sltfast.OutputMismatch):  # it is being made
        return 0


def test_cells_are_single_calls(
    config: Path, model: str, prose: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from sltfast.inputs.pretrained import load_model

    assert main(["campaign", str(config), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [(row["variant"], row["dataset"], row["restriction"]) for row in rows] == [
        (variant, dataset, restriction)
        for variant in ("cold", "warm")
        for dataset in ("corpus", "prose")
        for restriction in ("full", "l0h0", "l0h1")
    ]
    expected = sltfast.llc(
        load_model(model), rows_of(prose), param_masks="l0h1", lr=1e-5, localization=1000.0, n_beta=100.0, num_chains=2,
        num_draws=12, batch_size=4, progress=False,
    )  # fmt: skip
    (cell,) = [row for row in rows if list(row.values())[1:4] == ["cold", "prose", "l0h1"]]
    # one restriction of several shares passes with the others: sums are made in another order
    assert cell["llc_mean"] == pytest.approx(float(expected["llc_mean"]), rel=1e-3)
    with (tmp_path / "runs" / "results.csv").open() as file:
        assert [float(row["llc_mean"]) for row in csv.DictReader(file)] == [row["llc_mean"] for row in rows]
    assert main(["report", str(tmp_path / "runs"), "--tokenizer", "bytes", "--no-umap"]) == 0
    page = (tmp_path / "runs" / "report.html").read_text("utf-8")
    for name in ("cold_corpus_full", "warm_prose_l0h1", "Learning coefficients"):
        assert name in page


def test_checkpoints_are_a_dimension(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from sltfast.inputs.pretrained import load_model

    content = config.read_text()
    model = load_model(read(config).place["model"])
    for step in (5, 20):
        for parameter in model.parameters():
            parameter.data *= 1.1
        model.save_pretrained(tmp_path / "run" / f"step-{step}")
    config.write_text(f'checkpoints = "{tmp_path}/run/step-*"\n' + content.split("\n", 1)[1])
    changed(config, '["full", "all heads"]', '"l0"')
    assert main(["campaign", str(config), "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["step"] for row in rows] == [5] * 4 + [20] * 4
    assert len({row["llc_mean"] for row in rows}) == 8
    assert (tmp_path / "runs" / "step-000020_warm_prose_l0.zarr").is_dir()


def test_the_plan_is_printed_and_nothing_is_written(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed(config, '["full", "all heads"]', '"l0h0"')
    assert main(["campaign", str(config), "--plan"]) == 0
    said = capsys.readouterr().out
    for part in ("llc of 4 cells", "cold, prose", "warm: a restriction takes", "a step", "4 cells are left, about"):
        assert part in said
    assert not (tmp_path / "runs").exists()
    changed(config, "[variants.cold]\nn_beta = 100\n[variants.warm]\n", "")
    assert main(["campaign", str(config), "--plan", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert {cell["state"] for cell in plan["cells"]} == {"to do"}
    assert plan["left"] == 2
    assert plan["seconds"] > 0


def test_what_is_finished_is_not_run_again(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changed(config, "[variants.cold]\nn_beta = 100\n[variants.warm]\n", "")
    assert main(["campaign", str(config), "--quiet"]) == 0
    runs = tmp_path / "runs"
    times = {path: path.stat().st_mtime_ns for path in runs.rglob("*.zarr/**/*") if path.is_file()}
    assert len(times) > 12
    changed(config, '"all heads"]', '"all heads", "l0 mlp"]')
    capsys.readouterr()
    assert main(["campaign", str(config)]) == 0
    said = capsys.readouterr().out
    assert "2 cells are left, about" in said
    assert "       3      0      1  corpus" in said
    assert "2 of 2  prose" in said
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert main(["campaign", str(config), "--plan"]) == 0
    assert "nothing is left to do" in capsys.readouterr().out


def test_a_campaign_that_was_killed_goes_on_bit_for_bit(config: Path, tmp_path: Path) -> None:
    """SIGKILL in the middle of the second group; run again, every array is that of a campaign left in peace."""
    changed(config, "[variants.cold]\nn_beta = 100\n[variants.warm]\n", "")
    changed(config, "num_draws = 12", "num_draws = 800")
    changed(config, '["full", "all heads"]', '"l0h1"')
    command = [sys.executable, "-m", "sltfast", "campaign", str(config), "--quiet"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env={**os.environ, "OMP_NUM_THREADS": "1"})
    second = tmp_path / "runs" / "prose_l0h1.zarr"
    deadline = time.monotonic() + PATIENCE
    while not recorded(second):
        assert process.poll() is None, process.stderr and process.stderr.read().decode()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert sltfast.open(tmp_path / "runs" / "corpus_l0h1.zarr").attrs["completed"] == 1
    assert sltfast.open(second).attrs["completed"] == 0
    again = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert again.returncode == 0, again.stderr
    assert main(["campaign", str(config), "--quiet", "--output-dir", str(tmp_path / "in_peace")]) == 0
    resumed, undisturbed = stored(tmp_path / "runs"), stored(tmp_path / "in_peace")
    assert resumed.keys() == undisturbed.keys()
    assert len({name.split("/")[0] for name in resumed}) == 2
    for name, values in undisturbed.items():
        np.testing.assert_array_equal(resumed[name], values, err_msg=name)
    tables = [(tmp_path / folder / "results.csv").read_text() for folder in ("runs", "in_peace")]
    assert tables[0] == tables[1]


def test_susceptibilities(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changed(config, "model =", 'measure = "susceptibilities"\nmodel =')
    changed(config, '"all heads"', '"l0h1"')
    changed(config, "[variants.cold]\nn_beta = 100\n[variants.warm]\n", '[susceptibilities]\nsampling_task = "prose"\n')
    assert main(["campaign", str(config)]) == 0
    said = capsys.readouterr().out
    for part in ("susceptibilities of 2 cells", "a draw", "χ ± SE", "1 of 1  model"):
        assert part in said
    with (tmp_path / "runs" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["dataset"], row["restriction"]) for row in rows] == [("corpus", "full"), ("corpus", "l0h1")]
    assert all(float(row["se"]) > 0 for row in rows)
    assert main(["report", str(tmp_path / "runs"), "--tokenizer", "bytes", "--no-umap"]) == 0
    assert "Susceptibilities by data set" in (tmp_path / "runs" / "report.html").read_text("utf-8")


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("lr = 1e-5", "learning_rate = 1e-5", "[settings]: unknown key 'learning_rate'; It may hold lr, n_beta,"),
        ("num_draws", "num_draw", "unknown key 'num_draw'; did you mean num_draws? It may hold lr,"),
        ("[variants.warm]", "[variants.warm]\nn_bta = 1", "[variants.warm]: unknown key 'n_bta'; did you mean n_beta?"),
        ("context = 32", "contxt = 32", "unknown key 'contxt'; did you mean context? It may hold model, checkpoints,"),
        ("context = 32", "context = 32\nvariant = 3", "[data], [settings], [variants], [susceptibilities]"),
        ("lr = 1e-5", "lr = 'small'", "[settings]: lr must be a number, got 'small'"),
        ("lr = 1e-5", "", "[variants.cold]: lr is missing: start at 0.1 / localization"),
        ("lr = 1e-5", "lr = -1.0", "lr must be > 0, got -1.0"),
        ("[variants.cold]", "[variants.a]\n[variants.cold]\nmode = 'loud'", "mode must be one of eval, train"),
        ("model =", "checkpoints = 'x'\nmodel =", "give one of model and checkpoints, got both"),
        ("model =", "measure = 'luck'\nmodel =", "measure must be one of llc, susceptibilities, got 'luck'"),
        ("[settings]", "[susceptibilities]\ncontrol = true\n[settings]", "means nothing to measure = 'llc'"),
        ('"all heads"', '"l7h0"', "l7h0"),
        ("batch_size = 4", "batch_size = 4000", "data set 'corpus': "),
        ("context = 32", "context = 64", "context must be <= 32 (the model's position limit), got 64"),
        ("context = 32", "threads = 0", "threads must be >= 1, got 0"),
        ("[variants.cold]\nn_beta = 100\n[variants.warm]", "[variants]\ncold = 3", "[variants] cold must be a table"),
        ("[variants.warm]", "['variants'.'co ld']\n['variants'.'co_ld']", "would be written to one file: rename one"),
    ],
)
def test_what_cannot_be_is_refused_before_the_first_step(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, says: str
) -> None:
    assert main(["campaign", str(changed(config, old, new))]) == 2
    said = capsys.readouterr()
    assert says in said.err
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_susceptibilities_need_something_to_answer_to(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changed(config, "model =", 'measure = "susceptibilities"\nmodel =')
    assert (
        main(["campaign", str(changed(config, "[settings]", "[susceptibilities]\nsampling_task = 'x'\n[settings]"))])
        == 2
    )
    assert "sampling_task must be one of corpus, prose, got 'x'" in capsys.readouterr().err
    changed(config, "sampling_task = 'x'", "")
    content = config.read_text()
    config.write_text("\n".join(line for line in content.splitlines() if not line.startswith("prose =")))
    assert main(["campaign", str(config)]) == 2
    assert "[data] holds 'corpus' alone: susceptibilities need another to answer to" in capsys.readouterr().err
    config.write_text(content.split("[data]")[0])
    assert main(["campaign", str(config)]) == 2
    assert "[data] is missing: name the files of each data set" in capsys.readouterr().err


def test_another_run_in_the_folder_is_named(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changed(config, '["full", "all heads"]', '"l0h0"')
    assert main(["campaign", str(config), "--quiet"]) == 0
    capsys.readouterr()
    assert main(["campaign", str(changed(config, "lr = 1e-5", "lr = 2e-5")), "--quiet"]) == 2
    said = capsys.readouterr().err
    assert "differs in lr (1e-05 there, 2e-05 now)" in said
    assert said.endswith("; at cold, corpus\n")


def test_chains_that_all_die_are_cells_too(config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changed(config, '["full", "all heads"]', '"l0h0"')
    changed(config, "n_beta = 100", "lr = 1e30")
    assert main(["campaign", str(config)]) == 0
    said = capsys.readouterr().out
    assert "cold: no chain lived through the steps that were to be timed: lower lr first" in said
    assert "4 cells are left, about unknown" in said
    with (tmp_path / "runs" / "results.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["verdict"] == "diverged", row["chains_alive"]) for row in rows] == [(True, "0")] * 2 + [
        (False, "2")
    ] * 2
    changed(config, "lr = 1e-5", "lr = 1e30")
    assert main(["campaign", str(config), "--json", "--output-dir", str(tmp_path / "dead")]) == 3


def test_one_model_and_one_setting_have_short_names(config: Path, tmp_path: Path) -> None:
    changed(config, "[variants.cold]\nn_beta = 100\n[variants.warm]\n", "")
    assert [group.output_path.name for group in groups(read(config))] == ["corpus.zarr", "prose.zarr"]
    without = changed(config, f'output_dir = "{tmp_path / "runs"}"', "")
    assert read(without).output_dir == Path("study")


def test_a_cost_counts_steps_and_draws() -> None:
    settings = {"num_draws": 10, "num_burnin_steps": 100, "num_steps_bw_draws": 5}
    assert Cost(setup=3.0, step=0.1, draw=0.5).of(settings) == pytest.approx(3.0 + 150 * 0.1 + 10 * 0.5)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.0, "0 s"), (0.0234, "0.023 s"), (61, "61 s"), (150, "2 min"), (3700, "1 h 2 min"), (260000, "3.0 days")],
)
def test_durations_are_for_people(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_the_page_shows_a_file_that_can_be_read(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "guide" / "campaign.md").read_text()
    study, response = (part.split("```")[0] for part in page.split("```toml\n")[1:])
    (tmp_path / "study.toml").write_text(study)
    campaign = read(tmp_path / "study.toml")
    assert {name: variant["n_beta"] for name, variant in campaign.variants.items()} == {"cold": 100.0, "warm": 10.0}
    assert campaign.restrictions == ["full", "all heads", "l0 mlp"]
    (tmp_path / "study.toml").write_text(study.replace('"llc"', '"susceptibilities"') + response)
    assert read(tmp_path / "study.toml").response["control"]
