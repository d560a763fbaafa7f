"""What people write is read strictly, and every complaint says where."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field

from catalog.errors import InvalidDocumentError
from catalog.yaml_document import Document, load_yaml, parse_yaml


class Settings(Document):
    """Test model."""

    iso: int = Field(gt=0)
    f_number: float | None = None
    from_: int | None = Field(default=None, alias="from")


class Plan(Document):
    """Test model."""

    base: Settings
    rounds: tuple[Settings, ...] = ()


def complaint(text: str) -> str:
    with pytest.raises(InvalidDocumentError) as caught:
        parse_yaml(text.encode(), Plan, name="plan.yaml")
    return str(caught.value)


def test_an_unknown_key_is_named_with_its_place_and_the_nearest_valid_one():
    message = complaint("base:\n  iso: 100\n  f_numbr: 8\n")

    assert message.startswith("plan.yaml:3:3: unknown key 'f_numbr'; did you mean 'f_number'?")


def test_valid_keys_are_named_as_they_are_written():
    assert complaint("base: {iso: 100, zzzz: 1}\n").endswith("valid keys: f_number, from, iso")


def test_a_value_out_of_range_is_named_with_its_place():
    message = complaint("base: {iso: 100}\nrounds:\n  - {iso: 200}\n  - {iso: -1}\n")

    assert message.startswith("plan.yaml:4:11: iso: input should be greater than 0")


def test_a_missing_key_is_named_at_the_mapping_that_lacks_it():
    assert complaint("rounds: []\n").startswith("plan.yaml:1:1: key 'base' is missing")


def test_a_key_that_stands_twice_is_refused():
    assert complaint("base: {iso: 1}\nbase: {iso: 2}\n").startswith("plan.yaml:2:1: key 'base' stands twice")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("base: &a {iso: 1}\nrounds: [*a]", "plan.yaml:2:10: aliases"),
        ("base: !!python/object:os.system {}", "plan.yaml:1:7: tag"),
        ("base: {iso: 2001-01-01}", "plan.yaml:1:13: tag"),
        ("base: [", "plan.yaml:1:8: "),
        ("", "plan.yaml:1:1: the file is empty"),
        ("[" * 30 + "]" * 30, "plan.yaml:1:22: nested deeper"),
        ("base: {iso: .inf}", "plan.yaml:1:13: iso"),
        ("base: {iso: 1, f_number: .nan}", "plan.yaml:1:26: f_number"),
    ],
)
def test_what_a_plain_document_does_not_need_is_refused(text: str, expected: str):
    assert complaint(text).startswith(expected)


def test_a_document_larger_than_the_limit_is_refused_before_it_is_parsed():
    assert "at most 1000000" in complaint("# " + "x" * 1_000_001)


def test_a_missing_file_is_an_invalid_document_with_its_name(tmp_path):
    with pytest.raises(InvalidDocumentError, match=r"none\.yaml: cannot be read: No such file"):
        load_yaml(tmp_path / "none.yaml", Plan)


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_any_bytes_are_read_or_refused_cleanly(raw: bytes):
    try:
        read = parse_yaml(raw, Plan, name="x")
    except InvalidDocumentError as error:
        read = str(error)

    assert isinstance(read, Plan) or read.startswith("x:")
