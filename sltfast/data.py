"""Data sets of every common kind behind one face: a length, and rows by index."""

from __future__ import annotations

import hashlib
import itertools
import numbers
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import data as torch_data

from sltfast.isolation import alone, isolated_rng
from sltfast.shown import shown

COLUMNS = ("input_ids", "attention_mask", "labels")  # what a language model's batch is made of
MATERIALISE_BYTES = 1 << 30


class Source:
    """Rows of a data set.

    Attributes:
        tensors: every row at once where they are in memory (tensor, tuple or dict of tensors), else None.
        kind: what the caller gave, for messages.
    """

    def __init__(self, length: int, fetch: Callable[[np.ndarray], Any], tensors: Any, kind: str) -> None:
        self.length, self.fetch, self.tensors, self.kind = length, fetch, tensors, kind

    def __len__(self) -> int:
        return self.length

    def sample(self) -> Any:
        """Every row where they are in memory, else the first few: enough to check shapes and ranges."""
        return self.tensors if self.tensors is not None else self.fetch(np.arange(min(16, self.length)))

    def fingerprint(self) -> str:
        """A digest of the rows: all of them where they are in memory, else up to 64 spread over the data set."""
        digest = hashlib.blake2b(f"{self.length}".encode(), digest_size=16)
        if self.length:
            rows = np.unique(np.linspace(0, self.length - 1, 64).astype(np.int64))
            for leaf in leaves(self.fetch(rows) if self.tensors is None else self.tensors):
                digest.update(str((tuple(leaf.shape), leaf.dtype)).encode())
                digest.update(leaf.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        return digest.hexdigest()


def leaves(batch: Any) -> list[Tensor]:
    """The tensors of a batch, in order."""
    if isinstance(batch, Tensor):
        return [batch]
    if isinstance(batch, Mapping):
        return [leaf for value in batch.values() for leaf in leaves(value)]
    if isinstance(batch, tuple | list):
        return [leaf for value in batch for leaf in leaves(value)]
    return []


def map_leaves(function: Callable[[Tensor], Tensor], batch: Any) -> Any:
    """The batch with ``function`` applied to its tensors, its structure kept."""
    if isinstance(batch, Tensor):
        return function(batch)
    if isinstance(batch, Mapping):
        return {key: map_leaves(function, value) for key, value in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(map_leaves(function, value) for value in batch))
    if isinstance(batch, tuple | list):
        return type(batch)(map_leaves(function, value) for value in batch)
    return batch


def as_source(dataset: Any, *, buffer_size: int | None = None) -> Source:
    """Read any data set by row index.

    Args:
        dataset: tensor or array; tuple or dict of them; Hugging Face ``Dataset`` (with a column input_ids: that one,
            attention_mask and labels; else all columns); map-style torch ``Dataset`` or list;
            ``DataLoader`` (its data set and collate function are used, its order is not); any iterable with
            ``buffer_size``.
        buffer_size: take this many first items of an iterable data set, and sample from those.

    Raises:
        TypeError: a kind of data set that cannot be replayed by index, and no ``buffer_size``.
        ValueError: no rows, rows of different lengths, or columns of different lengths.
    """
    size: Any = buffer_size
    if size is not None and (isinstance(size, bool) or not isinstance(size, numbers.Integral) or size < 1):
        raise ValueError(f"buffer_size must be a whole number >= 1, got {shown(size)}")
    if isinstance(dataset, type | str | bytes):
        told = f"the class {dataset.__name__} itself" if isinstance(dataset, type) else repr(dataset[:40])
        raise TypeError(f"dataset is {told}; give {_KINDS} (sltfast.inputs reads files)")
    source = _dispatch(dataset, None if size is None else int(size))
    if len(source) == 0:
        raise ValueError(f"the data set ({source.kind}) has no rows")
    for leaf in leaves(source.tensors):
        if leaf.numel() == 0:
            raise ValueError(f"the data set's rows are empty (shape {tuple(leaf.shape)})")
    return source


_KINDS = "tensors, a tuple or dict of tensors, a Hugging Face Dataset, a torch Dataset or a DataLoader"


def _dispatch(dataset: Any, buffer_size: int | None) -> Source:
    if isinstance(dataset, Source):
        return dataset
    if isinstance(dataset, torch_data.DataLoader):
        return _from_loader(dataset, buffer_size)
    if isinstance(dataset, torch_data.TensorDataset):
        return _from_tensors(tuple(dataset.tensors), "TensorDataset")
    if isinstance(dataset, Tensor | np.ndarray):
        return _from_tensors(_tensor(dataset), type(dataset).__name__)
    if hasattr(dataset, "column_names") and hasattr(dataset, "with_format"):
        return _from_hugging_face(dataset, buffer_size)
    if isinstance(dataset, Mapping):
        return _from_tensors({key: _tensor(value) for key, value in dataset.items()}, "dict of tensors")
    if isinstance(dataset, tuple) and all(isinstance(value, Tensor | np.ndarray) for value in dataset):
        return _from_tensors(tuple(_tensor(value) for value in dataset), "tuple of tensors")
    if isinstance(dataset, tuple) and any(isinstance(value, Tensor | np.ndarray) for value in dataset):
        others = sorted({type(value).__name__ for value in dataset if not isinstance(value, Tensor | np.ndarray)})
        raise TypeError(f"dataset is a tuple of tensors and {', '.join(others)}: make every part a tensor or an array")
    if isinstance(dataset, torch_data.IterableDataset) or not (
        hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")
    ):
        return _buffered(dataset, buffer_size)
    return _from_items(dataset, stack_items, type(dataset).__name__)


def _tensor(value: Any) -> Tensor:
    if isinstance(value, Tensor):
        tensor = value.detach()
        return tensor.long() if tensor.dtype in (torch.uint16, torch.uint32, torch.uint64) else tensor
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"a column is not a rectangular array of numbers ({error}): {_RAGGED}") from error
    if array.dtype == object and _is_ragged(array):
        raise ValueError(f"a column is not a rectangular array of numbers: {_RAGGED}")
    if array.dtype.kind not in "biufc" or array.dtype.itemsize > 16 or array.dtype == np.longdouble:
        raise ValueError(f"a column holds {array.dtype}, not numbers that torch has: encode or convert it first")
    if array.dtype.kind == "u" and array.itemsize > 1:
        array = array.astype(np.int64)  # torch computes with one unsigned type only
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if min(array.strides, default=0) < 0 or any(stride % array.itemsize for stride in array.strides):
        array = array.copy()  # a reversed view, or a field of records: torch cannot look through those strides
    with alone(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # read-only memory maps are only read
        return torch.from_numpy(array)


_RAGGED = (
    "pad the rows to one length and mark the padding (attention_mask 0, or labels -100), or cut them to one length"
)


def _from_tensors(tensors: Any, kind: str) -> Source:
    parts = leaves(tensors)
    if not parts:
        raise ValueError(f"the data set ({kind}) holds no tensors")
    if any(part.is_meta for part in parts):
        raise ValueError(f"the data set ({kind}) is on the meta device, which holds no values: give real tensors")
    if any(part.is_nested or part.layout != torch.strided for part in parts):
        raise ValueError(f"the data set ({kind}) holds a nested or sparse tensor: give dense ones (.to_dense())")
    if any(part.ndim == 0 for part in parts):
        raise ValueError(f"the data set ({kind}) holds a scalar: the first dimension of every tensor counts rows")
    lengths = sorted({len(part) for part in parts})
    if len(lengths) > 1:
        raise ValueError(f"the tensors of the data set ({kind}) have different numbers of rows: {lengths}")

    def fetch(rows: np.ndarray) -> Any:
        index = torch.from_numpy(rows)
        return map_leaves(lambda part: part.index_select(0, index.to(part.device)), tensors)

    return Source(lengths[0], fetch, tensors, kind)


def _from_hugging_face(dataset: Any, buffer_size: int | None) -> Source:
    if not hasattr(dataset, "__len__"):
        return _buffered(dataset, buffer_size)
    if isinstance(dataset.column_names, Mapping):
        raise TypeError(
            f"dataset is a {type(dataset).__name__}: choose one of its splits {sorted(dataset.column_names)}"
        )
    names = [name for name in COLUMNS if name in dataset.column_names]
    if "input_ids" not in names:
        names = list(dataset.column_names)
    selected = dataset.select_columns(names).with_format("numpy")
    if len(selected) == 0:
        return Source(0, lambda rows: None, None, "Hugging Face Dataset")
    if len(names) == 1 and names[0] == "input_ids":

        def unpack(columns: Mapping[str, Any]) -> Any:
            return _column(columns, "input_ids")
    else:

        def unpack(columns: Mapping[str, Any]) -> Any:
            return {name: _column(columns, name) for name in names}

    if any(leaf[0].numel() == 0 for leaf in leaves(unpack(selected[:1]))):
        raise ValueError("the data set's rows are empty")
    row_bytes = sum(leaf[0].numel() * leaf.element_size() for leaf in leaves(unpack(selected[:1])))
    if row_bytes * len(selected) <= MATERIALISE_BYTES:
        return _from_tensors(unpack(selected[:]), "Hugging Face Dataset")
    _check_arrow_lengths(dataset, names)
    return Source(len(selected), lambda rows: unpack(selected[rows]), None, "Hugging Face Dataset")


def _column(columns: Mapping[str, Any], name: str) -> Tensor:
    value = np.asarray(columns[name]) if not _is_ragged(columns[name]) else None
    if value is None or value.dtype == object:
        lengths = sorted({len(row) for row in columns[name]})
        if lengths == [0]:
            raise ValueError(f"the rows of column {name!r} are empty")
        raise ValueError(f"column {name!r} has rows of different lengths ({lengths[0]} to {lengths[-1]}): {_RAGGED}")
    if value.dtype.kind not in "biuf":
        raise ValueError(f"column {name!r} holds {value.dtype}, not numbers: tokenise or encode it first")
    return _tensor(value)


def _is_ragged(rows: Any) -> bool:
    if isinstance(rows, np.ndarray) and rows.dtype != object:
        return False
    return len({np.shape(row) for row in rows}) > 1


def _check_arrow_lengths(dataset: Any, names: Sequence[str]) -> None:
    import pyarrow as pa
    import pyarrow.compute as pc

    for name in names:
        column = dataset.data.column(name)
        if pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
            span = pc.min_max(pc.list_value_length(column)).as_py()
            if span["min"] != span["max"]:
                raise ValueError(
                    f"column {name!r} has rows of different lengths ({span['min']} to {span['max']}): {_RAGGED}"
                )


def _from_items(dataset: Any, collate: Callable[[list[Any]], Any], kind: str) -> Source:
    def item(row: int) -> Any:
        try:
            return dataset[row]
        except Exception as error:  # whatever the data set raises, its row is told
            if isinstance(error, KeyError | IndexError | TypeError):
                raise ValueError(
                    f"row {row} of the data set ({kind}, {length} rows) cannot be read by its number "
                    f"({type(error).__name__}: {error}): dataset[i] must work for 0 <= i < len(dataset)"
                ) from error
            error.add_note(f"row {row} of the data set ({kind}) was read")
            raise

    def fetch(rows: np.ndarray) -> Any:
        items = [item(int(row)) for row in rows]
        try:
            batch = collate(items)
        except (RuntimeError, TypeError, ValueError, LookupError, OverflowError) as error:
            raise ValueError(f"rows {rows[:4].tolist()}… of the data set do not stack ({error}): {_RAGGED}") from error
        if not leaves(batch):
            raise TypeError(f"the data set's items ({type(items[0]).__name__}) hold no numbers: encode them")
        return batch

    try:
        length = len(dataset)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"the length of the data set ({kind}) cannot be told: len(dataset) fails ({error})") from error
    if length:
        if kind in ("list", "tuple"):  # in memory already: rows of different lengths are met now, not at step 1000
            return _from_tensors(fetch(np.arange(length)), kind)
        _check_repeatable(fetch, length)
    return Source(length, fetch, None, kind)


def stack_items(items: list[Any]) -> Any:
    """Items of a data set as one batch: (x, y) pairs become a tuple of tensors, lists of numbers rows of a tensor."""
    batch = torch_data.default_collate([_listless(item) for item in items])
    return tuple(batch) if isinstance(batch, list) else batch


def _listless(item: Any) -> Any:
    if isinstance(item, list) and all(isinstance(value, int | float) for value in item):
        return torch.tensor(item)
    if isinstance(item, Mapping):
        return {key: _listless(value) for key, value in item.items()}
    return item


def _check_repeatable(fetch: Callable[[np.ndarray], Any], length: int) -> None:
    rows = np.unique(np.linspace(0, length - 1, 16).astype(np.int64))
    readings = []
    for seed in range(3):
        with isolated_rng(seed):
            readings.append([leaf.double().nan_to_num() for row in rows for leaf in leaves(fetch(row[None]))])
    first, *others = readings
    if not all(torch.equal(a, b) for other in others for a, b in zip(first, other, strict=True)):
        raise ValueError(
            "the data set returns other values when rows are read again (random augmentation?): losses at w and at w* "
            "could not be paired. Turn the randomness off, or give buffer_size=N to freeze N items"
        )


def _from_loader(loader: torch_data.DataLoader[Any], buffer_size: int | None) -> Source:
    plain = (torch_data.SequentialSampler, torch_data.RandomSampler)
    iterable = isinstance(loader.dataset, torch_data.IterableDataset)
    sampler = getattr(loader, "sampler", None)
    ordered = type(sampler) in plain and not getattr(sampler, "replacement", False)
    if not iterable and ordered and type(loader.batch_sampler) in (torch_data.BatchSampler, type(None)):
        collate = loader.collate_fn
        if collate is torch_data.default_collate:
            return _dispatch(loader.dataset, buffer_size)
        return _from_items(loader.dataset, collate, "DataLoader")
    if buffer_size is None:
        reason = "an IterableDataset" if iterable else f"its own order ({type(sampler).__name__})"
        raise TypeError(
            f"the DataLoader has {reason}, which cannot be replayed by index: give buffer_size=N to sample from its "
            "first N items, or pass a map-style data set"
        )
    batches, taken = [], 0
    with isolated_rng(0):
        for batch in loader:
            batches.append(batch)
            taken += len(leaves(batch)[0])
            if taken >= buffer_size:
                break
    return _from_tensors(map_leaves(lambda part: part[:buffer_size], _concatenated(batches)), "DataLoader")


def _concatenated(batches: list[Any]) -> Any:
    if not batches:
        raise ValueError("the DataLoader yields no batch")
    columns = [leaves(batch) for batch in batches]
    joined = iter([torch.cat(parts) for parts in zip(*columns, strict=True)])
    return map_leaves(lambda _: next(joined), batches[0])


def _buffered(dataset: Iterable[Any], buffer_size: int | None) -> Source:
    if not hasattr(dataset, "__iter__"):
        raise TypeError(f"dataset is a {type(dataset).__name__}; give {_KINDS}")
    if buffer_size is None:
        raise TypeError(
            f"dataset ({type(dataset).__name__}) can only be iterated, so its batches cannot be replayed at w*: give "
            "buffer_size=N to sample from its first N items"
        )
    with isolated_rng(0):
        items = list(itertools.islice(iter(dataset), buffer_size))
    if not items:
        raise ValueError(f"dataset ({type(dataset).__name__}) yields no items")
    source = _from_items(items, stack_items, "list")
    source.kind = type(dataset).__name__
    return source
