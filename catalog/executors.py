"""Where parallel jobs run: in this process, in processes of our own, or on a Dask cluster that somebody runs."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

from catalog.errors import ClusterError, MissingExtraError, WorkerLostError

_CONNECT_TIMEOUT_S = 20

T = TypeVar("T")
R = TypeVar("R")


class InlineExecutor(Executor):
    """Runs every job when it is submitted."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run a job and return its finished future."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001  # an executor hands every error to whoever asks for the result
            future.set_exception(error)
        return future


@contextmanager
def open_executor(*, workers: int | None = None, dask: str | None = None) -> Iterator[Executor]:
    """Open an executor; jobs that did not start yet are dropped on the way out.

    Args:
        workers: Processes of our own, the number of processors by default; 1 works in this process.
        dask: Address of a Dask scheduler (``tcp://host:8786``), which is used instead. Its workers must see the
            data under the same paths.

    Raises:
        MissingExtraError: `dask` is given but not installed.
        ClusterError: The scheduler does not answer.
    """
    if dask is not None:
        with _dask_executor(dask) as executor:
            yield executor
        return
    count = workers or os.cpu_count() or 1
    if count == 1:
        yield InlineExecutor()
        return
    import multiprocessing

    # Not fork: OpenCV's and FFmpeg's threads do not survive it.
    pool = ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("forkserver"))
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _dask_executor(address: str) -> Iterator[Executor]:
    try:
        from distributed import Client
        from distributed.comm.addressing import get_address_host_port
    except ImportError as error:
        raise MissingExtraError(
            "--dask needs Dask, which is not installed",
            kept="everything as it was",
            next_step="pip install 'cleanplate[dask]'",
        ) from error
    try:
        get_address_host_port(address)
    except ValueError as error:
        raise ClusterError(
            f"Dask scheduler {address}: not an address ({error})",
            kept="everything as it was",
            next_step="give it as the scheduler prints it, such as tcp://host:8786",
        ) from error
    try:
        client: Any = Client(address, timeout=_CONNECT_TIMEOUT_S, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        raise ClusterError(
            f"Dask scheduler {address}: no answer within {_CONNECT_TIMEOUT_S} s ({error})",
            kept="everything as it was",
            next_step="start it with 'dask scheduler' and workers with 'dask worker ADDRESS', or leave --dask out",
        ) from error
    with client:
        # Jobs write files and are deterministic, but two at once on one file would race: pure=False keeps
        # Dask from merging or sharing them.
        executor = client.get_executor(pure=False)
        try:
            yield executor
        finally:
            executor.shutdown(wait=False)


def ordered(executor: Executor, job: Callable[[T], R], items: Iterable[T], *, ahead: int = 64) -> Iterator[R]:
    """Run a job on every item and yield results in the items' order, with at most ``ahead`` jobs handed out.

    A result is yielded as soon as those before it are. Unlike `Executor.map`, a million items do not become a
    million pending jobs.

    Raises:
        WorkerLostError: A worker process ended in the middle of a job.
    """
    running: deque[Future[Any]] = deque()
    for item in items:
        with _loss_explained():
            running.append(executor.submit(job, item))
        while running and (len(running) >= ahead or running[0].done()):
            yield _result(running.popleft())
    while running:
        yield _result(running.popleft())


def _result(future: Future[Any]) -> Any:
    with _loss_explained():
        return future.result()


@contextmanager
def _loss_explained() -> Iterator[None]:
    try:
        yield
    except BrokenExecutor as error:
        raise WorkerLostError(
            "a worker process was killed or ran out of memory",
            kept="what was finished before",
            next_step="give the same command again, with fewer --workers if memory was short",
        ) from error
