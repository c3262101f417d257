"""How a run goes through the machine: which engine, how many chains together, which passes step in step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from sltfast.arena import LOW_PRECISION
from sltfast.batches import BatchStream, fetch
from sltfast.clone import structural_clone
from sltfast.losses import ItemLoss
from sltfast.observables import Observable
from sltfast.ops.grouped_gradient_step import epilogue_refusal
from sltfast.restriction import Restriction
from sltfast.sampler.config import SamplerConfig
from sltfast.sampler.engines.agreement import disagreement
from sltfast.sampler.engines.choice import EngineChoice, choose
from sltfast.sampler.engines.engine import Engine
from sltfast.sampler.engines.sequential import SequentialEngine
from sltfast.sampler.engines.stacked import StackedEngine
from sltfast.sampler.engines.vmapped import VmappedEngine
from sltfast.sampler.lanes import Lanes, passes
from sltfast.sampler.precision import compute_dtype, use_tf32

if TYPE_CHECKING:
    from sltfast.request import Request

CHECKED_LANES = 3
CHECKED_ROWS = 3  # odd, so that no other size of the model is a multiple of it by chance


@dataclass
class Plan:
    """What was decided.

    Attributes:
        engine: its choice.
        chains_per_pass: chains of each restriction that go through the model together.
        groups: the passes; those of a group take each step one after another.
    """

    config: SamplerConfig
    engine: EngineChoice
    chains_per_pass: int
    groups: list[list[Lanes]]
    facts: dict[str, Any] = field(default_factory=dict)

    def record(self, restriction: Restriction) -> dict[str, Any]:
        """What is kept with a run."""
        return {
            "engine": self.engine.name,
            "engine_reason": self.engine.why,
            "chains_per_pass": self.chains_per_pass,
            "update": "langevin_step_",
            "not_fused": why_not_fused(self.config, restriction),
            **self.facts,
        }

    def text(self) -> str:
        """The plan in lines for a reader."""
        lines = [
            f"engine: {self.engine.name}" + (f" ({self.engine.why})" if self.engine.why else ""),
            f"chains per pass: {self.chains_per_pass} of {self.config.num_chains}",
            f"passes: {sum(map(len, self.groups))} in {len(self.groups)} groups",
        ]
        return "\n".join(lines + [f"{name.replace('_', ' ')}: {value}" for name, value in self.facts.items()])


class Planner:
    """Decides how the restrictions of a run go through the machine, and builds the engines that do it.

    Args:
        config, request: what was asked for.
        clone: the model at w*, on the device.
        loss, streams, observables, device: the run's.
        restrictions: what moves, cell by cell.
        logits: why the losses need the model's logits, "" where they come from its hidden states.
    """

    def __init__(
        self,
        config: SamplerConfig,
        request: Request,
        clone: nn.Module,
        loss: ItemLoss,
        streams: Sequence[BatchStream],
        observables: Sequence[Observable],
        device: torch.device,
        restrictions: Sequence[Restriction],
        logits: str,
    ) -> None:
        self.config, self.request, self.clone, self.loss = config, request, clone, loss
        self.streams, self.observables, self.device, self.restrictions = streams, observables, device, restrictions
        self.logits = logits
        self._engine = "sequential"

    def plan(self, earlier: Sequence[Mapping[str, Any]]) -> Plan:
        """Decide, or take up what an interrupted run decided (``earlier``), so that it ends as it would have.

        Raises:
            ValueError: the engine that was asked for cannot be used.
        """
        config, request = self.config, self.request
        if earlier:
            choice = EngineChoice(str(earlier[0]["engine"]), str(earlier[0]["engine_reason"]))
        else:
            choice = choose(
                request.engine,
                config,
                self.clone,
                lambda name: self._build(name, [0], min(CHECKED_LANES, config.num_chains)),
                self._disagrees,
            )
        self._engine = choice.name
        together = 1 if choice.name == "sequential" else config.num_chains
        if request.chains_per_pass is not None:
            together = min(together, request.chains_per_pass)
        elif earlier:
            together = int(earlier[0]["chains_per_pass"])
        groups = [
            [lanes] for cell in range(len(self.restrictions)) for lanes in passes((cell,), config.num_chains, together)
        ]
        return Plan(config, choice, together, groups, {"logits": self.logits or "not formed"})

    def _disagrees(self, engine: Engine) -> str | None:
        stream = self.streams[0]
        data = fetch(stream.source, stream.rows(0)[:CHECKED_ROWS], self.device)
        return disagreement(engine, self.clone, self.loss, data, self.device)

    def engine_for(self, lanes: Lanes) -> Engine:
        """The engine of a pass."""
        return self._build(self._engine, [part.cell for part in lanes.parts], len(lanes.parts[0].chains))

    def _build(self, name: str, cells: Sequence[int], num_chains: int) -> Engine:
        clone = structural_clone(self.clone, self.device, compute_dtype(self.config.precision))
        clone.train(self.config.mode == "train")
        restrictions = [self.restrictions[cell] for cell in cells]
        if name == "stacked":
            return StackedEngine(clone, restrictions, self.loss, num_chains, self.device)
        if name == "vmap":
            return VmappedEngine(clone, restrictions[0], self.loss, num_chains, self.device)
        if self.config.precision == "tf32":
            use_tf32(clone)
        return SequentialEngine(clone, restrictions[0], self.loss, self.device)


def why_not_fused(config: SamplerConfig, restriction: Restriction) -> str:
    """Why gradients are kept in memory, instead of the step being taken where they are formed."""
    compute = compute_dtype(config.precision)
    return epilogue_refusal(
        method=config.method,
        micro_batches=config.gradient_accumulation_steps,
        uses=1,
        masked=any(segment.mask is not None for segment in restriction.segments),
        low=compute is None and any(segment.parameter.dtype in LOW_PRECISION for segment in restriction.segments),
        metrics=config.save_metrics,
    ) or (
        "a fused product was not measured to be faster than the library's and langevin_step_ after it "
        "(benchmarks/grouped_gradient.py)"
    )
