"""Schemas of arguments: what is one, what is said of a value, and that neither takes long."""

import time
from pathlib import Path
from typing import Any

import pytest

from service.model.arguments import MAX_ERROR_CHARACTERS, MAX_ERRORS, ArgumentSchema, InvalidSchema
from service.model.events import Json

SECRET = "hunter2"


def schema(**properties: Any) -> ArgumentSchema:
    return ArgumentSchema({"type": "object", "properties": properties})


def test_what_fits_has_no_errors() -> None:
    assert schema(a={"type": "string"}).errors_of({"a": "x", "b": 1}) is None
    assert schema().errors_of({}) is None


@pytest.mark.parametrize("value", [None, [], "", 0, False, "{}"])
def test_arguments_are_an_object(value: Json) -> None:
    assert schema().errors_of(value) == 'the value is not of type "object"'


def test_what_is_wrong_is_told_with_its_place_in_one_line() -> None:
    held = ArgumentSchema(
        {
            "type": "object",
            "properties": {"a": {"items": {"type": "integer", "minimum": 3}}, "b": {"enum": ["x", "y"]}},
            "required": ["c"],
            "additionalProperties": False,
        }
    )
    said = held.errors_of({"a": [3, 2, "2"], "b": "z", "d\n\x1b": 1})
    assert said is not None
    assert sorted(said.split("; ")) == [
        '"c" is a required property',
        "Additional properties are not allowed ('d��' was unexpected)",
        "a.1: the value is less than the minimum of 3",
        'a.2: the value is not of type "integer"',
        'b: the value is not one of "x" or "y"',
    ]


RULES: list[dict[str, Any]] = [
    {"type": "integer"},
    {"pattern": "^x+$"},
    {"maxLength": 3},
    {"enum": ["a"]},
    {"const": "a"},
    {"not": {"type": "string"}},
    {"anyOf": [{"type": "integer"}, {"maxLength": 1}]},
    {"oneOf": [{"type": "string"}, {"minLength": 1}]},
    {"$ref": "#/properties/b"},
]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: next(iter(rule)))
def test_no_value_is_repeated(rule: dict[str, Any]) -> None:
    said = schema(v=rule, b={"type": "null"}).errors_of({"v": SECRET})
    assert said is not None
    assert said.startswith("v: ")
    assert SECRET not in said


def test_what_is_said_is_bounded() -> None:
    assert str(schema(a={"items": {"type": "null"}}).errors_of({"a": [0] * 1000})).count("a.") == MAX_ERRORS
    closed = ArgumentSchema({"type": "object", "properties": {"a": True}, "additionalProperties": False})
    long = closed.errors_of({"x" * 100_000: 1})
    assert long is not None
    assert len(long) == MAX_ERROR_CHARACTERS
    assert long.endswith("…")


EVIL = ["^(a+)+$", "(x+x+)+y", "^(a|a)*$", "(.*)*b", r"^(\w+\s?)*!$"]


@pytest.mark.parametrize("pattern", EVIL)
@pytest.mark.parametrize("place", ["pattern", "patternProperties"])
def test_an_evil_pattern_takes_no_longer_than_another(pattern: str, place: str) -> None:
    """Backtracking would take longer than the universe has: the time-out of a test is the bound here."""
    text = "a" * 60_000 + "x" * 60_000
    if place == "pattern":
        held, value = schema(a={"pattern": pattern}), {"a": text}
    else:
        held, value = ArgumentSchema({"type": "object", "patternProperties": {pattern: {}}}), {text: "a"}
    begun = time.process_time()
    held.errors_of(value)
    assert time.process_time() - begun < 5


@pytest.mark.parametrize("loop", [{"$ref": "#"}, {"anyOf": [{"$ref": "#/$defs/a"}, {"type": "string"}]}])
def test_a_reference_that_leads_to_itself_comes_to_an_end(loop: dict[str, Any]) -> None:
    held = ArgumentSchema({"type": "object", "$defs": {"a": loop}, "allOf": [{"$ref": "#/$defs/a"}, {"$ref": "#"}]})
    held.errors_of({"a": {"a": 1}})


def nested(levels: int) -> dict[str, Any]:
    return {"type": "object"} if levels == 0 else {"type": "object", "properties": {"a": nested(levels - 1)}}


WRONG: list[tuple[dict[str, Any], str]] = [
    ({}, "type: "),
    ({"type": "string"}, "type: "),
    ({"type": ["object", "null"]}, "type: "),
    ({"type": "object", "properties": 5}, "properties: "),
    ({"type": "object", "properties": {"a": {"type": "strin"}}}, "properties.a.type: "),
    ({"type": "object", "properties": {"a": {"pattern": "("}}}, "properties.a.pattern: "),
    (
        {"type": "object", "properties": {"a": {"pattern": "(?=a)"}}},
        "properties.a.pattern: a pattern without look-around",
    ),
    ({"type": "object", "properties": {"a": {"pattern": r"(a)\1"}}}, "properties.a.pattern: a pattern without"),
    ({"type": "object", "properties": {"a": {"pattern": "((a{100}){100}){100}"}}}, "properties.a.pattern: a pattern"),
    ({"type": "object", "patternProperties": {"(?!a)": {}}}, "patternProperties"),
    ({"type": "object", "$ref": "#/$defs/none"}, ""),
    ({"type": "object", "$ref": "http://127.0.0.1:9/schema"}, ""),
    ({"type": "object", "$ref": "file:///etc/passwd"}, ""),
    ({"type": "object", "$schema": "http://json-schema.org/draft-07/schema#"}, "$schema: "),
    ({"type": "object", "$schema": []}, "$schema: "),
    ({"type": "object", "required": ["a", "a"]}, "required: "),
    (nested(300), ""),
]


@pytest.mark.parametrize(("wrong", "begins"), WRONG, ids=[str(wrong)[:60] for wrong, _ in WRONG])
def test_what_is_no_schema_of_arguments_is_refused_with_its_place(wrong: dict[str, Any], begins: str) -> None:
    with pytest.raises(InvalidSchema) as raised:
        ArgumentSchema(wrong)
    said = str(raised.value)
    assert said.startswith(begins)
    assert said.isprintable()
    assert 0 < len(said) <= MAX_ERROR_CHARACTERS


def test_no_schema_is_fetched_from_anywhere(tmp_path: Path) -> None:
    """Not even one that is there."""
    (tmp_path / "schema.json").write_text("{}")
    with pytest.raises(InvalidSchema, match="Retrieval is disabled"):
        ArgumentSchema({"type": "object", "$ref": f"file://{tmp_path}/schema.json"})


def test_the_standard_s_own_schema_may_be_named_and_referred_to() -> None:
    draft = "https://json-schema.org/draft/2020-12/schema"
    held = ArgumentSchema({"$schema": draft, "type": "object", "properties": {"schema": {"$ref": draft}}})
    assert held.errors_of({"schema": {"type": "string"}}) is None
    assert held.errors_of({"schema": {"type": 5}}) is not None
