"""Structured answers: the ladder from clean JSON to a typed failure, and LangChain's parser on the same schema."""

from __future__ import annotations

import contextlib
import json
from enum import StrEnum
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from ondol.base import errors
from ondol.guardrails import output_validation
from ondol.guardrails.output_validation import OutputSchema

EXAMPLE = Path(__file__).parents[2] / "examples" / "assistant"
GOOD = {"answer": "OAuth2를 씁니다.", "confidence": 0.9, "sources": ["auth.md"]}


class Level(StrEnum):
    LOW = "low"


class Nested(BaseModel):
    level: Level
    rows: list[dict[str, int]] = Field(min_length=1)


@pytest.fixture(scope="module")
def schema() -> OutputSchema:
    return OutputSchema.load("schemas.py:StructuredResponse", EXAMPLE)


CLEAN = json.dumps(GOOD, ensure_ascii=False)


@pytest.mark.parametrize(
    "answer",
    [
        CLEAN,
        f"```json\n{CLEAN}\n```",
        f"물론입니다! 답은 다음과 같습니다:\n{CLEAN}\n도움이 되었기를 바랍니다.",
        f"<think>maybe {{not this}}</think>\n{CLEAN}",
        CLEAN[:-1] + ",}",
        "{'answer': 'OAuth2를 씁니다.', 'confidence': 0.9, 'sources': ['auth.md',]}",
        CLEAN.replace("0.9", '"0.9"'),
        f"[note: see below]\n{CLEAN}",
        CLEAN.replace(", ", ", // why\n", 1),
    ],
)
def test_what_can_be_read_is_read(schema: OutputSchema, answer: str) -> None:
    assert schema.parse(answer).model_dump() == GOOD


@pytest.mark.parametrize(
    ("answer", "code", "where"),
    [
        (CLEAN[:-20], "INP-071", ""),
        ("정보를 찾을 수 없습니다", "INP-072", ""),
        ("", "INP-072", ""),
        (CLEAN.replace("0.9", "1.7"), "INP-076", "confidence"),
        (CLEAN.replace('["auth.md"]', '["a", 3]'), "INP-076", "sources.1"),
        ('{"answer": "x"}', "INP-076", "confidence, sources"),
        (CLEAN.replace("0.9", "NaN"), "INP-076", "confidence"),
        ("[1, 2]", "INP-076", "(the whole)"),
        ("[" * 100_000, "INP-071", ""),
    ],
)
def test_what_cannot_be_used_is_one_error_with_its_field(
    schema: OutputSchema, answer: str, code: str, where: str
) -> None:
    with pytest.raises(errors.InputError) as caught:
        schema.parse(answer)
    assert caught.value.code == code
    if where:
        assert caught.value.where == where
    retry = schema.retry_prompt(answer, caught.value)
    assert caught.value.message in retry
    assert "JSON schema" in retry


def test_enums_and_nested_fields_are_never_coerced() -> None:
    nested = OutputSchema(Nested)
    assert nested.parse('{"level": "low", "rows": [{"a": 1}]}') == Nested(level=Level.LOW, rows=[{"a": 1}])
    with pytest.raises(errors.InputError) as caught:
        nested.parse('{"level": "LOW", "rows": [{"a": 1}, {"a": "x"}]}')
    assert caught.value.where == "level, rows.1.a"


_json = st.recursive(
    st.none() | st.booleans() | st.integers(-1000, 1000) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(st.text(), _json, max_size=5), st.sampled_from(["", "Here:\n", "답: ", "```json\n"]))
def test_any_object_survives_prose_around_it(value: dict[str, object], before: str) -> None:
    text = before + json.dumps(value, ensure_ascii=False) + ("\n```" if "```" in before else "\nDone.")
    assert output_validation.extract(text) == value


@given(st.text())
def test_any_text_gives_a_value_or_our_error(text: str) -> None:
    with contextlib.suppress(errors.InputError):
        assert isinstance(output_validation.extract(text), (dict, list))


def test_schemas_run_only_from_the_project(tmp_path: Path) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "outside.py").write_text("raise SystemError('ran')")
    with pytest.raises(errors.InputError, match="outside the project"):
        OutputSchema.load("../outside.py:Thing", tmp_path / "project")
    (tmp_path / "project" / "bad.py").write_text("1 / 0")
    with pytest.raises(errors.ComponentError, match="ZeroDivisionError"):
        OutputSchema.load("bad.py:Thing", tmp_path / "project")
    (tmp_path / "project" / "no.py").write_text("class Thing: ...")
    with pytest.raises(errors.InputError, match="no Pydantic model 'Thing'"):
        OutputSchema.load("no.py:Thing", tmp_path / "project")


def test_the_same_schema_works_in_langchains_parser(schema: OutputSchema) -> None:
    from langchain_core.output_parsers import PydanticOutputParser

    parser = PydanticOutputParser(pydantic_object=schema.model)
    assert parser.parse(CLEAN) == schema.parse(CLEAN)
    assert "confidence" in parser.get_format_instructions()
    assert "confidence" in schema.format_instructions
    assert schema.response_format()["json_schema"]["schema"] == schema.json_schema
    assert schema.address.startswith("schemas.py:StructuredResponse@sha256:")
