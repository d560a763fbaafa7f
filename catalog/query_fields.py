"""The names a filter may use, the values they can have, and how a value is compared in SQL."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement

from catalog.pair_rows import DEGRADATION_BITS
from catalog.records import FOUNDIR_CLASSES, Degradation, degradation_key

_NUMBER = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
_MAX_INTEGER = 2**53

Value = str | float | bool
Kind = Literal["text", "number", "flag", "class", "degradation"]


@dataclass(frozen=True)
class Field:
    """A name that a filter may use."""

    kind: Kind
    values: tuple[str, ...] = ()
    """The only values it can have; empty for any."""


FIELDS: Mapping[str, Field] = {
    "id": Field("text"),
    "scene": Field("text"),
    "session": Field("text"),
    "round": Field("text"),
    "role": Field("text", ("gt", "internal", "external")),
    "degradation": Field("degradation", tuple(Degradation)),
    "degradations": Field("degradation", tuple(Degradation)),
    "class": Field("class"),
    "foundir_class": Field("text", FOUNDIR_CLASSES),
    "iso": Field("number"),
    "f_number": Field("number"),
    "exposure_s": Field("number"),
    "focus_m": Field("number"),
    "residual_px": Field("number"),
    "predicted_epe_px": Field("number"),
    "position_gap_mm": Field("number"),
    "mu": Field("number"),
    "sigma": Field("number"),
    "width": Field("number"),
    "height": Field("number"),
    "gt_warped": Field("flag"),
    "verdict": Field("text", ("accepted", "rejected")),
    "reason": Field("text"),
    "status": Field("text", ("accepted", "rejected", "quarantined")),
    "split": Field("text", ("train", "val", "test")),
    "source": Field("text", ("captured", "imported", "synthetic")),
}


def _number(_field: Field, text: str) -> Value:
    number = float(text) if _NUMBER.fullmatch(text) else math.nan
    if not math.isfinite(number) or abs(number) > _MAX_INTEGER:
        raise ValueError(f"a number is expected, not {text!r}")
    return number


def _flag(_field: Field, text: str) -> Value:
    if text.lower() not in {"true", "false"}:
        raise ValueError(f"true or false is expected, not {text!r}")
    return text.lower() == "true"


def _text(field: Field, text: str) -> Value:
    if field.values and text not in field.values:
        raise ValueError(f"no such value {text!r}{nearest(text, field.values)}")
    return text


def _class(_field: Field, text: str) -> Value:
    names = [] if text == "clean" else text.split("+")
    for name in names:
        if name not in tuple(Degradation):
            raise ValueError(f"no such degradation {name!r}{nearest(name, tuple(Degradation))}")
    return degradation_key(names)


VALUE_OF: Mapping[Kind, Callable[[Field, str], Value]] = {
    "number": _number,
    "flag": _flag,
    "text": _text,
    "degradation": _text,
    "class": _class,
}


def is_one_of(field: Field, column: ColumnElement[Any], values: Sequence[Value]) -> ColumnElement[bool]:
    """Ask for any of some values; of degradations the pair must have at least one."""
    if field.kind != "degradation":
        return column.in_(values)
    mask = 0
    for value in values:
        mask |= DEGRADATION_BITS[Degradation(str(value))]
    return column.bitwise_and(mask) != 0


def like_pattern(pattern: str) -> str:
    """Turn a pattern of the language into one of SQL's, escaped by a backslash."""
    escaped = re.sub(r"([\\%_])", r"\\\1", pattern)
    return escaped.replace("*", "%") if "*" in pattern else f"%{escaped}%"


def matches(pattern: str, value: str) -> bool:
    """Compare as `like_pattern` does in SQL."""
    expression = ".*".join(re.escape(part) for part in pattern.split("*"))
    search = re.fullmatch if "*" in pattern else re.search
    return search(expression, value, re.IGNORECASE) is not None


def nearest(name: str, valid: Sequence[str]) -> str:
    """Name the valid word that was probably meant, else all of them."""
    match = difflib.get_close_matches(name, [str(word) for word in valid], n=1, cutoff=0.5)
    return f"; did you mean {match[0]!r}?" if match else f"; valid: {', '.join(valid)}"
