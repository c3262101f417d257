"""Recorded blocks on their way to a store, behind the sampler's back."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable

QUEUED_BYTES = 64 << 20
QUEUED_JOBS = 256


class Writer:
    """Runs jobs one after another, in a thread of its own or at once.

    After a job that failed no other is run, so that what was written has no holes. What waits is bounded: where the
    disk is slower than the chains, ``submit`` waits for it, and memory stays flat.

    Args:
        threaded: whether jobs run in a thread (a disk is written to, or a device copied from) or in ``submit``.
    """

    def __init__(self, *, threaded: bool) -> None:
        self._error: BaseException | None = None
        self._bytes = 0
        self._room = threading.Condition()
        self._jobs: queue.Queue[tuple[Callable[[], None], int] | None] | None = None
        self._thread: threading.Thread | None = None  # starts with the first job: none is left by who never had one
        if threaded:
            self._jobs = queue.Queue(QUEUED_JOBS)

    def _work(self) -> None:
        assert self._jobs is not None
        while (item := self._jobs.get()) is not None:
            job, nbytes = item
            try:
                if self._error is None:
                    job()
            except BaseException as error:
                self._error = error
            finally:
                with self._room:
                    self._bytes -= nbytes
                    self._room.notify_all()
                self._jobs.task_done()
        self._jobs.task_done()

    @property
    def failed(self) -> bool:
        """Whether a job raised, so that no other is run."""
        return self._error is not None

    def submit(self, job: Callable[[], None], nbytes: int = 0) -> None:
        """Run a job after those before it; raises what an earlier one raised."""
        if self._jobs is None:
            job()
            return
        self._raise()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name="sltfast-writer", daemon=True)
            self._thread.start()
        with self._room:
            self._room.wait_for(lambda: self._bytes == 0 or self._bytes + nbytes <= QUEUED_BYTES)
            self._bytes += nbytes
        self._jobs.put((job, nbytes))

    def drain(self) -> None:
        """Wait until every job is done; raises what one of them raised."""
        if self._jobs is not None:
            self._jobs.join()
        self._raise()

    def close(self) -> None:
        """Finish the jobs and end the thread; raises nothing (``drain`` does)."""
        if self._jobs is not None and self._thread is not None:
            self._jobs.put(None)
            self._thread.join()
        self._jobs = None

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error
