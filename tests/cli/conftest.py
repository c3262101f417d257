"""A tiny GPT-NeoX over bytes, saved to disk, and text for it."""

import os
from pathlib import Path

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"

TEXT = "".join(
    f"{number} squared is {number * number}; half of it is {number * number / 2}.\n" for number in range(200)
)


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    from sltfast.demo import TrainingPlan
    from sltfast.demo.training import new_model

    folder = tmp_path_factory.mktemp("model")
    new_model(TrainingPlan(hidden_size=16, layers=1, heads=2, context=32)).save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="session")
def text(tmp_path_factory: pytest.TempPathFactory) -> str:
    path: Path = tmp_path_factory.mktemp("text") / "corpus.txt"
    path.write_text(TEXT, "utf-8")
    return str(path)


@pytest.fixture
def prose(tmp_path: Path) -> str:
    path = tmp_path / "prose.txt"
    path.write_text("Prose says what it says; numbers are for others to count. " * 30)
    return str(path)
