"""Pictures of candidates that were rejected and never written: their frames, decoded once more, as they were shot."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from alignment.decode import open_frames
from alignment.errors import AlignmentError
from alignment.report_pictures import PairPictures
from alignment.report_source import ReportSource, TakeSource
from catalog.evidence import PairFrame, PairRecord

if TYPE_CHECKING:
    from PIL.Image import Image

_Take = tuple[str, int]
_Place = tuple[str, int, int]


def frame_pictures(source: ReportSource, pairs: Sequence[PairRecord]) -> dict[str, PairPictures]:
    """Reduce both frames of candidates, not aligned to each other.

    Every movie is run through once. Takes whose files are missing or damaged give no pictures: a session may have
    been freed of its movies, and the report must appear all the same.
    """
    frames = dict(_frames(source, [side for p in pairs for side in (p.gt, p.lq)]))
    found = {}
    for pair in pairs:
        gt, lq = frames.get(_place(pair.gt)), frames.get(_place(pair.lq))
        if gt is not None and lq is not None and gt.size == lq.size:
            found[pair.pair] = PairPictures.of(gt, lq)
    return found


def _place(frame: PairFrame) -> _Place:
    return frame.round, frame.take, frame.frame_index


def _frames(source: ReportSource, wanted: Iterable[PairFrame]) -> Iterator[tuple[_Place, Image]]:
    indices: dict[_Take, set[int]] = defaultdict(set)
    for frame in wanted:
        indices[frame.round, frame.take].add(frame.frame_index)
    takes = _takes(source)
    for take in sorted(indices.keys() & takes.keys()):
        for index, picture in _decoded(takes[take], sorted(indices[take])):
            yield (*take, index), picture


def _takes(source: ReportSource) -> Mapping[_Take, TakeSource]:
    return {(r.name, t.take.number): t for r in source.rounds for t in r.takes if t.camera is not None}


def _decoded(take: TakeSource, indices: Sequence[int]) -> Iterator[tuple[int, Image]]:
    from PIL import Image as PillowImage

    if take.camera is None:
        return
    try:
        with open_frames(take.take.folder, take.camera) as reader:
            for index in indices:
                yield index, PillowImage.fromarray(reader.read(index).rgb()).convert("RGB")
    except (AlignmentError, IndexError):
        return
