"""Settings that hold for every test: no model hub, no screen, no threads inside tokenizers."""

import os

import pytest

# read when huggingface_hub, datasets and matplotlib are first imported, and inherited by child processes
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["MPLBACKEND"] = "Agg"

# interpreted kernels have a process of their own, which says so (tests/triton/conftest.py)
collect_ignore = [] if os.environ.get("TRITON_INTERPRET") == "1" else ["triton"]


@pytest.fixture(autouse=True)
def _threads_are_given_back():
    """The command line takes the threads it is told; a test that calls it here leaves the next one's as they were."""
    import torch

    before = torch.get_num_threads()
    yield
    if torch.get_num_threads() != before:
        torch.set_num_threads(before)
