"""KFP's lists: predicates, one sort key, pages that stay where they were while new things come in.

Source: `backend/api/v2beta1/filter.proto` of Kubeflow Pipelines. Must not know what is listed.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ondol.base import errors

Json = dict[str, Any]
_OPERATIONS: dict[str, Callable[[Any, Any], bool]] = {
    "EQUALS": lambda have, want: bool(have == want),
    "NOT_EQUALS": lambda have, want: bool(have != want),
    "GREATER_THAN": lambda have, want: bool(have > want),
    "GREATER_THAN_EQUALS": lambda have, want: bool(have >= want),
    "LESS_THAN": lambda have, want: bool(have < want),
    "LESS_THAN_EQUALS": lambda have, want: bool(have <= want),
    "IN": lambda have, want: have in want,
    "IS_SUBSTRING": lambda have, want: str(want).lower() in str(have).lower(),
}
_NUMBERS = {
    1: "EQUALS", 2: "NOT_EQUALS", 3: "GREATER_THAN", 5: "GREATER_THAN_EQUALS", 6: "LESS_THAN", 7: "LESS_THAN_EQUALS",
    8: "IN", 9: "IS_SUBSTRING",
}  # fmt: skip
_VALUES = ("string_value", "int_value", "long_value", "timestamp_value")
_LISTS = ("string_values", "int_values", "long_values")
_MOST = 200
_DEFAULT = 20


def page(items: Sequence[Json], query: Mapping[str, str], key: str, identifier: str, names: Mapping[str, str]) -> Json:
    """Return one page of items under `key`, filtered and sorted as the query says.

    :param identifier: the field with an item's id.
    :param names: the fields one may filter and sort by -> where they are in an item.
    :raises InputError: INP-533 naming the part of the query that is wrong.
    """
    wanted = [one for one in items if _holds(one, _predicates(query.get("filter", "")), names)]
    field, descending = _order(query.get("sort_by", ""), names)

    def place(one: Json) -> tuple[Any, str]:
        return one.get(field) or "", one[identifier]

    wanted.sort(key=place, reverse=descending)
    size = _size(query.get("page_size", ""))
    asked = [query.get("sort_by", ""), query.get("filter", "")]
    if token := query.get("page_token", ""):
        after = _position(token, asked)
        kept = [one for one in wanted if (place(one) < after if descending else place(one) > after)]
    else:
        kept = wanted
    answer: Json = {key: kept[:size], "total_size": len(wanted)}
    if len(kept) > size:
        answer["next_page_token"] = _token(asked, place(kept[size - 1]))
    return answer


def _size(text: str) -> int:
    if not text or text == "0":
        return _DEFAULT
    if not text.isdigit() or len(text) > 9:
        raise _bad(f"{text!r} is not a page size", "page_size")
    return min(int(text), _MOST)


def _order(text: str, names: Mapping[str, str]) -> tuple[str, bool]:
    words = text.split()
    if not words:
        return "created_at", False
    if words[0] not in names or len(words) > 2 or words[-1].lower() not in (words[0].lower(), "asc", "desc"):
        raise _bad(f"cannot sort by {text!r}; there are: {', '.join(names)}", "sort_by")
    return names[words[0]], words[-1].lower() == "desc"


def _predicates(text: str) -> list[Json]:
    if not text:
        return []
    try:
        read = json.loads(text)
        found = read["predicates"] if isinstance(read, dict) else None
    except (ValueError, KeyError):
        found = None
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        raise _bad('it is not {"predicates": [...]}', "filter")
    return found


def _holds(item: Json, predicates: Sequence[Json], names: Mapping[str, str]) -> bool:
    return all(_one_holds(item, predicate, names) for predicate in predicates)


def _one_holds(item: Json, predicate: Json, names: Mapping[str, str]) -> bool:
    given = {_snake(key): value for key, value in predicate.items()}
    operation = given.get("operation")
    name = _NUMBERS.get(operation, "") if isinstance(operation, int) else str(operation)
    compare = _OPERATIONS.get(name)
    if compare is None:
        raise _bad(f"no operation {operation!r}; there are: {', '.join(_OPERATIONS)}", "filter")
    if given.get("key") not in names:
        raise _bad(f"cannot filter by {given.get('key')!r}; there are: {', '.join(names)}", "filter")
    have = item.get(names[str(given["key"])], "")
    try:
        return compare(have, _value(given, name == "IN"))
    except TypeError:
        raise _bad(f"{given['key']!r} is not compared with such a value", "filter") from None


def _value(given: Json, several: bool) -> Any:
    for key in _LISTS if several else _VALUES:
        if key in given:
            value = given[key]
            return value.get("values", []) if several and isinstance(value, dict) else value
    raise _bad("a predicate has no value", "filter")


def _snake(text: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in text)


def _token(asked: list[str], place: tuple[Any, str]) -> str:
    return base64.urlsafe_b64encode(json.dumps([asked, list(place)]).encode()).decode()


def _position(token: str, asked: list[str]) -> tuple[Any, str]:
    try:
        before, (value, identifier) = json.loads(base64.urlsafe_b64decode(token))
    except (ValueError, TypeError, binascii.Error):
        raise _bad("it is not one of ours", "page_token") from None
    if before != asked or not isinstance(value, str) or not isinstance(identifier, str):
        raise _bad("sort_by and filter must be those of the first page", "page_token")
    return value, identifier


def _bad(message: str, where: str) -> errors.InputError:
    return errors.InputError(message, where=where, code="INP-533")
