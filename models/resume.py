"""What a run must still be told the same to be continued."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.checkpoint import config_document
from models.errors import ResumeRefusedError
from models.job import TrainingJob


def require_unchanged(job: TrainingJob, export_digest: str) -> None:
    """Refuse to continue a run whose configuration or export is no longer what it began with.

    Raises:
        ResumeRefusedError: Names the keys, or the digests.
    """
    config, record = job.run.read()
    if record.export_digest != export_digest:
        raise _refusal(
            f"{job.run.path}: the export {job.export} is not the one the run began with "
            f"(manifest {export_digest[:12]}, was {record.export_digest[:12]})",
            "export",
        )
    changed = _changed_keys(config_document(config), config_document(job.config))
    if changed:
        raise _refusal(
            f"{job.run.path}: the configuration changed: {', '.join(changed)}",
            "configuration",
        )


def _refusal(message: str, what: str) -> ResumeRefusedError:
    return ResumeRefusedError(
        message,
        kept="the run is untouched",
        next_step=f"resume with the first {what}, or start a new run with --init",
    )


def _changed_keys(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    changed: list[str] = []
    for key in before.keys() | now.keys():
        old, new = before.get(key), now.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            changed += [f"{key}.{name}" for name in _changed_keys(old, new)]
        elif old != new:
            changed.append(key)
    return sorted(changed)
