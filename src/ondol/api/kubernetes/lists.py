"""Lists: the objects of a kind, filtered, in pages that all show one moment.

A page after the first is read as of the version of the first, by undoing what happened since; when that is longer ago
than the history goes, the answer is 410 and the client begins anew.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from ondol.api.kubernetes import selectors, status
from ondol.api.kubernetes.kinds import Json, Kind
from ondol.api.kubernetes.requests import Call, Target
from ondol.store import resource_events, resources
from ondol.store.connection import Store, Tx


@dataclass(frozen=True, slots=True)
class Page:
    """Objects of a list and its metadata (resourceVersion, continue, remainingItemCount)."""

    items: Sequence[Json]
    metadata: Json


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the next page begins."""

    version: int
    namespace: str
    name: str

    def token(self) -> str:
        return base64.urlsafe_b64encode(msgspec.json.encode(self)).decode().rstrip("=")


def _place(token: str) -> _Place:
    try:
        return msgspec.json.decode(base64.urlsafe_b64decode(token + "=" * (-len(token) % 4)), type=_Place)
    except (binascii.Error, msgspec.MsgspecError, ValueError) as error:
        raise status.bad_request("continue key is not valid: it is no token of this server") from error


def in_version(item: Json, kind: Kind, version: str) -> Json:
    """Return an object as the path's version shows it: versions differ in nothing but their name."""
    return {**item, "apiVersion": kind.api_version(version)}


def key(item: Json) -> tuple[str, str]:
    """Return what lists are ordered by."""
    return item["metadata"].get("namespace", ""), item["metadata"]["name"]


def selector(call: Call, target: Target) -> selectors.Matches:
    """Return the test that a request's selectors, and a name in its path, make."""
    by_label = selectors.labels(call.query.get("labelSelector", ""))
    by_field = selectors.fields(call.query.get("fieldSelector", ""), every=target.kind.computed is not None)
    if target.name:
        return lambda item: item["metadata"]["name"] == target.name and by_label(item) and by_field(item)
    return lambda item: by_label(item) and by_field(item)


def snapshot(tx: Tx, target: Target, version: int = 0) -> list[Json]:
    """Return the objects of a kind as they are, or as they were at a version.

    :raises StatusError: 410 when that is too long ago, or has not been yet.
    """
    kind, namespace = target.kind, target.namespace
    found = {key(one): one for one in (each.object() for each in resources.every_in(tx, kind.kind, namespace))}
    if version:
        oldest = resource_events.oldest(tx)
        if not oldest <= version <= resource_events.current(tx):
            raise status.expired(oldest, version)
        for event in reversed(resource_events.after(tx, version, kind.kind, namespace)):
            found.pop(key(event.after), None)
            if event.before is not None:
                found[key(event.before)] = event.before
    return [in_version(found[one], kind, target.version) for one in sorted(found)]


def computed(store: Store, target: Target) -> list[Json]:
    """Return the objects of a kind that is not stored, of one namespace or all."""
    everything = target.kind.computed(store) if target.kind.computed else []
    return [one for one in everything if target.namespace in ("", one["metadata"].get("namespace", ""))]


def page(store: Store, target: Target, call: Call) -> Page:
    """Answer a list request.

    :raises StatusError: 400 for wrong parameters, 410 for a version that is gone.
    """
    matches = selector(call, target)
    limit = call.number("limit")
    place = _place(call.query["continue"]) if call.query.get("continue") else None
    asked = call.number("resourceVersion")
    exact = call.query.get("resourceVersionMatch") == "Exact" and asked
    if target.kind.computed is not None:
        return Page([one for one in computed(store, target) if matches(one)], {"resourceVersion": ""})
    with store.read() as tx:
        now = resource_events.current(tx)
        if asked > now:
            raise status.expired(now, asked)
        version = place.version if place else asked if exact else now
        items = snapshot(tx, target, version if version != now else 0)
    chosen = [one for one in items if matches(one)]
    if place:
        chosen = [one for one in chosen if key(one) > (place.namespace, place.name)]
    metadata: Json = {"resourceVersion": str(version)}
    if limit and len(chosen) > limit:
        last = key(chosen[limit - 1])
        metadata["continue"] = _Place(version, *last).token()
        if not call.query.get("labelSelector") and not call.query.get("fieldSelector"):
            metadata["remainingItemCount"] = len(chosen) - limit
        chosen = chosen[:limit]
    return Page(chosen, metadata)
