"""The processes of one training run: alone, or several started by `torchrun`."""

from __future__ import annotations

import os
import signal
import threading
from contextlib import AbstractContextManager, nullcontext
from types import FrameType
from typing import Any, Literal, Self

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from models.devices import find_device, named_device
from models.sharding import shard

Parallel = Literal["ddp", "fsdp"]


class Processes:
    """This process among those that train together. A context manager.

    `torchrun` tells each process its place through the environment; without it there is one process and
    nothing here does anything. A group that the caller made is used and left as it is.

    Args:
        device: Where to compute; ``cuda`` gives each process of a machine a device of its own.
        parallel: ``ddp``: every process holds the whole model. ``fsdp``: each holds a share of every weight, of its
            average and of the optimiser's state, and borrows the rest while it is needed.

    Raises:
        DeviceMissingError: That is no name of a device; when entered, no such device here.
    """

    def __init__(self, device: str, parallel: Parallel) -> None:
        self.world = int(os.environ.get("WORLD_SIZE", "1"))
        """Number of processes."""
        self.rank = int(os.environ.get("RANK", "0"))
        """Number of this one; 0 writes the files."""
        self.device = named_device(_own_device(device) if self.world > 1 else device)
        """Where this process computes."""
        self.sharded = self.world > 1 and parallel == "fsdp"
        """Whether weights are spread over the processes, so that to use or save them takes all of them."""
        self._makes_group = self.world > 1 and not dist.is_initialized()

    def __enter__(self) -> Self:
        find_device(str(self.device))
        if self._makes_group:
            if self.device.type == "cuda":
                torch.cuda.set_device(self.device)
            dist.init_process_group("nccl" if self.device.type == "cuda" else "gloo")
        return self

    def __exit__(self, *_: object) -> None:
        if self._makes_group:
            dist.destroy_process_group()

    @property
    def leads(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    @property
    def works_for_lead(self) -> bool:
        """Whether this process takes part in what only the leading one keeps: checkpoints and validations."""
        return self.leads or self.sharded

    def shared(self, module: nn.Module) -> nn.Module:
        """Let the processes average their gradients when ``module`` is run backward."""
        if self.world == 1:
            return module
        if self.sharded:
            shard(module, world=self.world)
            return module
        return DistributedDataParallel(module)

    def any(self, *, flag: bool) -> bool:
        """Tell whether the flag is set in any process."""
        if self.world == 1:
            return flag
        shared = torch.tensor(int(flag), device=self.device)
        dist.all_reduce(shared, op=dist.ReduceOp.MAX)
        return bool(shared.item())

    def agreed(self, value: float) -> float:
        """Return the leading process's value, for clocks that must not differ."""
        if self.world == 1:
            return value
        shared = torch.tensor(value, dtype=torch.float64, device=self.device)
        dist.broadcast(shared, src=0)
        return float(shared.item())

    def wait(self) -> None:
        """Let every process reach this line before any goes on."""
        if self.world > 1:
            dist.barrier()


def gradient_kept_back(module: nn.Module, *, wanted: bool) -> AbstractContextManager[None]:
    """Run a pass whose gradient is averaged over the processes with a later pass, where that saves traffic.

    Shards average theirs every time: what is kept back would be whole gradients, the memory that sharding saves.
    """
    if wanted and isinstance(module, DistributedDataParallel):
        return module.no_sync()
    return nullcontext()


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


def _own_device(device: str) -> str:
    return f"cuda:{os.environ.get('LOCAL_RANK', '0')}" if device == "cuda" else device
