"""What is set up before anything is promised: the model's copy, observables, a trial at w*, what will be recorded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from sltfast.chains.asked import Asked
from sltfast.clone import structural_clone
from sltfast.losses import check_tokens
from sltfast.observables import Observable, ObservableSpec, resolve_observables
from sltfast.results.layout import ArraySpec, layout
from sltfast.sampler.precision import compute_dtype
from sltfast.sampler.recording import Recording
from sltfast.sampler.room import check_records
from sltfast.sampler.shortage import no_room_for
from sltfast.sampler.sizing import Sizing
from sltfast.sampler.trial import Shapes, trial
from sltfast.sampler.unchanged import unchanged
from sltfast.sampler.weight_reading import weight_specs


@dataclass(frozen=True)
class Prepared:
    """A call whose model has run once.

    Attributes:
        observables: resolved.
        recording: how draws become records.
        clone: shares storage with the caller's model.
        sizing: what passes cost.
        no_logits: why losses do not come from hidden states; "" where they do.
        shapes: what the trial found.
        specs: arrays of each run.
    """

    observables: list[Observable]
    recording: Recording
    clone: nn.Module
    sizing: Sizing
    no_logits: str
    shapes: Shapes
    specs: list[ArraySpec]


def prepare(asked: Asked, observables: Mapping[str, ObservableSpec] | None) -> Prepared:
    """Run one forward and backward at w* and find out what the run will record.

    Raises:
        As ``run_chains``.
    """
    config, request = asked.config, asked.request
    seen = _resolved(asked, observables)
    recording = Recording.of(request, config, seen)
    clone = structural_clone(asked.model, asked.device, compute_dtype(config.precision)).train(config.mode == "train")
    sizing = Sizing(config, request, asked.device)
    sizing.expect(clone, list(asked.restrictions.values()), asked.streams[0])
    with sizing.watched():
        no_logits = _without_logits(asked, clone)
    one = "a forward and backward of one chain at w*"
    with unchanged(clone, asked.loss.name), sizing.watched(one_chain=True), no_room_for(one):
        shapes = trial(
            clone,
            asked.restrictions,
            asked.loss,
            asked.streams[0],
            seen,
            asked.device,
            language_model=asked.language_model,
        )
    recording.check_sizes([len(one.rows) for one in seen], shapes.observable_positions)
    specs = _arrays(asked, seen, recording, shapes)
    check_records(config, specs, list(asked.paths.values()))
    return Prepared(seen, recording, clone, sizing, no_logits, shapes, specs)


def _resolved(asked: Asked, specs: Mapping[str, ObservableSpec] | None) -> list[Observable]:
    seen = resolve_observables(
        specs,
        batches_per_draw=asked.request.batches_per_draw,
        batch_size=asked.config.batch_size,
        seed=asked.request.obs_seed,
        device=asked.device,
        buffer_size=asked.request.buffer_size,
    )
    if asked.language_model:
        for observable in seen:
            check_tokens(asked.model, observable.source.sample())
    return seen


def _arrays(asked: Asked, seen: list[Observable], recording: Recording, shapes: Shapes) -> list[ArraySpec]:
    request = asked.request
    specs = layout(asked.config, seen, shapes, recording, save_token_losses=request.save_token_losses)
    if request.dataset_init_loss:
        specs.append(ArraySpec("init_loss_dataset", (), (), "float64"))
    if asked.weights is not None:
        specs += weight_specs(asked.config, asked.weights)
    return specs


def _without_logits(asked: Asked, clone: nn.Module) -> str:
    """Let a language model's losses come from hidden states, where it proves that they can; returns why not."""
    device = next(clone.parameters()).device
    parameters = dict(clone.named_parameters())
    moving = [parameters[s.name] for restriction in asked.restrictions.values() for s in restriction.segments]
    for parameter in moving:
        parameter.requires_grad_()
    try:
        return asked.loss.without_logits(clone, asked.streams[0].batch(0, device), asked.config.precision)
    except Exception as error:  # whatever a model raises: the trial that comes next runs it as it is, and tells
        return f"{type(error).__name__}: {error}"
    finally:
        for parameter in moving:
            parameter.requires_grad_(False)
