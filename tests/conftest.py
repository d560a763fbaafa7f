"""Fixtures and options that all tests share."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parent.parent

# Before numpy is loaded, here and in every child: the workers share the cores, and its idle threads spin.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
# Hundreds of short processes would each compile our sources anew.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Name real devices; without them the tests marked `hardware` are skipped."""
    parser.addoption("--rail", help="serial port of a real rail, for tests marked hardware")
    parser.addoption("--camera", help="address of a real camera, for tests marked hardware")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip tests of real devices that were not given."""
    if config.getoption("--rail") or config.getoption("--camera"):
        return
    skip = pytest.mark.skip(reason="needs a real device: give --rail PORT or --camera ID")
    for item in items:
        if item.get_closest_marker("hardware"):
            item.add_marker(skip)


@pytest.fixture(autouse=True)
def _broken_pipes_stay_errors() -> Iterator[None]:
    """A command run in this process lets a broken pipe end it, as it should; the tests after it must live on."""
    before = signal.getsignal(signal.SIGPIPE)
    yield
    signal.signal(signal.SIGPIPE, before)


@pytest.fixture(scope="session", autouse=True)
def _own_runtime_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the engines of tests away from those of whoever runs the tests, and of other workers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_RUNTIME_DIR", str(tmp_path_factory.mktemp("runtime")))
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of real photographs, videos and pairs; tests that need it skip where it is absent."""
    folder = Path(os.environ.get("CLEANPLATE_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "data" / "MANIFEST.md").is_file():
        pytest.skip(f"real image data not found at {folder} (set CLEANPLATE_SHARED)")
    return folder


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """Address of an empty bucket on moto's server, reached as any S3 is."""
    from moto_server import running_s3

    with running_s3() as url:
        yield url


_CLUSTER = """
from distributed import LocalCluster
if __name__ == "__main__":
    with LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster:
        print(cluster.scheduler_address, flush=True)
        input()
"""


@pytest.fixture(scope="session")
def dask_cluster() -> Iterator[str]:
    """Address of a scheduler with two workers, each a process of its own, as a user would start them."""
    pytest.importorskip("distributed", reason="needs the extra 'dask'")
    command = [sys.executable, "-c", _CLUSTER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        yield running.stdout.readline().strip()
        running.communicate("\n", timeout=50)
