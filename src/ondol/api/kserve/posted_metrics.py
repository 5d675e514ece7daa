"""Business numbers that arrive later, about a request or about a whole unit in a rollout.

    {"metrics": [{"request": "order-1", "name": "revenue", "value": 12.5},
                 {"unit": "customer-7", "service": "churn", "name": "renewed", "value": 1}]}

The first value of a name stays, so that a client may send again what it is not sure of. A number is committed before it
is acknowledged.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ondol.serving import inputs
from ondol.store import observations, routes
from ondol.store.connection import Store

_FIELDS = frozenset(("request", "unit", "service", "name", "value"))
Json = dict[str, Any]


def read(body: bytes) -> list[Json]:
    """Return the numbers of a body, each checked.

    :raises InputError: naming the field that is wrong.
    """
    try:
        given: Any = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise inputs.wrong(f"not valid JSON: {error}", "$", "INP-200") from None
    found = given.get("metrics") if isinstance(given, dict) else None
    if not isinstance(found, list):
        way_out = 'Send {"metrics": [{"request": id, "name": "revenue", "value": 12.5}]}.'
        raise inputs.wrong("must be a list", "metrics", "INP-423", way_out)
    for index, one in enumerate(found):
        _check(one, f"metrics[{index}]")
    return found


def _check(one: Any, path: str) -> None:
    if not isinstance(one, dict):
        raise inputs.wrong("must be an object", path, "INP-423")
    for key in one:
        if key not in _FIELDS:
            raise inputs.wrong("unknown field", f"{path}.{key}", "INP-423", f"Known: {', '.join(sorted(_FIELDS))}.")
    if ("request" in one) == ("unit" in one):
        raise inputs.wrong("must name a request or a unit", path, "INP-423", "Give one of `request` and `unit`.")
    wanted = ("unit", "service", "name") if "unit" in one else ("request", "name")
    for key in wanted:
        if not isinstance(one.get(key), str) or not one[key]:
            raise inputs.wrong("must be a text", f"{path}.{key}", "INP-423")
    if isinstance(one.get("value"), bool) or not isinstance(one.get("value"), (int, float)):
        raise inputs.wrong("must be a number", f"{path}.value", "INP-423")


def store_all(store: Store, given: list[Json]) -> Json:
    """Commit the numbers and return what became of them."""
    requests: dict[str, dict[str, float]] = {}
    units: dict[str, dict[str, dict[str, float]]] = {}
    for one in given:
        if "unit" in one:
            units.setdefault(one["service"], {}).setdefault(one["unit"], {}).setdefault(one["name"], one["value"])
        else:
            requests.setdefault(one["request"], {}).setdefault(one["name"], one["value"])
    new, outside = observations.signal(store, requests), 0
    for service, values in units.items():
        route = routes.get(store, service)
        if route is not None and route.rollout:
            new += observations.signal_units(store, route.rollout, values)
        else:
            outside += _count(values)
    return {"received": len(given), "new": new, "not_on_trial": outside}


def _count(values: Mapping[str, Mapping[str, float]]) -> int:
    return sum(len(named) for named in values.values())
