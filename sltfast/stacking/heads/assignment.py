"""Which heads a lane owns, and where in the moving segments their weights lie."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sltfast.restriction import Restriction, Segment
from sltfast.stacking.heads.layout import ROLES, HeadLayout, Projection

Place = tuple[int, int]  # (leaf, first feature in it)
Moved = dict[tuple[str, str], dict[int, Place]]  # (role, weight or bias) -> head -> place
KINDS = ("weight", "bias")


class NotHeads(Exception):
    """The restrictions are no heads of one attention, or of one that is not understood."""


@dataclass(frozen=True)
class Assignment:
    """Heads of R restrictions, congruent.

    Attributes:
        queries: [R][n], the query heads whose output moves; where not all move by weights of their own but some by the
            keys that they read, those with weights of their own come first.
        keys: [R][m], the key and value heads that they read.
        places: (role, "weight" or "bias") of what moves -> (leaf, first feature) of the first of a lane's heads: of all
            its keys or values, of all or some of its queries and of what the output projection ("o") reads of them.
    """

    queries: tuple[tuple[int, ...], ...]
    keys: tuple[tuple[int, ...], ...]
    places: dict[tuple[str, str], tuple[Place, ...]]

    def moving(self, role: str) -> int:
        """How many of a lane's heads move by this role's weights."""
        return max(len(self.places.get((role, kind), ())) for kind in KINDS)

    def heads(self, role: str) -> tuple[tuple[int, ...], ...]:
        """[R][heads] that a lane has in a role."""
        return self.queries if role in ("q", "o") else self.keys


def assign(layout: HeadLayout, attention: str, restrictions: Sequence[Restriction]) -> Assignment:
    """The heads that every restriction moves.

    Args:
        layout: of the attention.
        attention: its name in the model.
        restrictions: congruent ones, segments in ``named_parameters`` order.

    Raises:
        NotHeads: a restriction moves something else than whole heads, or unequal parts of them.
    """
    patterns, queries, keys = [], [], []
    for restriction in restrictions:
        moved = _moved(layout, attention, restriction)
        reached, own = _reached(layout, moved)
        read = tuple(sorted({head * layout.kv_heads // layout.heads for head in reached}))
        lists = {"q": own, "k": read, "v": read, "o": own}
        if own and len(own) < len(reached) and len(read) > 1:
            raise NotHeads(
                f"of heads {list(reached)}, which read {len(read)} key heads, {list(own)} have other weights"
            )
        patterns.append({key: _places(key, units, lists[key[0]]) for key, units in moved.items()})
        queries.append((*own, *(head for head in reached if head not in own)))
        keys.append(read)
    if (
        any(pattern != patterns[0] for pattern in patterns)
        or len({(len(q), len(k)) for q, k in zip(queries, keys, strict=True)}) > 1
    ):
        raise NotHeads("the restrictions take their heads from the weights in different ways")
    if len(queries[0]) % len(keys[0]):
        raise NotHeads(f"{len(queries[0])} query heads read {len(keys[0])} key heads unevenly")
    return Assignment(tuple(queries), tuple(keys), patterns[0])


def _moved(layout: HeadLayout, attention: str, restriction: Restriction) -> Moved:
    moved: Moved = {}
    for leaf, segment in enumerate(restriction.segments):
        projection, kind, roles = _owner(layout, attention, segment)
        if segment.mask is not None:
            raise NotHeads(f"{segment.name} moves under a mask that is no rectangle")
        start, stop = _features(projection, kind, roles, segment)
        left = stop - start
        for role in roles:
            for head in range(layout.count("q" if role in ("q", "o") else role)):
                first = head * layout.head_dim if role == "o" else layout.start(role, head)
                if start <= first and first + layout.head_dim <= stop:
                    moved.setdefault((role, kind), {})[head] = (leaf, first - start)
                    left -= layout.head_dim
        if left:
            raise NotHeads(f"features {start}..{stop} of {segment.name} are no whole heads")
    return moved


def _owner(layout: HeadLayout, attention: str, segment: Segment) -> tuple[Projection, str, tuple[str, ...]]:
    path, _, kind = segment.name.rpartition(".")
    for projection in {p.name: p for p in (*layout.inputs.values(), layout.output)}.values():
        if path == f"{attention}.{projection.name}" and kind in KINDS:
            if projection is layout.output:
                if kind == "bias":
                    raise NotHeads(f"{segment.name} belongs to no head")
                return projection, kind, ("o",)
            return projection, kind, tuple(role for role in ROLES if layout.inputs[role].name == projection.name)
    raise NotHeads(f"{segment.name} is no projection of {attention}")


def _features(projection: Projection, kind: str, roles: tuple[str, ...], segment: Segment) -> tuple[int, int]:
    if kind == "bias":
        return segment.rows
    along_rows = projection.transposed == (roles == ("o",))
    moving, across = (segment.rows, segment.columns) if along_rows else (segment.columns, segment.rows)
    full = projection.out_features if roles == ("o",) else projection.in_features
    if across != (0, full):
        raise NotHeads(f"{segment.name} moves in part of what its heads read or write")
    return moving


def _reached(layout: HeadLayout, moved: Moved) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Query heads whose output moves, and those of them that move by weights of their own."""
    group = layout.heads // layout.kv_heads
    own = {head for (role, _), heads in moved.items() for head in heads if role in ("q", "o")}
    keys = {head for (role, _), heads in moved.items() for head in heads if role in ("k", "v")}
    reached = own | {key * group + i for key in keys for i in range(group)}
    return tuple(sorted(reached)), tuple(sorted(own))


def _places(key: tuple[str, str], units: dict[int, Place], heads: tuple[int, ...]) -> tuple[Place, ...]:
    if tuple(sorted(units)) != heads:
        raise NotHeads(f"the {key[1]} of role {key[0]} moves in heads {sorted(units)}, others in heads {list(heads)}")
    return tuple(units[head] for head in heads)
