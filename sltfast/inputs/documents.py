"""Where text comes from: files and folders, JSON lines, Parquet, Hugging Face data sets on disk or on the hub."""

from __future__ import annotations

import importlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sltfast.extras import require
from sltfast.inputs.corpus import Encode, pack, tokens_of

JSON_LINES = (".jsonl", ".ndjson", ".json")
PARQUET = (".parquet", ".pq")
TOKENS = "input_ids"
TOKEN_COLUMNS = (TOKENS, "attention_mask", "labels")
HUB_NAME = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True)
class Sources:
    """What to read.

    Attributes:
        names: files, folders, data sets saved to disk, or one name on the hub.
        column: the field of JSON lines, Parquet and data sets that holds the text.
        split: the split of a data set that has several.
        subset: the configuration of a data set on the hub.
    """

    names: tuple[str, ...]
    column: str = "text"
    split: str = "train"
    subset: str | None = None


def token_rows(
    sources: Sources, encode: Encode, context: int, *, separator: int | None = None, max_rows: int | None = None
) -> Tensor | dict[str, Tensor]:
    """Token data for a language model.

    Rows that carry ``input_ids`` are taken as they are, with their ``attention_mask`` and ``labels``, where all have
    one length, and packed to ``context`` where they have not; text is encoded and packed.

    Args:
        sources: what to read.
        encode: text → token ids.
        context: tokens in a row of packed data.
        separator: token id put after each document of text; None for none.
        max_rows: read no more rows than this.

    Returns:
        int64 [rows, context], or a dict of int64 [rows, length] where the data came with masks or labels.

    Raises:
        FileNotFoundError: no such file, folder or data set.
        ValueError: text that is not UTF-8, a missing column, or too little data.
    """
    records = read(sources)
    first = next(records, None)
    if first is None:
        raise ValueError(f"{', '.join(sources.names)}: no documents")
    everything = chain([first], records)
    if isinstance(first, str):
        texts = (_expect_text(record) for record in everything)
        return pack(tokens_of(texts, encode, separator), context, max_rows=max_rows)
    return _tokenised(everything, context, max_rows)


def read(sources: Sources) -> Iterator[str | Mapping[str, Any]]:
    """The documents in order: a text, or a record with ``input_ids``.

    Raises:
        FileNotFoundError: no such file, folder or data set.
        ValueError: text that is not UTF-8, or a missing column.
    """
    for name in sources.names:
        path = Path(name)
        if path.is_dir():
            yield from _folder(path, sources)
        elif path.is_file():
            yield from _file(path, sources)
        elif HUB_NAME.fullmatch(name) and path.suffix not in (".txt", *JSON_LINES, *PARQUET):
            yield from _hub(name, sources)
        else:
            raise FileNotFoundError(f"{name}: no such file or folder")


def _folder(path: Path, sources: Sources) -> Iterator[str | Mapping[str, Any]]:
    if (path / "dataset_dict.json").exists() or (path / "dataset_info.json").exists():
        datasets = require("datasets", extra="hf", purpose="to read a data set saved to disk")
        yield from _rows(_one_split(datasets.load_from_disk(str(path)), sources, str(path)), sources, str(path))
        return
    files = [
        inner
        for inner in sorted(path.rglob("*"))
        if inner.is_file() and not any(part.startswith(".") for part in inner.relative_to(path).parts)
    ]
    if not files:
        raise FileNotFoundError(f"{path}: the folder holds no files")
    for inner in files:
        yield from _file(inner, sources)


def _file(path: Path, sources: Sources) -> Iterator[str | Mapping[str, Any]]:
    if path.suffix in PARQUET:
        yield from _parquet(path, sources)
        return
    try:
        text = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: not UTF-8 text ({error.reason} at byte {error.start})") from error
    if path.suffix not in JSON_LINES:
        yield text
        return
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            yield _field(_parsed(line, path, number), sources, f"{path}, line {number}")


def _parsed(line: str, path: Path, number: int) -> Any:
    try:
        return json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {number}: not JSON ({error.msg}); one record is expected a line") from error


def _parquet(path: Path, sources: Sources) -> Iterator[str | Mapping[str, Any]]:
    require("datasets", extra="hf", purpose="to read Parquet")
    parquet = importlib.import_module("pyarrow.parquet")  # comes with datasets
    table = parquet.ParquetFile(path)
    columns = table.schema_arrow.names
    wanted = [column for column in TOKEN_COLUMNS if column in columns]
    if TOKENS not in wanted:
        wanted = [_known(sources.column, columns, str(path))]
    for batch in table.iter_batches(columns=wanted):
        for record in batch.to_pylist():
            yield _field(record, sources, str(path))


def _hub(name: str, sources: Sources) -> Iterator[str | Mapping[str, Any]]:
    datasets = require("datasets", extra="hf", purpose="to read a data set from the hub")
    try:
        found = datasets.load_dataset(name, sources.subset, split=sources.split, streaming=True)
    except (OSError, datasets.exceptions.DatasetNotFoundError) as error:
        raise FileNotFoundError(f"{name}: no such file or folder, and no data set on the hub ({error})") from error
    yield from _rows(found, sources, name)


def _one_split(found: Any, sources: Sources, name: str) -> Any:
    if not isinstance(found, Mapping):
        return found
    if sources.split not in found:
        raise ValueError(f"{name}: no split {sources.split!r}; it has {', '.join(found)} (use --split)")
    return found[sources.split]


def _rows(found: Iterable[Mapping[str, Any]], sources: Sources, name: str) -> Iterator[str | Mapping[str, Any]]:
    for record in found:
        yield _field(record, sources, name)


def _field(record: Any, sources: Sources, where: str) -> str | Mapping[str, Any]:
    if isinstance(record, str):
        return record
    if not isinstance(record, Mapping):
        raise ValueError(f"{where}: a record must be an object or a text, got {type(record).__name__}")
    if TOKENS in record:
        return {column: record[column] for column in TOKEN_COLUMNS if column in record}
    return _expect_text(record[_known(sources.column, list(record), where)])


def _known(column: str, columns: list[str], where: str) -> str:
    if column not in columns:
        raise ValueError(f"{where}: no column {column!r}; there is {', '.join(columns)} (use --text-column)")
    return column


def _expect_text(record: Any) -> str:
    if not isinstance(record, str):
        raise ValueError(f"a document must be text, got {type(record).__name__}: mixed data cannot be packed")
    return record


def _tokenised(
    records: Iterable[str | Mapping[str, Any]], context: int, max_rows: int | None
) -> Tensor | dict[str, Tensor]:
    columns: dict[str, list[list[int]]] = {}
    for record in islice(records, max_rows):
        if not isinstance(record, Mapping) or (columns and set(record) != set(columns)):
            raise ValueError("the data mixes rows with different columns: give data sets of one kind")
        for column, values in record.items():
            columns.setdefault(column, []).append(list(values))
    ids = columns[TOKENS]
    if len({len(row) for row in ids}) > 1:
        if len(columns) > 1:
            raise ValueError(
                f"rows have {min(map(len, ids))} to {max(map(len, ids))} tokens: pad them to one length "
                "(attention_mask 0, or labels -100), or drop those columns to have them packed"
            )
        return pack(iter(ids), context, max_rows=max_rows)
    tensors = {column: torch.tensor(rows, dtype=torch.int64) for column, rows in columns.items()}
    return tensors[TOKENS] if len(tensors) == 1 else tensors
