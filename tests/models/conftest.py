"""Small exports to train on, written through the real manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from catalog.console import Console
from catalog.manifest import ManifestRow, Split, write_manifest
from models.checkpoint import CheckpointInfo, config_document, save_weights
from models.config import load_config
from models.registry import find_model

ExportMaker = Callable[..., Path]
RunSaver = Callable[..., Path]


@pytest.fixture(autouse=True, scope="session")
def _one_torch_thread():
    """Workers of the test runner share the cores; one thread each is fastest for tiny networks."""
    torch.set_num_threads(1)


@pytest.fixture
def console(tmp_path: Path) -> Console:
    return Console(tmp_path / "data", quiet=True)


@pytest.fixture
def saved_run(tmp_path: Path) -> RunSaver:
    """Save a model as it is after drawing its weights, every one of them different from zero; returns the file."""

    def save(name: str, size: str, *overrides: str, seed: int = 1) -> Path:
        entry = find_model(name)
        config = load_config(entry, size, overrides)
        torch.manual_seed(seed)
        weights = entry.build(config.model).state_dict()
        moved = {key: value + 0.05 * torch.randn_like(value) for key, value in weights.items()}
        path = tmp_path / f"{name}-{seed}.safetensors"
        save_weights(path, moved, CheckpointInfo(config=config_document(config), step=seed, export_digest=""))
        return path

    return save


def photo_like(rng: np.random.Generator, *, height: int, width: int) -> NDArray[np.uint8]:
    """Smooth colour patches with edges: something a network can restore."""
    coarse = rng.uniform(30, 220, (6, 8, 3)).astype(np.float32)
    return np.rint(cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC).clip(0, 255)).astype(
        np.uint8
    )


@pytest.fixture
def make_export(tmp_path: Path) -> ExportMaker:
    """Write an export: for each entry of ``classes`` a pair whose lq has noise of 12 code values."""

    def make(
        name: str = "export",
        *,
        classes: Sequence[str] = ("noise", "noise", "rain", "low_light"),
        split: Split = "train",
        size: tuple[int, int] = (96, 64),
        test_classes: Sequence[str] = (),
        masked: bool = False,
        deep: bool = False,
        seed: int = 1,
    ) -> Path:
        folder = tmp_path / name
        rng = np.random.default_rng(seed)
        entries = [(c, split) for c in classes] + [(c, "test") for c in test_classes]
        rows = [
            _write_pair(folder, i, name=c, split=s, size=size, rng=rng, masked=masked, deep=deep)
            for i, (c, s) in enumerate(entries)
        ]
        folder.mkdir(exist_ok=True)
        write_manifest(folder, rows)
        return folder

    return make


def _write_pair(
    folder: Path,
    number: int,
    *,
    name: str,
    split: Split,
    size: tuple[int, int],
    rng: np.random.Generator,
    masked: bool,
    deep: bool,
) -> ManifestRow:
    width, height = size
    gt = photo_like(rng, height=height, width=width)
    lq = np.rint((gt + rng.normal(0, 12, gt.shape)).clip(0, 255)).astype(np.uint8)
    if name == "low_light":
        lq = lq // 4
    files = {"gt": gt, "lq": lq}
    if deep:
        files = {key: value.astype(np.uint16) * 257 for key, value in files.items()}
    if masked:
        files["mask"] = (
            np.where(np.arange(width) < width // 2, 255, 0).astype(np.uint8)[None].repeat(height, axis=0)
        )
    digests = {key: _write_png(folder / key / f"{number:03d}.png", value) for key, value in files.items()}
    difference = np.abs(lq.astype(float) - gt) / 255
    return ManifestRow(
        id=f"pair-{number:03d}",
        gt=f"gt/{number:03d}.png",
        lq=f"lq/{number:03d}.png",
        scene=f"scene-{split}",
        session="session",
        round=name,
        degradations=tuple(name.split("+")),
        foundir_class=None,
        settings={},
        mu=float(difference.mean()),
        sigma=float(difference.std()),
        residual_px=0.02,
        predicted_epe_px=0.05,
        mask=f"mask/{number:03d}.png" if masked else None,
        split=split,
        width=width,
        height=height,
        sha256_gt=digests["gt"],
        sha256_lq=digests["lq"],
        source="synthetic",
    )


def _write_png(path: Path, pixels: NDArray[np.uint8 | np.uint16]) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = pixels if pixels.ndim == 2 else pixels[..., ::-1]
    data = cv2.imencode(".png", stored)[1].tobytes()
    path.write_bytes(data)
    return hashlib.sha256(data).hexdigest()
