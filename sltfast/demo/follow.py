"""λ̂ at every checkpoint of a training run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from sltfast.demo.plans import Plan
from sltfast.demo.training import Trained, train
from sltfast.estimators.llc import needed_for
from sltfast.estimators.over_checkpoints import follow
from sltfast.inputs.checkpoints import Checkpoint
from sltfast.inputs.corpus import (
    SEPARATOR_BYTE,
    encode_bytes,
    help_texts,
    pack,
    standard_library_documents,
    standard_library_sources,
    tokens_of,
)
from sltfast.inputs.skeleton import Skeleton

if TYPE_CHECKING:
    import xarray as xr

CHECKPOINTS, DRAWS = "checkpoints", "draws"


@dataclass(frozen=True)
class Point:
    """One checkpoint.

    Attributes:
        step: of training.
        loss: L(w*), the mean loss at the checkpoint over the rows that were sampled (nats per token).
        result: what `sltfast.llc` returned.
    """

    step: int
    loss: float
    result: xr.Dataset

    @property
    def llc(self) -> float:
        """λ̂."""
        return float(self.result["llc_mean"])

    @property
    def se(self) -> float:
        """Standard error of λ̂."""
        return float(self.result["llc_se"])

    @property
    def converged(self) -> bool:
        """Whether the verdict is "converged"."""
        return bool(self.result.attrs["verdict"] == "converged")


@dataclass(frozen=True)
class Followed:
    """A training run and its learning coefficients.

    Attributes:
        points: one for each checkpoint, in the order of training.
        trained: the run.
    """

    points: list[Point]
    trained: Trained


def python_rows(context: int, max_rows: int | None = None) -> Tensor:
    """The standard library's sources and help texts as bytes, int64 [rows, context]."""
    documents = tokens_of(standard_library_documents(), encode_bytes, SEPARATOR_BYTE)
    return pack(documents, context, max_rows=max_rows)


def kinds_of_text(context: int) -> dict[str, Tensor]:
    """The same text by kind: "code", the sources, and "prose", the help texts; int64 [rows, context] each."""
    kinds = {"code": standard_library_sources(), "prose": help_texts()}
    return {kind: pack(tokens_of(texts, encode_bytes, SEPARATOR_BYTE), context) for kind, texts in kinds.items()}


def follow_training(
    plan: Plan,
    folder: str | Path,
    *,
    rows: Tensor | None = None,
    progress: bool = True,
    report: Callable[[Point], None] | None = None,
) -> Followed:
    """Train, then estimate λ̂ ± SE at every checkpoint with one set of sampling hyperparameters.

    What is finished in `folder` is not done again: an interrupted run goes on where it stopped. A checkpoint where no
    chain survives has λ̂ NaN and the verdict "diverged".

    Args:
        plan: what to train and how to sample.
        folder: checkpoints go to `folder`/checkpoints and draws to `folder`/draws.
        rows: token ids, int64 [rows, context]; by default CPython's own sources and help texts.
        progress: show progress bars.
        report: called with each point as it is done.

    Returns:
        The points and the training run.

    Raises:
        ValueError: `folder` holds another run.
    """
    folder = Path(folder)
    if rows is None:
        rows = python_rows(plan.training.context, plan.training.max_rows)
    trained = train(plan.training, rows, folder / CHECKPOINTS, progress=progress)
    found = [Checkpoint(step, str(path), path) for step, path in trained.checkpoints.items()]
    keywords = {**needed_for("paired", asdict(plan.sampling)), "progress": progress}
    points: list[Point] = []
    estimates = follow(found, Skeleton(None, "float32"), rows, keywords, output_path=folder / DRAWS)
    for checkpoint, result in zip(found, estimates, strict=True):
        points.append(Point(int(checkpoint.step), float(result["init_loss"]), result))
        if report is not None:
            report(points[-1])
    return Followed(points, trained)
