"""Answers in the form of a schema: what the model is told, how its text is read, what is said when it does not fit.

Must not loosen the schema: what does not fit is asked for once more and then is an error.
"""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import Any

from ondol.base import errors
from ondol.llm import extractive
from ondol.records.chat import ChatAnswer, ChatRequest, Message

Json = dict[str, Any]
_ANSWER_FIELDS = ("answer", "text", "response", "result")


def instructions(schema: Any) -> str:
    """Return what a model without constrained decoding is told."""
    return str(schema.format_instructions)


def strict(schema: Json) -> Json:
    """Return the schema as strict providers want it: every object closed, every property required."""
    closed = copy.deepcopy(schema)
    _close(closed)
    return closed


def _close(node: Any) -> None:
    if isinstance(node, dict):
        if node.get("type") == "object" and isinstance(node.get("properties"), dict):
            node.setdefault("additionalProperties", False)
            node["required"] = list(node["properties"])
        for name, value in node.items():
            if name != "default":
                _close(value)
    elif isinstance(node, list):
        for value in node:
            _close(value)


def check(schema: Any, answer: ChatAnswer) -> tuple[Any, str]:
    """Read an answer: the value and no problem, or None and what is wrong, for the model and for people."""
    if answer.finish == "length":
        return None, "the answer was cut off at its token limit"
    try:
        return schema.parse(answer.text), ""
    except errors.OndolError as error:
        return None, f"{error.message} {error.where}".strip()


def ask_again(request: ChatRequest, answer: ChatAnswer, problem: str) -> ChatRequest:
    """Return the request for the second and last attempt: the answer, and what was wrong with it."""
    told = f"That does not fit the schema: {problem}. Answer again with only the corrected JSON object."
    return replace(
        request, messages=(*request.messages, Message("assistant", answer.text[:8000]), Message("user", told))
    )


def answer_text(value: Any, otherwise: str) -> str:
    """Return the sentence for people inside a structured answer."""
    if value is None:
        return otherwise
    for name in _ANSWER_FIELDS:
        found = getattr(value, name, None)
        if isinstance(found, str):
            return found
    return otherwise


def with_answer(value: Any, changed: str) -> Any:
    """Return the structured answer with a changed sentence (a rail masked something); None when it has none."""
    for name in _ANSWER_FIELDS:
        if value is not None and isinstance(getattr(value, name, None), str):
            return value.model_copy(update={name: changed})
    return None


def dump(value: Any) -> str:
    """Return a validated answer as JSON text."""
    return str(value.model_dump_json())


def from_extractive(schema: Any, found: extractive.ExtractiveAnswer, question: str) -> Any:
    """Return the extractive reader's answer in a schema it can fill (answer, confidence, sources); None otherwise."""
    if schema is None:
        return None
    sources = list(dict.fromkeys(one.document for one in found.citations))
    known: Json = {
        **dict.fromkeys(_ANSWER_FIELDS, found.text),
        **dict.fromkeys(("confidence", "score"), found.score),
        **dict.fromkeys(("sources", "citations", "references"), sources),
        "found": found.found,
        "question": question,
    }
    names = schema.json_schema.get("properties", {})
    try:
        return schema.parse(json.dumps({name: known[name] for name in names if name in known}, ensure_ascii=False))
    except errors.OndolError:
        return None
