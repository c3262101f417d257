"""Arguments that carry the batch, given to each lane."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor

from sltfast.stacking.prefix.passing import Passing
from sltfast.stacking.prefix.tensors import Path, replaced, tensors_in
from sltfast.stacking.prefix.trace import Call, Rows


def tiled(tensor: Tensor, lanes: int, dim: int = 0) -> Tensor:
    """``tensor`` repeated along ``dim``, lane after lane: row b of lane l is row l·B + b."""
    return tensor.repeat([lanes if k == dim else 1 for k in range(tensor.ndim)])


class Growing:
    """The arguments of a module that carry the batch.

    Args:
        calls: its calls as traced.

    Attributes:
        plan: position or keyword -> (path inside, Rows) of the tensors that carry the batch.
        tiled_any: some forward had something to tile.
    """

    def __init__(self, *calls: Call) -> None:
        self.name = calls[0].name
        self.plan: dict[int | str, dict[Path, Rows]] = {}
        self.known: set[int | str] = set()
        self.tiled_any = False
        for call in calls:
            for path, rows in call.rows.items():
                self.plan.setdefault(path[0], {})[path[1:]] = rows
            self.known |= {path[0] for path in call.still}

    def tile(
        self, passing: Passing, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
        """The arguments with L copies of what still has one lane's rows; None: there is nothing to change.

        Raises:
            RuntimeError: a tensor that may carry the batch stands where the trace saw none.
        """
        if passing.lanes == 1:
            return None
        changed: dict[int | str, Any] = {}
        given: list[tuple[int | str, Any]] = [*enumerate(args), *kwargs.items()]
        for key, value in given:
            if value is None or value is False or value is True:
                continue
            entries = self.plan.get(key)
            if entries is None:
                if key not in self.known:
                    self._refuse_unknown(key, value, passing)
                continue
            found = passing.tiles.get(id(value))
            if found is None:
                new = self._tiled(value, entries, passing)
                if new is value:
                    continue
                # the same masks enter every block: tiled once, and held so that the id stays theirs
                found = passing.tiles[id(value)] = (value, new)
            changed[key] = found[1]
        if not changed:
            return None
        self.tiled_any = True
        return (
            tuple(changed.get(i, value) for i, value in enumerate(args)),
            {key: changed.get(key, value) for key, value in kwargs.items()},
        )

    @staticmethod
    def _tiled(value: Any, entries: dict[Path, Rows], passing: Passing) -> Any:
        for path, rows in entries.items():
            tensor = value
            for key in path:
                tensor = tensor[key]
            # of all lanes it would have times · L · B
            if isinstance(tensor, Tensor) and tensor.shape[rows.dim] == rows.times * passing.rows:
                value = replaced(value, path, partial(tiled, lanes=passing.lanes, dim=rows.dim))
        return value

    def _refuse_unknown(self, key: int | str, value: Any, passing: Passing) -> None:
        for tensor in tensors_in(value).values():
            if tensor.ndim and tensor.shape[0] > 1 and tensor.shape[0] % passing.rows == 0:
                raise RuntimeError(
                    f"{self.name} is given a tensor {key!r} of shape {tuple(tensor.shape)} that it was not given when "
                    "the model was traced, so whether it carries the batch is not known: trace with a batch of the "
                    "same kind (masks included), or run without prefix sharing"
                )
