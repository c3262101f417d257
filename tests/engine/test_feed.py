"""Batches that travel ahead are the batches that were asked for, and no buffer is written while it is read."""

from typing import Any

import pytest
import torch
from torch import Tensor

from sltfast.batches import BatchStream
from sltfast.data import as_source
from sltfast.sampler.feed import Feed

ROWS = torch.arange(40).view(20, 2)
LABELS = torch.arange(20.0)


class SlowCopies:
    """Copies that happen as late as they may: when somebody orders or waits for them."""

    def __init__(self) -> None:
        self.pending: list[Any] = []
        self.buffers = 0
        self.waited = 0

    def buffer(self, like: Tensor) -> Tensor:
        self.buffers += 1
        return torch.full_like(like, -1)

    def start(self, hosts: list[Tensor]) -> tuple[list[Tensor], Any]:
        tensors = [torch.full_like(host, -7) for host in hosts]
        event = {"copy": lambda: [t.copy_(h) for t, h in zip(tensors, hosts, strict=True)], "done": False}
        self.pending.append(event)
        return tensors, event

    def order(self, tensors: list[Tensor], event: Any) -> None:
        self._do(event)

    def finished(self, event: Any) -> None:
        self.waited += not event["done"]
        self._do(event)

    def _do(self, event: Any) -> None:
        if not event["done"]:
            event["copy"]()
            event["done"] = True


def fetches() -> Any:
    stream = BatchStream(as_source((ROWS, LABELS)), 4, 1)
    return lambda k: stream.source.fetch(stream.rows(k))


@pytest.mark.parametrize("micro", [1, 3])
def test_batches_are_those_of_the_seed(micro):
    copies = SlowCopies()
    plain, feed = fetches(), Feed(fetches(), copies, 2 * micro)
    held = []
    for step in range(8):
        numbers = range(step * micro, (step + 1) * micro)
        held += [(k, feed.batch(k)) for k in numbers]
        feed.prepare(range((step + 1) * micro, (step + 2) * micro))
    for k, batch in held:  # also those of long ago: what has arrived is never written to again
        assert all(torch.equal(got, want) for got, want in zip(batch, plain(k), strict=True))
    assert copies.buffers == 2 * micro * 2  # two tensors a batch, two steps under way
    assert copies.waited == 0  # a step in order never waits for a buffer


def test_a_buffer_is_waited_for_while_it_is_read():
    copies = SlowCopies()
    plain, feed = fetches(), Feed(fetches(), copies, 2)
    feed.prepare([0])
    staged = feed._staged[0]
    feed.prepare([2])  # the same buffer: batch 0 has to be over first
    assert copies.waited == 1
    assert torch.equal(staged.tensors[0], plain(0)[0])
    assert torch.equal(feed.batch(2)[0], plain(2)[0])


def test_any_order_is_right():
    plain, feed = fetches(), Feed(fetches(), SlowCopies(), 2)
    for k in (5, 5, 0, 9, 1, 2):
        assert torch.equal(feed.batch(k)[1], plain(k)[1])
        feed.prepare([k + 1])


def test_without_copies_nothing_is_staged():
    plain, feed = fetches(), Feed(fetches(), None)
    feed.prepare([1])
    assert torch.equal(feed.batch(1)[0], plain(1)[0])
    assert not feed._staged
