"""Turn the evidence of pairs into rows of the pair tables."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any

from catalog.evidence import PairRecord
from catalog.records import Degradation, degradation_key, foundir_class
from catalog.session_content import SessionContent, TakeKey, pair_files
from catalog.stored_files import png_size

DEGRADATION_BITS: Mapping[Degradation, int] = {name: 1 << bit for bit, name in enumerate(Degradation)}
"""Bit of each degradation in ``pairs.degr_mask``; the migrations hold the same order."""
_MEASURED = ("gt_warped", "residual_px", "predicted_epe_px", "position_gap_mm", "mu", "sigma", "verdict")


def pair_uid(session: str, pair: str) -> str:
    """Name a pair uniquely in the whole catalog.

    >>> pair_uid("2026-05-02-bookshelf", "rain-000120")
    '2026-05-02-bookshelf/rain-000120'
    """
    return f"{session}/{pair}"


def sample_key(uid: str) -> int:
    """Return the first 63 bits of sha256(uid): a random order that new pairs never reshuffle."""
    return int.from_bytes(hashlib.sha256(uid.encode()).digest()[:8], "big") >> 1


def pair_rows(
    content: SessionContent, *, take_ids: Mapping[TakeKey, int], round_ids: Mapping[str, int]
) -> Iterator[dict[str, Any]]:
    """Yield the pairs' own rows in the order of `pairs.jsonl`, without session, scene and status."""
    for pair in content.pairs:
        round_ = content.takes[pair.lq.round, pair.lq.take].take.round
        settings = content.settings_of((pair.lq.round, pair.lq.take))
        width, height = _size(content, pair)
        yield {
            "uid": pair_uid(content.record.session, pair.pair),
            "round_id": round_ids[pair.lq.round],
            **_frame("gt", pair, take_ids),
            **_frame("lq", pair, take_ids),
            **class_columns(round_.degradations),
            **settings.model_dump(include={"iso", "f_number", "exposure_s", "focus_m"}),
            "width": width,
            "height": height,
            **{name: getattr(pair, name) for name in _MEASURED},
            "reasons": ",".join(pair.reasons),
            "sample_key": sample_key(pair_uid(content.record.session, pair.pair)),
        }


def alignment_row(pair: PairRecord, pair_id: int) -> dict[str, Any]:
    """Return the row of a pair's geometry."""
    return {
        "pair_id": pair_id,
        "homography": _json_or_none(pair.homography),
        "gt_from_pair": _json_or_none(pair.gt_from_pair),
        "lq_crop": _json_or_none(pair.lq_crop),
        "bound_px": pair.bound_px,
        "blur_kind": pair.blur.kind,
        "blur_size_px": pair.blur.size_px,
        "evidence": ",".join(pair.evidence),
    }


def metric_rows(pair: PairRecord, pair_id: int) -> Iterator[dict[str, Any]]:
    """Yield one row per gate."""
    for name, value in pair.gates.items():
        yield {"pair_id": pair_id, "name": name, "value": value}


def degradation_rows(
    content: SessionContent, pair: PairRecord, pair_id: int, *, degradation_ids: Mapping[str, int]
) -> Iterator[dict[str, Any]]:
    """Yield one row per degradation, with the level of the external condition of its name."""
    round_ = content.takes[pair.lq.round, pair.lq.take].take.round
    for name in sorted(set(round_.degradations)):
        yield {
            "pair_id": pair_id,
            "degradation_id": degradation_ids[name],
            "level": round_.conditions.get(name),
            "source": "planned",
        }


def _frame(side: str, pair: PairRecord, take_ids: Mapping[TakeKey, int]) -> dict[str, Any]:
    frame = pair.gt if side == "gt" else pair.lq
    return {
        f"{side}_take_id": take_ids[frame.round, frame.take],
        f"{side}_frame_index": frame.frame_index,
        f"{side}_time_s": frame.time_s,
        f"{side}_position_mm": frame.position_mm,
    }


def class_columns(degradations: tuple[Degradation, ...]) -> dict[str, Any]:
    """Return the columns of a pair that say what was made worse."""
    present = set(degradations)
    return {
        "degr_key": degradation_key(present),
        "degr_mask": sum(DEGRADATION_BITS[name] for name in present),
        "n_degr": len(present),
        "foundir_class": foundir_class(present),
    }


def _size(content: SessionContent, pair: PairRecord) -> tuple[int | None, int | None]:
    written = pair_files(pair).get("lq")
    size = png_size(content.root / written) if written else None
    if size is not None:
        return size
    return (None, None) if pair.lq_crop is None else pair.lq_crop[2:]


def _json_or_none(value: object) -> str | None:
    return None if value is None else json.dumps(value)
