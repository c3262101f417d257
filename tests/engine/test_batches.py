"""The batch stream: seeded, stateless, a fresh permutation each epoch."""

import numpy as np
import pytest
import torch

from sltfast.batches import BatchStream
from sltfast.data import as_source

SOURCE = as_source(torch.arange(10))


def epoch(stream, number):
    per_epoch = stream.batches_per_epoch
    return np.concatenate([stream.rows(k) for k in range(number * per_epoch, (number + 1) * per_epoch)])


def test_an_epoch_is_a_permutation_and_the_next_another():
    stream = BatchStream(SOURCE, 5, seed=0)
    assert sorted(epoch(stream, 0)) == list(range(10))
    assert sorted(epoch(stream, 1)) == list(range(10))
    assert epoch(stream, 0).tolist() != epoch(stream, 1).tolist()


def test_partial_batches_are_dropped():
    assert len(set(epoch(BatchStream(SOURCE, 4, seed=0), 0))) == 8


def test_any_batch_can_be_asked_for_in_any_order():
    forward, backward = BatchStream(SOURCE, 3, seed=4), BatchStream(SOURCE, 3, seed=4)
    wanted = [forward.rows(k).tolist() for k in range(12)]
    assert [backward.rows(k).tolist() for k in reversed(range(12))] == wanted[::-1]


def test_seeds_and_lanes_differ_and_no_shuffle_is_in_order():
    first = epoch(BatchStream(SOURCE, 5, seed=0), 0).tolist()
    assert epoch(BatchStream(SOURCE, 5, seed=1), 0).tolist() != first
    assert epoch(BatchStream(SOURCE, 5, seed=0, lane=1), 0).tolist() != first
    assert epoch(BatchStream(SOURCE, 5, seed=0, shuffle=False), 3).tolist() == list(range(10))


def test_a_data_set_smaller_than_a_batch_is_refused():
    with pytest.raises(ValueError, match=r"10 rows.*batch_size 11.*at most 10"):
        BatchStream(SOURCE, 11, seed=0)
