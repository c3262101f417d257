"""How a run goes through the machine: which engine, how many chains together, which passes step in step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from sltfast.arena import LOW_PRECISION
from sltfast.ops.grouped_gradient_step import epilogue_refusal
from sltfast.restriction import Restriction
from sltfast.sampler.budget import readable
from sltfast.sampler.capture import CAPTURED, capture_refusal
from sltfast.sampler.config import SamplerConfig
from sltfast.sampler.engines.build import EngineBuilder
from sltfast.sampler.engines.choice import COMPILED, EngineChoice, choose
from sltfast.sampler.engines.engine import Engine
from sltfast.sampler.grouping import Classes, congruent, groups
from sltfast.sampler.lanes import Lanes
from sltfast.sampler.precision import compute_dtype
from sltfast.sampler.shortage import first_line, give_back, ran_out_of_memory
from sltfast.sampler.sizing import PassBytes, Sizing

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
        not_captured: why their steps are not captured, "" where they are.
    """

    config: SamplerConfig
    engines: dict[int, EngineChoice]
    chains_per_pass: dict[int, int]
    groups: list[list[Lanes]]
    not_captured: str
    facts: dict[str, Any] = field(default_factory=dict)

    def record(self, cell: int, restriction: Restriction) -> dict[str, Any]:
        """What is kept with a cell's run."""
        engine = self.engines[cell]
        shared = next(lanes for group in self.groups for lanes in group if cell in lanes.cells)
        return {
            "engine": engine.name,
            "engine_reason": engine.why,
            "chains_per_pass": self.chains_per_pass[cell],
            "passes": self.passes(cell),
            "restrictions_per_pass": len(shared.parts),
            "beside_others": any(len(group) > 1 for group in self.groups if shared in group),
            "update": "langevin_step_",
            "not_fused": why_not_fused(self.config, restriction),
            **engine.facts,
            **self.facts,
        }

    def passes(self, cell: int) -> list[list[int]]:
        """First and last-plus-one chain of each pass of a cell."""
        parts = [part for group in self.groups for lanes in group for part in lanes.parts if part.cell == cell]
        return [[part.chains.start, part.chains.stop] for part in parts]

    def text(self) -> str:
        """The plan in lines for a reader."""
        passes = sum(map(len, self.groups))
        lines = [f"passes: {passes} of {self.config.num_steps} steps, in {len(self.groups)} groups"]
        for cell, engine in self.engines.items():
            reason = f" ({engine.why})" if engine.why else ""
            lines.append(f"engine: {engine.name}{reason}, {self.chains_per_pass[cell]} chains per pass")
            lines += [f"  {_line(name, value)}" for name, value in engine.facts.items()]
        return "\n".join(dict.fromkeys(lines + [_line(name, value) for name, value in self.facts.items()]))


def _line(name: str, value: Any) -> str:
    """A fact for a reader; what counts bytes is called ``…_bytes``."""
    show = readable if name.endswith("_bytes") else (lambda one: f"{one:.4g}" if isinstance(one, float) else str(one))
    words = name.removesuffix("_bytes").replace("_", " ")
    if isinstance(value, dict):
        return f"{words}: " + ", ".join(f"{part.replace('_', ' ')} {show(one)}" for part, one in value.items())
    return f"{words}: {'not measured (plan=True does)' if value is None else show(value)}"


class Planner:
    """Decides how the restrictions of a run go through the machine.

    Args:
        config: of the run.
        request: what was asked for.
        builder: of the engines.
        sizing: of passes.
        logits: why the losses need the model's logits, "" where they come from its hidden states.
    """

    def __init__(
        self, config: SamplerConfig, request: Request, builder: EngineBuilder, sizing: Sizing, logits: str
    ) -> None:
        self.config, self.request, self.builder, self.logits = config, request, builder, logits
        self.sizing = sizing
        self._engines: dict[int, EngineChoice] = {}

    def plan(self, earlier: Mapping[int, Mapping[str, Any]]) -> Plan:
        """Decide, or take up what an interrupted run decided, so that it ends as it would have.

        Args:
            earlier: by cell, the plan on record.

        Raises:
            ValueError: the engine that was asked for cannot be used.
        """
        restrictions = self.builder.restrictions
        together = (
            self.request.engine in ("auto", "stacked") and not self.request.compile and len(self.builder.streams) == 1
        )
        classes: Classes = []
        for cells in congruent(restrictions) if together else [(cell,) for cell in range(len(restrictions))]:
            classes += self._chosen(cells, earlier)
        sharing = [cells for cells in classes if self._shares(cells[0])]
        beside = [cells for cells in sharing if earlier.get(cells[0], {}).get("beside_others", True)]
        beside = beside if len(beside) > 1 else []
        chains: dict[int, int] = {}
        for cells in classes:
            chains |= dict.fromkeys(cells, self._chains(cells, earlier, clocked=cells not in beside))
        beside = self._fitting(beside, chains, earlier)
        alone = [cells for cells in classes if cells not in beside]
        passes = [group for cells in alone for group in groups([cells], self._spans(cells, chains, earlier))]
        together_bytes = [[self._bytes(cells, chains)] for cells in alone]
        if beside:
            passes += groups(beside, self._spans(beside[0], chains, earlier))
            together_bytes.append([self._bytes(cells, chains) for cells in beside])
        together = any(len(group) > 1 for group in passes)
        not_captured = capture_refusal(self.request.step_capture, self.config, self.builder.device, alone=not together)
        facts = {"logits": self.logits or "not formed", "step_capture": not_captured or CAPTURED}
        facts |= self.sizing.facts(together_bytes)
        return Plan(self.config, self._engines, chains, passes, not_captured, facts)

    def _spans(self, cells: tuple[int, ...], chains: Mapping[int, int], earlier: Mapping[int, Any]) -> list[range]:
        """The chains of each pass: as on record, else so many at a time."""
        cell, total = cells[0], self.config.num_chains
        if cell in earlier and self.request.chains_per_pass is None:
            return [range(*span) for span in earlier[cell]["passes"]]
        return [range(start, min(start + chains[cell], total)) for start in range(0, total, chains[cell])]

    def _bytes(self, cells: tuple[int, ...], chains: Mapping[int, int]) -> PassBytes:
        return self.sizing.pass_bytes(cells, self._engines[cells[0]].name, chains[cells[0]])

    def _fitting(self, beside: Classes, chains: dict[int, int], earlier: Mapping[int, Any]) -> Classes:
        """Of passes that could go beside each other: all, with as many chains as they have room for together, or none.

        What is on record or was asked for keeps its chains.
        """
        fixed = self.request.chains_per_pass is not None or any(cells[0] in earlier for cells in beside)
        while beside:
            counts = {chains[cells[0]] for cells in beside}
            least = min(counts)
            if len(counts) == 1 and self.sizing.fit([self._bytes(cells, chains) for cells in beside]):
                return beside
            if fixed or counts == {1}:
                return []
            fewer = least if len(counts) > 1 else least // 2
            chains |= dict.fromkeys((cell for cells in beside for cell in cells), fewer)
        return []

    def engine_for(self, lanes: Lanes) -> Engine:
        """The engine of a pass."""
        return self.builder.build(self._engines[lanes.cells[0]].name, lanes.cells, len(lanes.parts[0].chains))

    def make_room(self) -> None:
        """Memory ran out: keep no activations from now on."""
        self.builder.memo.clear()
        self.builder.memo.budget = 0

    def fall_back(self, cell: int, why: str) -> bool:
        """Run a cell's chains one after another from now on, unless an engine was asked for; whether it does."""
        if self.request.engine != "auto":
            return False
        self._engines[cell] = EngineChoice("sequential", f"out of memory: {why}", {})
        return True

    def same_layout(self, cell: int) -> bool:
        """Whether the sequential engine keeps a cell's weights as the others do: whole tensors, not rectangles."""
        return all(segment.whole for segment in self.builder.restrictions[cell].segments)

    def _chosen(self, cells: tuple[int, ...], earlier: Mapping[int, Mapping[str, Any]]) -> Classes:
        """Choose an engine for congruent cells; they come back one by one where they cannot share it."""
        if all(cell in earlier and earlier[cell]["restrictions_per_pass"] == len(cells) for cell in cells):
            for cell in cells:
                known = earlier[cell]
                facts = {name: known[name] for name in (PARTS_AT, "out_of_memory") if name in known}
                self._engines[cell] = EngineChoice(known["engine"], known["engine_reason"], facts)
            return [cells]
        count = earlier.get(cells[0], {}).get("restrictions_per_pass", len(cells))
        if count < len(cells):  # an earlier call had no room for all of them
            parts = [cells[start : start + count] for start in range(0, len(cells), count)]
            return [one for part in parts for one in self._chosen(part, earlier)]
        lanes = 1 if len(cells) > 1 else self.sizing.trial_chains(cells, CHECKED_LANES)
        try:
            with self.sizing.watched():
                choice = self._tried(cells, lanes)
        except ValueError:
            if len(cells) == 1:
                raise
            return [one for cell in cells for one in self._chosen((cell,), earlier)]
        self._engines |= dict.fromkeys(cells, choice)
        return [cells]

    def _tried(self, cells: tuple[int, ...], lanes: int) -> EngineChoice:
        """The engine to take, tried with so many lanes, or half as many where memory runs out."""
        try:
            return choose(
                self._requested(cells),
                self.config,
                self.builder.clone,
                lambda name: self.builder.build(name, cells, lanes),
                lambda engine: self.builder.disagreement(engine, cells, lanes),
                fewest=lanes == 1,
            )
        except Exception as error:
            if lanes == 1 or not ran_out_of_memory(error):
                raise
            self.sizing.ran_out(lanes, first_line(error))
        give_back(self.builder.device)
        return self._tried(cells, min(lanes // 2, self.sizing.most))

    def _requested(self, cells: tuple[int, ...]) -> str:
        if len(cells) > 1:
            return "stacked"
        return COMPILED if self.request.compile and self.request.engine == "auto" else self.request.engine

    def _chains(self, cells: tuple[int, ...], earlier: Mapping[int, Mapping[str, Any]], *, clocked: bool) -> int:
        """Chains of each of these cells that go together; the clock may have another engine run them."""
        cell = cells[0]
        choice = self._engines[cell]
        if cell in earlier and self.request.chains_per_pass is None:
            return int(earlier[cell]["chains_per_pass"])
        clocked = clocked and not self.request.compile  # each size would be compiled anew
        others = self.request.engine == "auto" and len(cells) == 1 and not self._shares(cell)
        try:
            taken, facts = self.sizing.taken(cells, choice.name, clocked=clocked, others=others)
        except Exception as error:
            alone = len(cells) > 1 or choice.name == "sequential"
            if alone or not ran_out_of_memory(error) or not self.fall_back(cell, first_line(error)):
                raise
            self.sizing.ran_out(1, first_line(error))
            return self._chains(cells, earlier, clocked=clocked)
        if self.sizing.shortages:
            facts |= {"out_of_memory": list(self.sizing.shortages)}
        if taken.engine != choice.name:
            choice = EngineChoice(taken.engine, f"measured to be faster than {choice.name!r}", {})
        self._engines |= dict.fromkeys(cells, choice._replace(facts={**choice.facts, **facts}))
        return taken.chains

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
