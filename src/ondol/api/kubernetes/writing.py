"""The verbs that write: create, replace, patch, apply, delete. Each is one transaction, whole or not at all.

What a stale client must be told (409), what was never there (404) and what may not be (422) is decided inside the
transaction, so two writers cannot both win. Must not render answers: it returns objects and says what happened.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from ondol.api.kubernetes import admission, core, lists, patches, removal, status
from ondol.api.kubernetes.admission import Admitted
from ondol.api.kubernetes.kinds import Kind
from ondol.api.kubernetes.requests import Call, Target
from ondol.base import clock
from ondol.store import managed_fields, resources
from ondol.store.connection import Store, Tx
from ondol.store.managed_fields import Conflict, Manager
from ondol.store.resources import Resource

Json = dict[str, Any]
_BUILT_IN_PATCHES = (patches.JSON_PATCH, patches.MERGE, patches.STRATEGIC, patches.APPLY)
_PATCHES = (patches.JSON_PATCH, patches.MERGE, patches.APPLY)


@dataclass(frozen=True, slots=True)
class Written:
    """What a write left behind."""

    object: Json
    created: bool = False
    warnings: tuple[str, ...] = ()


class Writer:
    """The writing verbs over one store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @contextmanager
    def _transaction(self, call: Call) -> Iterator[Tx]:
        """A dry run reads: it cannot change anything, whatever is done inside."""
        with self._store.read() if call.dry_run else self._store.write() as tx:
            yield tx

    def create(self, target: Target, call: Call) -> Written:
        """POST.

        :raises StatusError: 409 when it is there already.
        """
        kind = target.kind
        decoded = admission.decode(call.body, call.headers.get("content-type", ""))
        namespace = target.namespace
        if kind.namespaced and not namespace:
            raise status.bad_request("an empty namespace may not be set during creation")
        given = admission.target(kind, target.version, decoded, namespace)
        if given["metadata"].get("resourceVersion"):
            raise status.bad_request("resourceVersion should not be set on objects to be created")
        place = replace(target, namespace=namespace, name=str(given["metadata"]["name"]))
        with self._transaction(call) as tx:
            strictness = call.query.get("fieldValidation", "")
            admitted = admission.admit(kind, target.version, given, namespace, strictness, tx)
            if resources.find_in(tx, kind.kind, namespace, place.name) is not None:
                raise status.already_exists(kind, place.name)
            return self._write(tx, place, call, None, admitted, self._owners(place, call, None, admitted, []))

    def replace(self, target: Target, call: Call) -> Written:
        """PUT of an object or of its status.

        :raises StatusError: 409 when it was changed since the client read it.
        """
        decoded = admission.decode(call.body, call.headers.get("content-type", ""))
        given = admission.target(target.kind, target.version, decoded, target.namespace, target.name)
        with self._transaction(call) as tx:
            before = self._find(tx, target)
            version = given["metadata"].get("resourceVersion")
            if not version and not target.kind.built_in:
                rule = "Invalid value: 0: must be specified for an update"
                raise status.invalid(
                    target.kind, target.name, [status.cause("metadata.resourceVersion", "FieldValueInvalid", rule)]
                )
            return self._update(tx, target, call, before, given)

    def patch(self, target: Target, call: Call) -> Written:
        """PATCH of whatever kind the content type says.

        :raises StatusError: 415 for a kind of patch that this kind of object does not take.
        """
        form = call.headers.get("content-type", "").partition(";")[0].strip().lower()
        if form == patches.APPLY:
            return self._apply(target, call)
        if form not in (_BUILT_IN_PATCHES if target.kind.built_in else _PATCHES):
            raise status.unsupported_media_type(_BUILT_IN_PATCHES if target.kind.built_in else _PATCHES)
        if call.query.get("force"):
            raise _invalid_option("force", "FieldValueForbidden", "Forbidden: may not be specified for non-apply patch")
        patch = admission.decode(call.body)
        change = {patches.MERGE: patches.merge, patches.STRATEGIC: patches.strategic}.get(form, patches.json_patch)
        with self._transaction(call) as tx:
            before = self._find(tx, target)
            live = lists.in_version(before.object(), target.kind, target.version)
            patched = change(live, patch)
            given = admission.target(target.kind, target.version, patched, target.namespace, target.name)
            return self._update(tx, target, call, before, given)

    def delete(self, target: Target, call: Call) -> Json:
        """DELETE; the answer is a Status, or the object while finalizers hold it."""
        options = removal.options(call)
        dry = call.dry_run or options.dry_run
        with self._store.read() if dry else self._store.write() as tx:
            before = self._find(tx, target)
            options.check(target.kind, before)
            if target.kind is core.NAMESPACE:
                removal.empty_namespace(tx, before, dry=dry)
            last = before if dry else removal.remove(tx, before, options)
        held = before.manifest["metadata"].get("finalizers")
        shown = lists.in_version(last.object(), target.kind, target.version)
        return shown if held else status.success(target.kind, before.name, before.uid)

    def delete_collection(self, target: Target, call: Call) -> lists.Page:
        """DELETE of a list; the answer is the list of what was there."""
        found = lists.page(self._store, target, call)
        for item in found.items:
            one = replace(target, namespace=item["metadata"].get("namespace", ""), name=item["metadata"]["name"])
            try:
                self.delete(one, call)
            except status.StatusError as error:
                if error.code != 404:  # somebody else deleted it meanwhile
                    raise
        return found

    @staticmethod
    def _find(tx: Tx, target: Target) -> Resource:
        found = resources.find_in(tx, target.kind.kind, target.namespace, target.name)
        if found is None:
            raise status.not_found(target.kind, target.name)
        return found

    def _update(self, tx: Tx, target: Target, call: Call, before: Resource, given: Json) -> Written:
        kind, metadata = target.kind, given["metadata"]
        if metadata.get("uid") not in (None, "", before.uid):
            why = f"Precondition failed: UID in precondition: {metadata['uid']}, UID in object meta: {before.uid}"
            raise status.conflict(kind, target.name, why)
        if metadata.get("resourceVersion") not in (None, "", str(before.version)):
            raise status.conflict(kind, target.name)
        if target.subresource:
            admitted = Admitted(before.manifest, _status_of(kind, given))
        else:
            strictness = call.query.get("fieldValidation", "")
            admitted = admission.admit(kind, target.version, given, target.namespace, strictness, tx)
        rewritten = metadata.get("managedFields")
        base = managed_fields.entries(rewritten) if isinstance(rewritten, list) else before.managed
        return self._write(tx, target, call, before, admitted, self._owners(target, call, before, admitted, base))

    def _apply(self, target: Target, call: Call) -> Written:
        kind = target.kind
        if not call.query.get("fieldManager"):
            rule = "Required value: is required for apply patch"
            raise _invalid_option("fieldManager", "FieldValueRequired", rule)
        decoded = admission.decode(call.body, "application/yaml")
        given = admission.target(kind, target.version, decoded, target.namespace, target.name)
        if given["metadata"].get("managedFields"):
            raise status.bad_request("metadata.managedFields must be nil")
        wanted = _configuration(kind, given, target.subresource)
        writer = Manager(call.manager, "Apply", kind.api_version(target.version), target.subresource)
        with self._transaction(call) as tx:
            before = resources.find_in(tx, kind.kind, target.namespace, target.name)
            if before is None and target.subresource:
                raise status.not_found(kind, target.name)
            version = given["metadata"].get("resourceVersion")
            if version and (before is None or version != str(before.version)):
                raise status.conflict(kind, target.name)
            live = before.object() if before else {}
            managed = before.managed if before else []
            if not call.flag("force") and (found := managed_fields.conflicts(managed, live, wanted, writer)):
                raise _apply_conflict(managed, found)
            merged, owners = managed_fields.applied(managed, live, wanted, writer)
            merged = {**merged, "metadata": {**merged.get("metadata", {}), "name": target.name}}
            if target.subresource and before:
                admitted = Admitted(before.manifest, _status_of(kind, merged))
            else:
                strictness = call.query.get("fieldValidation", "")
                _refuse_duplicates(target, decoded, strictness)
                admitted = admission.admit(kind, target.version, merged, target.namespace, strictness, tx)
            return self._write(tx, target, call, before, admitted, owners)

    @staticmethod
    def _owners(
        target: Target, call: Call, before: Resource | None, admitted: Admitted, base: list[Json]
    ) -> list[Json]:
        """Return who owns what after a plain write over what `base` says."""
        writer = Manager(call.manager, "Update", target.kind.api_version(target.version), target.subresource)
        if target.subresource:
            old, new = {"status": before.status if before else {}}, {"status": admitted.status}
        else:
            old, new = before.manifest if before else {}, admitted.manifest
        return managed_fields.updated(base, old, new, writer)

    def _write(
        self,
        tx: Tx,
        target: Target,
        call: Call,
        before: Resource | None,
        admitted: Admitted,
        owners: list[Json],
    ) -> Written:
        """Store what was admitted, unless it is what is there already or only a dry run."""
        kind = target.kind
        empty = Resource(kind.kind, target.namespace, target.name, 0, 1, {}, {})
        after = replace(before or empty, manifest=admitted.manifest, managed=owners)
        if target.subresource or not kind.has_status:
            after = replace(after, status=admitted.status if target.subresource else {})
        elif kind is core.NAMESPACE:
            after = replace(after, status={"phase": "Active"})
        if before is not None and _same(before, after):
            stored = before
        elif call.dry_run:
            stored = replace(after, created_at=after.created_at or clock.SYSTEM.now())
        else:
            stored = resources.write_in(tx, before, after)
            if stored.deleting_at and not stored.manifest["metadata"].get("finalizers"):
                stored = resources.remove_in(tx, stored)
        shown = lists.in_version(stored.object(), kind, target.version)
        new = before is None or before.generation != stored.generation or (call.dry_run and stored is not before)
        return Written(shown, before is None, (*admitted.warnings, *(admitted.notes if new else ())))


def _same(before: Resource, after: Resource) -> bool:
    """Say whether a write would change nothing but times."""
    if (before.manifest, before.status) != (after.manifest, after.status):
        return False
    timeless = [[{**entry, "time": ""} for entry in one.managed] for one in (before, after)]
    return timeless[0] == timeless[1]


def _status_of(kind: Kind, given: Json) -> Json:
    found = admission.without_nulls(given.get("status") or {})
    if not isinstance(found, dict):
        rule = f"Invalid value: {type(found).__name__}: must be a mapping"
        raise status.invalid(kind, given["metadata"]["name"], [status.cause("status", "FieldValueInvalid", rule)])
    return found


def _configuration(kind: Kind, given: Json, subresource: str) -> Json:
    """Return what an apply says, without what nobody owns."""
    clean = admission.without_nulls(given)
    metadata = {key: value for key, value in clean["metadata"].items() if key not in managed_fields.SERVER_OWNED}
    if subresource:
        return {"status": clean.get("status", {})}
    body = {key: value for key, value in clean.items() if key not in ("metadata", "status")}
    found = {**body, **({"metadata": metadata} if metadata else {})}
    return core.stored_secret(found) if kind.kind == "Secret" else found


def _refuse_duplicates(target: Target, decoded: object, strictness: str) -> None:
    doubled = admission.duplicates(decoded)
    if doubled and strictness in ("", "Strict"):
        raise status.undecodable(target.kind, target.version, [f'duplicate field "{path}"' for path in doubled])


def _invalid_option(name: str, reason: str, message: str) -> status.StatusError:
    text = f'PatchOptions.meta.k8s.io "" is invalid: {name}: {message}'
    causes = [status.cause(name, reason, message)]
    return status.StatusError(422, "Invalid", text, {"group": "meta.k8s.io", "kind": "PatchOptions", "causes": causes})


def _apply_conflict(managed: list[Json], found: list[Conflict]) -> status.StatusError:
    """Return 409 with a cause for each field, in the words kubectl explains to its user."""
    said: dict[str, list[str]] = {}
    causes = []
    for one in found:
        who = _who(managed, one)
        said.setdefault(who, []).append(one.field)
        causes.append(status.cause(one.field, "FieldManagerConflict", f"conflict with {who}"))
    if len(found) == 1:
        text = f"1 conflict: conflict with {next(iter(said))}: {found[0].field}"
    else:
        parts = [f"conflicts with {who}:\n" + "\n".join(f"- {path}" for path in paths) for who, paths in said.items()]
        text = f"{len(found)} conflicts: " + "\n".join(parts)
    return status.StatusError(409, "Conflict", f"Apply failed with {text}", {"causes": causes})


def _who(managed: list[Json], one: Conflict) -> str:
    entry = next(entry for entry in managed if entry.get("manager") == one.manager)
    sub = f' with subresource "{entry["subresource"]}"' if entry.get("subresource") else ""
    using = f" using {entry.get('apiVersion')}" if entry.get("operation") == "Update" else ""
    return f'"{one.manager}"{sub}{using}'
