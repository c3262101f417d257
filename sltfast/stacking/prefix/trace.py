"""What a forward does: its module calls in order, and which of their arguments grow with the batch.

Whether a tensor carries the batch cannot be told from one size (a mask [T, T] where T equals the rows), so the forward
is run at two batch sizes and the shapes are compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from sltfast.stacking.prefix.tensors import Path, arguments_of

Run = Callable[[int], Any]  # runs the model on that many rows
SIZES = (2, 3)  # neither is 1, which broadcasts, and neither divides the other


class Rows(NamedTuple):
    """A tensor carries the batch: its size along ``dim`` is ``times`` · rows."""

    dim: int
    times: int


class Call:
    """One call of a module.

    Attributes:
        name: of the module, its first in ``named_modules``: the same in every clone.
        parent: the call inside which it happened, or None.
        entered, left: its place among all entries and exits.
        arguments: path -> tensor, as given.
        rows: path -> Rows of the arguments that carry the batch; ``still`` are the paths of those that do not.
        hidden: path of the first floating-point argument that carries the batch, or None.
        puzzling: an argument that grows with the batch, but not in proportion along one dimension.
        random: the forward had drawn random numbers before it.
        moved: an argument depends on a weight that moves.
        flops: of matrix products and convolutions, spent before it.
        inputs: how many arguments it was given, tensors or not.
        outputs: path -> tensor that it returned.
    """

    def __init__(self, name: str, parent: Call | None, entered: int) -> None:
        self.name, self.parent, self.entered = name, parent, entered
        self.left = -1
        self.arguments: dict[Path, Tensor] = {}
        self.rows: dict[Path, Rows] = {}
        self.still: set[Path] = set()
        self.hidden: Path | None = None
        self.puzzling = self.random = self.moved = False
        self.flops = self.inputs = 0
        self.outputs: dict[Path, Tensor] = {}

    def ancestors(self) -> Iterable[Call]:
        """The calls around it, from the inside out."""
        call = self.parent
        while call is not None:
            yield call
            call = call.parent

    def forget_tensors(self) -> None:
        """Let go of arguments and outputs; what was learned from them stays."""
        self.arguments, self.outputs = {}, {}


Outline = tuple[tuple[str, frozenset[Path]], ...]
"""Of a forward: its module calls in order, each with where its arguments hold tensors."""


class Trace(NamedTuple):
    """Calls in order of entry, the FLOPs of the whole forward, and what it returned for ``SIZES[0]`` rows."""

    calls: list[Call]
    flops: int
    returned: Any

    def is_like(self, outline: Outline) -> bool:
        """Whether a forward of other rows, longer ones say, makes these very calls: what was learned holds for it."""
        one_a_row = all(rows.times == 1 for call in self.calls for rows in call.rows.values())
        told = tuple((call.name, frozenset(call.rows.keys() | call.still)) for call in self.calls)
        return one_a_row and told == outline


@contextmanager
def outlined(model: nn.Module) -> Iterator[list[tuple[str, frozenset[Path]]]]:
    """Note the outline of the forwards inside."""
    calls: list[tuple[str, frozenset[Path]]] = []

    def noting(name: str) -> Callable[..., None]:
        def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            calls.append((name, frozenset(arguments_of(args, kwargs))))

        return enter

    handles = [m.register_forward_pre_hook(noting(name), with_kwargs=True) for name, m in model.named_modules()]
    try:
        yield calls
    finally:
        for handle in handles:
            handle.remove()


def trace(model: nn.Module, run: Run, moving: Iterable[nn.Parameter], device: torch.device) -> Trace | str:
    """Run the model at two batch sizes and compare; a string says why that tells nothing."""
    with _only_requiring_grad(model, moving), torch.enable_grad():
        first = _recorded(model, run, SIZES[0], device)
    with torch.no_grad():
        second = _recorded(model, run, SIZES[1], device)
    if [call.name for call in first.calls] != [call.name for call in second.calls]:
        return "the forward calls other modules when the number of rows changes"
    for one, other in zip(first.calls, second.calls, strict=True):
        _compare(one, other)
    return first


def _compare(one: Call, other: Call) -> None:
    if one.arguments.keys() != other.arguments.keys():
        one.puzzling = True
        return
    for path, tensor in one.arguments.items():
        rows = _rows(tensor.shape, other.arguments[path].shape)
        if rows is None:
            one.puzzling = True
        elif rows.times == 0:
            one.still.add(path)
        else:
            one.rows[path] = rows
            if one.hidden is None and tensor.is_floating_point():
                one.hidden = path


def _rows(small: torch.Size, large: torch.Size) -> Rows | None:
    if small == large:
        return Rows(0, 0)
    differing = [k for k, (a, b) in enumerate(zip(small, large, strict=False)) if a != b]
    if len(small) != len(large) or len(differing) != 1:
        return None
    dim = differing[0]
    times = small[dim] // SIZES[0]
    return Rows(dim, times) if (small[dim], large[dim]) == (times * SIZES[0], times * SIZES[1]) else None


@contextmanager
def _only_requiring_grad(model: nn.Module, moving: Iterable[nn.Parameter]) -> Iterator[None]:
    chosen = {id(parameter) for parameter in moving}
    before = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        for parameter, _ in before:
            parameter.requires_grad_(id(parameter) in chosen and parameter.is_floating_point())
        yield
    finally:
        for parameter, required in before:
            parameter.requires_grad_(required)


def _random_state(device: torch.device) -> Tensor:
    return torch.cuda.get_rng_state(device) if device.type == "cuda" else torch.get_rng_state()


def _recorded(model: nn.Module, run: Run, rows: int, device: torch.device) -> Trace:
    calls: list[Call] = []
    stack: list[Call] = []
    names = {id(module): name for name, module in model.named_modules()}
    clock = 0
    watched = any(module.training for module in model.modules())
    before = _random_state(device)

    def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        nonlocal clock
        call = Call(names[id(module)], stack[-1] if stack else None, clock)
        clock += 1
        call.arguments, call.inputs = arguments_of(args, kwargs), len(args) + len(kwargs)
        call.moved = any(tensor.requires_grad for tensor in call.arguments.values())
        call.random = watched and not torch.equal(before, _random_state(device))
        call.flops = counter.flops
        calls.append(call)
        stack.append(call)

    def leave(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        nonlocal clock
        call = stack.pop()
        call.left = clock
        clock += 1
        call.outputs = arguments_of((output,), {})

    handles = [module.register_forward_pre_hook(enter, with_kwargs=True) for module in model.modules()]
    handles += [module.register_forward_hook(leave) for module in model.modules()]
    try:
        with _Flops() as counter:
            returned = run(rows)
    finally:
        for handle in handles:
            handle.remove()
    return Trace(calls, counter.flops, returned)


class _Flops(TorchDispatchMode):
    """Counts the FLOPs of matrix products, convolutions and attention."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # else the first op in the mode imports torch's compiler: a second, and 75 MB

    def __init__(self) -> None:
        super().__init__()
        from torch.utils.flop_counter import flop_registry, sdpa_flop_count  # loads triton where there is one

        self._counts, self._of_attention = flop_registry, sdpa_flop_count
        self.flops = 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operator and add its FLOPs."""
        output = function(*args, **(kwargs or {}))
        packet = function._overloadpacket
        if packet in self._counts:
            self.flops += self._counts[packet](*args, **(kwargs or {}), out_val=output)
        elif "token_loss" in str(packet) and "backward" not in str(packet):
            self.flops += 2 * args[0].numel() * args[1].shape[-2]  # hidden states times the unembedding
        elif packet is torch.ops.aten._scaled_dot_product_flash_attention_for_cpu:
            self.flops += self._of_attention(args[0].shape, args[1].shape, args[2].shape)
        return output
