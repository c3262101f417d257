"""`sltfast doctor` and the command line itself."""

import json
import subprocess
import sys

import pytest
import torch

import sltfast
from sltfast.cli import main
from sltfast.ops import backend


def test_facts(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["sltfast"] == sltfast.__version__
    assert facts["torch"]["version"] == torch.__version__
    assert facts["torch"]["threads"] == torch.get_num_threads()
    assert facts["compiled"] == json.loads(json.dumps(backend.build_facts()))
    assert facts["backends"]["cpu"]["langevin_step_"]["runs"] == {
        "float32": "native", "float64": "native", "bfloat16": "", "float16": ""
    }  # fmt: skip
    assert facts["extras"]["hf"]["transformers"]


def test_text(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    for part in ("compiled in", "ops on cpu", "extras", "threads on", "triton is refused"):
        assert part in said
    rows = {words[0]: words[1:] for line in said.splitlines() if (words := line.split())}
    assert rows["langevin_step_"] == ["native", "native", "-", "-"]
    assert rows["token_loss"] == ["native"] * 4


def test_it_says_why_a_backend_is_refused(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "refusals", lambda op, device="cpu": {"native": "nobody built it"})
    assert main(["doctor"]) == 0
    said = capsys.readouterr().out
    rows = {words[0]: words[1:] for line in said.splitlines() if (words := line.split())}
    assert rows["langevin_step_"] == ["reference", "reference", "-", "-"]
    assert "native is refused: nobody built it" in said


def test_a_missing_package_names_its_extra(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from sltfast.commands import doctor

    monkeypatch.setitem(doctor.EXTRAS, "plots", ("no-such-package",))
    assert main(["doctor"]) == 0
    assert "pip install 'sltfast[plots]' adds no-such-package" in capsys.readouterr().out


def test_help_and_version_import_nothing_heavy() -> None:
    code = (
        "import sys, contextlib\n"
        "from sltfast.cli import main\n"
        "for flags in (['--version'], ['--help'], ['llc', '--help'], ['demo', '--help']):\n"
        "    with contextlib.suppress(SystemExit): main(flags)\n"
        "assert not {'torch', 'numpy', 'xarray', 'transformers', 'matplotlib'} & set(sys.modules)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "sltfast " + sltfast.__version__ in run.stdout
    assert "--num-steps-bw-draws" in run.stdout


def test_python_m_sltfast() -> None:
    run = subprocess.run([sys.executable, "-m", "sltfast", "--version"], capture_output=True, text=True, check=True)
    assert run.stdout == f"sltfast {sltfast.__version__}\n"
