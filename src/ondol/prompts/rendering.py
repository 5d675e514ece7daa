"""Filling a prompt's holes with checked values. Must not know where the prompt came from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ondol.base import errors
from ondol.formats import prompt as prompt_format
from ondol.formats.prompt import Prompt


def check(prompt: Prompt, values: Mapping[str, Any]) -> None:
    """Refuse missing, extra and wrongly typed values, naming each.

    :raises InputError: naming the variable.
    """
    if missing := [name for name in prompt.input_variables if name not in values]:
        raise errors.InputError(
            f"prompt {prompt.name!r} needs {', '.join(map(repr, missing))}",
            where=f"{prompt.name}.input_variables",
            way_out=f"Give a value for each of: {', '.join(prompt.input_variables)}.",
            code="INP-054",
        )
    if extra := [name for name in values if name not in prompt.input_variables]:
        raise errors.InputError(
            f"prompt {prompt.name!r} has no variable {extra[0]!r}",
            where=f"{prompt.name}.input_variables",
            way_out=f"It has: {', '.join(prompt.input_variables) or 'none'}.",
            code="INP-055",
        )
    for name, kind in prompt.input_types.items():
        value = values[name]
        wrong = not isinstance(value, prompt_format.TYPES[kind])
        if wrong or (isinstance(value, bool) and kind in ("integer", "number")):
            raise errors.InputError(
                f"variable {name!r} must be {kind}, not {value!r}", where=f"{prompt.name}.input_types", code="INP-056"
            )


def _fill(template: str, prompt: Prompt, values: Mapping[str, Any]) -> str:
    if prompt.template_format == "f-string":
        try:
            return template.format(**values)
        except (ValueError, TypeError) as error:
            raise errors.InputError(
                f"prompt {prompt.name!r} cannot format a value: {error}", where=prompt.name, code="INP-057"
            ) from error
    import jinja2
    from jinja2 import sandbox

    environment = sandbox.ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    try:
        return environment.from_string(template).render(**values)
    except jinja2.TemplateError as error:
        raise errors.InputError(
            f"prompt {prompt.name!r} cannot be rendered: {error.message}", where=prompt.name, code="INP-057"
        ) from error


def messages(prompt: Prompt, values: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return the chat messages, `{"role", "content"}`; a text template is one user message.

    Values are put in as they are and never read as templates: a value with braces stays what it is.

    :raises InputError: when a value is missing, extra or of the wrong type.
    """
    check(prompt, values)
    return [{"role": part.role, "content": _fill(part.content, prompt, values)} for part in prompt.parts]


def text(prompt: Prompt, values: Mapping[str, Any]) -> str:
    """Return the prompt as one text; messages are joined with their roles in front.

    :raises InputError: when a value is missing, extra or of the wrong type.
    """
    filled = messages(prompt, values)
    if not prompt.messages:
        return filled[0]["content"]
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in filled)
