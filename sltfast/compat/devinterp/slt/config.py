"""The sampler's settings, validated: ``SamplerConfig`` and the literals it is made of."""

from __future__ import annotations

from importlib import import_module
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, NonNegativeInt, PositiveInt

EpochMode = Literal["once", "cycle"]
SamplingMethodLiteral = Literal["sgmcmc_sgld", "rmsprop_sgld"]


class SamplerConfig(BaseModel):
    """Settings of a run, by devinterp's names, in its order and with its defaults.

    The target is exp(−n_beta·L(w) − localization/2·|w − w*|² − llc_weight_decay/2·|w|²); see ``sltfast.sample``.

    Raises:
        pydantic.ValidationError: (a ValueError) a name that is no setting, or a value that is not allowed.
    """

    model_config = ConfigDict(extra="forbid")

    lr: NonNegativeFloat
    n_beta: NonNegativeFloat
    batch_size: PositiveInt = 32
    num_chains: PositiveInt = 4
    num_draws: PositiveInt = 200
    num_burnin_steps: NonNegativeInt = 0
    num_steps_bw_draws: PositiveInt = 1
    gradient_accumulation_steps: PositiveInt = 1
    num_init_loss_batches: PositiveInt = 32
    init_seed: int = 100
    localization: NonNegativeFloat = 0.0
    noise_level: NonNegativeFloat = 1.0
    llc_weight_decay: NonNegativeFloat = 0.0
    bounding_box_size: NonNegativeFloat | None = None
    sampling_method: SamplingMethodLiteral = "sgmcmc_sgld"
    sampling_method_kwargs: dict[str, Any] = Field(default_factory=dict)
    init_noise: NonNegativeFloat | None = None
    save_metrics: bool = False
    shuffle: bool = True
    epoch_mode: EpochMode = "cycle"
    match_sampling_input_ids_across_chains: bool = True

    @property
    def num_sgld_steps(self) -> int:
        """Steps of one chain: draws × steps between them + burn-in."""
        return self.num_burnin_steps + self.num_steps_bw_draws * self.num_draws


def __getattr__(name: str) -> Any:
    """``SAMPLING_METHODS``: the optimisers by name, imported when they are asked for."""
    if name == "SAMPLING_METHODS":
        optimiser = import_module("sltfast.compat.devinterp.optim").SGMCMC
        return {"sgmcmc_sgld": optimiser.sgld, "rmsprop_sgld": optimiser.rmsprop_sgld}
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
