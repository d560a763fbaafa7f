"""What a training run tells while it runs: metrics.jsonl, TensorBoard, sample pictures, one line on stderr."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from torch.utils.tensorboard import SummaryWriter

from models.images import Pixels, plain_picture, write_png
from models.run_folder import RunFolder, step_name

if TYPE_CHECKING:
    from torch import Tensor

    from catalog.console import Console


class ProgressLog:
    """The logs of one run; a context manager.

    Args:
        run: Where the files go; None in the processes that do not lead.
        console: Where lines for a person go.
        first_step: Step at which this part of the run begins; TensorBoard forgets what came after it.
        processes: How many train together, all at the speed of this one.
    """

    def __init__(
        self, run: RunFolder | None, console: Console, *, first_step: int, processes: int = 1
    ) -> None:
        self._run, self._console, self._processes = run, console, processes
        self._board = None if run is None else SummaryWriter(str(run.path), purge_step=first_step)
        self._start_line()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._board is None:
            return
        try:
            self._board.close()
        except OSError as error:  # must not take the place of what ended the training
            self._console.say(f"TensorBoard's copy of the log is not complete: {error.strerror or error}")

    def count(self, parts: Mapping[str, Tensor], *, crops: int, waited_s: float) -> None:
        """Take one pass's losses in; they stay on the device until a line is due. What is not finite is left out."""
        for name, value in parts.items():
            finite = torch.isfinite(value)
            taken = torch.stack([torch.where(finite, value, 0.0).float(), finite.float()])
            self._sums[name] = self._sums[name] + taken if name in self._sums else taken
        self._crops += crops
        self._waited_s += waited_s

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Leave the time of the block out of the rates: it is not spent on training."""
        began_s = time.perf_counter()
        yield
        self._since_s += time.perf_counter() - began_s

    def training(self, step: int, **values: float) -> None:
        """Log averages since the last line, with the given values beside them."""
        elapsed_s = max(time.perf_counter() - self._since_s, 1e-9)
        averages = {name: float(total / count) for name, (total, count) in self._sums.items()}
        rates = {
            "images_per_s": self._crops * self._processes / elapsed_s,
            "data_wait_share": self._waited_s / elapsed_s,
        }
        self._write("train", step, {**averages, **values, **rates})
        self._console.say(
            f"step {step}: loss {averages.get('loss', math.nan):.4f}, "
            f"{rates['images_per_s']:.1f} crops/s, waiting for data {rates['data_wait_share']:.0%}"
        )
        self._start_line()

    def validation(self, step: int, by_class: Mapping[str, float], *, psnr_db: float) -> None:
        """Log a validation: PSNR of each class, and their average."""
        self._write("validation", step, {"psnr_db": psnr_db, **by_class})
        listed = ", ".join(f"{name} {psnr:.2f}" for name, psnr in by_class.items())
        self._console.say(f"step {step}: validation {psnr_db:.2f} dB ({listed})")

    def samples(self, step: int, triptychs: Mapping[str, Sequence[Pixels]]) -> None:
        """Write one picture per class: degraded, restored and reference side by side."""
        if self._run is None or self._board is None:
            return
        folder = self._run.samples / step_name(step)
        folder.mkdir(parents=True, exist_ok=True)
        for name, parts in triptychs.items():
            joined = np.concatenate(parts, axis=1)
            write_png(folder / f"{name}.png", plain_picture(joined))
            self._board.add_image(f"samples/{name}", joined, step, dataformats="HWC")

    def _start_line(self) -> None:
        self._since_s = time.perf_counter()
        self._sums: dict[str, Tensor] = {}
        self._crops, self._waited_s = 0, 0.0

    def _write(self, kind: str, step: int, values: Mapping[str, float]) -> None:
        if self._run is None or self._board is None:
            return
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        self._run.log({"kind": kind, "step": step, **dict.fromkeys(values), **finite})
        for name, value in finite.items():
            self._board.add_scalar(f"{kind}/{name}", value, step)
