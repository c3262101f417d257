"""Watch a forward pass: every use of a selected parameter, and the gradient that later reaches its output."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from sltfast.arena import LOW_PRECISION
from sltfast.per_sample.uses import Use, Whole

Factor = Callable[[Tensor], Use]
Rule = Callable[..., Any]


class Captures(TorchFunctionMode):
    """A forward pass under this mode computes what it always does, with the selected parameters held constant where a
    rule knows their use: the rule notes how the output's gradient becomes factors of every item's gradient.

    A use that no rule knows stays an edge of autograd's graph to the parameter, so that none can be missed
    (``unknown``).

    Args:
        parameters: the selected ones by name, requiring gradients.
        batch: B, items of the batch.
        rules: by torch function; a rule returns NotImplemented where it does not apply.
        reduce: called once a parameter, with all its uses, as soon as the backward pass has met the last.
    """

    def __init__(
        self,
        parameters: Mapping[str, nn.Parameter],
        batch: int,
        rules: Mapping[Any, Rule],
        reduce: Callable[[str, list[Use]], None],
    ) -> None:
        super().__init__()
        self.batch, self.rules, self.reduce = batch, rules, reduce
        self.parameters = parameters
        self.names = {id(parameter): name for name, parameter in parameters.items()}
        self.derived: dict[int, tuple[Tensor, Tensor]] = {}  # id → (itself, kept alive; its per-item twin)
        self.anchor: Tensor | None = None
        self._expanded: dict[str, Tensor] = {}
        self._expected = dict.fromkeys(parameters, 0)
        self._arrived: dict[str, list[Use]] = {name: [] for name in parameters}
        self._unknown: set[str] = set()
        self._leaves: list[Tensor] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run ``func`` by its rule, or as it is."""
        rule = self.rules.get(func)
        if rule is not None:
            result = rule(self, func, *args, **(kwargs or {}))
            if result is not NotImplemented:
                return result
        return func(*args, **(kwargs or {}))

    def tracks(self, *values: Any) -> bool:
        """Whether any of the values is a selected parameter; without gradients its uses go to ``unknown``."""
        found = [self.names[id(value)] for value in values if id(value) in self.names]
        if found and not torch.is_grad_enabled():
            self._unknown.update(found)  # a recomputation to come (checkpointing) would use it unseen
            return False
        return bool(found)

    def held(self, value: Any) -> Any:
        """The value, a selected parameter as a constant."""
        return value.detach() if id(value) in self.names else value

    def watch(self, output: Tensor, factors: Iterable[tuple[Any, Factor]]) -> Tensor:
        """Note the uses behind ``output``: (parameter, gradient of the output → factors); others are ignored."""
        noted = [(self.names[id(value)], factor) for value, factor in factors if id(value) in self.names]
        if not output.requires_grad:
            if self.anchor is None:
                self.anchor = torch.zeros((), dtype=torch.float32, device=output.device, requires_grad=True)
            output = output + self.anchor.to(output.dtype)
        for name, _ in noted:
            self._expected[name] += 1

        def arrive(gradient: Tensor) -> None:
            if gradient.dtype in LOW_PRECISION:
                gradient = gradient.float()
            for name, factor in noted:
                self._arrive(name, factor, gradient)

        output.register_hook(arrive)
        return output

    def expanded(self, parameter: Tensor) -> Tensor:
        """The parameter once for every item, [B, *shape], a leaf without storage of its own."""
        name = self.names[id(parameter)]
        if name not in self._expanded:
            shape = (self.batch, *parameter.shape)
            self._expanded[name] = parameter.detach().expand(shape).requires_grad_()
            self._expected[name] += 1
        return self._expanded[name]

    def _arrive(self, name: str, factor: Factor, gradient: Tensor) -> None:
        if name in self._unknown:
            return
        uses = self._arrived[name]
        uses.append(factor(gradient))
        if len(uses) == self._expected[name]:
            self.reduce(name, uses)
            self._arrived[name] = []

    def unknown(self, output: Tensor) -> list[str]:
        """Selected parameters with a use that no rule took, found in the graph of ``output``."""
        stack, seen = [output.grad_fn], set()
        while stack:
            node = stack.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            leaf = getattr(node, "variable", None)
            if leaf is not None:
                self._leaves.append(leaf)
                name = self.names.get(id(leaf))
                if name is not None:
                    self._unknown.add(name)
            stack.extend(following for following, _ in node.next_functions)
        return [name for name in self.parameters if name in self._unknown]

    def backward(self, total: Tensor) -> None:
        """Pass back from ``total`` to every leaf that ``unknown`` met, reducing parameter after parameter.

        A hook runs only on the way to a leaf that is asked for, and a watched output may owe its gradient to any of
        them: a parameter without a rule, or a tensor of the caller's.
        """
        found = torch.autograd.grad(total, self._leaves, allow_unused=True) if self._leaves else ()
        gradients = dict(zip(map(id, self._leaves), found, strict=True))
        for name, leaf in self._expanded.items():
            gradient = gradients.get(id(leaf))
            if gradient is not None:
                self._arrive(name, lambda d: Whole(d.reshape(len(d), -1)), gradient)
        for name, uses in self._arrived.items():
            if uses:  # some use has no part in the loss
                self.reduce(name, uses)
        self._arrived.clear()
