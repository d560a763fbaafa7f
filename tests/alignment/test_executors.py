"""Where jobs run: here, in processes, on a real Dask cluster of two workers."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from concurrent.futures import Executor, Future

import pytest

from alignment.errors import ClusterError, MissingDaskError
from alignment.executors import open_executor, ordered
from alignment.inline import InlineExecutor
from catalog.errors import CleanplateError


def square(number):
    return number * number


def process(_):
    return os.getpid()


def test_one_worker_works_in_this_process():
    with open_executor(workers=1) as executor:
        assert executor.submit(process, 0).result() == os.getpid()


def test_results_come_in_the_items_order_with_few_jobs_handed_out():
    """Of ten items with three ahead, the first result is asked for when three were handed out."""
    handed_out = []

    class Noting(Executor):
        def submit(self, fn, item) -> Future:
            handed_out.append(item)
            return InlineExecutor().submit(fn, item)

    results = ordered(Noting(), square, range(10), ahead=3)

    assert next(results) == 0
    assert handed_out == [0, 1, 2]
    assert list(results) == [square(k) for k in range(1, 10)]


def test_a_missing_dask_is_named_with_the_extra_that_brings_it(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "distributed", None)

    with pytest.raises(MissingDaskError, match=r"pip install 'cleanplate\[dask\]'"):
        with open_executor(dask="tcp://127.0.0.1:8786"):
            pass


def test_a_scheduler_that_does_not_answer_is_an_error_of_its_own(monkeypatch):
    pytest.importorskip("distributed")
    monkeypatch.setattr("alignment.executors._CONNECT_TIMEOUT_S", 1)

    with pytest.raises(ClusterError, match=r"no answer within 1 s.*dask scheduler"):
        with open_executor(dask="tcp://127.0.0.1:9"):
            pass


@pytest.fixture(scope="module")
def cluster():
    """A scheduler and two workers, each a process of its own, as a user would start them."""
    pytest.importorskip("distributed", reason="needs the extra 'dask'")
    command = [sys.executable, "-c", CLUSTER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        yield running.stdout.readline().strip()
        running.communicate("\n", timeout=30)


CLUSTER = """
from distributed import LocalCluster
if __name__ == "__main__":
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        print(cluster.scheduler_address, flush=True)
        input()
"""


def test_jobs_run_on_the_cluster(cluster):
    assert re.fullmatch(r"tcp://127\.0\.0\.1:\d+", cluster)

    with open_executor(dask=cluster) as executor:
        found = set(ordered(executor, process, range(40)))

    assert os.getpid() not in found
    assert len(found) == 2


def test_an_error_of_a_job_comes_back_as_it_was(cluster):
    with open_executor(dask=cluster) as executor:
        with pytest.raises(CleanplateError, match="the picture is gone") as caught:
            executor.submit(fail, 0).result()

    assert caught.value.next_step == "copy it again"


def fail(_):
    raise CleanplateError("the picture is gone", next_step="copy it again")
