"""NeMo Guardrails' `config.yml` -> record: every flow is run by us, handed to NeMo's runtime, or refused by name.

Our own options stand below NeMo's open `custom_data: {ondol: …}`, so that the same file still loads in NeMo.
Must not run a check.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Literal

import yaml

from ondol.base import errors
from ondol.formats import rails_names as names

Channel = Literal["input", "output", "retrieval"]
OnError = Literal["block", "allow", "flag"]
CHANNELS: tuple[Channel, ...] = ("input", "output", "retrieval")
_ON_ERROR: tuple[OnError, ...] = ("block", "allow", "flag")
_TOP_HONOURED = {"models", "rails", "prompts", "custom_data", "colang_version"}
_PARAMETER = re.compile(r"\$(\w+)=\s*\"?([^\"\s]+)\"?")


@dataclass(frozen=True, slots=True)
class Rail:
    """One flow of the file."""

    flow: str
    """NeMo's name without parameters: `self check input`."""

    channel: Channel
    runner: Literal["native", "nemo"]
    parameters: dict[str, str] = field(default_factory=dict)
    """`$model=…` and the like."""

    line: int = 0


@dataclass(frozen=True, slots=True)
class Sensitive:
    """What personal data to look for on one channel; no entities: everything we can recognise."""

    entities: tuple[str, ...] = ()
    mask_token: str = ""
    """One character repeated over the value; empty: the kind in angle brackets, `<EMAIL>`."""

    score_threshold: float = 0.0
    """Less certain findings are left alone."""


@dataclass(frozen=True, slots=True)
class Patterns:
    """`rails.config.regex_detection` of one channel."""

    patterns: tuple[str, ...] = ()
    case_insensitive: bool = False


@dataclass(frozen=True, slots=True)
class Options:
    """`custom_data.ondol`: what NeMo has no words for."""

    on_error: dict[str, OnError] = field(default_factory=dict)
    """What a rail that breaks does, by flow; the default is block."""

    max_chars: int = 100_000
    """Longer inputs are refused unread."""

    thresholds: dict[str, float] = field(default_factory=dict)
    """Overrides of `injection`, `injection_document`, `credentials`, `toxicity`, `grounding`, each from 0 to 1."""

    refusal: dict[str, dict[str, str]] = field(default_factory=dict)
    """What the user is told, by channel and language: `{input: {ko: …, en: …}}`."""


@dataclass(frozen=True, slots=True)
class RailsFile:
    """A guardrails folder's configuration."""

    rails: tuple[Rail, ...]
    prompts: dict[str, str] = field(default_factory=dict)
    """LLM check prompts by task: `self_check_input`."""

    models: tuple[dict[str, Any], ...] = ()
    """As written; an application decides which LLM it hands to the rails."""

    sensitive: dict[str, Sensitive] = field(default_factory=dict)
    patterns: dict[str, Patterns] = field(default_factory=dict)
    options: Options = field(default_factory=Options)
    colang_version: str = "1.0"

    def on(self, channel: Channel) -> tuple[Rail, ...]:
        return tuple(rail for rail in self.rails if rail.channel == channel)

    @property
    def needs_nemo(self) -> tuple[Rail, ...]:
        return tuple(rail for rail in self.rails if rail.runner == "nemo")


_COLANG_FLOW = re.compile(r"^\s*(?:define\s+(?:sub)?flow|flow)\s+([^\n#(]+?)\s*(?:#.*)?$", re.MULTILINE)


def colang_flows(text: str) -> frozenset[str]:
    """Return the names of the flows a Colang file defines, as a config may list them."""
    return frozenset(name.strip().rstrip(":") for name in _COLANG_FLOW.findall(text))


@dataclass(frozen=True, slots=True)
class Problem:
    """Something in the file that cannot be honoured."""

    message: str
    where: str
    way_out: str
    replacement: str = ""
    """The flow to write instead, when one is meant."""


def _lines(text: str) -> dict[str, int]:
    """The first line of each list item, by its text without comment and quotes."""
    found: dict[str, int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if match := re.match(r"\s*-\s+(.+?)\s*(?:\s#.*)?$", line):
            found.setdefault(match[1].strip("\"' "), number)
    return found


def _load(text: str, source: str) -> dict[str, Any]:
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        raise errors.InputError(
            f"not YAML: {getattr(error, 'problem', None) or error}", where=source + line, code="INP-060"
        ) from error
    if not isinstance(data, dict):
        raise errors.InputError("a guardrails config is a mapping with `rails:`", where=source, code="INP-060")
    return data


def _mapping(value: Any, where: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise errors.InputError(
            f"{where.rsplit(':', 1)[-1]} must be a mapping, not {value!r}", where=where, code="INP-061"
        )
    return value


def _strings(value: Any, where: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise errors.InputError(f"must be a list of texts, not {value!r}", where=where, code="INP-061")
    return tuple(value)


class _Reader:
    def __init__(self, text: str, source: str, custom: frozenset[str] = frozenset()) -> None:
        self.source = source
        self.custom = custom
        self.data = _load(text, source)
        self.lines = _lines(text)
        self.found: list[Problem] = []

    def where(self, path: str) -> str:
        return f"{self.source}:{path}"

    def refuse(self, message: str, where: str, way_out: str, replacement: str = "") -> None:
        self.found.append(Problem(message, where, way_out, replacement))

    def rails(self) -> tuple[Rail, ...]:
        section = _mapping(self.data.get("rails"), self.where("rails"))
        made: list[Rail] = []
        for channel in CHANNELS:
            body = _mapping(section.get(channel), self.where(f"rails.{channel}"))
            self._channel_options(channel, body)
            for flow in _strings(body.get("flows"), self.where(f"rails.{channel}.flows")):
                made += self._rail(flow, channel)
        for key in section:
            if key not in (*CHANNELS, "config"):
                self.refuse(
                    f"`rails.{key}` is not honoured",
                    self.where(f"rails.{key}"),
                    "Dialogue and tool rails are Colang: run that folder with NeMo's own server.",
                )
        return tuple(made)

    def _channel_options(self, channel: str, body: dict[str, Any]) -> None:
        streaming = _mapping(body.get("streaming"), self.where(f"rails.{channel}.streaming"))
        if streaming.get("enabled"):
            self.refuse(
                f"`rails.{channel}.streaming` is not honoured",
                self.where(f"rails.{channel}.streaming"),
                "Remove it: an answer is checked as a whole before its first word is sent.",
            )
        for key in body:
            if key not in ("flows", "streaming", "parallel"):
                self.refuse(
                    f"`rails.{channel}.{key}` is not honoured", self.where(f"rails.{channel}.{key}"), "Remove it."
                )

    def _rail(self, written: str, channel: Channel) -> list[Rail]:
        line = self.lines.get(written, 0)
        flow = _PARAMETER.sub("", written).strip()
        parameters = dict(_PARAMETER.findall(written))
        if flow in names.NATIVE[channel]:
            return [Rail(flow, channel, "native", parameters, line)]
        if flow in names.NEMO or flow in self.custom:
            return [Rail(flow, channel, "nemo", parameters, line)]
        where = f"{self.source}:{line}" if line else self.where(f"rails.{channel}.flows")
        if flow in names.SERVICES:
            self.refuse(
                f"flow {flow!r} needs the outside service {names.SERVICES[flow]!r}",
                where,
                f"Remove it, or use {names.nearest(flow, channel)!r}.",
            )
            return []
        replacement = names.nearest(flow, channel)
        self.refuse(
            f"NeMo Guardrails has no {channel} flow {flow!r}", where, f"Write {replacement!r} instead.", replacement
        )
        return []

    def prompts(self) -> dict[str, str]:
        rows = self.data.get("prompts") or []
        if not isinstance(rows, list):
            raise errors.InputError("`prompts` must be a list", where=self.where("prompts"), code="INP-061")
        made: dict[str, str] = {}
        for index, row in enumerate(rows):
            body = _mapping(row, self.where(f"prompts[{index}]"))
            task, content = body.get("task"), body.get("content")
            if not isinstance(task, str) or not isinstance(content, str):
                raise errors.InputError(
                    "a prompt needs `task` and `content`", where=self.where(f"prompts[{index}]"), code="INP-061"
                )
            for key in body:
                if key not in ("task", "content", "max_tokens", "output_parser"):
                    self.refuse(
                        f"`prompts[{index}].{key}` is not honoured", self.where(f"prompts[{index}]"), "Remove it."
                    )
            made[task.split(" ")[0]] = content
        return made

    def sensitive(self, config: dict[str, Any]) -> dict[str, Sensitive]:
        body = _mapping(config.get("sensitive_data_detection"), self.where("rails.config.sensitive_data_detection"))
        made: dict[str, Sensitive] = {}
        for channel, value in body.items():
            where = self.where(f"rails.config.sensitive_data_detection.{channel}")
            if channel not in CHANNELS:
                self.refuse(f"`sensitive_data_detection.{channel}` is not honoured", where, "Remove it.")
                continue
            options = _mapping(value, where)
            entities = _strings(options.get("entities"), where)
            for entity in entities:
                if entity not in names.ENTITIES:
                    self.refuse(
                        f"entity {entity!r} cannot be recognised without a language model",
                        where,
                        f"Remove it; there are: {', '.join(sorted(names.ENTITIES))}.",
                    )
            for key in options:
                if key not in ("entities", "mask_token", "score_threshold"):
                    self.refuse(f"`{key}` is not honoured", where, "Remove it.")
            floor = options.get("score_threshold", 0.0)
            if isinstance(floor, bool) or not isinstance(floor, (int, float)) or not 0 <= floor <= 1:
                raise errors.InputError(f"score_threshold {floor!r} is not from 0 to 1", where=where, code="INP-061")
            made[channel] = Sensitive(entities, str(options.get("mask_token", "")), float(floor))
        return made

    def patterns(self, config: dict[str, Any]) -> dict[str, Patterns]:
        body = _mapping(config.get("regex_detection"), self.where("rails.config.regex_detection"))
        made = {}
        for channel, value in body.items():
            where = self.where(f"rails.config.regex_detection.{channel}")
            options = _mapping(value, where)
            expressions = _strings(options.get("patterns"), where)
            for expression in expressions:
                try:
                    re.compile(expression)
                except re.error as error:
                    raise errors.InputError(
                        f"{expression!r} is no regular expression: {error}", where=where, code="INP-062"
                    ) from error
            made[channel] = Patterns(expressions, bool(options.get("case_insensitive", False)))
        return made

    def options(self) -> Options:
        custom = _mapping(self.data.get("custom_data"), self.where("custom_data"))
        body = _mapping(custom.get("ondol"), self.where("custom_data.ondol"))
        where = self.where("custom_data.ondol")
        for key in body:
            if key not in Options.__dataclass_fields__:
                self.refuse(f"unknown option {key!r}", where, f"There are: {', '.join(Options.__dataclass_fields__)}.")
        on_error: dict[str, OnError] = {}
        for flow, value in _mapping(body.get("on_error"), where).items():
            chosen = next((known for known in _ON_ERROR if known == value), None)
            if chosen is None:
                raise errors.InputError(f"on_error {value!r} of {flow!r} is none of block, allow, flag", where=where,
                                        code="INP-061")  # fmt: skip
            on_error[flow] = chosen
        limit = body.get("max_chars", 100_000)
        if not isinstance(limit, int) or not 1 <= limit <= 1_000_000:
            raise errors.InputError(f"max_chars {limit!r} is not between 1 and 1000000", where=where, code="INP-061")
        return Options(on_error, limit, self._thresholds(body, where), self._refusal(body, where))

    def _refusal(self, body: dict[str, Any], where: str) -> dict[str, dict[str, str]]:
        made: dict[str, dict[str, str]] = {}
        for channel, texts in _mapping(body.get("refusal"), where).items():
            if channel not in CHANNELS or not isinstance(texts, dict) or not set(texts) <= {"ko", "en"}:
                raise errors.InputError(
                    f"refusal {channel!r}: {texts!r}",
                    where=where,
                    way_out="Write refusal: {input: {ko: …, en: …}, output: {ko: …, en: …}}.",
                    code="INP-061",
                )
            made[channel] = {language: str(text) for language, text in texts.items()}
        return made

    def _thresholds(self, body: dict[str, Any], where: str) -> dict[str, float]:
        made = {}
        for name, value in _mapping(body.get("thresholds"), where).items():
            if name not in names.THRESHOLDS:
                self.refuse(f"unknown threshold {name!r}", where, f"There are: {', '.join(names.THRESHOLDS)}.")
            elif isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
                raise errors.InputError(f"threshold {name}: {value!r} is not from 0 to 1", where=where, code="INP-061")
            else:
                made[name] = float(value)
        return made

    def read(self) -> RailsFile:
        config = _mapping(
            _mapping(self.data.get("rails"), self.where("rails")).get("config"), self.where("rails.config")
        )
        for key in self.data:
            if key not in _TOP_HONOURED:
                way_out = names.TOP_WAY_OUT.get(key, "Remove it.")
                self.refuse(f"`{key}` is not honoured", self.where(str(key)), way_out)
        for key in config:
            if key not in ("sensitive_data_detection", "regex_detection"):
                self.refuse(f"`rails.config.{key}` is not honoured", self.where(f"rails.config.{key}"), "Remove it.")
        models = self.data.get("models") or []
        if not isinstance(models, list) or not all(isinstance(model, dict) for model in models):
            raise errors.InputError("`models` must be a list of mappings", where=self.where("models"), code="INP-061")
        return RailsFile(
            rails=self.rails(),
            prompts=self.prompts(),
            models=tuple(models),
            sensitive=self.sensitive(config),
            patterns=self.patterns(config),
            options=self.options(),
            colang_version=str(self.data.get("colang_version", "1.0")),
        )


def problems(text: str, source: str = "config.yml", custom: frozenset[str] = frozenset()) -> list[Problem]:
    """Return everything in the file that cannot be honoured.

    :param custom: flows that the folder's Colang files define.
    :raises InputError: when it is not readable as a config at all.
    """
    reader = _Reader(text, source, custom)
    reader.read()
    return reader.found


def parse(text: str, source: str = "config.yml", custom: frozenset[str] = frozenset()) -> RailsFile:
    """Read a guardrails config.

    :param custom: flows that the folder's Colang files define; NeMo's runtime runs them.
    :raises InputError: when a value is wrong.
    :raises UnsupportedError: naming everything that cannot be honoured, each with its way out.
    """
    reader = _Reader(text, source, custom)
    made = reader.read()
    if reader.found:
        raise errors.UnsupportedError(
            "; ".join(problem.message for problem in reader.found),
            where=", ".join(dict.fromkeys(problem.where for problem in reader.found)),
            way_out=" ".join(dict.fromkeys(problem.way_out for problem in reader.found)),
            code="UNS-060",
        )
    return made


def suggest(text: str, source: str = "config.yml") -> str:
    """Return the file with every unknown flow replaced by the one that is meant; comments and layout stay."""
    reader = _Reader(text, source)
    reader.read()
    fixes = {}
    for problem in reader.found:
        if problem.replacement:
            fixes[int(problem.where.rsplit(":", 1)[-1])] = problem.replacement
    lines = text.splitlines(keepends=True)
    for number, replacement in fixes.items():
        lines[number - 1] = re.sub(r"^(\s*-\s+).+?(\s*(?:\s#.*)?)$", rf"\g<1>{replacement}\g<2>", lines[number - 1])
    return "".join(lines)
