"""How long a device would wait for crops: training steps with the data at hand beside steps fed by our loader.

Two ways. A real network on this machine's CPU, whose steps the loader's threads slow down; and a device that computes
by itself (it sleeps), which waits only where the loader does not keep up: what a GPU would see.

Imported by `benchmarks.catalog_loader`.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice, repeat
from pathlib import Path
from typing import Any

import cv2

from catalog.manifest import ManifestRow, write_manifest
from catalog.tile_pack_writer import PackPair, write_shard

BATCH, CROP, STEPS = 16, 256, 8
DECODES_PER_BLOCK = 8
"""So that the steps measured see several blocks decoded, not one."""
DEVICE_STEPS_S = (0.05, 0.1)
"""Of a device; 16 crops of 256 px take a large network on a GPU about 0.1 s."""


def write_export(folder: Path, pairs: Sequence[PackPair], kind: str) -> Path:
    """Write pairs as an export of PNG files (``files``) or as a tile pack (``raw``, ``zstd``)."""
    folder.mkdir()
    shard = "crops/train-00000.tiles"
    if kind == "files":
        for pair in pairs:
            for side, pixels in (("gt", pair.gt), ("lq", pair.lq)):
                (folder / side).mkdir(exist_ok=True)
                assert cv2.imwrite(str(folder / side / f"{pair.id}.png"), pixels[..., ::-1])
    else:
        (folder / "crops").mkdir()
        write_shard(folder / shard, pairs, codec=kind, tile_px=64, advance=lambda _: None)  # type: ignore[arg-type]
    write_manifest(folder, [_row(folder, pair, None if kind == "files" else shard) for pair in pairs])
    return folder


def _row(folder: Path, pair: PackPair, shard: str | None) -> ManifestRow:
    height, width = pair.gt.shape[:2]
    places = {side: shard or f"{side}/{pair.id}.png" for side in ("gt", "lq")}
    sums = {f"sha256_{side}": _sha256(folder / place, shard) for side, place in places.items()}
    return ManifestRow(
        id=pair.id, **places, **sums, scene="s", session="s", round="r", degradations=("noise",),
        foundir_class=None, settings={}, mu=0.1, sigma=0.1, residual_px=None, predicted_epe_px=None, mask=None,
        split="train", width=width, height=height, source="synthetic",
    )  # fmt: skip


def _sha256(path: Path, shard: str | None) -> str:
    return "0" * 64 if shard else hashlib.sha256(path.read_bytes()).hexdigest()


def waits(exports: dict[str, Path]) -> dict[str, Any]:
    """Measure every kind of export."""
    import torch

    torch.set_num_threads(1)
    step = _training_step()
    found: dict[str, Any] = {
        "batch": BATCH,
        "crop_px": CROP,
        "steps": STEPS,
        "load_average": os.getloadavg()[0],
    }
    for kind, export in exports.items():
        resident = next(_batches(export, ahead=False))
        at_hand = _paced(step, repeat(resident))
        fed = _paced(step, _batches(export, ahead=True))
        found[kind] = {
            "cpu_training": {"resident": at_hand, "loader": fed},
            "device": [_device(export, seconds) for seconds in DEVICE_STEPS_S],
        }
    return found


def _batches(export: Path, *, ahead: bool) -> Iterator[Any]:
    from models.data import CropLoader, PairDataset
    from models.order import CropOrder

    dataset = PairDataset(export, "train")
    order = CropOrder(dataset.classes, seed=1, balanced=True, decodes_per_block=DECODES_PER_BLOCK)
    with CropLoader(dataset, order, batch=BATCH, patch_px=CROP, workers=2, ahead=ahead) as loader:
        yield from loader.host_batches(0)


def _training_step() -> Callable[[Any], object]:
    import torch

    network = torch.nn.Sequential(
        torch.nn.Conv2d(3, 24, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(24, 3, 3, padding=1)
    )
    optimiser = torch.optim.AdamW(network.parameters(), fused=True)

    def step(host: Any) -> None:
        batch = host.to(torch.device("cpu"))
        optimiser.zero_grad(set_to_none=True)
        torch.nn.functional.l1_loss(network(batch.lq), batch.gt).backward()
        optimiser.step()

    return step


def _device(export: Path, step_s: float) -> dict[str, float]:
    """Feed a device whose step takes ``step_s`` of its own time."""
    found = _paced(lambda _: time.sleep(step_s), _batches(export, ahead=True))
    return {"device_step_s": step_s, **found, "pairs_per_cpu_s": round(BATCH / found["cpu_s"], 1)}


def _paced(step: Callable[[Any], object], batches: Iterator[Any]) -> dict[str, float]:
    """Take `STEPS` steps after a warm-up of two; times are a step's."""
    for batch in islice(batches, 2):
        step(batch)
    waited = 0.0
    began, began_cpu = time.perf_counter(), time.process_time()
    for _ in range(STEPS):
        asked = time.perf_counter()
        batch = next(batches)
        waited += time.perf_counter() - asked
        step(batch)
    whole, cpu = time.perf_counter() - began, time.process_time() - began_cpu
    return {
        "step_s": round(whole / STEPS, 4),
        "cpu_s": round(cpu / STEPS, 4),
        "wait_s": round(waited / STEPS, 4),
        "wait_share": round(waited / whole, 3),
    }


def cold_reads(
    files: Sequence[Path], loader: Callable[[], Any], windows: Sequence[Any]
) -> dict[str, float] | None:
    """Crop with nothing of the files in the page cache; None where this system does not count reads."""
    _drop(files)
    opened = loader()
    before, began = _read_bytes(), time.perf_counter()
    for window in windows:
        opened.crop(window)
    seconds, read = time.perf_counter() - began, _read_bytes() - before
    if not read:
        return None
    return {
        "crops": len(windows),
        "mb_read_per_pair": round(read / len(windows) / 1e6, 3),
        "pairs_per_s": round(len(windows) / seconds, 1),
    }


def _drop(files: Sequence[Path]) -> None:
    for path in files:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _read_bytes() -> int:
    """Bytes that this process had the disk read."""
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) for line in lines if line.startswith("read_bytes"))
