"""Filters on document metadata: one small neutral language, checked when read, applied before the search.

    {"folder": "guide"}                         equals
    {"language": {"in": ["ko", "en"]}}          is one of
    {"principals": {"any_of": ["hr", "all"]}}   a list that has one of them
    {"year": {"gte": 2024, "lt": 2026}}         range (gt, gte, lt, lte); numbers or ISO dates
    {"and": [...]}, {"or": [...]}, {"not": {...}}

Several keys in one mapping must all hold. A document without the key does not match (nor its `in`, `any_of` or range).
An unknown operator is an error, never ignored: filters carry access control.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ondol.base import errors

Metadata = Mapping[str, Any]
Predicate = Callable[[Metadata], bool]
_ABSENT = object()
_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "gt": lambda left, right: bool(left > right),
    "gte": lambda left, right: bool(left >= right),
    "lt": lambda left, right: bool(left < right),
    "lte": lambda left, right: bool(left <= right),
}


def compile_filter(where: Mapping[str, Any] | None) -> Predicate | None:
    """Turn a filter into a predicate on metadata; None when there is nothing to filter.

    :raises UsageError: naming the key or operator that means nothing.
    """
    return _all(where, "where") if where else None


def _all(where: Any, place: str) -> Predicate:
    if not isinstance(where, Mapping):
        raise _wrong(f"{where!r} is no mapping", place)
    parts = [_one(str(key), value, f"{place}.{key}") for key, value in where.items()]
    return lambda metadata: all(part(metadata) for part in parts)


def _one(key: str, value: Any, place: str) -> Predicate:
    if key in ("and", "or"):
        if not isinstance(value, (list, tuple)) or not value:
            raise _wrong(f"{value!r} is no list of filters", place)
        parts = [_all(item, f"{place}[{number}]") for number, item in enumerate(value)]
        combine = all if key == "and" else any
        return lambda metadata: combine(part(metadata) for part in parts)
    if key == "not":
        inner = _all(value, place)
        return lambda metadata: not inner(metadata)
    if isinstance(value, Mapping):
        if not value:
            raise _wrong("no operator given", place)
        parts = [_operator(key, str(name), operand, f"{place}.{name}") for name, operand in value.items()]
        return lambda metadata: all(part(metadata) for part in parts)
    if isinstance(value, (list, tuple)):
        raise _wrong(f"{value!r} is a list: say 'in' or 'any_of'", place)
    return lambda metadata: _equal(metadata.get(key, _ABSENT), value)


def _operator(key: str, name: str, operand: Any, place: str) -> Predicate:
    if name == "eq":
        return lambda metadata: _equal(metadata.get(key, _ABSENT), operand)
    if name in ("in", "any_of"):
        if not isinstance(operand, (list, tuple)):
            raise _wrong(f"{operand!r} is no list", place)
        wanted = list(operand)
        if name == "in":
            return lambda metadata: any(_equal(metadata.get(key, _ABSENT), item) for item in wanted)
        return lambda metadata: _has_any(metadata.get(key, _ABSENT), wanted)
    if name in _ORDER:
        if isinstance(operand, bool) or not isinstance(operand, (int, float, str)):
            raise _wrong(f"{operand!r} is neither a number nor a text", place)
        compare = _ORDER[name]
        return lambda metadata: _ordered(metadata.get(key, _ABSENT), operand, compare)
    raise _wrong(f"unknown operator {name!r}", place)


def _equal(value: Any, wanted: Any) -> bool:
    if isinstance(value, bool) != isinstance(wanted, bool):  # True == 1 in Python, not in a filter
        return False
    return bool(value == wanted)


def _has_any(value: Any, wanted: list[Any]) -> bool:
    held = value if isinstance(value, (list, tuple)) else [value]
    return any(_equal(item, other) for item in held for other in wanted)


def _ordered(value: Any, operand: Any, compare: Callable[[Any, Any], bool]) -> bool:
    numbers = (int, float)
    same = (isinstance(value, numbers) and isinstance(operand, numbers)) or (
        isinstance(value, str) and isinstance(operand, str)
    )
    return same and not isinstance(value, bool) and compare(value, operand)


def _wrong(message: str, place: str) -> errors.UsageError:
    return errors.UsageError(
        f"filter: {message}",
        where=place,
        way_out="Use a value, or eq, in, any_of, gt, gte, lt, lte, and, or, not.",
        code="USE-041",
    )
