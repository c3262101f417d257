"""What is known of a chain that diverged: where its weights are, and which setting to turn."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from sltfast.arena import Arena, Leaf
from sltfast.ops.langevin_arguments import MOMENTUM_METHODS, RMSPROP_METHODS
from sltfast.restriction.region import plane_of
from sltfast.sampler.config import SamplerConfig

TAIL = 3.0  # beyond the expected largest of so many normals: a chance of about 1e-3


class Coordinate(NamedTuple):
    """A coordinate of a stopped chain.

    Attributes:
        parameter: its name; ``place``: where it is in it.
        value: w there; ``distance``: |w − w*| there.
    """

    parameter: str
    place: tuple[int, ...]
    value: float
    distance: float

    def text(self) -> str:
        """It, for a reader."""
        at = f"[{', '.join(map(str, self.place))}]" if self.place else ""
        return f"{self.parameter}{at} = {self.value:.4g}, {self.distance:.3g} from w*"


def farthest(arena: Arena, lane: int) -> Coordinate:
    """The coordinate of a lane that is farthest from w*; a chain that was stopped stays where it was.

    Args:
        arena: with the lane's weights.
        lane: which.
    """
    found: Coordinate | None = None
    for block in arena.blocks:
        share = next(share for share in block.shares if share.lanes.start <= lane < share.lanes.stop)
        for index, leaf in enumerate(block.leaves):
            weights = block.rows(index)[lane].double()
            apart = (weights - share.anchors[index].double()).abs()
            if share.masks[index].numel():
                apart = apart.masked_fill(~share.masks[index].reshape(-1), -1.0)
            place = int(apart.argmax())
            if found is None or float(apart[place]) > found.distance:
                at = _index(leaf, lane // block.num_chains, place)
                found = Coordinate(leaf.name, at, float(weights[place]), float(apart[place]))
    assert found is not None
    return found


def _index(leaf: Leaf, restriction: int, place: int) -> tuple[int, ...]:
    """Where in its parameter a coordinate of a segment is."""
    segment = leaf.segments[restriction]
    width = segment.columns[1] - segment.columns[0]
    row, column = segment.rows[0] + place // width, segment.columns[0] + place % width
    flat = row * plane_of(segment.parameter.shape)[1] + column
    return tuple(int(one) for one in np.unravel_index(flat, segment.parameter.shape)) if segment.parameter.ndim else ()


def knob(config: SamplerConfig, chain: int, steps: int, distance: float, coordinates: int) -> str:
    """Which setting to turn, from how far the chain went.

    Noise alone takes no coordinate farther than √(G·ε·t)·σ·(√(2 ln d) + 3) in t steps, but for a chance of 1e-3 (G ≤
    1/eps under RMSprop; 1/friction times the variance with momentum): within it the loss is at fault where the noise
    leads, beyond it the step is. Without momentum the pull of γ and λ overshoots by itself where ε·G·(γ + λ)/2 ≥ 2.

    Args:
        config: the run's.
        chain: the one that was stopped.
        steps: t, that it made.
        distance: of its farthest coordinate.
        coordinates: d, that move.
    """
    lr, n_beta, localization, decay, noise, box = config.hyper(chain)
    gain = 1.0 / config.setting("eps") if config.method in RMSPROP_METHODS else 1.0
    memory = 1.0 / config.setting("friction") if config.method in MOMENTUM_METHODS else 1.0
    largest = math.sqrt(2.0 * math.log(max(2, coordinates))) + TAIL
    reach = math.sqrt(gain * memory * lr * max(1, steps)) * noise * largest + largest * (config.init_noise or 0.0)
    settings = f"(lr={lr:g}, n_beta={n_beta:g}, localization={localization:g})"
    pull = 0.5 * lr * gain * (localization + decay)
    if distance <= reach:
        return (
            f"noise alone leads as far ({reach:.3g} in {steps} steps), so the loss is not finite close to w*: check it "
            "and its precision; or keep the chains closer: raise localization, lower lr, or give a bounding_box_size "
            f"{settings}"
        )
    if memory == 1.0 and pull >= 2.0:
        return (
            f"lr·(localization + llc_weight_decay)/2 = {pull:.3g} is at least 2, so that the pull to w* overshoots by "
            f"itself: lower lr, or localization {settings}"
        )
    box_too = "" if math.isfinite(box) else ", or give a bounding_box_size"
    return f"the step overshoots: lower lr first, then n_beta or localization{box_too} {settings}"


def death(config: SamplerConfig, arena: Arena, lane: int, chain: int, step: int, loss: float) -> dict[str, Any]:
    """What is kept of a chain that was stopped, plain values.

    Args:
        config: the run's.
        arena: with its weights.
        lane: its lane.
        chain: it.
        step: at which it was stopped.
        loss: that it had there.
    """
    coordinate = farthest(arena, lane)
    size = sum(leaf.segments[lane // (arena.lanes // arena.num_restrictions)].moving for leaf in arena.leaves)
    return {
        "step": step,
        "loss": repr(loss),
        "parameter": coordinate.parameter,
        "index": list(coordinate.place),
        "value": coordinate.value,
        "distance": coordinate.distance,
        "where": coordinate.text(),
        "advice": knob(config, chain, step, coordinate.distance, size),
    }
