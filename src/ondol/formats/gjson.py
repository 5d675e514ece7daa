"""GJSON paths (github.com/tidwall/gjson), as KServe's graph router uses them: does a path exist in a JSON document?

Here: keys, indexes, `\\` escapes, the wildcards `*` and `?`, `#`, queries `#(…)` and `#(…)#` with every operator and
`~`, nested queries, `|`, multipaths `[a,b]` and `{a,b}`, and the modifiers `@this @valid @pretty @ugly @reverse @keys
@values @flatten @join @fromstr` without arguments. `refusal` names what is not: JSON lines (`..`), literals (`!`),
`@group`, `@dig`, `@tostr`, and arguments of modifiers.

It works on decoded values and not on text, so of a key that is there twice the last one counts, and a document that is
no object or array has no paths in it. The walk follows the original step by step: what looks odd here is so there.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import msgspec

from ondol.formats import gjson_path

MISSING: Any = object()
"""What a path that leads nowhere gives; JSON's null exists."""

_REFUSED_MODIFIERS = ("group", "dig", "tostr")


def exists(document: Any, path: str) -> bool:
    """Say whether a path leads to anything in a decoded JSON document."""
    return get(document, path) is not MISSING


def refusal(path: str) -> str:
    """Return why a path is not understood here; empty when it is."""
    if path.startswith(".."):
        return "JSON lines ('..') are not read"
    bare = re.sub(r'"(?:\\.|[^"\\])*"|\\.', "", path)  # without strings and escapes
    if not gjson_path.balanced(bare):
        return "its brackets or quotes do not close, or are nested too deeply"
    if re.search(r"(^|[.|,\[{:])!", bare):
        return "literals ('!') are not supported"
    for match in re.finditer(r"(?:^|[.|,\[{:(])@(\w+)(:?)", bare):
        if match[1] in _REFUSED_MODIFIERS:
            return f"the modifier '@{match[1]}' is not supported"
        if match[1] in _MODIFIERS and match[2]:
            return f"arguments of the modifier '@{match[1]}' are not supported"
    return ""


def get(value: Any, path: str) -> Any:
    """Return what a path leads to, or `MISSING`."""
    if len(path) > 1 and path[0] == "@":
        name = re.split(r"[.|:]", path[1:], maxsplit=1)[0]
        if name in _MODIFIERS:
            rest = path[len(name) + 1 :]
            changed = _MODIFIERS[name](value)
            return get(changed, rest[1:]) if rest[:1] in (".", "|") and rest else changed
    if len(path) > 1 and path[0] in "[{":
        parts, rest = gjson_path.multipath(path)
        if parts is not None and (not rest or rest[0] in ".|"):
            built = _build(value, path[0], parts)
            return get(built, rest[1:]) if rest else built
        path = rest
    walk = _Walk()
    if isinstance(value, dict):
        walk.object(value, path)
    elif isinstance(value, list):
        walk.array(value, path)
    return walk.value if walk.pipe is None else get(walk.value, walk.pipe)


class _Walk:
    """What one search has found, and the pipe that comes after it."""

    def __init__(self) -> None:
        self.value: Any = MISSING
        self.pipe: str | None = None

    def _begin(self, part: gjson_path.Part) -> None:
        if part.pipe is not None:
            self.pipe = part.pipe

    def object(self, found: dict[str, Any], path: str) -> bool:
        """Search an object; True when the search is over."""
        part = gjson_path.object_part(path)
        self._begin(part)
        for key, value in found.items():
            if not (_like(key, part.name) if part.wild else key == part.name):
                continue
            if not part.more:
                self.value = value
                return True
            if self._inside(value, part.rest):
                return True
        return False

    def _inside(self, value: Any, path: str) -> bool:
        if isinstance(value, dict):
            return self.object(value, path)
        return isinstance(value, list) and self.array(value, path)

    def array(self, items: list[Any], path: str) -> bool:
        """Search an array; True when the search is over."""
        part = gjson_path.array_part(path)
        self._begin(part)
        if part.query is not None:
            return self._query(items, part, part.query)
        if part.hash:
            return part.name == "#" and self._count(items, part)
        if part.name.isdecimal() and part.name.isascii() and int(part.name) < len(items):
            item = items[int(part.name)]
            if part.more:
                return self._inside(item, part.rest)
            self.value = item
            return True
        return False

    def _count(self, items: list[Any], part: gjson_path.Part) -> bool:
        if part.each is None:
            self.value = len(items)
            return True
        path = self._split(part.each)
        found = (get(item, path) for item in items)
        self.value = [one for one in found if one is not MISSING]
        return True

    def _split(self, path: str) -> str:
        left, pipe = gjson_path.split_pipe(path)
        if pipe is not None:
            self.pipe = pipe
        return left

    def _query(self, items: list[Any], part: gjson_path.Part, query: gjson_path.Query) -> bool:
        found: list[Any] = []
        rest = part.rest
        for item in items:
            if isinstance(item, (dict, list)):
                value = get(item, query.path)
            elif query.path:
                continue
            else:
                value = item
            if not _matches(query, value):
                continue
            if part.more:
                rest = self._split(rest)
            one = get(item, rest) if part.more else item
            if not part.every:
                self.value = one
                return True
            if one is not MISSING:
                found.append(one)
        if part.every and self.value is MISSING:
            self.value = found
        return False


def _build(value: Any, kind: str, parts: list[tuple[str, str]]) -> Any:
    found = [(name, path, get(value, path)) for name, path in parts]
    there = [(name, path, one) for name, path, one in found if one is not MISSING]
    if kind == "[":
        return [one for _, _, one in there]
    return {_called(name, path): one for name, path, one in there}


def _called(name: str, path: str) -> str:
    name = name.strip()
    if name:
        return re.sub(r"\\(.)", r"\1", name[1:-1]) if name[0] == '"' else name
    last = re.split(r"(?<!\\)[.|]", path)[-1]
    return "_" if re.search(r"[\[\]{}()#|!\x00-\x1f]", last) else last


def _matches(query: gjson_path.Query, value: Any) -> bool:
    wanted = query.value
    if wanted.startswith("~"):
        kinds: dict[str, Callable[[Any], bool]] = {
            "*": lambda one: one is not MISSING,
            "null": lambda one: one is None or one is MISSING,
            "true": _true,
            "false": _false,
        }
        if wanted[1:] not in kinds:
            return False
        value, wanted = kinds[wanted[1:]](value), "true"
    if value is MISSING:
        return False
    if not query.operator:
        return True
    if isinstance(value, bool):
        return _compare_flag(query.operator, value, wanted)
    if isinstance(value, str):
        if query.operator in ("%", "!%"):
            return _like(value, wanted) == (query.operator == "%")
        return _compare(query.operator, value, wanted)
    if isinstance(value, (int, float)):
        return _compare(query.operator, float(value), _number(wanted))
    return False


def _compare(operator: str, left: Any, right: Any) -> bool:
    match operator:
        case "=":
            return bool(left == right)
        case "!=":
            return bool(left != right)
        case "<":
            return bool(left < right)
        case "<=":
            return bool(left <= right)
        case ">":
            return bool(left > right)
        case ">=":
            return bool(left >= right)
        case _:
            return False


def _compare_flag(operator: str, value: bool, wanted: str) -> bool:
    said = "true" if value else "false"
    match operator:
        case "=":
            return wanted == said
        case "!=":
            return wanted != said
        case ">":
            return value and wanted == "false"
        case "<":
            return not value and wanted == "true"
        case ">=":
            return value
        case "<=":
            return not value
        case _:
            return False


def _number(text: str) -> float:
    try:
        return 0.0 if "_" in text or text != text.strip() else float(text)
    except ValueError:
        return 0.0


def _true(value: Any) -> bool:
    if isinstance(value, str):
        return value.lower() in ("1", "t", "true")
    return isinstance(value, (bool, int, float)) and value != 0


def _false(value: Any) -> bool:
    if isinstance(value, str):
        return value.lower() in ("0", "f", "false")
    return value is None or value is MISSING or (isinstance(value, (bool, int, float)) and value == 0)


def _like(text: str, pattern: str) -> bool:
    """Match `*` and `?`, with `\\` before a character that means itself; in linear time for each star."""
    tokens = [one[1] if len(one) == 2 else {"*": 1, "?": 2}.get(one, one) for one in re.findall(r"(?s)\\.|.", pattern)]
    at, token, star, mark = 0, 0, -1, 0
    while at < len(text):
        if token < len(tokens) and tokens[token] == 1:
            star, mark = token, at
            token += 1
        elif token < len(tokens) and tokens[token] in (2, text[at]):
            at, token = at + 1, token + 1
        elif star >= 0:
            mark += 1
            at, token = mark, star + 1
        else:
            return False
    return all(one == 1 for one in tokens[token:])


def _flatten(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    return [one for item in value for one in (item if isinstance(item, list) else [item])]


def _join(value: Any) -> Any:
    if not isinstance(value, list):
        return value
    return {key: one for item in value if isinstance(item, dict) for key, one in item.items()}


def _reverse(value: Any) -> Any:
    if isinstance(value, dict):
        return dict(reversed(value.items()))
    return value[::-1] if isinstance(value, list) else value


def _keys(value: Any) -> Any:
    if isinstance(value, dict):
        return list(value)
    return [] if value is MISSING else [None] * (len(value) if isinstance(value, list) else 1)


def _values(value: Any) -> Any:
    if isinstance(value, (dict, list)):
        return list(value.values()) if isinstance(value, dict) else value
    return [] if value is MISSING else [value]


def _from_string(value: Any) -> Any:
    if not isinstance(value, str):
        return MISSING if value is None else value
    try:
        return msgspec.json.decode(value)
    except msgspec.DecodeError:
        return MISSING


def _same(value: Any) -> Any:
    return value


_MODIFIERS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("this", "valid", "pretty", "ugly"), _same),
    "reverse": _reverse,
    "keys": _keys,
    "values": _values,
    "flatten": _flatten,
    "join": _join,
    "fromstr": _from_string,
}
assert tuple(_MODIFIERS) == gjson_path.MODIFIERS
