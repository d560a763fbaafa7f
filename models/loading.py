"""`models.load`: whatever was trained or put together, ready to use."""

from __future__ import annotations

from pathlib import Path

from catalog.console import default_data_folder
from models.base import Classifier, Degrader, Restorer
from models.checkpoint import load as load_checkpoint
from models.ensemble import find_ensemble, load_ensemble
from models.precision import Precision, Usage


def load(
    run: str | Path,
    *,
    device: str = "cpu",
    data: Path | None = None,
    precision: Precision = "fp32",
    compiled: bool = False,
) -> Restorer | Degrader | Classifier:
    """Load a trained model or an ensemble of models, ready to use: evaluation mode, averaged weights.

    Args:
        run: An ensemble's or a run's folder or name (of a run the newest checkpoint is taken), or one
            ``.safetensors`` file.
        device: Where to put it.
        data: Data folder in which names are looked up; default as for the commands.
        precision: ``fp32`` is the reference; ``bf16`` runs the networks in bfloat16, ``auto`` where the device has it.
        compiled: Compile the networks at their first use.

    Raises:
        RunNotFoundError: No such run, or nothing saved in it yet.
        CheckpointError: A file is damaged, foreign, or does not fit the network it names.
        InvalidDocumentError: An ensemble's record is damaged.
    """
    folder, usage = data or default_data_folder(), Usage(device, precision, compiled)
    ensemble = find_ensemble(run, folder)
    return load_checkpoint(run, usage, data=folder) if ensemble is None else load_ensemble(ensemble, usage)
