"""One training step in a process of its own, so that its peak memory is its own: times and memory as JSON.

    python -P -m benchmarks.models_step plain|reference|fast|tiny [--dim 64] [--batch 2] [--patch-px 128] [--steps 10]

``plain`` is `benchmarks.plain_foundir`. ``reference`` is our training of the published network as it stands, eager in
float32, ``fast`` the same in bfloat16 where the processor has it; ``tiny`` is the tiny generalist as shipped.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.plain_foundir import PlainTraining, PlainUnet
from benchmarks.stopwatch import Stopwatch
from models.base import RestorationBatch
from models.config import load_config
from models.foundir_unet import FoundirUnet
from models.processes import Processes
from models.registry import find_model
from models.training_state import TrainingState

PRECISION: Mapping[str, str] = {"reference": "fp32", "fast": "auto"}


def main() -> int:
    """Measure one side; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("side", choices=["plain", *PRECISION, "tiny"])
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--patch-px", type=int, default=128)
    parser.add_argument(
        "--steps", type=int, default=10, help="a multiple of ten: the plain average is as rare"
    )
    options = parser.parse_args()
    torch.manual_seed(1)
    with Processes("cpu", "ddp") as processes:
        step, batch = _step_of(options, processes)
        before_mb = _peak_mb()
        step()
        with Stopwatch() as clock:
            for _ in range(options.steps):
                step()
    found = {
        "wall_s_per_step": round(clock.wall_s / options.steps, 4),
        "cpu_s_per_step": round(clock.cpu_s / options.steps, 4),
        "images_per_s": round(batch * options.steps / clock.wall_s, 3),
        "images_per_cpu_s": round(batch * options.steps / clock.cpu_s, 3),
        "peak_memory_mb": _peak_mb(),
        "peak_memory_before_mb": before_mb,
    }
    print(json.dumps(found))
    return 0


def largest_difference(dim: int) -> float:
    """Give both networks the same weights; return how far their outputs lie apart.

    Raises:
        ValueError: They are not of one size.
    """
    torch.manual_seed(2)
    plain, ours = PlainUnet(dim).eval(), FoundirUnet(dim=dim).eval()
    counts = [sum(p.numel() for p in network.parameters()) for network in (plain, ours)]
    if counts[0] != counts[1]:
        raise ValueError(f"the plain port has {counts[0]} parameters, ours {counts[1]}")
    ours.load_state_dict(plain.state_dict())
    both, time = torch.randn(2, 6, 64, 64), torch.tensor([276.06, 993.65])
    with torch.inference_mode():
        return float((plain(both, time) - ours(both, time)).abs().max())


def _step_of(options: argparse.Namespace, processes: Processes) -> tuple[Callable[[], None], int]:
    """Return what makes one step, and how many crops it takes."""
    if options.side == "plain":
        training, crops = PlainTraining(options.dim), torch.rand(2, options.batch, 3, *2 * [options.patch_px])
        return lambda: training.step(*crops), options.batch
    size, changes = "tiny", []
    if options.side != "tiny":
        size = "base"
        changes = [f"model.dim={options.dim}", f"training.precision={PRECISION[options.side]}",
                   f"training.batch={options.batch}", f"training.patch_px={options.patch_px}"]  # fmt: skip
    config = load_config(find_model("foundir"), size, changes)
    state = TrainingState(config, processes)
    batch = _batch(torch.rand(2, config.training.batch, 3, *2 * [config.training.patch_px]))
    return lambda: _step(state, batch), config.training.batch


def _step(state: TrainingState, batch: RestorationBatch) -> None:
    state.optimiser.zero_grad(set_to_none=True)
    state.objective(batch)["loss"].backward()
    state.apply_gradient(learning_rate=1e-4)


def _batch(crops: Tensor) -> RestorationBatch:
    lq, gt = crops
    picture, names = F.interpolate(lq, size=(32, 32), mode="area"), ("noise",) * len(lq)
    return RestorationBatch(lq, gt, None, names, picture, names, torch.zeros(len(lq), 2))


def _peak_mb() -> int:
    """Return this program's own peak; getrusage's would be that of the process it was started by, if that is larger."""
    status = Path("/proc/self/status").read_text()
    return int(re.findall(r"VmHWM:\s+(\d+) kB", status)[0]) // 1024


if __name__ == "__main__":
    sys.exit(main())
