"""Which pairs the report shows as pictures: the worst, the best and some by lot; and the rejected ones."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path

from alignment.report_field import field_overlays
from alignment.report_frames import frame_pictures
from alignment.report_pictures import PairCard, PairPictures, read_pictures, within_budget
from alignment.report_source import ReportSource, RoundSource
from alignment.report_words import NOTHING, Reason, counted, listed, number, reason_words, with_unit
from catalog.evidence import PairRecord
from catalog.session_folder import PAIRS_FOLDER

SHEET_PAIRS = 120
"""Most pairs the contact sheet shows."""
SHEET_PIXELS = 260_000_000
"""Most pixels it decodes: 120 pairs of 1080p are 500 million and would cost 10 s, so large frames get fewer."""
SHEET_BYTES = 4_800_000
"""Most that its pictures add to the page."""
REJECTED_PICTURES = 4
"""Most rejected pairs per reason that are shown as pictures."""
REJECTED_FRAMES = 2
"""Candidates per reason whose frames are decoded again, since nothing was written of them."""
REJECTED_DECODED = 12
"""Most of them in all."""
REJECTED_BYTES = 800_000
REJECTED_ROWS = 40
"""Most rejected pairs per reason whose numbers are listed."""


FRONT = (("worst", 4), ("best", 2), ("by lot", 2))
"""How many of each kind a round shows at once; the others unfold."""
_PICKS = tuple(pick for pick, _ in FRONT)


@dataclass(frozen=True)
class SheetPart:
    """The cards of one round and the list of all its accepted pairs."""

    round: str
    number: int
    degradation: str
    cards: tuple[PairCard, ...]
    """A few of each kind, to be seen at once."""
    more: tuple[PairCard, ...]
    accepted: tuple[PairRecord, ...]


@dataclass(frozen=True)
class RejectGroup:
    """The rejected candidates that one reason speaks against."""

    code: str
    reason: Reason
    count: int
    by_round: str
    cards: tuple[PairCard, ...]
    pairs: tuple[PairRecord, ...]
    """The first of them in the order of their rounds."""
    shares: str
    """The other reasons that speak against the same candidates."""


def contact_sheet(source: ReportSource) -> tuple[SheetPart, ...]:
    """Choose the pairs of the contact sheet and read their pictures."""
    rounds = [r for r in source.degraded if r.accepted]
    if not rounds:
        return ()
    picks = list(_picks(rounds, _sheet_size(source.accepted)))
    names = [pair.pair for pair, _ in picks]
    pictures = read_pictures(source.folder.path, names, budget_bytes=SHEET_BYTES)
    focal_px = source.alignment.focal_px if source.alignment else None
    fields = field_overlays(source.folder.path, _seen_at_once(picks, pictures), focal_px=focal_px)
    cards: dict[str, list[PairCard]] = {r.name: [] for r in rounds}
    for p, why in picks:
        if p.pair in pictures:
            card = PairCard(p.pair, why, pictures[p.pair], pair_facts(p), fields.get(p.pair))
            cards[p.lq.round].append(card)
    return tuple(_part(r, cards[r.name]) for r in rounds)


def _seen_at_once(
    picks: Sequence[tuple[PairRecord, str]], pictures: Mapping[str, PairPictures]
) -> list[PairRecord]:
    """List the pairs that are not folded away, the worst of every round first."""
    seen: Counter[tuple[str, str]] = Counter()
    front: dict[str, list[PairRecord]] = {pick: [] for pick in _PICKS}
    for pair, pick in picks:
        if pair.pair in pictures and seen[pair.lq.round, pick] < dict(FRONT)[pick]:
            seen[pair.lq.round, pick] += 1
            front[pick].append(pair)
    return list(chain.from_iterable(front.values()))


def _part(round_: RoundSource, cards: Sequence[PairCard]) -> SheetPart:
    front = [c for pick, count in FRONT for c in [c for c in cards if c.pick == pick][:count]]
    more = sorted((c for c in cards if c not in front), key=lambda c: _PICKS.index(c.pick))
    return SheetPart(
        round=round_.name,
        number=round_.record.number,
        degradation=round_.degradation,
        cards=tuple(front),
        more=tuple(more),
        accepted=round_.accepted,
    )


def _sheet_size(accepted: Sequence[PairRecord]) -> int:
    sizes = [p.lq_crop[2] * p.lq_crop[3] for p in accepted if p.lq_crop]
    largest = max(sizes, default=1)
    return max(min(SHEET_PAIRS, SHEET_PIXELS // (2 * largest)), 3)


def _picks(rounds: Sequence[RoundSource], count: int) -> Iterator[tuple[PairRecord, str]]:
    """Deal the places of the sheet to the rounds in turn, so that a byte budget cuts all of them alike."""
    share = max(count // len(rounds), 3)
    hands = [_hand(r.accepted, share) for r in rounds]
    dealt = chain.from_iterable(zip_longest(*hands))
    yield from [pick for pick in dealt if pick is not None][: max(count, len(rounds))]


def _hand(pairs: Sequence[PairRecord], count: int) -> list[tuple[PairRecord, str]]:
    by_error = sorted(pairs, key=lambda p: (-_error_px(p), p.pair))
    by_lot = sorted(pairs, key=lambda p: hashlib.sha256(p.pair.encode()).digest())
    taken: dict[str, tuple[PairRecord, str]] = {}
    turns = zip(by_error, reversed(by_error), by_lot, strict=True)
    for pair, pick in chain.from_iterable(zip(turn, _PICKS, strict=True) for turn in turns):
        if len(taken) < count:
            taken.setdefault(pair.pair, (pair, pick))
    return list(taken.values())


def _error_px(pair: PairRecord) -> float:
    """Judge a pair by the larger of what was measured and what was predicted."""
    return max(pair.residual_px or 0.0, pair.predicted_epe_px or 0.0)


def pair_facts(pair: PairRecord) -> tuple[tuple[str, str], ...]:
    """Say what an operator wants to know of a pair, as terms and values."""
    facts = [
        ("residual", with_unit(pair.residual_px, 3, "px")),
        ("predicted", with_unit(pair.predicted_epe_px, 3, "px")),
        ("bound", with_unit(pair.bound_px, 4, "px")),
        ("gap", with_unit(pair.position_gap_mm, 3, "mm")),
        ("camera moved", _moved(pair)),
        ("blur", blur_words(pair)),
        ("GT", "warped" if pair.gt_warped else "as shot"),
        ("frames", f"{pair.gt.frame_index} → {pair.lq.frame_index}"),
        ("rests on", listed(pair.evidence) or NOTHING),
    ]
    return tuple(facts)


def _moved(pair: PairRecord) -> str:
    """Say how far the camera came back beside where it was, to a unit of its standard deviation."""
    if pair.camera_gap_mm is None or pair.camera_gap_sigma_mm is None:
        return NOTHING
    ways = zip(pair.camera_gap_mm, pair.camera_gap_sigma_mm, ("right", "down", "forward"), strict=True)
    return ", ".join(f"{gap:+.3f} ± {sigma:.3f} mm {way}" for gap, sigma, way in ways)


def blur_words(pair: PairRecord) -> str:
    """Say which blur was found between the two sides."""
    if pair.blur.kind == "none":
        return "none"
    shape = "disc r" if pair.blur.kind == "disc" else "motion"
    return f"{shape} {number(pair.blur.size_px, 1)} px"


def reject_groups(source: ReportSource) -> tuple[RejectGroup, ...]:
    """Sort the rejected candidates by reason, the most frequent first; one with two reasons stands twice."""
    rejected = [p for p in source.pairs if p.verdict == "rejected"]
    counts = Counter(code for p in rejected for code in (p.reasons or ("no_reason_given",)))
    groups = [(code, [p for p in rejected if code in (p.reasons or ("no_reason_given",))]) for code in counts]
    ordered = sorted(groups, key=lambda g: (-len(g[1]), g[0]))
    shown = [p.pair for _, pairs in ordered for p in _written(source.folder.path, pairs)]
    pictures = read_pictures(source.folder.path, dict.fromkeys(shown), budget_bytes=REJECTED_BYTES)
    decoded = frame_pictures(source, _to_decode([pairs for _, pairs in ordered], pictures))
    pictures |= within_budget(decoded.items(), REJECTED_BYTES)
    return tuple(_group(code, pairs, pictures) for code, pairs in ordered)


def _to_decode(groups: Sequence[Sequence[PairRecord]], known: Mapping[str, PairPictures]) -> list[PairRecord]:
    """Choose a few candidates of every reason, spread over its rounds; decoding costs up to a second each."""
    chosen: dict[str, PairRecord] = {}
    for turn in range(REJECTED_FRAMES):
        for pairs in groups:
            pair = pairs[(2 * turn + 1) * len(pairs) // (2 * REJECTED_FRAMES)]
            if pair.pair not in known and len(chosen) < REJECTED_DECODED:
                chosen.setdefault(pair.pair, pair)
    return list(chosen.values())


def _written(session: Path, pairs: Sequence[PairRecord]) -> list[PairRecord]:
    there = (p for p in pairs if (session / PAIRS_FOLDER / "lq" / f"{p.pair}.png").is_file())
    return [pair for pair, _ in zip(there, range(REJECTED_PICTURES), strict=False)]


def _group(code: str, pairs: Sequence[PairRecord], pictures: dict[str, PairPictures]) -> RejectGroup:
    by_round = Counter(p.lq.round for p in pairs)
    others = Counter(c for p in pairs for c in p.reasons if c != code)
    cards = [
        PairCard(p.pair, "as shot", pictures[p.pair], pair_facts(p)) for p in pairs if p.pair in pictures
    ]
    return RejectGroup(
        code=code,
        reason=reason_words(code),
        count=len(pairs),
        by_round=", ".join(f"{name} {n}" for name, n in by_round.items()),
        cards=tuple(cards[:REJECTED_PICTURES]),
        pairs=tuple(pairs[:REJECTED_ROWS]),
        shares=", ".join(f"{reason_words(c).title.lower()} ({n})" for c, n in others.most_common(4)),
    )


def sheet_words(parts: Sequence[SheetPart]) -> str:
    """Say how many pairs are shown out of how many."""
    shown, all_ = sum(len(p.cards) + len(p.more) for p in parts), sum(len(p.accepted) for p in parts)
    if shown == all_:
        return f"All {counted(all_, 'accepted pair')}" if all_ > 1 else "The accepted pair"
    return f"{shown} of {counted(all_, 'accepted pair')}"
