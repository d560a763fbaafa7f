"""Divide scenes into train, val and test: whole scene groups, fixed once assigned.

A group keeps its part for ever; new groups fill the part that is furthest below its share. The table's key
allows one part per group and split, so no scene can stand in two.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from sqlalchemy import Connection, insert, select

from catalog.errors import CatalogError, ExitCode
from catalog.events import Batch
from catalog.manifest import Split as Part
from catalog.tables import Scene, Split, SplitMember, table_of

PARTS: tuple[Part, ...] = get_args(Part)
DEFAULT_SPLIT = "default"
"""The split that needs no making: 80, 10 and 10 % by a hash of the scene group."""
_DEFAULT_SALT = "cleanplate-default-split"
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"

scenes, splits, members = table_of(Scene), table_of(Split), table_of(SplitMember)


class SplitError(CatalogError, ValueError):
    """A split cannot be made or does not exist."""

    code = "CAT-SPL-001"
    exit_code = ExitCode.INVALID_INPUT


@dataclass(frozen=True)
class SplitRule:
    """How scene groups are divided.

    Raises:
        SplitError: A share is negative, not finite, or all are 0.
    """

    train: float = 0.8
    val: float = 0.1
    test: float = 0.1
    seed: int = 0
    scenes: Mapping[str, Part] = field(default_factory=dict)
    """Scenes assigned by hand; the others follow the shares."""

    def __post_init__(self) -> None:
        shares = (self.train, self.val, self.test)
        if not all(math.isfinite(s) and s >= 0 for s in shares) or sum(shares) <= 0:
            raise SplitError(f"shares {shares} must be 0 or more, and not all 0")

    def share(self, part: Part) -> float:
        """Return a part's share of all groups, in [0, 1]."""
        shares: dict[str, float] = {"train": self.train, "val": self.val, "test": self.test}
        return shares[part] / sum(shares.values())

    def as_text(self) -> str:
        """Render the rule as canonical JSON."""
        fields = {"train": self.train, "val": self.val, "test": self.test, "seed": self.seed}
        return json.dumps({**fields, "scenes": dict(self.scenes)}, sort_keys=True)


def hash_fraction(*words: object) -> float:
    """Map words to a number in [0, 1) that is the same on every machine."""
    digest = hashlib.sha256("/".join(str(word) for word in words).encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def default_part(group_key: str) -> Part:
    """Name the part of the default split that a scene group belongs to."""
    fraction = hash_fraction(_DEFAULT_SALT, group_key)
    return "train" if fraction < 0.8 else "val" if fraction < 0.9 else "test"


def assign(
    groups: Sequence[str], *, rule: SplitRule, taken: Mapping[str, Part], fixed: Mapping[str, Part]
) -> dict[str, Part]:
    """Assign new groups; those ``taken`` stay, those ``fixed`` by hand go first.

    The rest follows in an order drawn from the seed; each goes to the part furthest below its share of
    all groups.
    """
    assigned = {group: fixed[group] for group in groups if group in fixed}
    rest = [g for g in groups if g not in fixed]
    total = len(taken) + len(groups)
    filled = Counter[Part]([*taken.values(), *assigned.values()])
    for group in sorted(rest, key=lambda g: (hash_fraction(rule.seed, g), g)):
        part = max(PARTS, key=lambda p: rule.share(p) * total - filled[p])
        assigned[group] = part
        filled[part] += 1
    return assigned


def create_split(connection: Connection, name: str, rule: SplitRule) -> dict[str, Part]:
    """Make a split of all scenes known now; returns the part of each group.

    Raises:
        SplitError: The name will not do or is taken, or a scene of the rule is unknown or at odds with its group.
    """
    if re.fullmatch(_NAME, name) is None:
        raise SplitError(
            f"split name {name!r}: letters, digits, '.', '_' and '-' only, at most 64",
            kept="the catalog, unchanged",
            next_step="choose another name",
        )
    if name == DEFAULT_SPLIT or connection.execute(select(splits.c.id).where(splits.c.name == name)).scalar():
        raise SplitError(
            f"split {name!r} exists, and a split never changes once made",
            kept="the split as it is",
            next_step="choose another name",
        )
    fixed = _fixed_groups(connection, rule)
    text = rule.as_text()
    row: dict[str, object] = {
        "name": name,
        "seed": rule.seed,
        "rule": text,
        "rule_sha256": hashlib.sha256(text.encode()).hexdigest(),
        **{part: rule.share(part) for part in PARTS},
    }
    split_id = connection.execute(insert(splits).returning(splits.c.id), row).scalar_one()
    parts = assign(_groups(connection), rule=rule, taken={}, fixed=fixed)
    _insert(connection, split_id, parts)
    Batch().record(connection, "split", [(name, None, {"after": text})])
    return parts


def extend_splits(connection: Connection) -> None:
    """Give every scene group that appeared since a part in every split; others keep theirs."""
    for split in connection.execute(select(splits)).mappings():
        taken = split_members(connection, split["id"])
        new = [group for group in _groups(connection) if group not in taken]
        rule = SplitRule(split["train"], split["val"], split["test"], split["seed"])
        _insert(connection, split["id"], assign(new, rule=rule, taken=taken, fixed={}))


def find_split(connection: Connection, name: str) -> int | None:
    """Return the key of a split; None for the default one.

    Raises:
        SplitError: There is none of that name.
    """
    if name == DEFAULT_SPLIT:
        return None
    split_id: int | None = connection.execute(select(splits.c.id).where(splits.c.name == name)).scalar()
    if split_id is None:
        names = [DEFAULT_SPLIT, *connection.execute(select(splits.c.name)).scalars()]
        raise SplitError(f"no split {name!r}{_nearest(name, names)}", next_step=f"catalog split {name}")
    return split_id


def split_rule(connection: Connection, name: str) -> dict[str, Any]:
    """Return a split's rule as plain values, for the record of an export."""
    if name == DEFAULT_SPLIT:
        return {"hash_of": "scene group", "train": 0.8, "val": 0.1, "test": 0.1}
    rule: dict[str, Any] = json.loads(
        connection.execute(select(splits.c.rule).where(splits.c.name == name)).scalar_one()
    )
    return rule


def split_members(connection: Connection, split_id: int) -> dict[str, Part]:
    """Map each scene group of a split to its part."""
    rows = connection.execute(
        select(members.c.group_key, members.c.part).where(members.c.split_id == split_id)
    )
    return {row.group_key: row.part for row in rows}


def _insert(connection: Connection, split_id: int, parts: Mapping[str, Part]) -> None:
    rows = [{"split_id": split_id, "group_key": group, "part": part} for group, part in parts.items()]
    if rows:
        connection.execute(insert(members), rows)


def _groups(connection: Connection) -> list[str]:
    return list(
        connection.execute(select(scenes.c.group_key).distinct().order_by(scenes.c.group_key)).scalars()
    )


def _fixed_groups(connection: Connection, rule: SplitRule) -> dict[str, Part]:
    group_of: dict[str, str] = {r.name: r.group_key for r in connection.execute(select(scenes))}
    fixed: dict[str, Part] = {}
    for scene, part in rule.scenes.items():
        if scene not in group_of:
            raise SplitError(f"no scene {scene!r} in the catalog{_nearest(scene, list(group_of))}")
        if fixed.setdefault(group_of[scene], part) != part:
            raise SplitError(f"scene {scene!r} shares the group {group_of[scene]!r} with one in another part")
    return fixed


def _nearest(name: str, valid: Sequence[str]) -> str:
    match = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    return f"; did you mean {match[0]!r}?" if match else ""
