"""A step as one launch: forward, backward and update recorded as a CUDA graph, and replayed.

Everything a step reads that changes lies on the device in the same place: weights, step index, chains and
hyperparameters are written in place, batches are copied into the graph's inputs. What it returns is copied out: the
next replay writes there again.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from sltfast.sampler.config import SamplerConfig
from sltfast.sampler.shortage import ran_out_of_memory

StepCaptureSetting = Literal["auto", True, False]
WARM_UP = 3  # steps that are taken as they come: libraries choose algorithms, a stack settles its rungs
CAPTURED = "one CUDA graph a batch shape"


class Graphs(Protocol):
    """What records work and does it again."""

    def warm(self, run: Callable[[], Any]) -> Any:
        """Run as a recording would be run, but do it."""

    def record(self, run: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        """(replay, outputs): nothing is done until ``replay``, which writes the outputs in place."""


class CudaGraphs:
    """CUDA graphs, recorded on a side stream.

    Args:
        device: theirs.
    """

    def __init__(self, device: torch.device) -> None:
        self.device, self.stream = device, torch.cuda.Stream(device)

    def warm(self, run: Callable[[], Any]) -> Any:
        """On the side stream, between what the present stream does before and after."""
        present = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(present)
        with torch.cuda.stream(self.stream):
            result = run()
        present.wait_stream(self.stream)
        for leaf in pytree.tree_leaves(result):
            if isinstance(leaf, Tensor):
                leaf.record_stream(present)
        return result

    def record(self, run: Callable[[], Any]) -> tuple[Callable[[], None], Any]:
        """Gradients and activations get memory of the graph's own."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, stream=self.stream):
            result = run()
        return graph.replay, result


class _Recorded(NamedTuple):
    """A graph with the places that it reads and writes."""

    replay: Callable[[], None]
    inputs: list[Tensor]
    outputs: Any


class StepCapture:
    """Takes steps: the first few as they come, later ones by replay, a graph for every shape of batches.

    Args:
        graphs: what records; None: nothing is recorded.
        reason: why nothing is.
        abandon: clears what a step that was broken off leaves behind.
        told: called with the reason when recording turns out to be impossible.

    Attributes:
        reason: why steps are not captured, "" while they are.
    """

    def __init__(
        self,
        graphs: Graphs | None,
        reason: str = "",
        *,
        abandon: Callable[[], object] = lambda: None,
        told: Callable[[str], None] = lambda reason: None,
    ) -> None:
        self.graphs, self.reason, self.abandon, self.told = graphs, reason, abandon, told
        self._warmed: dict[Hashable, int] = {}
        self._recorded: dict[Hashable, _Recorded] = {}

    def __call__(self, run: Callable[[Any], Any], given: Any) -> Any:
        """``run(given)``: tensors, nested, from tensors, nested; what comes back is nobody else's."""
        if self.graphs is None:
            return run(given)
        leaves, structure = pytree.tree_flatten(given)
        tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
        key = (str(structure), *(_described(leaf) for leaf in leaves))
        if key not in self._recorded:
            if self._warmed.get(key, 0) < WARM_UP:
                self._warmed[key] = self._warmed.get(key, 0) + 1
                return self.graphs.warm(lambda: run(given))
            if not self._record(key, run, leaves, structure):
                return run(given)
        recorded = self._recorded[key]
        for place, tensor in zip(recorded.inputs, tensors, strict=True):
            place.copy_(tensor, non_blocking=True)
        recorded.replay()
        return pytree.tree_map_only(Tensor, torch.clone, recorded.outputs)

    def _record(self, key: Hashable, run: Callable[[Any], Any], leaves: list[Any], structure: Any) -> bool:
        assert self.graphs is not None
        places = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        try:
            replay, outputs = self.graphs.record(lambda: run(pytree.tree_unflatten(places, structure)))
        except Exception as error:
            if ran_out_of_memory(error):
                self.abandon()
                raise
            message = str(error).splitlines()[0] if str(error) else ""
            self.reason, self.graphs = f"a step cannot be recorded ({type(error).__name__}: {message})", None
            self._recorded.clear()
            self.abandon()
            self.told(self.reason)
            return False
        self._recorded[key] = _Recorded(replay, [p for p in places if isinstance(p, Tensor)], outputs)
        return True


def _described(leaf: Any) -> Hashable:
    return (tuple(leaf.shape), leaf.dtype, leaf.stride()) if isinstance(leaf, Tensor) else leaf


def capture_refusal(setting: StepCaptureSetting, config: SamplerConfig, device: torch.device, *, alone: bool) -> str:
    """Why the steps of a run are not captured, "" where they are.

    Args:
        setting: ``step_capture`` of ``sltfast.sample``.
        config: the run's.
        device: where.
        alone: no passes take their steps together.

    Raises:
        ValueError: capture is demanded (True) and impossible.
    """
    if setting is False:
        return "not asked for"
    reason = ""
    if device.type != "cuda":
        reason = f"graphs are CUDA's, and this device is {device.type}"
    elif config.mode == "train":
        reason = "mode='train' seeds random numbers anew at every step"
    elif not alone:
        reason = "passes that step together read each other's memory, which moves from step to step"
    if reason and setting is True:
        raise ValueError(f"step_capture=True is impossible here: {reason} (step_capture='auto' goes on without)")
    return reason
