"""What all of KServe's kinds have in common: metadata, names, and the parts of a status."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ondol.formats.resource.states import HONOURED, State
from ondol.formats.resource.types import Field, Json, ListOf, MapOf, Object, Report, Text, Whole, every, texts

GROUP = "serving.kserve.io"
NAME = r"^[a-z]([-a-z0-9]*[a-z0-9])?$"
STOP = f"{GROUP}/stop"


def metadata(annotations: Mapping[str, State]) -> Object:
    """Return what a client may send back after reading; the resource door decides what it takes of it.

    :param annotations: those that mean something to KServe; any other is kept and means nothing to anybody here.
    """
    return Object(
        {
            "name": Field(Text(longest=253), required=True),
            "namespace": Field(Text(longest=63)),
            "labels": Field(texts()),
            "annotations": Field(MapOf(Text(), annotations)),
            **every(
                "creationTimestamp deletionGracePeriodSeconds deletionTimestamp finalizers generateName generation "
                "managedFields ownerReferences resourceVersion selfLink uid",
                HONOURED,
            ),
        }
    )


METADATA = metadata({})


def named(value: Json, wrong: Report) -> None:
    """A rule of whole manifests: KServe's names are those of DNS labels that begin with a letter."""
    name = value["metadata"].get("name", "")
    if not re.fullmatch(NAME, name) or len(name) > 63:
        wrong(
            "metadata.name",
            f"{name!r} must be at most 63 lower case letters, digits and '-', beginning with a letter",
        )


CONDITION = Object(
    {
        "type": Field(Text(), required=True, about="What it is about."),
        "status": Field(Text(), required=True, about="True, False or Unknown."),
        "reason": Field(Text(), about="Why, in one word."),
        "message": Field(Text(), about="Why, for people."),
        "severity": Field(Text()),
        "lastTransitionTime": Field(Text(), about="Since when."),
    },
    about="One thing that is so, or is not.",
)
ADDRESS = Object(every("CACerts audience name url", HONOURED))


def status(**own: Field) -> Object:
    """Return a status: what every kind's has, and what only this one's has."""
    return Object(
        {
            "annotations": Field(texts()),
            "conditions": Field(ListOf(CONDITION)),
            "observedGeneration": Field(Whole(0, 2**63 - 1), about="The generation this status is about."),
            "url": Field(Text(), about="Where it answers."),
            **own,
        }
    )
