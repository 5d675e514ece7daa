"""Parameter values with exact types: from text, from Python, from files, and inside placeholders.

Must not touch artifacts. Integers stay integers, also inside lists and mappings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from ondol.base import errors
from ondol.formats.kfp_graph import Parameter, Pipeline

_SPOKEN = {
    "STRING": "text",
    "NUMBER_INTEGER": "an integer",
    "NUMBER_DOUBLE": "a number",
    "BOOLEAN": "true or false",
    "LIST": "a JSON list",
    "STRUCT": "a JSON object",
}
_PLACEHOLDER = re.compile(r"\{\{\$\.?(?P<what>[^{}]*)\}\}")
_INPUT = re.compile(r"inputs\.parameters\[(['\"])(?P<name>.*?)\1\]")


def from_text(text: str, kind: str, where: str) -> Any:
    """Read a value of a KFP type from text (`-p name=value`, or the file behind an `OutputPath`).

    :raises InputError: when the text is no such value.
    """
    try:
        if kind == "STRING":
            return text
        if kind == "NUMBER_INTEGER":
            return int(text)
        if kind == "NUMBER_DOUBLE":
            return float(text)
        if kind == "BOOLEAN":
            return {"true": True, "1": True, "false": False, "0": False}[text.strip().lower()]
        value = json.loads(text)
    except (ValueError, KeyError):
        raise _misfit(text, kind, where) from None
    return typed(value, kind, where)


def typed(value: Any, kind: str, where: str) -> Any:
    """Check that a Python value is of a KFP type and return it.

    :raises InputError: when it is not; nothing is converted but an integer given for a number.
    """
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    fits = {
        "STRING": isinstance(value, str),
        "NUMBER_INTEGER": number and isinstance(value, int),
        "NUMBER_DOUBLE": number,
        "BOOLEAN": isinstance(value, bool),
        "LIST": isinstance(value, (list, tuple)),
        "STRUCT": isinstance(value, dict),
    }.get(kind, True)
    if not fits:
        raise _misfit(value, kind, where)
    if kind == "NUMBER_DOUBLE":
        return float(value)
    if kind in ("LIST", "STRUCT"):
        try:
            return json.loads(json.dumps(value))
        except (TypeError, ValueError) as error:
            raise errors.InputError(f"{value!r} cannot be written as JSON: {error}", where=where) from None
    return value


def _misfit(value: Any, kind: str, where: str) -> errors.InputError:
    return errors.InputError(
        f"{value!r} is not {_SPOKEN.get(kind, kind)}",
        where=where,
        way_out=f"The pipeline declares it as {kind}.",
        code="INP-015",
    )


def arguments(pipeline: Pipeline, given: Mapping[str, Any], *, text: bool = False) -> dict[str, Any]:
    """Return the pipeline's parameters: what is given, checked, and the defaults of the rest.

    :param text: the given values are text, as on the command line.
    :raises InputError: for unknown or missing parameters and for values of another type.
    """
    known = pipeline.root.parameters
    for name in given:
        if name not in known and name not in pipeline.root.artifacts:
            raise errors.InputError(
                f"the pipeline {pipeline.name!r} has no parameter {name!r}",
                way_out=f"It has: {', '.join([*known, *pipeline.root.artifacts]) or 'none'}.",
                code="INP-015",
            )
    values = {}
    for name, parameter in known.items():
        if parameter.type == "TASK_FINAL_STATUS":
            raise errors.InputError(
                f"{pipeline.name!r} wants the final status of a task, and nothing ran before it",
                way_out="Use it as the exit task of a dsl.ExitHandler.",
                code="INP-015",
            )
        if name in given:
            value, where = given[name], f"parameter {name!r}"
            as_text = text and isinstance(value, str)
            values[name] = from_text(value, parameter.type, where) if as_text else _python(value, parameter, where)
        elif parameter.has_default:
            values[name] = parameter.default
        elif not parameter.optional:
            raise errors.InputError(
                f"the pipeline {pipeline.name!r} needs the parameter {name!r} ({_SPOKEN.get(parameter.type, '')})",
                way_out=f"Give it: -p {name}=…",
                code="INP-015",
            )
        check_literal(values.get(name), parameter, f"parameter {name!r}")
    return {name: value for name, value in values.items() if value is not None} | _addresses(pipeline, given)


def _addresses(pipeline: Pipeline, given: Mapping[str, Any]) -> dict[str, str]:
    """Return where the artifacts are that the pipeline itself takes: addresses that are imported first."""
    found = {}
    for name, slot in pipeline.root.artifacts.items():
        address = given.get(name)
        if isinstance(address, str) and address:
            found[name] = address
        elif address is not None or not slot.optional:
            raise errors.InputError(
                f"the pipeline {pipeline.name!r} needs the artifact {name!r} ({slot.type})",
                way_out=f"Give its address: -p {name}=PATH, s3://… or models:/….",
                code="INP-015",
            )
    return found


def check_literal(value: Any, parameter: Parameter, where: str) -> None:
    if value is not None and parameter.literals and value not in parameter.literals:
        allowed = ", ".join(repr(item) for item in parameter.literals)
        raise errors.InputError(
            f"{value!r} is not one of the values the pipeline allows",
            where=where,
            way_out=f"They are: {allowed}.",
            code="INP-015",
        )


def _python(value: Any, parameter: Parameter, where: str) -> Any:
    return None if value is None and parameter.optional else typed(value, parameter.type, where)


def fill(value: Any, inputs: Mapping[str, Any], facts: Mapping[str, str]) -> Any:
    """Replace KFP's placeholders in a constant.

    :param inputs: the task's input parameters.
    :param facts: the run's own: `pipeline_job_name`, `pipeline_task_name` …
    :raises UnsupportedError: for a placeholder that is not known.
    """
    if isinstance(value, list):
        return [fill(item, inputs, facts) for item in value]
    if isinstance(value, dict):
        return {fill(key, inputs, facts): fill(item, inputs, facts) for key, item in value.items()}
    if not isinstance(value, str) or "{{$" not in value:
        return value
    whole = _PLACEHOLDER.fullmatch(value)
    if whole:
        return _placeholder(whole.group("what"), inputs, facts)
    return _PLACEHOLDER.sub(lambda match: as_text(_placeholder(match.group("what"), inputs, facts)), value)


def _placeholder(what: str, inputs: Mapping[str, Any], facts: Mapping[str, str]) -> Any:
    if match := _INPUT.fullmatch(what):
        if match.group("name") not in inputs:
            raise errors.InputError(f"the placeholder {what!r} has no value", code="INP-016")
        return inputs[match.group("name")]
    if what in facts:
        return facts[what]
    raise errors.UnsupportedError(f"the placeholder {what!r} is not known here")


def as_text(value: Any) -> str:
    """Return a value as KFP writes it inside text."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
