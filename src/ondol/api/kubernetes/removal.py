"""Deletion: its options, finalizers, what belongs to the deleted, and namespaces with all that is in them."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

from ondol.api.kubernetes import admission, status
from ondol.api.kubernetes.kinds import Kind
from ondol.api.kubernetes.requests import Call
from ondol.store import resources
from ondol.store.connection import Tx
from ondol.store.resources import Resource

Json = dict[str, Any]
_POLICIES = ("Background", "Foreground", "Orphan")
_KNOWN = frozenset(
    ("apiVersion", "kind", "gracePeriodSeconds", "propagationPolicy", "preconditions", "dryRun", "orphanDependents")
)
_KEPT_NAMESPACES = ("default",)


@dataclass(frozen=True, slots=True)
class Options:
    """What a DELETE asks for; a grace period has no meaning, for there are no pods."""

    policy: str = "Background"
    """`Background` and `Foreground` delete what the object owns with it; `Orphan` leaves it there."""

    uid: str = ""
    version: str = ""
    dry_run: bool = False

    def check(self, kind: Kind, found: Resource) -> None:
        """Refuse when the object is not the one the client means.

        :raises StatusError: 409.
        """
        for what, wanted, real in (("UID", self.uid, found.uid), ("ResourceVersion", self.version, str(found.version))):
            if wanted and wanted != real:
                why = f"Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {real}"
                raise status.conflict(kind, found.name, why)


def options(call: Call) -> Options:
    """Read `DeleteOptions` from the body, or from the query.

    :raises StatusError: 400 for options that are not honoured.
    """
    given = admission.decode(call.body) if call.body.strip() else {}
    if not isinstance(given, dict):
        raise status.bad_request("DeleteOptions is not a mapping")
    if unknown := sorted(set(given) - _KNOWN):
        raise status.bad_request(f'DeleteOptions: strict decoding error: unknown field "{unknown[0]}"')
    policy = given.get("propagationPolicy") or call.query.get("propagationPolicy") or "Background"
    if policy not in _POLICIES:
        raise status.bad_request(f'propagationPolicy: Unsupported value: "{policy}": supported: {", ".join(_POLICIES)}')
    if given.get("orphanDependents"):
        policy = "Orphan"
    conditions = given.get("preconditions") or {}
    if not isinstance(conditions, dict):
        raise status.bad_request("preconditions is not a mapping")
    uid, version = str(conditions.get("uid") or ""), str(conditions.get("resourceVersion") or "")
    return Options(policy, uid, version, given.get("dryRun") == ["All"])


def remove(tx: Tx, resource: Resource, chosen: Options) -> Resource:
    """Delete a resource, or mark it while finalizers hold it; return it as it is now."""
    if resource.manifest["metadata"].get("finalizers"):
        if resource.deleting_at:
            return resource
        return resources.write_in(tx, resource, replace(resource, deleting_at=time.time()))
    last = resources.remove_in(tx, resource)
    for one in resources.naming_in(tx, resource.uid):
        owners = one.manifest["metadata"].get("ownerReferences", [])
        left = [owner for owner in owners if owner.get("uid") != resource.uid]
        if len(left) == len(owners):
            continue
        if left or chosen.policy == "Orphan":
            metadata = {key: value for key, value in one.manifest["metadata"].items() if key != "ownerReferences"}
            metadata |= {"ownerReferences": left} if left else {}
            resources.write_in(tx, one, replace(one, manifest={**one.manifest, "metadata": metadata}))
        else:
            remove(tx, one, chosen)
    return last


def empty_namespace(tx: Tx, namespace: Resource, *, dry: bool) -> None:
    """Delete everything in a namespace that is about to go.

    :raises StatusError: 403 for a namespace that stays, 409 when finalizers hold something in it.
    """
    from ondol.api.kubernetes.core import NAMESPACE

    if namespace.name in _KEPT_NAMESPACES:
        raise status.forbidden(NAMESPACE, namespace.name, "this namespace may not be deleted")
    inside = resources.every_in(tx, namespace=namespace.name)
    if held := next((one for one in inside if one.manifest["metadata"].get("finalizers")), None):
        why = f"{held.kind} {held.name!r} in it is held by finalizers; delete it first"
        raise status.conflict(NAMESPACE, namespace.name, why)
    for one in [] if dry else inside:
        if resources.find_in(tx, one.kind, one.namespace, one.name) is not None:
            remove(tx, one, Options())
