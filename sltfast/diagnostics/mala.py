"""How often Metropolis would accept SGLD's steps: a measure of the step's error that needs no ground truth."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from sltfast.batches import BatchStream
from sltfast.clone import structural_clone, unwrap
from sltfast.data import as_source
from sltfast.diagnostics.trace import trace_diagnostics
from sltfast.errors import AllChainsDied, ChainDiverged
from sltfast.isolation import surroundings
from sltfast.losses import ItemLoss, LossFn, check_tokens, item_loss
from sltfast.restriction import ParamMasks, Restriction
from sltfast.sampler.config import SamplerConfig
from sltfast.sampler.engines.engine import LaneBatch
from sltfast.sampler.engines.sequential import SequentialEngine
from sltfast.sampler.precision import computing
from sltfast.sampler.progress import Progress
from sltfast.sampler.transition import Transition
from sltfast.sampler.trial import trial

if TYPE_CHECKING:
    import xarray as xr

HIGH, LOW = 0.9, 0.5  # above: the step's bias is a few per cent; below: most of it is the step's error


def mala_acceptance(
    model: nn.Module,
    dataset: Any,
    *,
    lr: float,
    n_beta: float,
    localization: float = 0.0,
    loss_fn: LossFn | None = None,
    param_masks: ParamMasks = None,
    num_chains: int = 2,
    num_draws: int = 50,
    num_burnin_steps: int = 100,
    num_steps_bw_draws: int = 1,
    batch_size: int = 32,
    llc_weight_decay: float = 0.0,
    shuffle: bool = True,
    init_seed: int = 100,
    device: str | torch.device | None = None,
    buffer_size: int | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """Mean Metropolis acceptance of the steps that SGLD takes once it has forgotten where it began.

        α = min(1, exp(−[U(w') − U(w)] − [log q(w → w') − log q(w' → w)])),
        U(w) = nβ·L_b(w) + γ/2·|w − w*|² + λ/2·|w|²,   q(w → w') = N(w' | w − (ε/2)·∇U(w), ε)

    with both losses and both gradients on the step's own batch b (the data set itself where it fits into one). The
    chain is SGLD's and moves whatever α is: 1 − α is the error that a step of size ε makes against the posterior of its
    batch, and tends to 0 with ε. Because the squares |w' − w|² and the priors cancel, it is computed as

        log α = −nβ·[L_b(w') − L_b(w)] + (nβ/2)·(w' − w)·(g + g') − (ε/8)·(|∇U(w')|² − |∇U(w)|²).

    The noise of mini-batches does not enter α (see ``per_sample.noise_scale``). Each draw costs a gradient more than
    a step of SGLD, except where one batch is the whole data set.

    Args:
        model: as for ``sltfast.sample``; it is not touched.
        dataset: as for ``sltfast.sample``.
        lr: ε > 0.
        n_beta: nβ >= 0.
        localization: γ >= 0.
        loss_fn: see ``sltfast.sample``.
        param_masks: which coordinates move, see ``sltfast.sample``.
        num_chains: independent chains, one after another.
        num_draws: steps of each chain that are judged.
        num_burnin_steps: steps before the first of them.
        num_steps_bw_draws: steps from one to the next.
        batch_size: rows of a mini-batch, at most all rows are taken.
        llc_weight_decay: λ >= 0.
        shuffle: see ``sltfast.sample``.
        init_seed: seed of noise and data order; a chain's steps are those of ``sltfast.sample`` with this seed.
        device: see ``sltfast.sample``.
        buffer_size: see ``sltfast.sample``.
        progress: show a progress bar.

    Returns:
        ``xr.Dataset``: ``acceptance`` and ``acceptance_se`` = max(autocorrelation-based, between chains),
        ``acceptance_per_chain`` and ``acceptance_per_chain_se`` (chain; NaN where it died), ``log_acceptance`` (chain,
        draw; before the minimum with 0), ``alive``. attrs: the settings and ``advice``.

    Raises:
        ValueError, TypeError: an argument, data set, mask or weight that cannot be sampled, before the first step.
        AllChainsDied: no chain is left.

    Warns:
        ChainDiverged: a chain died; it is in no mean.

    Source: Roberts & Tweedie 1996 (MALA); Welling & Teh 2011 (SGLD).
    """
    from sltfast.devices import pick_device

    source = as_source(dataset, buffer_size=buffer_size)
    if isinstance(batch_size, int) and not isinstance(batch_size, bool) and batch_size > len(source):
        batch_size = len(source)
    config = SamplerConfig(
        lr=lr,
        n_beta=n_beta,
        localization=localization,
        num_chains=num_chains,
        num_draws=num_draws,
        num_burnin_steps=num_burnin_steps,
        num_steps_bw_draws=num_steps_bw_draws,
        batch_size=batch_size,
        llc_weight_decay=llc_weight_decay,
        shuffle=shuffle,
        init_seed=init_seed,
    )
    model = unwrap(model)
    restriction, loss = Restriction.of(model, param_masks), item_loss(model, loss_fn)
    where = pick_device(model, device)
    stream = BatchStream(source, config.batch_size, config.init_seed, shuffle=config.shuffle)
    if loss_fn is None:
        check_tokens(model, source.sample())
    with surroundings(config.init_seed, where), computing(None, where):
        clone = structural_clone(model, where).eval()
        trial(clone, {"": restriction}, loss, stream, [], where, language_model=loss_fn is None)
        chains = _Chains(config, clone, restriction, loss, stream, where)
        with Progress(config.num_steps * config.num_chains, shown=progress) as bar:
            bar.starts("acceptance")
            trace = np.stack([chains.run(chain, bar) for chain in range(config.num_chains)])
    return _summary(trace, config)


class _At(NamedTuple):
    """At a point: losses float64 [1]; gradients of the mean loss as autograd made them; ∇U and g, flat float64."""

    loss: Tensor
    taken: list[list[Tensor | None]]
    gradient: Tensor
    force: Tensor


class _Chains:
    """Chains of one lane that judge their own steps."""

    def __init__(
        self,
        config: SamplerConfig,
        clone: nn.Module,
        restriction: Restriction,
        loss: ItemLoss,
        stream: BatchStream,
        device: torch.device,
    ) -> None:
        self.config, self.stream, self.device = config, stream, device
        self.engine = SequentialEngine(clone, restriction, loss, device)
        self.transition = Transition(config, self.engine.arena, [0], device)
        blocks = self.engine.arena.blocks
        self.anchor = self._flat([block.shares[0].anchors for block in blocks])
        self.one_batch = stream.batches_per_epoch == 1 and len(stream.source) == config.batch_size

    def run(self, chain: int, bar: Progress) -> np.ndarray:
        """The chain's log α at its draws, before the minimum with 0; NaN from where it died on."""
        config = self.config
        self.transition.assign([chain])
        self.transition.reset()
        log_alpha = np.full(config.num_draws, np.nan)
        there: _At | None = None
        for step in range(config.num_steps):
            batch = LaneBatch(self.stream.batch(step, self.device), shared=True)
            here = self._at(batch) if there is None else there
            old = self._weights()
            self.transition.step(here.taken, here.loss)
            draw = config.draw_at(step)
            if not bool(self.transition.alive[0]):
                bar.skip(config.num_steps - step)
                return log_alpha
            there = None
            if draw is not None or self.one_batch:
                there = self._at(batch)
                if draw is not None:
                    log_alpha[draw] = self._log_alpha(here, there, self._weights() - old)
            if not self.one_batch:
                there = None
            bar.skip(1)
        return log_alpha

    def _at(self, batch: LaneBatch) -> _At:
        objective = self.engine.objective(batch, 1.0)
        self.engine.arena.backward(objective.total)
        taken = self.engine.arena.take_gradients()
        gradient = self._flat(taken)
        w, config = self._weights(), self.config
        force = config.n_beta * gradient + config.localization * (w - self.anchor) + config.llc_weight_decay * w
        return _At(objective.losses.lane_means(1, torch.float64), taken, gradient, self._moving(force))

    def _log_alpha(self, here: _At, there: _At, move: Tensor) -> float:
        config = self.config
        fall = float(there.loss - here.loss) - 0.5 * float(move @ self._moving(here.gradient + there.gradient))
        return -config.n_beta * fall - config.lr / 8 * float(there.force @ there.force - here.force @ here.force)

    def _weights(self) -> Tensor:
        blocks = self.engine.arena.blocks
        return self._flat([[block.rows(k) for k in range(len(block.leaves))] for block in blocks])

    def _flat(self, parts: Sequence[Sequence[Tensor | None]]) -> Tensor:
        """All leaves one after another, float64; a gradient that is not there is 0."""
        flat = []
        for block, tensors in zip(self.engine.arena.blocks, parts, strict=True):
            for leaf, tensor in zip(block.leaves, tensors, strict=True):
                numel = leaf.segments[0].numel
                flat.append(
                    torch.zeros(numel, dtype=torch.float64, device=self.device)
                    if tensor is None
                    else tensor.detach().reshape(-1).double()
                )
        return torch.cat(flat)

    def _moving(self, flat: Tensor) -> Tensor:
        """The same with 0 where a mask holds the weights still."""
        masks = [mask for block in self.engine.arena.blocks for mask in block.shares[0].masks]
        sizes = [leaf.segments[0].numel for leaf in self.engine.arena.leaves]
        parts = [
            part if mask.numel() == 0 else part * mask.reshape(-1)
            for part, mask in zip(flat.split(sizes), masks, strict=True)
        ]
        return torch.cat(parts)


def _summary(log_alpha: np.ndarray, config: SamplerConfig) -> xr.Dataset:
    import xarray as xr

    alive = np.isfinite(log_alpha).all(axis=1)
    settings = {
        name: getattr(config, name)
        for name in (
            "lr", "n_beta", "localization", "llc_weight_decay", "num_chains", "num_draws", "num_burnin_steps",
            "num_steps_bw_draws", "batch_size", "init_seed",
        )
    }  # fmt: skip
    if not alive.any():
        raise AllChainsDied("every chain met NaN or infinity: lower lr first, then n_beta or localization")
    if not alive.all():
        warnings.warn(
            f"{int((~alive).sum())} of {len(alive)} chains met NaN or infinity and are in no mean: lower lr first",
            ChainDiverged,
            stacklevel=3,
        )
    alpha = np.exp(np.minimum(log_alpha, 0.0))
    whole = trace_diagnostics(alpha[alive], ranks=False)
    single = [trace_diagnostics(row[None], ranks=False) for row in alpha]
    mean = float(whole.mean)
    return xr.Dataset(
        {
            "acceptance": mean,
            "acceptance_se": float(whole.se),
            "acceptance_per_chain": ("chain", [float(one.mean) for one in single]),
            "acceptance_per_chain_se": ("chain", [float(one.mcse) for one in single]),
            "log_acceptance": (("chain", "draw"), log_alpha),
            "alive": ("chain", alive),
        },
        attrs={**settings, "advice": _advice(mean)},
    )


def _advice(mean: float) -> str:
    said = f"{100 * mean:.3g} % of SGLD's steps would be accepted"
    if mean >= HIGH or math.isnan(mean):
        return f"{said}: the step is small enough"
    if mean >= LOW:
        return f"{said}: compare λ̂ at half the lr"
    return f"{said}: the step is too large for the posterior; lower lr"
