"""Prompt YAML <-> record: the guide's format, f-string or jinja2, text or chat messages, checked line by line.

Must not render, store or fetch anything.
"""

from __future__ import annotations

import difflib
import re
import string
from dataclasses import dataclass, field
from typing import Any, Literal

import yaml

from ondol.base import errors

Style = Literal["f-string", "jinja2"]
STYLES: tuple[Style, ...] = ("f-string", "jinja2")
ROLES = ("system", "user", "assistant", "human", "ai", "developer")
_LANGCHAIN_ROLES = {"human": "user", "ai": "assistant"}
TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list, tuple),
    "object": (dict,),
}
_KEYS = (
    "name", "version", "description", "template", "messages", "template_format", "input_variables", "input_types",
    "metadata", "_type",
)  # fmt: skip
_NAME = re.compile(r"[A-Za-z0-9가-힣][\w.가-힣-]{0,99}")


@dataclass(frozen=True, slots=True)
class Message:
    """One chat message with holes."""

    role: str
    content: str


@dataclass(frozen=True, slots=True)
class Prompt:
    """A prompt as its file says it."""

    name: str
    input_variables: tuple[str, ...]
    """Exactly the variables of the template, in the file's order."""

    template: str = ""
    """The text with holes; empty when there are messages."""

    messages: tuple[Message, ...] = ()
    template_format: Style = "f-string"
    version: str = ""
    description: str = ""
    input_types: dict[str, str] = field(default_factory=dict)
    """Optional JSON type per variable, checked when rendering."""

    metadata: dict[str, Any] = field(default_factory=dict)
    """Model, temperature and whatever else the file keeps with the prompt."""

    @property
    def parts(self) -> tuple[Message, ...]:
        """The prompt as messages: a text template is one user message."""
        return self.messages or (Message("user", self.template),)


def f_string_variables(text: str, where: str, first_line: int = 1) -> dict[str, int]:
    """Return the variables of an f-string template and the line each is first used on.

    :raises InputError: for a lone brace, or a hole that is more than a name (attributes reach into objects).
    """
    found: dict[str, int] = {}
    position = 0
    try:
        pieces = list(string.Formatter().parse(text))
    except ValueError as error:
        raise errors.InputError(
            f"not an f-string template: {error}",
            where=where,
            way_out="Write a literal brace twice: {{ and }}.",
            code="INP-051",
        ) from error
    for _, name, _, conversion in pieces:
        if name is None:
            continue
        position = max(text.find("{" + name, position), position)
        line = first_line + text.count("\n", 0, position)
        if not name.isidentifier() or conversion:
            raise errors.InputError(
                f"{'{' + name + '}'!r} is not a variable",
                where=f"{where}:{line}",
                way_out="A hole is a plain name, {question}; write literal braces twice, {{ and }}.",
                code="INP-051",
            )
        found.setdefault(name, line)
        position += len(name) + 1
    return found


def jinja_variables(text: str, where: str, first_line: int = 1) -> dict[str, int]:
    """Return the variables a jinja2 template needs and the line each is first seen on.

    :raises InputError: when the template does not parse.
    """
    import jinja2
    from jinja2 import meta, sandbox

    environment = sandbox.ImmutableSandboxedEnvironment(undefined=jinja2.StrictUndefined)
    try:
        tree = environment.parse(text)
    except jinja2.TemplateSyntaxError as error:
        raise errors.InputError(
            f"not a jinja2 template: {error.message}", where=f"{where}:{first_line + error.lineno - 1}", code="INP-051"
        ) from error
    found = {}
    for name in sorted(meta.find_undeclared_variables(tree)):
        match = re.search(rf"\b{re.escape(name)}\b", text)
        found[name] = first_line + text.count("\n", 0, match.start() if match else 0)
    return found


def variables(text: str, style: Style, where: str, first_line: int = 1) -> dict[str, int]:
    """Return the variables of one template text and where each is first used."""
    finder = f_string_variables if style == "f-string" else jinja_variables
    return finder(text, where, first_line)


class _Reader:
    """Reads one file, knowing the line of every key."""

    def __init__(self, text: str, source: str) -> None:
        self.source = source
        try:
            node = yaml.compose(text, Loader=yaml.SafeLoader)
            self.data: Any = yaml.safe_load(text)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = f":{mark.line + 1}" if mark else ""
            problem = getattr(error, "problem", None) or str(error)
            raise errors.InputError(f"not YAML: {problem}", where=source + line, code="INP-050") from error
        if not isinstance(node, yaml.MappingNode) or not isinstance(self.data, dict):
            raise errors.InputError("a prompt file is a mapping with name and template", where=source, code="INP-050")
        self.node = node
        self.lines = {key.value: key.start_mark.line + 1 for key, _ in node.value}

    def where(self, key: str) -> str:
        return f"{self.source}:{self.lines[key]}" if key in self.lines else self.source

    def bad(self, key: str, message: str, way_out: str = "") -> errors.InputError:
        return errors.InputError(message, where=self.where(key), way_out=way_out, code="INP-052")

    def text(self, key: str) -> str:
        value = self.data.get(key, "")
        if isinstance(value, (int, float)) and not isinstance(value, bool) and key == "version":
            raise self.bad(key, f"version {value!r} is a number", 'Quote it: version: "1.0.0".')
        if not isinstance(value, str):
            raise self.bad(key, f"{key} must be text, not {value!r}")
        return value

    def mapping(self, key: str) -> dict[str, Any]:
        value = self.data.get(key) or {}
        if not isinstance(value, dict):
            raise self.bad(key, f"{key} must be a mapping, not {value!r}")
        return value

    def content_line(self, node: yaml.Node) -> int:
        """The line on which a scalar's text begins: the one after `|`."""
        block = isinstance(node, yaml.ScalarNode) and node.style in ("|", ">")
        return node.start_mark.line + (2 if block else 1)

    def check_keys(self) -> None:
        for key in self.data:
            if key in _KEYS:
                continue
            near = difflib.get_close_matches(str(key), _KEYS, n=1)
            raise errors.UnsupportedError(
                f"unknown key {key!r} in a prompt file",
                where=self.where(str(key)),
                way_out=f"Did you mean {near[0]!r}?" if near else "Keep your own fields below `metadata:`.",
                code="UNS-050",
            )
        if self.data.get("_type", "prompt") != "prompt":
            raise errors.UnsupportedError(
                f"_type {self.data['_type']!r}", where=self.where("_type"), way_out="Only `prompt`.", code="UNS-050"
            )

    def messages(self) -> tuple[Message, ...]:
        rows = self.data.get("messages") or []
        if not isinstance(rows, list):
            raise self.bad("messages", "messages must be a list of {role, content}")
        made = []
        for index, row in enumerate(rows):
            place = f"messages[{index}]"
            if not isinstance(row, dict) or set(row) != {"role", "content"} or not isinstance(row["content"], str):
                raise self.bad("messages", f"{place} must be {{role, content}}, not {row!r}")
            if row["role"] not in ROLES:
                raise self.bad("messages", f"{place}.role {row['role']!r} is none of {', '.join(ROLES)}")
            role = _LANGCHAIN_ROLES.get(row["role"], row["role"])
            made.append(Message(str(role), row["content"]))
        return tuple(made)

    def style(self) -> Style:
        value = self.data.get("template_format", "f-string")
        for style in STYLES:
            if style == value:
                return style
        raise self.bad("template_format", f"template_format {value!r}", "Use f-string or jinja2.")

    def used(self, style: Style) -> dict[str, int]:
        """Every variable the templates use, with its line."""
        found: dict[str, int] = {}
        for key, value in self.node.value:
            if key.value == "template":
                found |= variables(value.value, style, self.source, self.content_line(value))
            elif key.value == "messages" and isinstance(value, yaml.SequenceNode):
                for row in value.value:
                    for inner_key, inner in row.value:
                        if inner_key.value == "content":
                            new = variables(inner.value, style, self.source, self.content_line(inner))
                            found = new | found
        return found

    def declared(self) -> tuple[str, ...] | None:
        if "input_variables" not in self.data:
            return None
        value = self.data["input_variables"] or []
        if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
            raise self.bad("input_variables", f"input_variables must be a list of names, not {value!r}")
        if doubled := {name for name in value if value.count(name) > 1}:
            raise self.bad("input_variables", f"input_variables names {sorted(doubled)[0]!r} twice")
        return tuple(value)


def _agree(reader: _Reader, used: dict[str, int], declared: tuple[str, ...] | None) -> tuple[str, ...]:
    """The variables, when template and declaration agree both ways."""
    if declared is None:
        return tuple(used)
    for name, line in used.items():
        if name not in declared:
            raise errors.InputError(
                f"the template uses {name!r}, which input_variables does not list",
                where=f"{reader.source}:{line}",
                way_out=f"Add {name!r} to input_variables, or write literal braces twice.",
                code="INP-053",
            )
    for name in declared:
        if name not in used:
            raise errors.InputError(
                f"input_variables lists {name!r}, which the template does not use",
                where=reader.where("input_variables"),
                way_out=f"Use {{{name}}} in the template or remove it from the list.",
                code="INP-053",
            )
    return declared


def _types(reader: _Reader, names: tuple[str, ...]) -> dict[str, str]:
    types = reader.mapping("input_types")
    for name, kind in types.items():
        if name not in names:
            raise reader.bad("input_types", f"input_types names {name!r}, which is no input variable")
        if kind not in TYPES:
            raise reader.bad("input_types", f"type {kind!r} of {name!r} is none of {', '.join(TYPES)}")
    return types


def parse(text: str, source: str = "prompt.yaml") -> Prompt:
    """Read a prompt file.

    :raises InputError: with file and line when it is not YAML, has no template, or variables disagree.
    :raises UnsupportedError: for a key we do not know.
    """
    reader = _Reader(text, source)
    reader.check_keys()
    name = reader.text("name")
    if not _NAME.fullmatch(name):
        raise reader.bad("name", f"{name!r} is no prompt name", "Give it `name:` of letters, digits, - and _.")
    messages = reader.messages()
    template = reader.text("template")
    if bool(messages) == bool(template):
        raise reader.bad("template", "a prompt has either `template:` or `messages:`, and it is not empty")
    style = reader.style()
    names = _agree(reader, reader.used(style), reader.declared())
    return Prompt(
        name=name,
        input_variables=names,
        template=template,
        messages=messages,
        template_format=style,
        version=reader.text("version"),
        description=reader.text("description"),
        input_types=_types(reader, names),
        metadata=reader.mapping("metadata"),
    )


def dump(prompt: Prompt) -> str:
    """Return the prompt as YAML that `parse` reads back to the same record."""

    class _Dumper(yaml.SafeDumper):
        pass

    def text(dumper: yaml.SafeDumper, value: str) -> yaml.Node:
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)

    _Dumper.add_representer(str, text)
    data: dict[str, Any] = {"name": prompt.name}
    optional = {
        "version": prompt.version,
        "description": prompt.description,
        "template_format": "" if prompt.template_format == "f-string" else prompt.template_format,
        "template": prompt.template,
        "messages": [{"role": each.role, "content": each.content} for each in prompt.messages],
        "input_variables": list(prompt.input_variables),
        "input_types": dict(prompt.input_types),
        "metadata": dict(prompt.metadata),
    }
    data |= {key: value for key, value in optional.items() if value}
    return yaml.dump(data, Dumper=_Dumper, allow_unicode=True, sort_keys=False, width=120)
