"""Read what people write: YAML into a frozen pydantic model, with line and column in every complaint.

Plans, profiles and import sheets come from people and from elsewhere, so the reader is strict: no tags,
no aliases, bounded size and depth, unknown keys refused with the nearest valid name.
"""

from __future__ import annotations

import difflib
import typing
from collections.abc import Sequence
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from catalog.errors import InvalidDocumentError

MAX_BYTES = 1_000_000
MAX_DEPTH = 20
_PLAIN_TAGS = frozenset({"map", "seq", "str", "int", "float", "bool", "null"})


class Document(BaseModel):
    """Base of everything read from a file: frozen, and unknown keys are errors."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        hide_input_in_errors=True,
    )


Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
"""A name that is also a safe folder name."""

D = TypeVar("D", bound=BaseModel)


def load_yaml(path: Path, model: type[D]) -> D:
    """Read one YAML file into ``model``.

    Raises:
        InvalidDocumentError: The file cannot be read, is not YAML, or does not fit the model. The message
            starts with ``file:line:column`` and names the nearest valid key or the allowed values.
    """
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise InvalidDocumentError(
            f"{path}: cannot be read: {error.strerror}", next_step="give the path of a YAML file"
        ) from error
    return parse_yaml(raw, model, name=str(path))


def parse_yaml(raw: bytes, model: type[D], *, name: str) -> D:
    """Read YAML bytes into ``model``; ``name`` stands for the file in messages. Raises as `load_yaml`."""
    root = _compose(raw, name)
    value = _plain_value(root, name, depth=0)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise InvalidDocumentError(_explain(error, root, model, name)) from None


def _compose(raw: bytes, name: str) -> yaml.Node:
    if len(raw) > MAX_BYTES:
        raise InvalidDocumentError(f"{name}:1:1: {len(raw)} bytes; a document has at most {MAX_BYTES}")
    try:
        text = raw.decode("utf-8")
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            _refuse_alias(event, name)
        root: yaml.Node | None = yaml.compose(text, Loader=yaml.SafeLoader)
    except UnicodeDecodeError as error:
        raise InvalidDocumentError(f"{name}:1:1: not UTF-8 text: {error.reason}") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise InvalidDocumentError(f"{_at(name, mark)}: {error.problem or error.context}") from error
    except (yaml.YAMLError, RecursionError) as error:
        raise InvalidDocumentError(f"{name}:1:1: not readable as YAML: {error}") from error
    if root is None:
        raise InvalidDocumentError(f"{name}:1:1: the file is empty")
    return root


def _refuse_alias(event: yaml.Event, name: str) -> None:
    if isinstance(event, yaml.AliasEvent):
        raise InvalidDocumentError(
            f"{_at(name, event.start_mark)}: aliases (*{event.anchor}) are not accepted"
        )


def _plain_value(node: yaml.Node, name: str, depth: int) -> Any:
    if depth > MAX_DEPTH:
        raise InvalidDocumentError(f"{_at(name, node.start_mark)}: nested deeper than {MAX_DEPTH} levels")
    if node.tag.removeprefix("tag:yaml.org,2002:") not in _PLAIN_TAGS:
        raise InvalidDocumentError(f"{_at(name, node.start_mark)}: tag {node.tag} is not accepted")
    if isinstance(node, yaml.MappingNode):
        return _plain_mapping(node, name, depth)
    if isinstance(node, yaml.SequenceNode):
        return [_plain_value(child, name, depth + 1) for child in node.value]
    try:
        return yaml.constructor.SafeConstructor().construct_object(node)
    except (yaml.YAMLError, ValueError) as error:
        raise InvalidDocumentError(f"{_at(name, node.start_mark)}: not a plain value: {error}") from error


def _plain_mapping(node: yaml.MappingNode, name: str, depth: int) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for key_node, value_node in node.value:
        if not isinstance(key_node, yaml.ScalarNode):
            raise InvalidDocumentError(f"{_at(name, key_node.start_mark)}: a key must be a plain word")
        if key_node.value in result:
            raise InvalidDocumentError(
                f"{_at(name, key_node.start_mark)}: key '{key_node.value}' stands twice"
            )
        result[key_node.value] = _plain_value(value_node, name, depth + 1)
    return result


def _at(name: str, mark: Any) -> str:
    return f"{name}:1:1" if mark is None else f"{name}:{mark.line + 1}:{mark.column + 1}"


def _explain(error: ValidationError, root: yaml.Node, model: type[BaseModel], name: str) -> str:
    details = sorted(
        error.errors(include_url=False, include_input=False), key=lambda d: d["type"] != "extra_forbidden"
    )
    lines = [f"{_at(name, _locate(root, detail))}: {_complaint(detail, model)}" for detail in details]
    more = f" (and {len(lines) - 3} more)" if len(lines) > 3 else ""
    return "; ".join(lines[:3]) + more


def _locate(root: yaml.Node, detail: ErrorDetails) -> yaml.Mark:
    node, mark = root, root.start_mark
    for part in detail["loc"]:
        if isinstance(node, yaml.MappingNode):
            found = [(k, v) for k, v in node.value if k.value == str(part)]
            if not found:
                continue  # a union's branch name is part of the location but not of the file
            mark, node = found[0][0].start_mark, found[0][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int):
            node = node.value[part]
            mark = node.start_mark
    return mark if detail["type"] in {"extra_forbidden", "missing"} else node.start_mark


def _complaint(detail: ErrorDetails, model: type[BaseModel]) -> str:
    location = detail["loc"]
    key = str(location[-1]) if location else "document"
    if detail["type"] == "extra_forbidden":
        return f"unknown key '{key}'{_nearest(key, _valid_keys(model, location[:-1]))}"
    if detail["type"] == "missing":
        return f"key '{key}' is missing"
    message = detail["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return f"{key}: {message[:1].lower()}{message[1:]}"


def _nearest(key: str, valid: Sequence[str]) -> str:
    match = difflib.get_close_matches(key, valid, n=1, cutoff=0.5)
    if match:
        return f"; did you mean '{match[0]}'?"
    return f"; valid keys: {', '.join(valid)}" if valid else ""


def _valid_keys(model: type[BaseModel], location: Sequence[int | str]) -> list[str]:
    models = [model]
    for part in location:
        stepped = [m for candidate in models for m in _models_behind(candidate, part)]
        models = stepped or [m for m in models if str(part) not in m.model_fields]
    return sorted({field.alias or name for m in models for name, field in m.model_fields.items()})


def _models_behind(model: type[BaseModel], part: int | str) -> list[type[BaseModel]]:
    field = model.model_fields.get(str(part))
    return [] if field is None else _models_in(field.annotation)


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if typing.get_origin(annotation) in {Union, UnionType} or typing.get_args(annotation):
        return [m for argument in typing.get_args(annotation) for m in _models_in(argument)]
    return []
