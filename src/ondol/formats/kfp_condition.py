"""Conditions of tasks (`dsl.If`, `Elif`, `Else`): read into a tree and computed, never evaluated as code.

The language is what kfp's compiler writes: `inputs.parameter_values['x']`, literals, `int()`, `double()`, comparisons,
`!`, `&&`, `||` and parentheses.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ondol.base import errors

_TOKEN = re.compile(
    r"""\s*(?:
    inputs\.parameter(?:_values|s)\[(?P<name>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")\](?:\.\w+_value)?
    | (?P<text>'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")
    | (?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)
    | (?P<word>[A-Za-z_]\w*)
    | (?P<sign>&&|\|\||==|!=|<=|>=|[<>!()])
    )""",
    re.VERBOSE,
)
_COMPARE: dict[str, Callable[[Any, Any], Any]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
_CONVERT: dict[str, Callable[[Any], Any]] = {"int": int, "double": float, "string": str}
_CONSTANTS = {"true": True, "false": False}


@dataclass(frozen=True, slots=True)
class Condition:
    """A parsed condition: an operator and what it works on, and the text it came from."""

    op: str
    """`value`, `input`, `!`, `&&`, `||`, a comparison, or a conversion's name."""

    left: Any = None
    right: Any = None
    text: str = ""


def parse(text: str, where: str) -> Condition:
    """Read a condition.

    :raises UnsupportedError: when it says what kfp's compiler does not write.
    """
    tokens = _tokens(text, where)
    reader = _Reader(tokens, text, where)
    tree = reader.either()
    if reader.kind() != "end":
        reader.stop()
    return Condition(tree.op, tree.left, tree.right, text)


def holds(condition: Condition, inputs: Mapping[str, Any]) -> bool:
    """Compute a condition for the task's input parameters.

    :raises InputError: when values cannot be compared, or an input is missing.
    """
    try:
        return bool(_value(condition, inputs))
    except (TypeError, ValueError) as error:
        raise errors.InputError(f"condition {condition.text!r} cannot be computed: {error}", code="INP-014") from error
    except KeyError as error:
        raise errors.InputError(f"condition {condition.text!r} needs the value {error}", code="INP-014") from error


def _value(tree: Condition, inputs: Mapping[str, Any]) -> Any:
    if tree.op == "value":
        return tree.left
    if tree.op == "input":
        return inputs[tree.left]
    if tree.op == "!":
        return not _value(tree.left, inputs)
    if tree.op == "&&":
        return bool(_value(tree.left, inputs)) and bool(_value(tree.right, inputs))
    if tree.op == "||":
        return bool(_value(tree.left, inputs)) or bool(_value(tree.right, inputs))
    if tree.op in _CONVERT:
        return _CONVERT[tree.op](_value(tree.left, inputs))
    return _COMPARE[tree.op](_value(tree.left, inputs), _value(tree.right, inputs))


def _tokens(text: str, where: str) -> list[tuple[str, str]]:
    return [*_scan(text, where), ("end", "")]


def _scan(text: str, where: str) -> Iterator[tuple[str, str]]:
    position = 0
    text = text.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None or match.lastgroup is None:
            raise _not_understood(text, text[position:], where)
        yield match.lastgroup, match.group(match.lastgroup)
        position = match.end()


def _not_understood(text: str, at: str, where: str) -> errors.UnsupportedError:
    return errors.UnsupportedError(
        f"condition {text!r} is not understood at {at!r}",
        where=where,
        way_out="kfp does not escape an apostrophe in a text that is compared: compare with a text without one.",
    )


def _unquote(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1])


class _Reader:
    """Recursive descent over the tokens: `||` binds least, then `&&`, then comparisons, then `!`."""

    def __init__(self, tokens: list[tuple[str, str]], text: str, where: str) -> None:
        self._tokens, self._position, self._text, self._where = tokens, 0, text, where

    def kind(self) -> str:
        return self._tokens[self._position][0]

    def stop(self) -> None:
        raise _not_understood(self._text, self._tokens[self._position][1], self._where)

    def _next(self) -> tuple[str, str]:
        token = self._tokens[self._position]
        self._position += token[0] != "end"
        return token

    def _sees(self, *signs: str) -> bool:
        kind, text = self._tokens[self._position]
        return kind == "sign" and text in signs

    def either(self) -> Condition:
        tree = self._both()
        while self._sees("||"):
            self._next()
            tree = Condition("||", tree, self._both())
        return tree

    def _both(self) -> Condition:
        tree = self._comparison()
        while self._sees("&&"):
            self._next()
            tree = Condition("&&", tree, self._comparison())
        return tree

    def _comparison(self) -> Condition:
        left = self._single()
        if self._sees(*_COMPARE):
            sign = self._next()[1]
            return Condition(sign, left, self._single())
        return left

    def _single(self) -> Condition:
        kind, text = self._next()
        if kind == "name":
            return Condition("input", _unquote(text))
        if kind == "text":
            return Condition("value", _unquote(text))
        if kind == "number":
            return Condition("value", float(text) if re.search("[.eE]", text) else int(text))
        if kind == "word" and text in _CONSTANTS:
            return Condition("value", _CONSTANTS[text])
        if kind == "sign" and text == "!":
            return Condition("!", self._single())
        if (kind == "sign" and text == "(") or (kind == "word" and text in _CONVERT and self._sees("(")):
            if kind == "word":
                self._next()
            tree = self.either()
            if not self._sees(")"):
                self.stop()
            self._next()
            return Condition(text, tree) if kind == "word" else tree
        self._position = max(0, self._position - 1)
        self.stop()
        raise AssertionError  # stop() always raises
