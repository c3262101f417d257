"""The README is true: its code runs, its commands exist, its numbers are the ones on file."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from checkout import ROOT, fresh_python, project
from snippets import assert_as_shown, blocks_of

README = (ROOT / "README.md").read_text()
BLOCKS = blocks_of(README)
COMMANDS = [
    line.partition("  #")[0].strip() for language, body in BLOCKS if language == "sh" for line in body.splitlines()
]
PATIENCE = 300  # seconds before a hanging process is ended; the blocks take a few


def blocks(language: str) -> list[str]:
    return [body for found, body in BLOCKS if found == language]


def kind(command: str) -> str:
    return shlex.split(command)[0]


def test_every_block_is_of_a_kind_that_is_checked() -> None:
    assert {language for language, _ in BLOCKS} == {"python", "text", "sh"}
    assert {kind(command) for command in COMMANDS} <= {"make", "pip", "git", "cd", "sltfast", "python"}


def test_python_blocks_run_and_print_what_is_shown(tmp_path: Path) -> None:
    """The blocks follow each other in one session, as a reader would paste them."""
    printed = fresh_python("-c", "\n".join(blocks("python")), cwd=tmp_path, timeout=PATIENCE).stdout
    assert_as_shown(printed, blocks("text")[0])


@pytest.mark.parametrize("command", [command for command in COMMANDS if kind(command) == "make"])
def test_make_targets_exist(command: str) -> None:
    words = shlex.split(command)
    plan = subprocess.run([*words, "-n", "PYTHON=python3"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert plan.returncode == 0, plan.stderr


@pytest.mark.parametrize("command", [command for command in COMMANDS if kind(command) == "pip"])
def test_pip_commands_name_extras_that_exist(command: str) -> None:
    extras = re.findall(r"\[([\w,]+)\]", command)
    assert {name for group in extras for name in group.split(",")} <= set(project()["optional-dependencies"])


@pytest.fixture(scope="module")
def folder_with_a_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make what the commands name: a model directory `my-model` (byte level, tiny), `text.txt` and `code.py`."""
    folder = tmp_path_factory.mktemp("readme")
    code = """
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast
alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
vocabulary = {letter: index for index, letter in enumerate(["<|endoftext|>", *alphabet])}
tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tokenizer.decoder = decoders.ByteLevel()
PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>").save_pretrained("my-model")
size = dict(hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2)
config = GPTNeoXConfig(vocab_size=len(vocabulary), max_position_embeddings=64, **size)
GPTNeoXForCausalLM(config).save_pretrained("my-model")
"""
    fresh_python("-c", code, cwd=folder)
    (folder / "text.txt").write_text((ROOT / "CONTRIBUTING.md").read_text() * 4)
    (folder / "code.py").write_text((ROOT / "setup.py").read_text() * 4)
    return folder


@pytest.mark.parametrize("command", [command for command in COMMANDS if kind(command) == "sltfast"])
def test_commands_run(command: str, folder_with_a_model: Path) -> None:
    words = shlex.split(command)
    if words == ["sltfast", "demo"]:  # minutes long: its own test runs it small, here it only has to exist
        words.append("--help")
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    script = Path(sys.executable).with_name("sltfast")
    run = subprocess.run(
        [script, *words[1:]],
        cwd=folder_with_a_model,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr


@pytest.mark.parametrize("command", [command for command in COMMANDS if kind(command) == "python"])
def test_scripts_for_devinterp_run(command: str, tmp_path: Path) -> None:
    """`script.py` imports devinterp, and gets the face in the mode that the command asks for."""
    (tmp_path / "script.py").write_text(
        "import devinterp.slt.llc\nfrom sltfast.compat.exactness import wants_exact\n"
        "assert devinterp.slt.llc.llc.__module__ == 'sltfast.compat.devinterp.slt.llc'\n"
        f"assert wants_exact(None) is {'--exact' in command}\n"
    )
    fresh_python(*shlex.split(command)[1:], cwd=tmp_path, timeout=PATIENCE)


def test_measured_numbers_are_the_ones_on_file() -> None:
    text = README + "".join(
        (ROOT / "docs" / page).read_text() for page in ("benchmarks.md", "drop_in.md", "parity.md", "survival.md")
    )
    assert set(re.findall(r"<!-- from ([\w: ]+)\.csv(?:: \w+)? -->", text)) == {
        *(
            "langevin_step",
            "regimes",
            "token_loss",
            "per_sample",
            "comoment",
            "import_time",
            "drop_in",
            "parity",
            "survival",
        )
    }
    fresh_python(ROOT / "benchmarks" / "readme_tables.py", "--check")


@pytest.mark.parametrize("page", ["README.md", *(path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/*.md"))])
def test_links_to_files_lead_somewhere(page: str) -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text()) if "://" not in link]
    assert [link for link in links if not ((ROOT / page).parent / link).exists()] == []
