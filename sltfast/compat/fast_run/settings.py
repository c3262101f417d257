"""The engine's settings, from devinterp's."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sltfast.compat.devinterp.optim.absent import Absent
from sltfast.compat.devinterp.slt.config import SamplerConfig
from sltfast.sampler.config import SamplerConfig as EngineConfig
from sltfast.shown import shown

TINIEST = 5e-324  # stands for 0 where the engine wants a positive number: a step or box of this size moves nothing
SETTINGS_OF = {
    "sgmcmc_sgld": {"sketch_dim", "sketch_seed"},
    "rmsprop_sgld": {"alpha", "eps", "add_grad_correction", "sketch_dim", "sketch_seed"},
}
"""What devinterp's optimisers take beside the run's settings; sketches leave no trace in what a run records."""


def engine_config(config: SamplerConfig) -> EngineConfig:
    """The same run in the engine's words.

    Raises:
        TypeError: ``sampling_method_kwargs`` that devinterp's optimiser does not take.
        ValueError: a value of theirs that is not allowed.
        Absent: (a NotImplementedError) ``add_grad_correction=True``.
    """
    given = config.model_dump(exclude={"epoch_mode", "sampling_method_kwargs"})
    kwargs = config.sampling_method_kwargs
    allowed = SETTINGS_OF[config.sampling_method]
    unknown = sorted(set(kwargs) - allowed)
    if unknown:
        raise TypeError(
            f"sampling_method_kwargs got an unexpected keyword argument {unknown[0]!r} for {config.sampling_method!r} "
            f"(allowed: {sorted(allowed)})"
        )
    correction = kwargs.get("add_grad_correction")
    if not isinstance(correction, int | None):
        raise TypeError(f"sampling_method_kwargs['add_grad_correction'] must be True or False, got {shown(correction)}")
    if correction:
        raise Absent("add_grad_correction=True is not implemented, as in devinterp: leave it out")
    for name, least in (("lr", True), ("bounding_box_size", False)):
        if given[name] == 0 and (least or given[name] is not None):
            given[name] = TINIEST
    kept = {name: value for name, value in kwargs.items() if name in ("alpha", "eps")}
    return EngineConfig(**given, sampling_method_kwargs=kept)


def merged_rmsprop(
    sampling_method: str,
    sampling_method_kwargs: Mapping[str, Any] | None,
    rmsprop_eps: float | None,
    rmsprop_alpha: float | None,
) -> dict[str, Any]:
    """``sampling_method_kwargs`` with devinterp's two shorthands in it.

    Raises:
        ValueError: no mapping, a shorthand for another method, or a setting given twice.
    """
    if not isinstance(sampling_method_kwargs, Mapping | None):
        raise ValueError(f"sampling_method_kwargs must be a mapping or None, got {shown(sampling_method_kwargs)}")
    merged = dict(sampling_method_kwargs or {})
    for name, value in (("eps", rmsprop_eps), ("alpha", rmsprop_alpha)):
        if value is None:
            continue
        if sampling_method != "rmsprop_sgld":
            raise ValueError(
                f"rmsprop_{name} can only be set with sampling_method='rmsprop_sgld', got {shown(sampling_method)}: "
                "leave it out, or change the method"
            )
        if name in merged:
            raise ValueError(
                f"rmsprop_{name}={shown(value)} and sampling_method_kwargs[{name!r}]={shown(merged[name])} are both "
                "given: specify only one"
            )
        merged[name] = value
    return merged


def metadata(config: SamplerConfig, observables: Mapping[str, int], tokens: int) -> dict[str, Any]:
    """Devinterp's attribute ``metadata`` of a run.

    Args:
        config: the run's.
        observables: batches per draw of each, by identifier.
        tokens: of a row.
    """
    seen = [
        {"type": "ObserveDifferentDataset", "obs_id": name, "batches_per_draw": count}
        for name, count in observables.items()
    ]
    return {
        "config": {
            "sampler": sampler_record(config),
            "observables": seen,
            "chain_buffer_size": min(50, config.num_draws),
            "shared_observable_dims": ["token", "token_pos"],
            "tokenizer_context_length": tokens,
        }
    }


def sampler_record(config: SamplerConfig) -> dict[str, Any]:
    """What stands on record of the settings, with the constants that devinterp adds."""
    return {
        **config.model_dump(),
        "scheduler_type": "constant",
        "scheduler_kwargs": None,
        "cores": 1,
        "online": False,
    }
