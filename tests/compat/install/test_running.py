"""``python -m sltfast.compat`` runs a script as ``python`` does."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sltfast.compat.__main__ import split

COMMAND = [sys.executable, "-m", "sltfast.compat"]

SCRIPT = """
import sys, pathlib
import beside
import sltfast.compat.devinterp.slt
from devinterp import slt
from sltfast.compat.exactness import wants_exact
import sltfast.compat
assert __name__ == "__main__" and sys.modules["__main__"].__dict__ is globals()
assert __file__ == sys.argv[0] == "folder/job.py", __file__
assert slt.__name__ == "devinterp.slt"
print(sys.argv[1:], beside.HERE, wants_exact(None), sltfast.compat.installed())
class Local:
    pass
import pickle
assert type(pickle.loads(pickle.dumps(Local()))) is Local
sys.exit(7)
"""


def test_script(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "job.py").write_text(SCRIPT)
    (tmp_path / "folder" / "beside.py").write_text("HERE = 'found'\n")
    words = [*COMMAND, "--version", "2", "--exact", "folder/job.py", "--version", "x", "-m"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.split("\n")[0] == "['--version', 'x', '-m'] found True 2"
    assert (done.returncode, done.stderr) == (7, "")


def test_a_traceback_is_the_users_alone(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__main__.py").write_text("def fail():\n    raise OSError('mine')\n\n\nfail()\n")
    words = [*COMMAND, "-m", "package", "--help"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.count("File ") == 2
    assert 'package/__main__.py", line 5, in <module>' in done.stderr
    assert done.stderr.endswith("OSError: mine\n")


def test_an_interrupt_is_the_scripts(tmp_path: Path) -> None:
    script = tmp_path / "wait.py"
    script.write_text(
        "import signal, time\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "try:\n    print('ready', flush=True)\n    time.sleep(60)\nfinally:\n    print('tidied', flush=True)\n"
    )
    with subprocess.Popen([*COMMAND, str(script)], stdout=-1, stderr=-1, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        out, err = process.communicate()
    assert out == "tidied\n"
    assert "KeyboardInterrupt" in err
    assert "sltfast" not in err.replace(str(tmp_path), "")
    assert process.returncode == -signal.SIGINT  # as python itself leaves


def test_what_cannot_be_run(tmp_path: Path) -> None:
    done = subprocess.run([*COMMAND, "none.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "can't open 'none.py': No such file or directory" in done.stderr


@pytest.mark.parametrize(
    ("words", "own", "scripts"),
    [
        (["a.py", "-m", "x"], ["a.py"], ["-m", "x"]),
        (["--version", "1", "a.py", "--exact"], ["--version", "1", "a.py"], ["--exact"]),
        (["--version=1", "--exact", "-m", "pkg", "b"], ["--version=1", "--exact", "-m", "pkg"], ["b"]),
        (["-mpkg", "--help"], ["-mpkg"], ["--help"]),
        (["--help"], ["--help"], []),
        ([], [], []),
    ],
)
def test_what_is_the_commands_and_what_the_scripts(words: list[str], own: list[str], scripts: list[str]) -> None:
    assert split(words) == (own, scripts)
