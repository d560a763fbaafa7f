"""The processes of one training run: alone, or several started by `torchrun`."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any, Self

import torch
import torch.distributed as dist
from torch import nn


class Processes:
    """This process among those that train together. A context manager.

    `torchrun` tells each process its place through the environment; without it there is one process and
    nothing here does anything.
    """

    def __init__(self) -> None:
        self.world = int(os.environ.get("WORLD_SIZE", "1"))
        """Number of processes."""
        self.rank = int(os.environ.get("RANK", "0"))
        """Number of this one; 0 writes the files."""

    def __enter__(self) -> Self:
        if self.world > 1:
            dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
        return self

    def __exit__(self, *_: object) -> None:
        if self.world > 1:
            dist.destroy_process_group()

    @property
    def leads(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def shared(self, module: nn.Module) -> nn.Module:
        """Let the processes average their gradients when ``module`` is run backward."""
        if self.world == 1:
            return module
        return nn.parallel.DistributedDataParallel(module)

    def any(self, flag: bool, device: torch.device) -> bool:
        """Tell whether the flag is set in any process."""
        if self.world == 1:
            return flag
        shared = torch.tensor(int(flag), device=device)
        dist.all_reduce(shared, op=dist.ReduceOp.MAX)
        return bool(shared.item())

    def wait(self) -> None:
        """Let every process reach this line before any goes on."""
        if self.world > 1:
            dist.barrier()


class StopRequest:
    """Notes SIGINT and SIGTERM while its block runs, so that the step in progress can end and be saved."""

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, _number: int, _frame: FrameType | None) -> None:
        self.requested = True
