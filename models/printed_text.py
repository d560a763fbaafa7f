"""Printed characters on training crops: drawn on the reference, and degraded as the pair itself is.

Captured scenes hold little print. A line of it drawn on a reference has to appear on the degraded crop as it would have
been captured there, so the pair is asked how: a gain and a blur for each channel are fitted from its reference to its
degraded crop, and what drawing changed in the one is passed through them and added to the other. Noise, rain and
drops of the capture stay as they are. The fit knows round blurs only: along a motion blur it draws too soft a stroke.

Fonts are those that reportlab brings (Bitstream Vera) and Pillow's own; nothing is fetched.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

_SMALLEST_PX, _LARGEST_PX = 9, 26
"""Height of the letters."""
_LETTERS = np.array(list("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789&%,.-"))
_SIGMAS_PX = (0.0, 0.5, 0.8, 1.2, 1.8, 2.6, 3.8, 5.5)
"""Blurs that are tried, as standard deviations."""
_UNSURE = 1e-5
"""Variance below which a crop says little about its gain, which is then taken for 1."""
_SMALLEST_CONTRAST = 0.35


@dataclass(frozen=True)
class PrintedCrops:
    """Crops with print on them."""

    lq: Tensor
    """``(B, 3, H, W)`` in [0, 1]."""
    gt: Tensor
    where: Tensor
    """``(B, 1, H, W)``, 1 where print stands with its plate, 0 elsewhere."""
    ink: Tensor
    """``(B, 1, H, W)`` in [0, 1]: how much of a pixel is ink."""


def print_on(lq: Tensor, gt: Tensor, *, share: float) -> PrintedCrops:
    """Print on some crops of a batch; which, and what, follows from torch's global generator.

    Args:
        lq: Degraded crops, ``(B, 3, H, W)`` in [0, 1].
        gt: Their references.
        share: How many of the crops get print, in [0, 1].
    """
    chosen = torch.rand(len(gt)) < share
    seeds = torch.randint(2**62, (len(gt),)).tolist()
    height, width = gt.shape[-2:]
    blank = np.zeros((5, height, width), np.float32)
    drawn = [
        _plate(height, width, np.random.default_rng(seed)) if wanted else blank
        for seed, wanted in zip(seeds, chosen.tolist(), strict=True)
    ]
    layers = torch.from_numpy(np.stack(drawn)).to(gt)
    colour, where, ink = layers[:, :3], layers[:, 3:4], layers[:, 4:5]
    printed = where * colour + (1 - where) * gt
    with torch.no_grad(), torch.autocast(lq.device.type, enabled=False):
        change = degraded_alike(printed - gt, lq, gt)
    return PrintedCrops((lq + change).clamp(0, 1), printed, where, ink)


def degraded_alike(change: Tensor, lq: Tensor, gt: Tensor) -> Tensor:
    """Pass what was changed in references through the gain and blur that lead to their degraded crops.

    For each crop the blur is taken whose best gain and offset for each channel explain the degraded crop best.

    Args:
        change: ``(B, 3, H, W)``.
        lq: Degraded crops of the same shape.
        gt: References before the change.
    """
    best = torch.full((len(lq),), torch.inf, device=lq.device)
    passed = torch.zeros_like(change)
    seen = lq - lq.mean(dim=(2, 3), keepdim=True)
    for sigma in _SIGMAS_PX:
        blurred = _blurred(gt, sigma)
        blurred = blurred - blurred.mean(dim=(2, 3), keepdim=True)
        power = blurred.square().mean(dim=(2, 3), keepdim=True)
        shared = (blurred * seen).mean(dim=(2, 3), keepdim=True)
        gain = ((shared + _UNSURE) / (power + _UNSURE)).clamp(0, 1)
        error = (seen - gain * blurred).square().mean(dim=(1, 2, 3))
        better = error < best
        best = torch.where(better, error, best)
        passed = torch.where(better[:, None, None, None], gain * _blurred(change, sigma), passed)
    return passed


def _blurred(image: Tensor, sigma_px: float) -> Tensor:
    if sigma_px == 0:
        return image
    radius = int(3 * sigma_px + 1)
    at = torch.arange(-radius, radius + 1, device=image.device, dtype=image.dtype)
    kernel = torch.exp(-at.square() / (2 * sigma_px**2))
    kernel = (kernel / kernel.sum()).expand(image.shape[1], 1, 1, -1)
    padded = F.pad(image, (radius,) * 4, mode="replicate")
    rows = F.conv2d(padded, kernel, groups=image.shape[1])
    return F.conv2d(rows, kernel.transpose(2, 3), groups=image.shape[1])


def _plate(height: int, width: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Draw lines of print on a plate, turned a little: ``(5, H, W)``: colour, where, ink."""
    from PIL import Image, ImageDraw

    size_px = int(rng.integers(_SMALLEST_PX, _LARGEST_PX + 1))
    font = _font(int(rng.integers(len(_font_files()) + 1)), size_px)
    paper = Image.new("L", (width, height))
    ink = Image.new("L", (width, height))
    spacing = round(1.3 * size_px)
    lines = int(rng.integers(1, max(2, height // spacing)))
    top = int(rng.integers(0, max(1, height - lines * spacing)))
    left = int(rng.integers(0, max(1, width // 4)))
    ImageDraw.Draw(paper).rectangle((left, top, width, top + lines * spacing), fill=255)
    for line in range(lines):
        text = _words(rng, letters=2 * width // size_px)
        ImageDraw.Draw(ink).text((left + 2, top + line * spacing), text, fill=255, font=font)
    angle_deg = float(rng.normal(0, 4))
    planes = [
        np.asarray(p.rotate(angle_deg, Image.Resampling.BILINEAR), np.float32) / 255 for p in (paper, ink)
    ]
    where, stroke = planes[0], np.minimum(planes[0], planes[1])
    ground, pen = _two_colours(rng)
    colour = ground + stroke * (pen - ground)
    drawn: NDArray[np.float32] = np.concatenate([colour, where[None], stroke[None]])
    return drawn


def _words(rng: np.random.Generator, *, letters: int) -> str:
    drawn = rng.choice(_LETTERS, max(4, letters))
    return "".join(
        " " if gap else str(letter) for letter, gap in zip(drawn, rng.random(len(drawn)) < 0.15, strict=True)
    )


def _two_colours(rng: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Draw the colours of paper and ink, ``(3, 1, 1)`` each, far enough apart to be read."""
    while True:
        ground, pen = rng.random((2, 3, 1, 1), dtype=np.float32)
        if abs(float(ground.mean() - pen.mean())) >= _SMALLEST_CONTRAST:
            return ground, pen


@cache
def _font(index: int, size_px: int) -> Any:
    from PIL import ImageFont

    files = _font_files()
    return (
        ImageFont.load_default(size_px) if index == len(files) else ImageFont.truetype(files[index], size_px)
    )


@cache
def _font_files() -> tuple[Path, ...]:
    import reportlab

    return tuple(sorted((Path(reportlab.__file__).parent / "fonts").glob("Vera*.ttf")))
