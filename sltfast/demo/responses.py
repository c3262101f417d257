"""What the heads of a trained model answer to code and to prose, and which passages influence each other."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from sltfast.demo.follow import kinds_of_text
from sltfast.demo.plans import SamplingPlan

if TYPE_CHECKING:
    import xarray as xr

RESPONSES = "responses"
TASK = "corpus"  # the observable whose mean loss φ is made of: rows of what the model was trained on
BATCHES = 3  # of each kind of text, and one less of the corpus


@dataclass(frozen=True)
class Responses:
    """Both results of one set of runs.

    Attributes:
        susceptibilities: χ of the whole model and of every head, as ``sltfast.susceptibilities`` gives it.
        influences: correlations of the passages' losses in the whole model's run, as ``sltfast.compute_bif`` does.
    """

    susceptibilities: xr.DataTree
    influences: xr.Dataset


def respond(checkpoint: Path, rows: Tensor, plan: SamplingPlan, folder: Path, *, progress: bool = True) -> Responses:
    """Sample the whole model and each of its heads at one checkpoint, and estimate χ and BIF.

    Args:
        checkpoint: model directory.
        rows: what it was trained on, int64 [rows, context].
        plan: how to sample.
        folder: runs and results go to ``folder``/responses, and are read again from there.
        progress: show progress bars.

    Raises:
        AllChainsDied: no chain of the whole model survived.
    """
    import sltfast
    from sltfast.errors import ChainDiverged
    from sltfast.inputs.pretrained import load_model
    from sltfast.results.computed import result_path, save

    place = folder / RESPONSES / "llm.zarr"
    place.parent.mkdir(parents=True, exist_ok=True)
    kinds = kinds_of_text(rows.shape[1])
    with warnings.catch_warnings():
        warnings.simplefilter("always", ChainDiverged)
        tree = sltfast.susceptibilities(
            load_model(str(checkpoint)),
            rows,
            {TASK: (rows, BATCHES - 1), **{kind: (text, BATCHES) for kind, text in kinds.items()}},
            ["all heads"],
            sampling_task=TASK,
            lr=plan.lr,
            n_beta=plan.n_beta,
            localization=plan.localization,
            num_chains=plan.num_chains,
            num_burnin_steps=plan.num_burnin_steps,
            num_draws=plan.observed_draws,
            num_steps_bw_draws=2,
            batch_size=plan.batch_size,
            init_seed=plan.init_seed,
            record="traces",
            output_path=place,
            progress=progress,
        )
    full = sltfast.open(place.with_name("llm_full.zarr"))
    influences = sltfast.compute_bif(
        full, loss_keys=list(kinds), correlation_method="sequence", normalize=True, progress=progress
    )
    save(influences, result_path(place, "bif"), "bif")
    return Responses(tree, influences)
