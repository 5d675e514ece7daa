"""Structured answers: a Pydantic model from the project, its JSON schema, and a patient but honest parser.

The ladder: the text as it is, without <think> and fences, the first balanced JSON value inside prose, light repairs
(trailing commas, single quotes, Python's True/False/None, comments). Nothing is guessed: a truncated answer, a wrong
type or an unknown enum value is an error with its field path, and the text for one retry. Must not call a model.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ondol.base import errors, hashing

if TYPE_CHECKING:
    from pydantic import BaseModel

_MAX_CHARS = 1_000_000
_THINK = re.compile(r"<(think|thinking|reasoning)>.*?</\1>", re.DOTALL | re.IGNORECASE)
_FENCE = re.compile(r"```[a-zA-Z0-9_-]*[ \t]*\n?(.*?)```", re.DOTALL)
_TOKEN = re.compile(
    r"""(?P<double>"(?:\\.|[^"\\])*")|(?P<single>'(?:\\.|[^'\\])*')|(?P<comment>//[^\n]*|/\*.*?\*/)"""
    r"""|(?P<word>\b(?:True|False|None|undefined|NaN)\b)|(?P<comma>,(?=\s*[}\]]))""",
    re.DOTALL,
)
_WORDS = {"True": "true", "False": "false", "None": "null", "undefined": "null", "NaN": "null"}


def balanced(text: str) -> tuple[str, bool]:
    """Return the first JSON object or array in the text, and whether it was closed.

    A bracket in prose, "[note: …]", is not the answer: an object anywhere wins over an array.
    """
    for bracket in "{[":
        start = text.find(bracket)
        if start >= 0:
            end = _closing(text, start)
            return (text[start:end], True) if end > 0 else (text[start:], False)
    return "", False


def _closing(text: str, start: int) -> int:
    """The place after the bracket that closes the one at `start`, or -1."""
    depth, quote, escaped = 0, "", False
    for place in range(start, len(text)):
        char = text[place]
        if quote:
            if escaped:
                escaped = False
            elif char == "\\":
                escaped = True
            elif char == quote:
                quote = ""
        elif char == '"':
            quote = char
        elif char in "{[":
            depth += 1
        elif char in "}]":
            depth -= 1
            if depth == 0:
                return place + 1
    return -1


def repair(text: str) -> str:
    """Return almost-JSON as JSON: trailing commas, single quotes, comments and Python's words."""

    def fix(match: re.Match[str]) -> str:
        kind, found = match.lastgroup, match[0]
        if kind == "single":
            inner = found[1:-1].replace("\\'", "'")
            return '"' + re.sub(r'(?<!\\)"', '\\"', inner) + '"'
        if kind == "word":
            return _WORDS[found]
        return "" if kind in ("comment", "comma") else found

    return _TOKEN.sub(fix, text)


def candidates(text: str) -> tuple[list[str], bool]:
    """Return what may be the JSON in an answer, best first, and whether an opened value was never closed."""
    bare = _THINK.sub("", text).strip()
    found = [bare]
    found += [match.strip() for match in _FENCE.findall(bare)]
    piece, closed = balanced(found[1] if len(found) > 1 else bare)
    if bare.startswith("["):
        piece, closed = bare, _closing(bare, 0) > 0
        found += [each for each, whole in [balanced(bare)] if whole]
    if piece and closed:
        found.append(piece)
    return list(dict.fromkeys(found)), bool(piece) and not closed


def extract(text: str) -> Any:
    """Return the JSON value in an answer.

    :raises InputError: when there is none, or it was cut off.
    """
    if len(text) > _MAX_CHARS:
        raise errors.InputError(f"an answer of {len(text)} characters", code="INP-070")
    tried, cut = candidates(text)
    problem = ""
    for candidate in tried:
        for version in (candidate, repair(candidate)):
            try:
                value = json.loads(version, strict=False, parse_constant=_no_constant)
            except (ValueError, RecursionError) as error:
                problem = problem or str(error)
                continue
            if isinstance(value, (dict, list)):
                return value
    if cut:
        raise errors.InputError(
            "the answer was cut off inside its JSON",
            way_out="Raise max_tokens, or ask for a shorter answer.",
            code="INP-071",
        )
    shown = text.strip()[:80]
    raise errors.InputError(f"the answer has no JSON object: {shown!r}", where=problem, code="INP-072")


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


class OutputSchema:
    """A Pydantic model that answers must fit.

    :param model: the model class.
    :param name: as the project names it: `schemas.py:StructuredResponse`.
    """

    def __init__(self, model: type[BaseModel], name: str = "") -> None:
        self.model = model
        self.name = name or model.__name__
        self.json_schema: dict[str, Any] = model.model_json_schema()
        """JSON schema, for `response_format` and documentation."""

        self.digest = hashing.of_json(self.json_schema)

    @property
    def address(self) -> str:
        """`schemas.py:StructuredResponse@digest`: what a release pins."""
        return f"{self.name}@{self.digest}"

    @classmethod
    def load(cls, target: str, root: Path) -> OutputSchema:
        """Load `FILE.py:Class` from below the project's folder; this runs the file.

        :raises InputError: when the file is outside the project, fails, or has no such Pydantic model.
        """
        from pydantic import BaseModel

        file, separator, name = target.partition(":")
        if not separator or not file.endswith(".py") or not name.isidentifier():
            raise errors.InputError(
                f"{target!r} is not FILE.py:Class",
                way_out="Write output: schemas.py:StructuredResponse.",
                code="INP-073",
            )
        path = (root / file).resolve()
        if not path.is_relative_to(root.resolve()):
            raise errors.InputError(
                f"{file!r} is outside the project", where=target, way_out="Keep schemas in the project.", code="INP-074"
            )
        if not path.is_file():
            raise errors.NotFoundError(f"no file {file!r} in the project", where=str(root), code="NOF-070")
        module = _run_file(path)
        model = getattr(module, name, None)
        if not isinstance(model, type) or not issubclass(model, BaseModel):
            known = [
                key for key, value in vars(module).items() if isinstance(value, type) and issubclass(value, BaseModel)
            ]
            raise errors.InputError(
                f"{file!r} has no Pydantic model {name!r}",
                where=str(path),
                way_out=f"It has: {', '.join(key for key in known if key != 'BaseModel') or 'none'}.",
                code="INP-075",
            )
        return cls(model, target)

    def parse(self, text: str) -> BaseModel:
        """Return the validated value in an answer.

        :raises InputError: when there is no JSON, it was cut off, or a field does not fit; `where` is the field path.
        """
        return self.validate(extract(text))

    def validate(self, value: Any) -> BaseModel:
        """Return plain values as the model.

        :raises InputError: naming every field that does not fit.
        """
        from pydantic import ValidationError

        try:
            return self.model.model_validate(value)
        except ValidationError as error:
            problems = error.errors(include_url=False, include_context=False)
            paths = [".".join(map(str, problem["loc"])) or "(the whole)" for problem in problems]
            told = "; ".join(
                f"{path}: {problem['msg']}, not {_short(problem['input'])}"
                for path, problem in zip(paths, problems, strict=True)
            )
            raise errors.InputError(
                f"the answer is not a {self.model.__name__}: {told}", where=", ".join(paths), code="INP-076"
            ) from error

    @property
    def format_instructions(self) -> str:
        """What to put into a prompt so that a model answers in this form."""
        schema = json.dumps(self.json_schema, ensure_ascii=False)
        return (
            "Answer with one JSON object only, no text around it and no code fence. "
            f"It must be valid against this JSON schema:\n{schema}"
        )

    def retry_prompt(self, answer: str, error: errors.OndolError) -> str:
        """What to ask once more after an answer that did not fit."""
        return (
            f"Your answer could not be used: {error.message}\n\nYour answer was:\n{answer[:4000]}\n\n"
            f"Answer again, correctly. {self.format_instructions}"
        )

    def response_format(self) -> dict[str, Any]:
        """The OpenAI `response_format` for servers that constrain decoding."""
        return {"type": "json_schema", "json_schema": {"name": self.model.__name__, "schema": self.json_schema}}


def _short(value: Any) -> str:
    shown = repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."


def _run_file(path: Path) -> Any:
    """Run a project's Python file as a module of its own; its folder is not added to the import path."""
    name = "ondol_project_" + hashlib.sha256(str(path).encode()).hexdigest()[:16]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # Pydantic looks its annotations up there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        sys.modules.pop(name, None)
        raise errors.ComponentError(
            f"{path.name} fails: {type(error).__name__}: {error}", where=str(path), code="RUN-070"
        ) from error
    return module
