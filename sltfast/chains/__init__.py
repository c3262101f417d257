"""From checked keywords to recorded chains: what is asked, what is set up, where it goes, the run."""

from .asked import Wanted
from .run import run_chains

__all__ = ["Wanted", "run_chains"]
