"""Run twice, side by side, by test_processes: one export trained whole, in shards, and in shards with a stop.

Usage: two_processes.py DATA EXPORT
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import torch.distributed as dist

from catalog.console import Console
from models.job import plan_training
from models.train import train

SETTINGS = (
    "model.width=4", "training.patch_px=16", "training.batch=2", "training.accumulate=2", "training.steps=2",
    "training.checkpoint_every=1", "training.validation_pairs=1", "training.cpu_threads=1",
)  # fmt: skip


def train_as(out: str, parallel: str, *, resume: bool = False) -> None:
    """Train, or continue, one run."""
    overrides = (*SETTINGS, f"training.parallel={parallel}")
    job = plan_training(
        "nafnet", sys.argv[2], data=data, config="tiny", overrides=overrides, out=out, resume=resume
    )
    train(job, Console(data, quiet=True))


data = Path(sys.argv[1])
dist.init_process_group(
    "gloo", init_method=f"file://{data}/meeting", rank=int(os.environ["RANK"]), world_size=2
)
train_as("whole", "ddp")
train_as("shards", "fsdp")
if dist.get_rank() == 0:
    shutil.copytree(data / "runs" / "shards", data / "runs" / "resumed")
    (data / "runs" / "resumed" / "checkpoints" / "latest").write_text("step-000001\n")
dist.barrier()
train_as("resumed", "fsdp", resume=True)
dist.destroy_process_group()
