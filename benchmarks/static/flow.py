"""Loops in machine code, found where a jump goes back to a block that every way to it has passed."""

import re
from collections.abc import Sequence
from typing import Protocol


class Jumps(Protocol):
    """What is asked of an instruction."""

    @property
    def name(self) -> str: ...
    @property
    def operands(self) -> str: ...
    @property
    def labels(self) -> tuple[str, ...]: ...
    @property
    def conditional(self) -> bool: ...


def _target(operands: str) -> str | None:
    found = re.search(r"`\((.+?)\)", operands)
    return found[1] if found else None


def successors(code: Sequence[Jumps]) -> list[list[int]]:
    """Instructions that may follow each; a call of a function returns, BSYNC goes on where its BSSY said."""
    at = {label: i for i, instruction in enumerate(code) for label in instruction.labels}
    joins = {x.operands.split(",")[0]: at[_target(x.operands) or ""] for x in code if x.name == "BSSY"}
    out = []
    for i, x in enumerate(code):
        after = [i + 1] if i + 1 < len(code) else []
        target = _target(x.operands)
        # on sm_80 a far jump out of a loop is written as a call of a place in the same kernel
        jumps = x.name in ("BRA", "BRX", "JMP") or (x.name == "CALL" and target is not None and target[:3] == ".L_")
        if jumps:
            inside = [at[target]] if target in at else []
            never_falls = not x.conditional and not re.match(r"!?U?P\d", x.operands) and "DIV" not in x.operands
            after = inside if never_falls else after + inside
        elif x.name in ("EXIT", "RET", "BREAK") and not x.conditional:
            after = []
        elif x.name == "BSYNC":
            after = after + [joins[x.operands.strip()]] if x.operands.strip() in joins else after
        out.append(after)
    return out


def _dominators(follow: list[list[int]]) -> list[set[int]]:
    before: list[list[int]] = [[] for _ in follow]
    for i, after in enumerate(follow):
        for j in after:
            before[j].append(i)
    reached, todo = {0}, [0]
    while todo:
        for j in follow[todo.pop()]:
            if j not in reached:
                reached.add(j)
                todo.append(j)
    everything = set(reached)
    out = [{0} if i == 0 else set(everything) for i in range(len(follow))]
    changed = True
    while changed:
        changed = False
        for i in sorted(reached - {0}):
            new = {i} | set.intersection(*(out[p] for p in before[i] if p in reached))
            changed |= new != out[i]
            out[i] = new
    return [out[i] if i in reached else set() for i in range(len(follow))]


def _blocks(follow: list[list[int]]) -> tuple[list[range], list[list[int]]]:
    """Straight stretches of code, and which stretches follow each."""
    heads = {0}
    for i, after in enumerate(follow):
        if after != [i + 1]:
            heads |= {*after, i + 1}
    starts = sorted(head for head in heads if head < len(follow))
    stretches = [range(a, b) for a, b in zip(starts, [*starts[1:], len(follow)], strict=True)]
    number = {stretch.start: n for n, stretch in enumerate(stretches)}
    return stretches, [[number[i] for i in follow[stretch[-1]]] for stretch in stretches]


def natural_loops(code: Sequence[Jumps]) -> list[tuple[int, tuple[int, ...], tuple[int, ...]]]:
    """(depth, instructions of it alone, instructions of the loops inside it), outermost first, in code order."""
    stretches, follow = _blocks(successors(code))
    before: list[list[int]] = [[] for _ in follow]
    for i, after in enumerate(follow):
        for j in after:
            before[j].append(i)
    dominators = _dominators(follow)
    bodies: dict[int, set[int]] = {}
    for tail, after in enumerate(follow):
        for head in after:
            if head not in dominators[tail]:
                continue
            body, todo = bodies.setdefault(head, {head}), [tail]
            while todo:
                block = todo.pop()
                if block not in body:
                    body.add(block)
                    todo += before[block]
    out = []
    for head, body in bodies.items():
        inside = set().union(*(other for h, other in bodies.items() if h != head and other < body))
        depth = sum(1 for h, other in bodies.items() if h != head and body < other)
        out.append((depth, head, body - inside, inside))

    def instructions(blocks: set[int]) -> tuple[int, ...]:
        return tuple(i for block in sorted(blocks) for i in stretches[block])

    return [
        (depth, instructions(own), instructions(inner)) for depth, _, own, inner in sorted(out, key=lambda x: x[:2])
    ]
