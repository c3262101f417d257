"""How a run goes through the machine: which engine, how many chains together, which passes step in step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sltfast.arena import LOW_PRECISION
from sltfast.ops.grouped_gradient_step import epilogue_refusal
from sltfast.restriction import Restriction
from sltfast.sampler.config import SamplerConfig
from sltfast.sampler.engines.build import EngineBuilder
from sltfast.sampler.engines.choice import EngineChoice, choose
from sltfast.sampler.engines.engine import Engine
from sltfast.sampler.grouping import Classes, congruent, groups
from sltfast.sampler.lanes import Lanes
from sltfast.sampler.precision import compute_dtype

if TYPE_CHECKING:
    from sltfast.request import Request

CHECKED_LANES = 3
PARTS_AT = "lanes_part_at"


@dataclass
class Plan:
    """What was decided.

    Attributes:
        engines: the choice for each cell.
        chains_per_pass: chains of each restriction that go through the model together, by cell.
        groups: the passes; those of a group take each step one after another.
    """

    config: SamplerConfig
    engines: dict[int, EngineChoice]
    chains_per_pass: dict[int, int]
    groups: list[list[Lanes]]
    facts: dict[str, Any] = field(default_factory=dict)

    def record(self, cell: int, restriction: Restriction) -> dict[str, Any]:
        """What is kept with a cell's run."""
        engine = self.engines[cell]
        shared = next(lanes for group in self.groups for lanes in group if cell in lanes.cells)
        return {
            "engine": engine.name,
            "engine_reason": engine.why,
            "chains_per_pass": self.chains_per_pass[cell],
            "restrictions_per_pass": len(shared.parts),
            "update": "langevin_step_",
            "not_fused": why_not_fused(self.config, restriction),
            **engine.facts,
            **self.facts,
        }

    def text(self) -> str:
        """The plan in lines for a reader."""
        passes = sum(map(len, self.groups))
        lines = [f"passes: {passes} of {self.config.num_steps} steps, in {len(self.groups)} groups"]
        for cell, engine in self.engines.items():
            reason = f" ({engine.why})" if engine.why else ""
            lines.append(f"engine: {engine.name}{reason}, {self.chains_per_pass[cell]} chains per pass")
            lines += [f"  {name.replace('_', ' ')}: {value}" for name, value in engine.facts.items()]
        return "\n".join(dict.fromkeys(lines + [f"{k.replace('_', ' ')}: {v}" for k, v in self.facts.items()]))


class Planner:
    """Decides how the restrictions of a run go through the machine.

    Args:
        config: of the run.
        request: what was asked for.
        builder: of the engines.
        logits: why the losses need the model's logits, "" where they come from its hidden states.
    """

    def __init__(self, config: SamplerConfig, request: Request, builder: EngineBuilder, logits: str) -> None:
        self.config, self.request, self.builder, self.logits = config, request, builder, logits
        self._engines: dict[int, EngineChoice] = {}

    def plan(self, earlier: Mapping[int, Mapping[str, Any]]) -> Plan:
        """Decide, or take up what an interrupted run decided, so that it ends as it would have.

        Args:
            earlier: by cell, the plan on record.

        Raises:
            ValueError: the engine that was asked for cannot be used.
        """
        restrictions = self.builder.restrictions
        together = self.request.engine in ("auto", "stacked") and len(self.builder.streams) == 1
        classes: Classes = []
        for cells in congruent(restrictions) if together else [(cell,) for cell in range(len(restrictions))]:
            classes += self._chosen(cells, earlier)
        chains = {cell: self._chains(cell, earlier) for cell in range(len(restrictions))}
        beside: Classes = [cells for cells in classes if self._shares(cells[0])]
        if len(beside) < 2 or len({chains[cells[0]] for cells in beside}) > 1:
            beside = []
        alone = [cells for cells in classes if cells not in beside]
        passes = [group for cells in alone for group in groups([cells], self.config.num_chains, chains[cells[0]])]
        if beside:
            passes += groups(beside, self.config.num_chains, chains[beside[0][0]])
        return Plan(self.config, self._engines, chains, passes, {"logits": self.logits or "not formed"})

    def engine_for(self, lanes: Lanes) -> Engine:
        """The engine of a pass."""
        return self.builder.build(self._engines[lanes.cells[0]].name, lanes.cells, len(lanes.parts[0].chains))

    def _chosen(self, cells: tuple[int, ...], earlier: Mapping[int, Mapping[str, Any]]) -> Classes:
        """Choose an engine for congruent cells; they come back one by one where they cannot share it."""
        if all(cell in earlier and earlier[cell]["restrictions_per_pass"] == len(cells) for cell in cells):
            for cell in cells:
                known = earlier[cell]
                facts = {PARTS_AT: known[PARTS_AT]} if PARTS_AT in known else {}
                self._engines[cell] = EngineChoice(known["engine"], known["engine_reason"], facts)
            return [cells]
        lanes = min(self.config.num_chains, 1 if len(cells) > 1 else CHECKED_LANES)
        try:
            choice = choose(
                "stacked" if len(cells) > 1 else self.request.engine,
                self.config,
                self.builder.clone,
                lambda name: self.builder.build(name, cells, lanes),
                lambda engine: self.builder.disagreement(engine, cells, lanes),
            )
        except ValueError:
            if len(cells) == 1:
                raise
            return [one for cell in cells for one in self._chosen((cell,), earlier)]
        self._engines |= dict.fromkeys(cells, choice)
        return [cells]

    def _chains(self, cell: int, earlier: Mapping[int, Mapping[str, Any]]) -> int:
        """Chains of a cell that go together."""
        if self._engines[cell].name == "sequential":
            return 1
        if self.request.chains_per_pass is not None:
            return min(self.request.chains_per_pass, self.config.num_chains)
        return int(earlier[cell]["chains_per_pass"]) if cell in earlier else self.config.num_chains

    def _shares(self, cell: int) -> bool:
        """Whether lanes of a cell part later than at the model's input."""
        return not str(self._engines[cell].facts.get(PARTS_AT, "the model's input")).startswith("the model's input")


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
