"""The ``--where`` language: a small expression over named columns, turned into SQL with bound values only.

```
role = internal and class in (noise, 'haze+rain') and residual_px <= 0.05
degradation ~ blur and not (scene = bookshelf-03 or iso > 3200) and foundir_class is not null
```

Operators: ``= != < <= > >= ~ !~ in (...) is null`` with ``and or not ( )``. ``~`` asks for a part of a text, or
with ``*`` for the whole text by a pattern. Words need quotes only where they hold spaces or signs.

A pair whose value is not known passes no comparison, and so every negation of one: ``X`` and ``not (X)`` divide the
pairs, and ``!=``, ``!~`` and ``not in`` are short for ``not``. SQL's third truth value never decides.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from sqlalchemy import ColumnElement, and_, not_, or_

from catalog.errors import CatalogError, ExitCode
from catalog.query_fields import FIELDS, VALUE_OF, Field, Value, is_one_of, like_pattern, matches, nearest

MAX_LENGTH = 4_000
MAX_DEPTH = 30
MAX_TERMS = 200
MAX_STARS = 6


class QueryError(CatalogError, ValueError):
    """A filter does not fit the language; the message names the column in the expression."""

    code = "CAT-QRY-001"
    exit_code = ExitCode.INVALID_INPUT


_TOKEN = re.compile(
    r"""\s*(?:(?P<sign>!=|<=|>=|!~|[=<>~(),])"""
    r"""|(?P<text>'(?:[^']|'')*'|"(?:[^"]|"")*")"""
    r"""|(?P<word>[^\s=<>!~(),'"]+))"""
)
_RESERVED = frozenset({"and", "or", "not", "in", "is", "null"})
_COMPARE: Mapping[str, Callable[[Any, Any], Any]] = {
    "=": operator.eq,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_NEGATED = {"!=": "=", "!~": "~"}


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    at: int
    """Column of its first character, counted from 1."""


def compile_where(text: str, columns: Mapping[str, ColumnElement[Any]]) -> ColumnElement[bool]:
    """Turn a filter into a condition on ``columns``, which holds one column per name in `FIELDS`.

    Raises:
        QueryError: The filter is not in the language; the message says where and what would be.
    """
    return _Parser(_tokens(text), columns).parse().holds


@dataclass(frozen=True)
class _Condition:
    """A condition beside its complement, so that no ``NOT`` ever meets a value that is not known."""

    holds: ColumnElement[bool]
    fails: ColumnElement[bool]

    @classmethod
    def on(cls, column: ColumnElement[Any], passes: ColumnElement[bool]) -> Self:
        """Ask something of a column; where it holds no value, the answer is no."""
        if not getattr(column, "nullable", True):
            return cls(passes, not_(passes))
        return cls(passes, or_(not_(passes), column.is_(None)))

    @property
    def negated(self) -> _Condition:
        return _Condition(self.fails, self.holds)


def _tokens(text: str) -> list[_Token]:
    if len(text) > MAX_LENGTH:
        raise QueryError(f"where:1:{MAX_LENGTH}: a filter has at most {MAX_LENGTH} characters")
    _check_characters(text)
    tokens, position, end = [], 0, len(text.rstrip())
    while position < end:
        match = _TOKEN.match(text, position)
        if match is None or match.lastgroup is None:
            at = position + len(text[position:]) - len(text[position:].lstrip())
            raise QueryError(f"where:1:{at + 1}: {text[at]!r} does not fit here; is a quote missing?")
        token = _Token(match.lastgroup, match[match.lastgroup], match.start(match.lastgroup) + 1)
        tokens.append(token)
        position = match.end()
    return [*tokens, _Token("end", "", end + 1)]


def _check_characters(text: str) -> None:
    for at, character in enumerate(text, start=1):
        if character == "\0" or 0xD800 <= ord(character) <= 0xDFFF:
            raise QueryError(f"where:1:{at}: {character!r} is not allowed in a filter")


class _Parser:
    """Recursive descent over the tokens; every method consumes what it names."""

    def __init__(self, tokens: Sequence[_Token], columns: Mapping[str, ColumnElement[Any]]) -> None:
        self._tokens = tokens
        self._columns = columns
        self._next = 0
        self._depth = 0
        self._terms = 0

    def parse(self) -> _Condition:
        condition = self._any_of()
        if self._peek.kind != "end":
            raise self._error(f"'and', 'or' or the end is expected, not {self._peek.text!r}")
        return condition

    @property
    def _peek(self) -> _Token:
        return self._tokens[self._next]

    def _take(self) -> _Token:
        token = self._peek
        self._next = min(self._next + 1, len(self._tokens) - 1)
        return token

    def _take_if(self, *texts: str) -> bool:
        token = self._peek
        found = token.kind in {"word", "sign"} and token.text.lower() in texts
        if found:
            self._take()
        return found

    def _expect(self, text: str) -> None:
        if not self._take_if(text):
            raise self._error(f"{text!r} is expected, not {self._peek.text or 'the end'!r}")

    def _error(self, message: str, token: _Token | None = None) -> QueryError:
        at = (token or self._peek).at
        return QueryError(f"where:1:{at}: {message}", next_step="catalog list --help shows the language")

    def _any_of(self) -> _Condition:
        conditions = [self._all_of()]
        while self._take_if("or"):
            conditions.append(self._all_of())
        return _Condition(or_(*(c.holds for c in conditions)), and_(*(c.fails for c in conditions)))

    def _all_of(self) -> _Condition:
        conditions = [self._term()]
        while self._take_if("and"):
            conditions.append(self._term())
        return _Condition(and_(*(c.holds for c in conditions)), or_(*(c.fails for c in conditions)))

    def _term(self) -> _Condition:
        self._depth += 1
        self._terms += 1
        if self._depth > MAX_DEPTH or self._terms > MAX_TERMS:
            raise self._error(f"a filter has at most {MAX_TERMS} terms, {MAX_DEPTH} deep")
        if self._take_if("not"):
            condition = self._term().negated
        elif self._take_if("("):
            condition = self._any_of()
            self._expect(")")
        else:
            condition = self._comparison()
        self._depth -= 1
        return condition

    def _comparison(self) -> _Condition:
        name = self._take()
        if name.kind == "end":
            raise self._error("a name is expected, not the end", name)
        if name.kind != "word" or name.text not in FIELDS:
            raise self._error(f"unknown name {name.text!r}{nearest(name.text, tuple(FIELDS))}", name)
        field, column = FIELDS[name.text], self._columns[name.text]
        if self._take_if("is"):
            return self._null_test(column)
        negated = self._take_if("not")
        if negated or self._peek.text.lower() == "in":
            self._expect("in")
            condition = _Condition.on(column, is_one_of(field, column, self._list(field)))
            return condition.negated if negated else condition
        return self._compared(field, column)

    def _null_test(self, column: ColumnElement[Any]) -> _Condition:
        negated = self._take_if("not")
        self._expect("null")
        condition = _Condition(column.is_(None), column.is_not(None))
        return condition.negated if negated else condition

    def _compared(self, field: Field, column: ColumnElement[Any]) -> _Condition:
        sign = self._take()
        asked = _NEGATED.get(sign.text, sign.text) if sign.kind == "sign" else ""
        if asked == "~":
            condition = _Condition.on(column, self._like(field, column, sign))
        elif asked in _COMPARE:
            condition = _Condition.on(column, self._ordered(field, column, sign))
        else:
            raise self._error(f"one of = != < <= > >= ~ in is expected, not {sign.text or 'the end'!r}", sign)
        return condition.negated if sign.text in _NEGATED else condition

    def _ordered(self, field: Field, column: ColumnElement[Any], sign: _Token) -> ColumnElement[bool]:
        asked = _NEGATED.get(sign.text, sign.text)
        if asked != "=" and field.kind != "number" and (field.values or field.kind != "text"):
            raise self._error(f"{sign.text!r} orders numbers and free texts only", sign)
        value = self._value(field)
        if field.kind == "degradation":
            return is_one_of(field, column, [value])
        result: ColumnElement[bool] = _COMPARE[asked](column, value)
        return result

    def _like(self, field: Field, column: ColumnElement[Any], sign: _Token) -> ColumnElement[bool]:
        token = self._take()
        if token.kind not in {"word", "text"} or field.kind in {"number", "flag"}:
            raise self._error(f"{sign.text!r} compares texts", token if token.kind == "end" else sign)
        pattern = _unquoted(token)
        if pattern.count("*") > MAX_STARS:
            raise self._error(f"a pattern has at most {MAX_STARS} stars", token)
        if field.kind == "degradation":
            return is_one_of(field, column, [v for v in field.values if matches(pattern, v)])
        return column.ilike(like_pattern(pattern), escape="\\")

    def _list(self, field: Field) -> list[Value]:
        self._expect("(")
        values = [self._value(field)]
        while self._take_if(","):
            values.append(self._value(field))
        self._expect(")")
        return values

    def _value(self, field: Field) -> Value:
        token = self._take()
        if token.kind not in {"word", "text"} or (token.kind == "word" and token.text.lower() in _RESERVED):
            raise self._error(f"a value is expected, not {token.text or 'the end'!r}", token)
        try:
            return VALUE_OF[field.kind](field, _unquoted(token))
        except ValueError as error:
            raise self._error(str(error), token) from None


def _unquoted(token: _Token) -> str:
    if token.kind == "word":
        return token.text
    quote = token.text[0]
    return token.text[1:-1].replace(quote * 2, quote)
