"""Data of every kind, and what cannot be sampled from."""

import random

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, IterableDataset, TensorDataset, WeightedRandomSampler

from sltfast.data import as_source, leaves

X = torch.arange(12.0).reshape(6, 2)
Y = torch.arange(6)
ROWS = np.array([4, 1])


class Pairs(torch.utils.data.Dataset):
    def __len__(self):
        return 6

    def __getitem__(self, index):
        return X[index], int(Y[index])


class Stream(IterableDataset):
    def __iter__(self):
        return iter(zip(X, Y, strict=True))


class Noisy(Pairs):
    def __getitem__(self, index):
        return X[index] + torch.randn(2), 0


class Flipping(Pairs):
    """Augments half of the time, by Python's generator."""

    def __getitem__(self, index):
        return X[index] * (-1 if random.random() < 0.5 else 1), 0


@pytest.mark.parametrize(
    "dataset",
    [
        (X, Y),
        TensorDataset(X, Y),
        Pairs(),
        [(X[k], int(Y[k])) for k in range(6)],
        DataLoader(Pairs(), batch_size=3),
        DataLoader(Pairs(), batch_size=3, shuffle=True),
        (X.numpy(), Y.numpy()),
    ],
    ids=["tuple", "TensorDataset", "Dataset", "list", "loader", "shuffled loader", "arrays"],
)
def test_pairs_come_as_tuples(dataset):
    source = as_source(dataset)
    batch = source.fetch(ROWS)
    assert len(source) == 6
    assert isinstance(batch, tuple)
    assert torch.equal(batch[0], X[[4, 1]])
    assert torch.equal(batch[1], Y[[4, 1]])


@pytest.mark.parametrize("dataset", [X, X.numpy(), [row.tolist() for row in X]], ids=["tensor", "array", "lists"])
def test_single_columns_come_as_tensors(dataset):
    assert torch.equal(as_source(dataset).fetch(ROWS), X[[4, 1]])


@pytest.mark.parametrize(
    "dataset", [{"a": X, "b": Y}, [{"a": X[k], "b": int(Y[k])} for k in range(6)]], ids=["dict", "list of dicts"]
)
def test_dicts_come_as_dicts(dataset):
    batch = as_source(dataset).fetch(ROWS)
    assert torch.equal(batch["a"], X[[4, 1]])
    assert torch.equal(batch["b"], Y[[4, 1]])


@pytest.mark.parametrize(
    "dataset",
    [Stream(), DataLoader(Stream(), batch_size=4), ((x, y) for x, y in zip(X, Y, strict=True))],
    ids=["iterable", "loader of iterable", "generator"],
)
def test_what_can_only_be_iterated_needs_a_buffer(dataset):
    with pytest.raises(TypeError, match="buffer_size=N"):
        as_source(dataset)
    source = as_source(dataset, buffer_size=5)
    assert len(source) == 5
    assert torch.equal(source.fetch(ROWS)[0], X[[4, 1]])


def test_a_loader_with_an_order_of_its_own_is_refused_or_buffered():
    torch.manual_seed(0)
    loader = DataLoader(TensorDataset(X), sampler=WeightedRandomSampler([1.0] * 6, 6), batch_size=2)
    with pytest.raises(TypeError, match="WeightedRandomSampler"):
        as_source(loader)
    state = torch.get_rng_state()
    assert len(as_source(loader, buffer_size=3)) == 3
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("dataset", [Noisy(), Flipping()], ids=["always", "half of the time"])
def test_data_that_change_when_read_again_are_refused_without_moving_the_generator(dataset):
    state = torch.get_rng_state()
    with pytest.raises(ValueError, match="augmentation"):
        as_source(dataset)
    assert torch.equal(torch.get_rng_state(), state)
    assert len(as_source(iter([Noisy()[k] for k in range(4)]), buffer_size=4)) == 4


@pytest.mark.parametrize("dtype", [np.uint16, np.uint32, np.uint64, np.dtype(">i4"), np.int32, np.uint8])
def test_tokens_of_any_whole_number_type(dtype, tmp_path):
    tokens = np.memmap(tmp_path / "tokens", dtype=dtype, mode="w+", shape=(3, 2))
    tokens[:] = Y.view(3, 2).numpy()
    tokens.flush()
    read_only = np.memmap(tmp_path / "tokens", dtype=dtype, mode="r", shape=(3, 2))
    assert as_source(read_only).fetch(np.array([2, 0])).tolist() == [[4, 5], [0, 1]]


def hugging_face(**columns):
    from datasets import Dataset

    return Dataset.from_dict(columns)


def splits():
    from datasets import DatasetDict

    return DatasetDict(train=hugging_face(input_ids=[[1, 2]]), test=hugging_face(input_ids=[[1, 2]]))


def test_hugging_face_input_ids_alone_come_as_a_tensor():
    batch = as_source(hugging_face(input_ids=Y.view(3, 2).tolist(), text=["a", "b", "c"])).fetch(np.array([2, 0]))
    assert torch.equal(batch, torch.tensor([[4, 5], [0, 1]]))


def test_hugging_face_masks_and_labels_come_along():
    ids, mask = Y.view(3, 2).tolist(), [[1, 0], [1, 1], [1, 1]]
    batch = as_source(hugging_face(input_ids=ids, attention_mask=mask)).fetch(np.array([0]))
    assert batch["attention_mask"].tolist() == [[1, 0]]


def test_a_hugging_face_set_too_big_for_memory_is_read_by_rows(monkeypatch):
    monkeypatch.setattr("sltfast.data.MATERIALISE_BYTES", 8)
    source = as_source(hugging_face(input_ids=Y.view(3, 2).tolist()))
    assert source.tensors is None
    assert torch.equal(source.fetch(np.array([2, 0])), torch.tensor([[4, 5], [0, 1]]))
    with pytest.raises(ValueError, match=r"different lengths \(1 to 2\)"):
        as_source(hugging_face(input_ids=[[1, 2], [3, 4], [5]]))


@pytest.mark.parametrize(
    ("dataset", "error", "says"),
    [
        (lambda: hugging_face(input_ids=[[1, 2], [3]]), ValueError, r"different lengths \(1 to 2\).*attention_mask"),
        (lambda: hugging_face(input_ids=[]), ValueError, "no rows"),
        (lambda: hugging_face(text=["a", "b"]), ValueError, "not numbers"),
        (lambda: splits(), TypeError, r"DatasetDict: choose one of its splits \['test', 'train'\]"),
        (lambda: hugging_face(input_ids=[[], []]), ValueError, "empty"),
        (lambda: [[1, 2], [3]], ValueError, "do not stack"),
        (list, ValueError, "no rows"),
        (lambda: torch.zeros(0, 3), ValueError, "no rows"),
        (lambda: torch.zeros(3, 0), ValueError, "empty"),
        (lambda: (X, Y[:4]), ValueError, r"different numbers of rows: \[4, 6\]"),
        (dict, ValueError, "no tensors"),
        (lambda: torch.tensor(1.0), ValueError, "scalar"),
        (lambda: 3, TypeError, "dataset is a int"),
        (lambda: None, TypeError, "dataset is a NoneType"),
    ],
)
def test_bad_data_are_refused(dataset, error, says):
    with pytest.raises(error, match=says):
        as_source(dataset())


def test_fingerprints_tell_data_apart():
    assert as_source(X).fingerprint() == as_source(X.clone()).fingerprint()
    changed = X.clone()
    changed[3, 1] += 1
    assert as_source(X).fingerprint() != as_source(changed).fingerprint()
    long = torch.zeros(1000, 1)
    assert (
        as_source(long).fingerprint() != as_source(torch.where(torch.arange(1000)[:, None] == 7, 1, long)).fingerprint()
    )
    assert leaves({"a": X, "b": [Y, (X,)]})[1] is Y
