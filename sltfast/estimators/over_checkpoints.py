"""``over_checkpoints``: the learning coefficient along a training run."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from sltfast.chains import Wanted, run_chains
from sltfast.data import as_source
from sltfast.errors import AllChainsDied, ChainDiverged, OutputMismatch
from sltfast.estimators.collection import estimate_of, stacked
from sltfast.estimators.llc import needed_for
from sltfast.inputs.checkpoints import Checkpoint, list_checkpoints
from sltfast.inputs.skeleton import Skeleton
from sltfast.isolation import alone
from sltfast.losses import LossFn
from sltfast.observables import ObservableSpec
from sltfast.request import resolve
from sltfast.results.sampled_losses import InitLoss
from sltfast.tables import plus_minus

if TYPE_CHECKING:
    import xarray as xr


def over_checkpoints(
    checkpoints: Any,
    dataset: Any,
    *,
    lr: float,
    n_beta: float,
    model: nn.Module | None = None,
    dtype: str = "float32",
    loss_fn: LossFn | None = None,
    include_burnin: bool = False,
    init_loss: InitLoss = "paired",
    output_path: str | Path | None = None,
    progress: bool = True,
    **sampling: Any,
) -> xr.Dataset:
    """Estimate the local learning coefficient at every checkpoint of a training run, with one setting for all.

    The model is built once and each checkpoint's weights are loaded into it (memory-mapped); the data set is read once;
    all checkpoints see the same batches and the same noise. Each estimate equals that of ``sltfast.llc`` for the
    checkpoint.

    Args:
        checkpoints: a glob pattern ("run/step-*"); a sequence of paths, modules or state dicts; or these by step. A
            path is a Hugging Face folder, a .safetensors file or a torch file of a state dict (the last two, and state
            dicts, need ``model``), or "owner/name@revision" on the hub. The step of a path is the number in its name;
            where there is none, and for modules and state dicts in a sequence, steps count from 0.
        dataset: see ``sltfast.sample``.
        lr: step size ε > 0.
        n_beta: inverse temperature nβ >= 0.
        model: the architecture whose weights the files hold; it is copied and left alone.
        dtype: precision of models built from Hugging Face folders: "float32", "float64", "bfloat16" or "float16".
        loss_fn: see ``sltfast.sample``.
        include_burnin: see ``sltfast.compute_llc``.
        init_loss: see ``sltfast.compute_llc``.
        output_path: a folder for one run a checkpoint, ``step-000100.zarr`` and so on. The same call resumes an
            interrupted one and does not run again what is complete.
        progress: show a progress bar over the checkpoints.
        **sampling: every other keyword of ``sltfast.sample``.

    Returns:
        ``xr.Dataset`` over ``step``, ascending: every variable of ``compute_llc`` (``llc_mean``, ``llc_se``,
        ``llc_per_chain``, ``rhat``, ``ess``, ``drift``, ``init_loss``, …; traces over (step, chain, sampling_step)),
        ``verdict``, ``advice``, ``chains_alive``, ``chains_diverged``, and the coordinate ``checkpoint``, its name. A
        checkpoint without a living chain is NaN and "diverged". attrs: the settings.

    Raises:
        ValueError, TypeError, FileNotFoundError: checkpoints that are not there or do not fit the model, or as
            ``sltfast.sample``; a note says at which checkpoint.
        OutputMismatch: ``output_path`` holds something else.
        AllChainsDied: no chain of any checkpoint lived.
    """
    found = list_checkpoints(checkpoints)
    keywords = {**needed_for(init_loss, sampling), "lr": lr, "n_beta": n_beta, "loss_fn": loss_fn, "progress": False}
    estimates = follow(
        found,
        Skeleton(model, dtype),
        dataset,
        keywords,
        output_path=output_path,
        include_burnin=include_burnin,
        init_loss=init_loss,
    )
    results = []
    from tqdm.auto import tqdm

    with tqdm(total=len(found), unit="checkpoint", disable=not progress, dynamic_ncols=True) as bar:
        bar.set_description(f"step {found[0].step}")
        for index, estimate in enumerate(estimates, start=1):
            results.append(estimate)
            bar.set_postfix_str(f"λ̂ {plus_minus(float(estimate['llc_mean']), float(estimate['llc_se']))}", False)
            bar.set_description(f"step {found[min(index, len(found) - 1)].step}", False)
            bar.update()
    if not any(bool(estimate["alive"].any()) for estimate in results):
        raise AllChainsDied("no chain of any checkpoint lived: lower lr, n_beta or localization")
    result = stacked(results, {"step": [one.step for one in found]}, steps="sampling_step")
    return result.assign_coords(checkpoint=("step", [one.name for one in found]))


def follow(
    checkpoints: Sequence[Checkpoint],
    skeleton: Skeleton,
    dataset: Any,
    keywords: Mapping[str, Any],
    *,
    output_path: str | Path | None = None,
    include_burnin: bool = False,
    init_loss: InitLoss = "paired",
) -> Iterator[xr.Dataset]:
    """The estimate of each checkpoint in turn, as ``compute_llc`` gives it; NaN where no chain lived.

    Args:
        checkpoints: in the order of training.
        skeleton: gives their models.
        dataset: see ``sltfast.sample``.
        keywords: of ``sltfast.sample``.
        output_path: a folder for one run a checkpoint.
        include_burnin: see ``compute_llc``.
        init_loss: see ``compute_llc``.

    Raises:
        As ``over_checkpoints``, save AllChainsDied.
    """
    for _, samples in runs_of(checkpoints, skeleton, dataset, None, keywords, output_path=output_path):
        yield estimate_of(samples, include_burnin=include_burnin, init_loss=init_loss)


def runs_of(
    checkpoints: Sequence[Checkpoint],
    skeleton: Skeleton,
    dataset: Any,
    observables: Mapping[str, ObservableSpec] | None,
    keywords: Mapping[str, Any],
    *,
    output_path: str | Path | None = None,
) -> Iterator[tuple[Checkpoint, xr.DataTree]]:
    """The run of each checkpoint in turn, also one whose chains all died; chains that died are warned of by name.

    Args:
        checkpoints: in the order of training.
        skeleton: gives their models.
        dataset: see ``sltfast.sample``.
        observables: see ``sltfast.sample``.
        keywords: of ``sltfast.sample``.
        output_path: a folder for one run a checkpoint.

    Raises:
        As ``over_checkpoints``, save AllChainsDied.
    """
    rest = dict(keywords)
    param_masks = rest.pop("param_masks", None)
    config, request = resolve(dataset, rest)
    folder = None if output_path is None else _folder(Path(output_path).expanduser())
    source = as_source(dataset, buffer_size=request.buffer_size)
    for checkpoint in checkpoints:
        try:
            model = skeleton.filled(checkpoint)
            wanted = Wanted(param_masks, None if folder is None else folder / f"{run_name(checkpoint.step)}.zarr")
            with alone(), warnings.catch_warnings():
                warnings.simplefilter("ignore", ChainDiverged)  # told below, with the checkpoint's name
                samples = run_chains(model, source, observables, {"": wanted}, config, request)[""]
        except AllChainsDied as error:
            samples = error.samples
        except (ValueError, TypeError, OSError) as error:
            error.add_note(f"at step {checkpoint.step}: {checkpoint.name}")
            raise
        death = samples.dataset["death_step"].values
        dead = int((death >= 0).sum())
        if dead:
            warnings.warn(
                f"step {checkpoint.step} ({checkpoint.name}): {dead} of {len(death)} chains met NaN or infinity and "
                "were stopped",
                ChainDiverged,
                stacklevel=4,
            )
        yield checkpoint, samples


def run_name(step: float) -> str:
    """A checkpoint's name among files, in the order of training."""
    return f"step-{step:06d}" if isinstance(step, int) else f"step-{step!r}"


def _folder(path: Path) -> Path:
    if path.is_file() or (path / "zarr.json").exists():
        what = "file" if path.is_file() else "run"
        raise OutputMismatch(
            f"output_path {path} is a {what}; the runs of checkpoints need a folder of their own: give another path"
        )
    path.mkdir(parents=True, exist_ok=True)
    return path
