"""Label and field selectors: which objects of a list are meant. Source: Kubernetes' documentation of labels."""

from __future__ import annotations

import re
from collections.abc import Callable

from ondol.api.kubernetes import status
from ondol.api.kubernetes.kinds import Json

Matches = Callable[[Json], bool]
_FIELDS = ("metadata.name", "metadata.namespace")
_TERM = re.compile(
    r"\s*(?P<no>!)?\s*(?P<key>[A-Za-z0-9][-A-Za-z0-9_./]*)\s*"
    r"(?:(?P<op>==|=|!=)\s*(?P<value>[-A-Za-z0-9_.]*)|(?P<set>in|notin)\s*\((?P<values>[-A-Za-z0-9_.,\s]*)\))?\s*"
)


def everything(_: Json) -> bool:
    """Select all objects."""
    return True


def labels(text: str) -> Matches:
    """Return a test for `a=b,c!=d,e in (f,g),h,!i`.

    :raises StatusError: 400 when it is not a selector.
    """
    if not text.strip():
        return everything
    terms, position = [], 0
    while position <= len(text):
        found = _TERM.match(text, position)
        if found is None or found.end() == position or text[found.end() : found.end() + 1] not in ("", ","):
            raise status.bad_request(f"unable to parse requirement: found {text[position:]!r} in label selector")
        terms.append(_term(found, text))
        position = found.end() + 1
    return lambda item: all(term(item["metadata"].get("labels") or {}) for term in terms)


def _term(found: re.Match[str], text: str) -> Matches:
    key = found["key"]
    if found["no"]:
        if found["op"] or found["set"]:
            raise status.bad_request(f"unable to parse requirement: '!' with a value in label selector {text!r}")
        return lambda given: key not in given
    if found["op"]:
        value, wanted = found["value"], found["op"] != "!="
        return lambda given: (given.get(key) == value) == wanted
    if found["set"]:
        among = {one.strip() for one in found["values"].split(",")}
        inside = found["set"] == "in"
        return lambda given: (given.get(key) in among) == inside
    return lambda given: key in given


def fields(text: str, *, every: bool = False) -> Matches:
    """Return a test for `metadata.name=…` and `metadata.namespace=…`, or for every field of an object.

    :raises StatusError: 400 for other fields, as Kubernetes answers for custom resources.
    """
    terms = []
    for part in filter(None, (one.strip() for one in text.split(","))):
        name, operator, value = re.fullmatch(r"([^=!]*)(==|=|!=)?(.*)", part, re.DOTALL).groups()  # type: ignore[union-attr]
        if not operator:
            raise status.bad_request(f"invalid selector: {part!r}; can't understand {part!r}")
        if name not in _FIELDS and not every:
            raise status.bad_request(f"field label not supported: {name}")
        terms.append((name.split("."), value, operator != "!="))
    return lambda item: all((_text_at(item, path) == value) == equal for path, value, equal in terms)


def _text_at(item: Json, path: list[str]) -> str:
    value: object = item
    for key in path:
        value = value.get(key, "") if isinstance(value, dict) else ""
    return str(value)
