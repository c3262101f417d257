"""The settings of a run, validated once and frozen."""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

import numpy as np

from sltfast.shown import shown

SAMPLING_METHODS = {
    "sgmcmc_sgld": "sgld",
    "sgld": "sgld",
    "rmsprop_sgld": "rmsprop_sgld",
    "rmsprop_sgld_hh": "rmsprop_sgld_hh",
    "sghmc": "sghmc",
    "sgnht": "sgnht",
}
# sghmc: a memory of ten steps; soft directions mix ten times faster than under SGLD at the same ε, and gradient noise
# counts ten times as much. sgnht: Ding et al.'s A; ζ rises from it by itself, and sooner the smaller it is.
SETTINGS: dict[str, dict[str, float]] = {
    "sgld": {},
    "rmsprop_sgld": {"alpha": 0.99, "eps": 0.1},
    "rmsprop_sgld_hh": {"alpha": 0.99, "eps": 0.1},
    "sghmc": {"friction": 0.1},
    "sgnht": {"friction": 0.01},
}
"""By transition, what ``sampling_method_kwargs`` may set and its default."""
CELL_SETTINGS = ("lr", "n_beta", "localization", "llc_weight_decay", "noise_level", "bounding_box_size")
"""What each chain may have for itself, in the order of ``ops.langevin_step_``'s hyper."""
Mode = Literal["eval", "train"]


@dataclass(frozen=True)
class SamplerConfig:
    """Everything that decides a chain's trajectory, given model, data and restriction.

    Target density exp(−nβ·L(w) − γ/2·|w − w*|² − λ/2·|w|²), step
    w ← w − (ε/2)·G·[nβ·∇L_m(w) + γ(w − w*) + λw] + √ε·σ·√G·ξ  (Lau et al. 2308.12108; Welling & Teh 2011), or its
    relatives with momentum (see ``ops.langevin_step_``).

    Attributes (field names are devinterp's):
        lr: ε > 0.  n_beta: nβ >= 0.  localization: γ >= 0.  noise_level: σ >= 0.  llc_weight_decay: λ >= 0.
        bounding_box_size: half-width b of a per-coordinate box around w*, or None.
        num_chains, num_draws, num_burnin_steps, num_steps_bw_draws: steps of a chain are burn-in + draws × between;
            draw d is read at step burn-in + d × between.
        gradient_accumulation_steps: micro-batches of ``batch_size`` a step.
        sampling_method: "sgmcmc_sgld" (identity G), "rmsprop_sgld" (v₀ = 0, uncorrected), "rmsprop_sgld_hh"
            (v₋₁ = 1, bias-corrected; Hitchcock & Hoogland 2507.21449), "sghmc" (Chen, Fox & Guestrin 1402.4102),
            "sgnht" (Ding et al. 2014, held at the temperature of the discrete chain).
        sampling_method_kwargs: RMSprop's alpha and eps; friction of sghmc and sgnht.
        init_noise: standard deviation of Gaussian noise added to the chain's start, or None.
        precision: what the model computes in (``sampler.precision``), or None for its own.
        cells: a hyperparameter grid, run as ``num_chains // len(cells)`` chains of each cell one after another; a cell
            maps names of CELL_SETTINGS to its own values. Chain k of every cell has the same noise and batches, those
            of chain k of a run of the cell alone.
    """

    lr: float
    n_beta: float
    batch_size: int = 32
    num_chains: int = 4
    num_draws: int = 200
    num_burnin_steps: int = 0
    num_steps_bw_draws: int = 1
    gradient_accumulation_steps: int = 1
    num_init_loss_batches: int = 32
    init_seed: int = 100
    localization: float = 0.0
    noise_level: float = 1.0
    llc_weight_decay: float = 0.0
    bounding_box_size: float | None = None
    sampling_method: str = "sgmcmc_sgld"
    sampling_method_kwargs: Mapping[str, float] = field(default_factory=dict)
    init_noise: float | None = None
    save_metrics: bool = False
    shuffle: bool = True
    match_sampling_input_ids_across_chains: bool = True
    mode: Mode = "eval"
    precision: str | None = None
    cells: tuple[Mapping[str, float], ...] = ()

    def __post_init__(self) -> None:
        _number(self, "lr", above=0.0, hint="the step size ε, often 1e-5 to 1e-3")
        _number(self, "n_beta", least=0.0, hint="see sltfast.default_nbeta(n)")
        for name in ("localization", "noise_level", "llc_weight_decay"):
            _number(self, name, least=0.0)
        if self.bounding_box_size is not None:
            _number(self, "bounding_box_size", above=0.0, hint="or None")
        if self.init_noise is not None:
            _number(self, "init_noise", least=0.0, hint="or None")
        for name in ("save_metrics", "shuffle", "match_sampling_input_ids_across_chains"):
            object.__setattr__(self, name, yes_or_no(name, getattr(self, name)))
        for name in (
            "batch_size",
            "num_chains",
            "num_draws",
            "num_steps_bw_draws",
            "gradient_accumulation_steps",
        ):
            object.__setattr__(self, name, whole_number(name, getattr(self, name), 1))
        for name in ("num_burnin_steps", "num_init_loss_batches", "init_seed"):
            object.__setattr__(self, name, whole_number(name, getattr(self, name), 0))
        if self.init_seed >= 1 << 64:
            raise ValueError(f"init_seed must be below 2**64, got {shown(self.init_seed)}")
        if not isinstance(self.sampling_method, str) or self.sampling_method not in SAMPLING_METHODS:
            raise ValueError(
                f"sampling_method must be one of {sorted(SAMPLING_METHODS)}, got {shown(self.sampling_method)}"
            )
        if not isinstance(self.mode, str) or self.mode not in ("eval", "train"):
            raise ValueError(f"mode must be 'eval' or 'train', got {shown(self.mode)}")
        allowed = SETTINGS[self.method]
        unknown = sorted(map(shown, set(self.sampling_method_kwargs) - set(allowed)))
        if unknown:
            raise ValueError(
                f"sampling_method_kwargs [{', '.join(unknown)}] mean nothing to {self.sampling_method!r} "
                f"(allowed: {sorted(allowed) or 'none'})"
            )
        kwargs: Mapping[str, Any] = self.sampling_method_kwargs
        for key, value in kwargs.items():
            if not is_finite(value):
                raise ValueError(f"sampling_method_kwargs[{key!r}] must be a finite number, got {shown(value)}")
        object.__setattr__(self, "sampling_method_kwargs", {key: float(value) for key, value in kwargs.items()})
        if "alpha" in allowed and not 0.0 <= self.setting("alpha") <= 1.0:
            raise ValueError(
                f"rmsprop_alpha (sampling_method_kwargs['alpha']) must be in [0, 1], got {self.setting('alpha')}"
            )
        if "eps" in allowed and not self.setting("eps") > 0.0:
            raise ValueError(f"rmsprop_eps (sampling_method_kwargs['eps']) must be > 0, got {self.setting('eps')}")
        if "friction" in allowed and not 0.0 < self.setting("friction") <= 1.0:
            raise ValueError(f"friction must be in (0, 1], got {self.setting('friction')} (1 is SGLD)")

        if self.cells and self.num_chains % len(self.cells):
            raise ValueError(f"num_chains {self.num_chains} must be a multiple of the {len(self.cells)} cells")
        for index in range(len(self.cells)):
            self.of_cell(index)

    def of_cell(self, index: int) -> SamplerConfig:
        """The settings of one cell as a run of its own.

        Raises:
            ValueError: a setting that a cell cannot have for itself, or a value that is not allowed.
        """
        shared = sorted(set(self.cells[index]) - set(CELL_SETTINGS))
        if shared:
            raise ValueError(f"{shared} cannot differ between the cells of a grid (allowed: {list(CELL_SETTINGS)})")
        changes: dict[str, Any] = dict(self.cells[index])
        return replace(self, cells=(), num_chains=self.chains_per_cell, **changes)

    @property
    def chains_per_cell(self) -> int:
        """Chains of each cell (of the run, where it is no grid)."""
        return self.num_chains // max(1, len(self.cells))

    def noise_chain(self, chain: int) -> int:
        """The chain whose noise and batches chain ``chain`` has."""
        return chain % self.chains_per_cell

    def hyper(self, chain: int) -> list[float]:
        """A chain's row of ``ops.HYPER``: ε, nβ, γ, λ, σ and the box's half-width (infinite: none)."""
        changes = self.cells[chain // self.chains_per_cell] if self.cells else {}
        row = [changes.get(name, getattr(self, name)) for name in CELL_SETTINGS]
        return [float("inf") if value is None else float(value) for value in row]

    @property
    def method(self) -> str:
        """The transition's name in ``ops.langevin_step_``."""
        return SAMPLING_METHODS[self.sampling_method]

    def setting(self, name: str) -> float:
        """A number of ``SETTINGS`` for this method, as given or by default."""
        return float(self.sampling_method_kwargs.get(name, SETTINGS[self.method][name]))

    @property
    def num_steps(self) -> int:
        """Steps of one chain."""
        return self.num_burnin_steps + self.num_draws * self.num_steps_bw_draws

    def draw_at(self, step: int) -> int | None:
        """The draw that is read at a step, or None."""
        draw, rest = divmod(step - self.num_burnin_steps, self.num_steps_bw_draws)
        return draw if draw >= 0 and rest == 0 else None

    def step_of(self, rows: str, row: int) -> int:
        """The step at which row ``row`` of an array that counts "step" or "draw" is recorded."""
        return row if rows == "step" else self.num_burnin_steps + row * self.num_steps_bw_draws

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for the record."""
        values = asdict(self)
        values["sampling_method_kwargs"] = dict(self.sampling_method_kwargs)
        values["cells"] = [dict(cell) for cell in self.cells]
        return values


def rmsprop_kwargs(
    kwargs: Mapping[str, float] | None, rmsprop_eps: float | None, rmsprop_alpha: float | None
) -> dict[str, float]:
    """Merge devinterp's two spellings of the RMSprop settings.

    Raises:
        ValueError: the same setting given twice.
    """
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise ValueError(f"sampling_method_kwargs must be a mapping, got {shown(kwargs)}")
    merged = dict(kwargs or {})
    for key, value in (("eps", rmsprop_eps), ("alpha", rmsprop_alpha)):
        if value is not None:
            if key in merged:
                raise ValueError(f"give rmsprop_{key} or sampling_method_kwargs[{key!r}], not both: specify only one")
            merged[key] = value
    return merged


def _number(
    config: SamplerConfig,
    name: str,
    *,
    above: float | None = None,
    least: float | None = None,
    hint: str = "",
) -> None:
    value: Any = getattr(config, name)
    mend = f" ({hint})" if hint else ""
    if not is_finite(value):
        raise ValueError(f"{name} must be a finite number, got {shown(value)}{mend}")
    value = float(value)
    object.__setattr__(config, name, value)  # NumPy's scalars would not survive the record
    if above is not None and not value > above:
        raise ValueError(f"{name} must be > {above:g}, got {value!r}{mend}")
    if least is not None and value < least:
        raise ValueError(f"{name} must be >= {least:g}, got {value!r}{mend}")


def whole_number(name: str, value: Any, least: int) -> int:
    """A count or seed as a plain integer (NumPy's scalars would not survive the record).

    Raises:
        ValueError: no whole number, or one below ``least``.
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise ValueError(f"{name} must be a whole number >= {least}, got {shown(value)}")
    return int(value)


def yes_or_no(name: str, value: Any) -> bool:
    """A switch as a plain bool.

    Raises:
        ValueError: neither True nor False.
    """
    if not isinstance(value, bool | np.bool_):
        raise ValueError(f"{name} must be True or False, got {shown(value)}")
    return bool(value)


def is_finite(value: Any) -> bool:
    """Whether a value is a real number that a float can hold."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        return False
    try:
        return math.isfinite(float(value))
    except OverflowError:  # an integer beyond every float
        return False
