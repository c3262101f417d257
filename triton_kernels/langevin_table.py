"""What a launch of `langevin_kernel` reads from memory besides the tensors: where they are.

Built once for each set of tensors and settings, kept, and copied from pinned memory without waiting for the device.
"""

import struct
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

CELLS = 2048  # programs of all launches together that may keep sums
PROGRAMS = 1 << 16  # of a launch that keeps none
BUSY = 1024  # programs below which chains are spread over more of them
KINDS = {torch.float32: "f32", torch.float64: "f64", torch.bfloat16: "bf16", torch.float16: "f16"}
_KEPT = 64
_PINNED_WORDS = 1 << 16


class Operands(NamedTuple):
    """The tensors of each segment; an empty list where the op was given none."""

    grads: Sequence[Tensor]
    anchors: Sequence[Tensor]
    low: Sequence[Tensor]
    masks: Sequence[Tensor]
    noise: Sequence[Tensor]


class Launch(NamedTuple):
    """One launch: segments whose tensors have the same dtypes."""

    table: Tensor  # int64
    tiles: Tensor  # int32
    grid: tuple[int, int]
    kinds: tuple[str, str, str, str]  # of grads, anchors, low, noise


class Plan(NamedTuple):
    """The launches of a step, and the sizes of what they share."""

    launches: tuple[Launch, ...]
    cells: int
    groups: int  # of chains: ticket counters


def bits_of(x: float) -> int:
    """A float64 as the int64 of the same bits."""
    bits: int = struct.unpack("<q", struct.pack("<d", x))[0]
    return bits


def plan_step(
    w: Tensor,
    state: Tensor | None,
    segments: list[list[int]],
    operands: Operands,
    settings: tuple[int, int, float, float, float],
    tile: int,
    sums: bool,
) -> Plan:
    """Group segments by dtypes, cut them into tiles and write the tables.

    Args:
        w: [C, P].
        state: [C, P] or None.
        segments: rows of the op's table.
        operands: contiguous tensors.
        settings: seed, stream, α, eps, A.
        tile: coordinates of a tile.
        sums: programs keep sums, so there are at most CELLS of them.
    """
    count, row = w.shape
    groups: dict[tuple[str, str, str, str], list[int]] = {}
    for s, segment in enumerate(segments):
        if segment[1]:
            kinds = [_kind(tensors, s) for tensors in (operands.grads, operands.anchors, operands.low, operands.noise)]
            groups.setdefault((kinds[0], kinds[1], kinds[2], kinds[3]), []).append(s)
    if not groups or not count:
        return Plan((), 0, 0)
    most = max(1, CELLS // len(groups)) if sums else PROGRAMS
    tiles_of = {kinds: sum(-(-segments[s][1] // tile) for s in members) for kinds, members in groups.items()}
    programs = {kinds: min(tiles, most) for kinds, tiles in tiles_of.items()}
    spread = min(count, max(1, BUSY // max(programs.values())))
    per_program = -(-count // spread)
    spread = -(-count // per_program)
    total, first_cell, launches = sum(programs.values()), 0, []
    seed, stream, alpha, eps, friction = settings
    for kinds, members in groups.items():
        words = [seed, stream, count, row, tiles_of[kinds], per_program, total, first_cell, total]
        words += [bits_of(alpha), bits_of(eps), bits_of(friction)]
        first_cell += programs[kinds]
        first_tile = 0
        for s in members:
            addresses = [_address(tensors, s) for tensors in operands]
            aligned = _aligned(w, state, segments[s], addresses)
            words += [*segments[s], first_tile, *addresses, int(aligned)]
            first_tile += -(-segments[s][1] // tile)
        lengths = torch.tensor([-(-segments[s][1] // tile) for s in members])
        tiles = torch.repeat_interleave(torch.arange(len(members), dtype=torch.int32), lengths)
        launches.append(
            Launch(_on_device(torch.tensor(words), w), _on_device(tiles, w), (programs[kinds], spread), kinds)
        )
    return Plan(tuple(launches), total, spread)


def _kind(tensors: Sequence[Tensor], s: int) -> str:
    if not tensors:
        return "none"
    return KINDS[tensors[s].dtype] if tensors[s].numel() else "f32"


def _address(tensors: Sequence[Tensor], s: int) -> int:
    return tensors[s].data_ptr() if tensors and tensors[s].numel() else 0


def _aligned(w: Tensor, state: Tensor | None, segment: list[int], addresses: list[int]) -> bool:
    """Do four coordinates of any chain lie together, 16-byte aligned at four bytes each, and share a Philox group?"""
    offset, numel, element, run, stride = segment
    rows = offset % 4 == 0 and (w.shape[0] == 1 or (w.shape[1] % 4 == 0 and numel % 4 == 0))
    noise = element % 4 == 0 and (run >= numel or (run % 4 == 0 and stride % 4 == 0))
    pointers = [w.data_ptr(), state.data_ptr() if state is not None else 0, *addresses]
    return rows and noise and all(pointer % 16 == 0 for pointer in pointers)


class _Pinned:
    """Pinned memory from which tables are copied while a CUDA graph is captured: a replay reads it again."""

    def __init__(self) -> None:
        self.words: Tensor | None = None
        self.used = 0

    def reserve(self) -> None:
        if self.words is None:
            self.words = torch.empty(_PINNED_WORDS, dtype=torch.int64, pin_memory=True)

    def keep(self, words: Tensor) -> Tensor:
        size = -(-words.numel() * words.element_size() // 8)
        if self.words is None or self.used + size > _PINNED_WORDS:
            raise RuntimeError(
                "no pinned memory is left to capture this step in a CUDA graph (take one step before capturing, with "
                "the tensors that the graph will use)"
            )
        kept = self.words[self.used : self.used + size].view(words.dtype)[: words.numel()]
        self.used += size
        return kept.copy_(words)


_pinned = _Pinned()


def _on_device(words: Tensor, like: Tensor) -> Tensor:
    if like.device.type != "cuda":
        return words.to(like.device)
    if torch.cuda.is_current_stream_capturing():
        return _pinned.keep(words).to(like.device, non_blocking=True)
    _pinned.reserve()
    return words.pin_memory().to(like.device, non_blocking=True)


class Kept:
    """The last plans made, by everything that went into them."""

    def __init__(self) -> None:
        self._plans: OrderedDict[Hashable, Plan] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Plan]) -> Plan:
        """The plan under `key`, made if it is new."""
        plan = self._plans.get(key)
        if plan is None:
            plan = self._plans[key] = make()
            if len(self._plans) > _KEPT:
                self._plans.popitem(last=False)
        else:
            self._plans.move_to_end(key)
        return plan
