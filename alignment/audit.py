"""Audit a published pair folder: how far every pair is off, how sure that is, class by class.

Every pair is a job of its own that depends on nothing but its two files, so any number of workers gives the
same bytes. Finished pairs are set down as they come; an audit that was interrupted takes over those whose files
are still the same.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from alignment.audit_pair import measure_pair
from alignment.evidence_files import versions
from catalog.audit import AuditPair, AuditRecord, GroupSummary, PairMeasurement
from catalog.executors import ordered
from catalog.pair_folders import OddFile, PairFiles, PairListing
from catalog.session_folder import replace_file

ALIGNED_PX = 0.5
"""Beyond half a pixel a pair teaches a network to shift or to smear."""
AHEAD = 64
"""Jobs handed out before their turn; so much is lost at most when an audit is killed."""
_PART_SUFFIX = ".part"

Progress = Callable[[float], object]


@dataclass(frozen=True)
class _Job:
    root: Path
    files: PairFiles
    aligned_px: float
    known: AuditPair | None


def audit_pairs(
    listing: PairListing,
    target: Path,
    *,
    executor: Executor,
    aligned_px: float = ALIGNED_PX,
    limit: int | None = None,
    progress: Progress = lambda _: None,
) -> AuditRecord:
    """Measure every pair of a listing and write the audit.

    Args:
        listing: The pairs.
        target: The JSON file to write; a file of the same name and ``.part`` holds what is done until then.
        executor: Where pairs are measured.
        aligned_px: Largest displacement of a pair that counts as aligned.
        limit: Measure only so many pairs, drawn by lot from all classes alike.
        progress: Called with 1 for every finished pair.

    Returns:
        What was written.

    Raises:
        OSError: The target cannot be written.
    """
    chosen = sample(listing.pairs, limit)
    part = target.with_name(target.name + _PART_SUFFIX)
    target.parent.mkdir(parents=True, exist_ok=True)
    with _Progressed(part, part_key(listing.root, aligned_px)) as done:
        jobs = (_Job(listing.root, files, aligned_px, done.known.get(files.pair)) for files in chosen)
        for pair in ordered(executor, _measure, jobs, ahead=AHEAD):
            done.add(pair)
            progress(1)
        found = done.pairs
    record = _record(listing, [*found, *(_odd_pair(listing.root, o) for o in listing.odd)], aligned_px)
    replace_file(target, audit_bytes(record))
    part.unlink(missing_ok=True)
    return record


def audit_bytes(record: AuditRecord) -> bytes:
    """Return the file's bytes: the head, then one pair a line, so that a diff of two audits can be read."""
    head = record.model_dump(mode="json", by_alias=True, exclude={"pairs"})
    lines = ",\n".join(json.dumps(p.model_dump(mode="json"), ensure_ascii=False) for p in record.pairs)
    opening = json.dumps(head, ensure_ascii=False, indent=1).removesuffix("\n}")
    return f'{opening},\n "pairs": [\n{lines}\n]}}\n'.encode()


def sample(pairs: Sequence[PairFiles], limit: int | None) -> list[PairFiles]:
    """Draw pairs by lot, the classes in turn; the lot is each name's hash, so it always falls the same."""
    if limit is None or limit >= len(pairs):
        return list(pairs)
    classes: dict[str, list[PairFiles]] = defaultdict(list)
    for pair in sorted(pairs, key=lambda p: hashlib.sha256(p.pair.encode()).digest()):
        classes[pair.group].append(pair)
    dealt = chain.from_iterable(zip_longest(*(classes[name] for name in sorted(classes))))
    return sorted([pair for pair in dealt if pair is not None][:limit])


class _Progressed:
    """The pairs that are done, kept on disk line by line."""

    def __init__(self, path: Path, key: str) -> None:
        self._path, self._key = path, key
        self.known: Mapping[str, AuditPair] = {}
        self.pairs: list[AuditPair] = []

    def __enter__(self) -> _Progressed:
        self.known = dict(self._read())
        lines = [self._key, *(pair.model_dump_json() for pair in self.known.values())]
        replace_file(self._path, "".join(f"{line}\n" for line in lines).encode())  # without a torn last line
        self._file = self._path.open("a", encoding="utf-8")
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.close()

    def _read(self) -> Iterator[tuple[str, AuditPair]]:
        lines = (
            self._path.read_text(encoding="utf-8", errors="replace").splitlines()
            if self._path.is_file()
            else []
        )
        if not lines or lines[0] != self._key:
            return
        for line in lines[1:]:
            try:
                pair = AuditPair.model_validate_json(line)
            except ValidationError:
                return
            yield pair.pair, pair

    def add(self, pair: AuditPair) -> None:
        self.pairs.append(pair)
        if self.known.get(pair.pair) != pair:
            self._file.write(pair.model_dump_json() + "\n")
            self._file.flush()


def part_key(root: Path, aligned_px: float) -> str:
    """Return what an interrupted audit's results depend on besides the files; the first line of its ``.part``."""
    return json.dumps({"root": root.name, "aligned_px": aligned_px, "versions": versions()}, sort_keys=True)


def _measure(job: _Job) -> AuditPair:
    return measure_pair(job.root, job.files, aligned_px=job.aligned_px, known=job.known)


def _odd_pair(root: Path, odd: OddFile) -> AuditPair:
    path = odd.path.relative_to(root).as_posix() if odd.path.is_relative_to(root) else odd.path.name
    return AuditPair(
        pair=f"{odd.group}/{odd.name}" if odd.group else odd.name,
        group=odd.group,
        gt=path,
        lq="",
        sha256_gt=None,
        sha256_lq=None,
        width=None,
        height=None,
        verdict="not_measured",
        problem=odd.problem,
        why=odd.why,
    )


def _record(listing: PairListing, pairs: Iterable[AuditPair], aligned_px: float) -> AuditRecord:
    ordered_pairs = sorted(pairs, key=lambda p: (p.group, p.pair))
    groups: dict[str, list[AuditPair]] = defaultdict(list)
    for pair in ordered_pairs:
        groups[pair.group].append(pair)
    return AuditRecord(
        folder=listing.root.name,
        layout=listing.layout,
        versions=versions(),
        aligned_px=aligned_px,
        offered=len(listing.pairs),
        groups=tuple(_summary(name, members) for name, members in groups.items()),
        pairs=tuple(ordered_pairs),
    )


def _summary(name: str, pairs: Sequence[AuditPair]) -> GroupSummary:
    measured = [p.measured for p in pairs if p.measured]
    trusted = [m for m in measured if m.trustworthy]
    epe = [m.epe_px for m in trusted]
    local = [m.local_p90_px for m in trusted if m.local_p90_px is not None]
    return GroupSummary(
        group=name,
        pairs=len(pairs),
        measured=len(measured),
        trusted=len(trusted),
        aligned=sum(p.verdict == "aligned" for p in pairs),
        misaligned=sum(p.verdict == "misaligned" for p in pairs),
        parallax=sum(m.parallax == "parallax" for m in trusted),
        epe_px_median=_percentile(epe, 50),
        epe_px_p95=_percentile(epe, 95),
        epe_px_max=_percentile(epe, 100),
        local_p90_px_median=_percentile(local, 50),
    )


def _percentile(values: Sequence[float], percent: float) -> float | None:
    return round(float(np.percentile(values, percent)), 6) if values else None


def error_px(measured: PairMeasurement) -> float:
    """Judge a pair by the larger of what the whole picture and what its parts are off by."""
    return max(measured.epe_p95_px, measured.local_p90_px or 0.0)
