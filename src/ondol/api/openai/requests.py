"""Chat requests to applications: what is asked, and a refusal by name of everything an application can not honour.

Must not be used for the gateway, which passes requests on as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from ondol.base import errors
from ondol.records.chat import Message
from ondol.serving.applications import Ask

Json = dict[str, Any]

_OPTIONS: dict[str, tuple[type, ...]] = {
    "temperature": (int, float),
    "top_p": (int, float),
    "seed": (int,),
    "max_tokens": (int,),
    "max_completion_tokens": (int,),
}
# Accepted and without effect on the answer of any application; said in `x-ondol-ignored` when given.
_WITHOUT_EFFECT = frozenset({"metadata", "store", "service_tier", "prompt_cache_key", "safety_identifier"})
_READ = frozenset({"model", "messages", "stream", "stream_options", "user", "stop", "n", *_OPTIONS})
# Refused unless they have the value that asks for nothing.
_NEUTRAL: dict[str, tuple[Any, ...]] = {
    "tools": (None, []),
    "functions": (None, []),
    "tool_choice": (None, "none", "auto"),
    "function_call": (None, "none", "auto"),
    "parallel_tool_calls": (None, True, False),
    "response_format": (None, {"type": "text"}),
    "logprobs": (None, False),
    "top_logprobs": (None, 0),
    "logit_bias": (None, {}),
    "frequency_penalty": (None, 0, 0.0),
    "presence_penalty": (None, 0, 0.0),
    "modalities": (None, ["text"]),
}


@dataclass(frozen=True, slots=True)
class ChatCall:
    """A chat request to an application, understood."""

    model: str
    ask: Ask
    stream: bool
    include_usage: bool
    user: str
    ignored: tuple[str, ...]


def decode(body: bytes) -> Json:
    """Read a JSON object.

    :raises InputError: when it is none.
    """
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise errors.InputError(f"the body is not JSON: {error}", code="INP-180") from error
    if not isinstance(value, dict):
        raise errors.InputError("the body is no JSON object", code="INP-180")
    return value


def model_of(body: Json) -> str:
    """Return the name of the wanted model.

    :raises InputError: when there is none.
    """
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise errors.InputError("you must provide a model parameter", where="model", code="INP-181")
    return model


def read(body: Json, unit: str, extractive: bool) -> ChatCall:
    """Understand a request to an application.

    :param extractive: no LLM answers, so sampling options have no effect; they are named in `ignored`.
    :raises InputError, UnsupportedError: naming the parameter.
    """
    _refuse(body)
    options = _options(body)
    ignored = sorted(set(body) & _WITHOUT_EFFECT)
    if extractive:
        ignored += sorted(options)
        options = {}
    question, history = _messages(body.get("messages"))
    user = body.get("user") or ""
    if not isinstance(user, str):
        raise _wrong("user", "a text")
    streaming = body.get("stream_options") or {}
    if not isinstance(streaming, dict):
        raise _wrong("stream_options", "an object")
    return ChatCall(
        str(body["model"]),
        Ask(question, history, unit or user, options),
        body.get("stream") is True,
        streaming.get("include_usage") is True,
        user,
        tuple(ignored),
    )


def _refuse(body: Json) -> None:
    for name, value in body.items():
        if name in _NEUTRAL and value not in _NEUTRAL[name]:
            raise errors.UnsupportedError(
                f"an application does not take {name!r}",
                where=name,
                way_out="Leave it out, or call a model directly as PROVIDER/MODEL.",
                code="UNS-160",
            )
        if name not in _READ and name not in _NEUTRAL and name not in _WITHOUT_EFFECT:
            raise errors.UnsupportedError(f"unknown parameter {name!r}", where=name, code="UNS-161")
    if body.get("n") not in (None, 1):
        raise errors.UnsupportedError("an application gives one answer", where="n", code="UNS-160")


def _options(body: Json) -> Json:
    options: Json = {}
    for name, kinds in _OPTIONS.items():
        value = body.get(name)
        if value is None:
            continue
        if (
            isinstance(value, bool)
            or not isinstance(value, kinds)
            or (name.startswith("max") and value in range(-99, 1))
        ):
            raise _wrong(name, "a number" if float in kinds else "a whole number")
        options["max_tokens" if name == "max_completion_tokens" else name] = value
    stop = body.get("stop")
    if stop is not None:
        words = [stop] if isinstance(stop, str) else stop
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            raise _wrong("stop", "a text or a list of texts")
        options["stop"] = tuple(words)
    return options


def _messages(messages: Any) -> tuple[str, tuple[Message, ...]]:
    if not isinstance(messages, list) or not messages:
        raise errors.InputError("messages is empty or no list", where="messages", code="INP-182")
    turns = [_message(one, f"messages[{index}]") for index, one in enumerate(messages)]
    if turns[-1].role != "user":
        raise errors.InputError("the last message must be the user's question", where="messages", code="INP-182")
    return turns[-1].content, tuple(turns[:-1])


def _message(value: Any, where: str) -> Message:
    if not isinstance(value, dict):
        raise errors.InputError(f"{where} is no object", where=where, code="INP-182")
    role = value.get("role")
    if role in ("system", "developer"):
        raise errors.UnsupportedError(
            "an application's release pins its own prompt; a system message would change it",
            where=f"{where}.role",
            way_out="Leave the system message out, or change the application's prompt and release it.",
            code="UNS-162",
        )
    if role not in ("user", "assistant"):
        raise errors.UnsupportedError(f"role {role!r}", where=f"{where}.role", code="UNS-163")
    return Message(role, _content(value.get("content"), f"{where}.content"))


def _content(content: Any, where: str) -> str:
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise errors.InputError("content is neither text nor parts", where=where, code="INP-182")
    texts: list[str] = []
    for part in content:
        if not isinstance(part, dict) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            kind = part.get("type") if isinstance(part, dict) else part
            raise errors.UnsupportedError(f"content part {kind!r}: applications read text", where=where, code="UNS-164")
        texts.append(part["text"])
    return "\n".join(texts)


def _wrong(name: str, wanted: str) -> errors.InputError:
    return errors.InputError(f"{name} is not {wanted}", where=name, code="INP-183")
