"""Kubernetes' Events: what the loop decided about a service, where `kubectl describe` and `kubectl get events` look.

Computed from the decisions in the store; nobody can write one. Must not decide anything.
"""

from __future__ import annotations

from ondol.api.kubernetes import core
from ondol.api.kubernetes.kinds import Json, Kind
from ondol.formats.resource import openapi
from ondol.formats.resource.checking import Findings
from ondol.formats.resource.kind import Column
from ondol.formats.resource.types import Field, Free, Object, Text, Whole
from ondol.records.rollout import Decision
from ondol.store import resources, rollouts
from ondol.store.connection import Store
from ondol.store.resources import Resource

_NEWEST = 500
"""How many decisions back events go."""

_SUBJECT = "InferenceService"
_BAD = ("fail", "rolled_back", "aborted", "failed")
_FIELDS = Object(
    {
        "involvedObject": Field(Free(), about="What was decided about."),
        "reason": Field(Text(), about="What was done: `Promote`, `RollBack`, `Gate` …"),
        "message": Field(Text(), about="Why, with the numbers."),
        "type": Field(Text(), about="`Normal`, or `Warning` where something failed."),
        "source": Field(Free(), about="Who decided."),
        "count": Field(Whole()),
        "firstTimestamp": Field(Text()),
        "lastTimestamp": Field(Text()),
    },
    about="A decision of the loop, as an event of the service it is about. Read-only.",
)


def read(store: Store) -> list[Json]:
    """Return the newest decisions about services that were applied, oldest first."""
    found = {one.name: one for one in resources.every(store, _SUBJECT)}
    newest = rollouts.decisions(store, limit=_NEWEST)
    return [event(one, found[one.subject]) for one in reversed(newest) if one.subject in found]


def event(decision: Decision, about: Resource) -> Json:
    """Return a decision as an Event of the resource it is about."""
    when = resources.timestamp(decision.at)
    reason = "".join(word.capitalize() for word in decision.action.split("_"))
    bad = decision.verdict in _BAD or decision.action == "roll_back"
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": decision.id, "namespace": about.namespace, "uid": decision.id, "creationTimestamp": when},
        "involvedObject": {
            "apiVersion": about.manifest.get("apiVersion", ""),
            "kind": about.kind,
            "name": about.name,
            "namespace": about.namespace,
            "uid": about.uid,
        },
        "reason": reason,
        "message": f"{decision.verdict}: {decision.reason}",
        "type": "Warning" if bad else "Normal",
        "source": {"component": "ondol"},
        "count": 1,
        "firstTimestamp": when,
        "lastTimestamp": when,
    }


EVENT = Kind(
    "",
    ("v1",),
    "Event",
    "events",
    lambda _: openapi.schema(core.whole(_FIELDS)),
    lambda _: Findings(),
    short_names=("ev",),
    columns=(
        Column("Last Seen", ".lastTimestamp", "date"),
        Column("Type", ".type"),
        Column("Reason", ".reason"),
        Column("Object", ".involvedObject.name"),
        Column("Message", ".message"),
    ),
    has_status=False,
    built_in=True,
    computed=read,
)
