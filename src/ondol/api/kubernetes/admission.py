"""What a manifest must be before it is stored: decoded strictly, cleaned of what the server keeps, valid for its kind.

Unlike Kubernetes, a request that does not say how strict it wants to be is answered strictly: nothing is dropped
silently. `fieldValidation=Warn` and `Ignore` drop unknown fields as Kubernetes does, because then the client said so.
"""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import dataclass
from typing import Any

import msgspec

from ondol.api.kubernetes import core, status
from ondol.api.kubernetes.kinds import Kind
from ondol.base import errors
from ondol.formats.resource import documents
from ondol.formats.resource.checking import Findings
from ondol.store import managed_fields
from ondol.store.connection import Tx

Json = dict[str, Any]

MAX_BYTES = 3 * 1024 * 1024
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_NAME_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and "
    "end with an alphanumeric character"
)
_LABEL = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_LABEL_RULE = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', at most 63"
_MAX_ANNOTATIONS = 256 * 1024
_OWNER = ("apiVersion", "kind", "name", "uid")
_METADATA = frozenset(("labels", "annotations", "finalizers", "ownerReferences"))


class _Object(dict[str, Any]):
    """A decoded JSON object that remembers keys written twice."""

    twice: tuple[str, ...] = ()


def _pairs(pairs: list[tuple[str, Any]]) -> Json:
    found = _Object(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        found.twice = tuple(dict.fromkeys(key for key, _ in pairs if key in seen or seen.add(key)))  # type: ignore[func-returns-value]
    return found


def decode(body: bytes, content_type: str = "application/json") -> Any:
    """Return the body of a request; JSON, or YAML where the content type says so.

    :raises StatusError: 400 when it cannot be read, 415 for other formats.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind and not kind.endswith(("json", "yaml")):
        raise status.unsupported_media_type(["application/json", "application/yaml"])
    try:
        return json.loads(body, object_pairs_hook=_pairs)
    except (ValueError, RecursionError) as error:
        if not kind.endswith("yaml"):
            raise status.bad_request(f"the object provided is unrecognized: it is not JSON: {error}") from error
    try:
        (found,) = documents.documents(body.decode())
    except (errors.InputError, ValueError) as error:
        raise status.bad_request(f"the object provided is unrecognized: it is not one YAML object: {error}") from error
    return found


def duplicates(value: object, path: str = "") -> list[str]:
    """Return the paths of keys that a JSON text has twice."""
    found: list[str] = []
    if isinstance(value, dict):
        found += [f"{path}.{key}".lstrip(".") for key in getattr(value, "twice", ())]
        for key, inner in value.items():
            found += duplicates(inner, f"{path}.{key}")
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            found += duplicates(inner, f"{path}[{index}]")
    return found


@dataclass(frozen=True, slots=True)
class Admitted:
    """A manifest that may be stored, with what the client should be told."""

    manifest: Json
    status: Json
    """What the object said of its status; stored by the status subresource only."""

    warnings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """What nothing here acts on; said when the spec is new, not with every label."""


def target(kind: Kind, version: str, value: object, namespace: str, name: str = "") -> Json:
    """Return the object if it is of the kind, place and name that the path says, with its name made where asked for.

    :raises StatusError: 400.
    """
    if not isinstance(value, dict):
        raise status.bad_request("the object provided is unrecognized: it is not a mapping")
    said = (value.get("apiVersion"), value.get("kind"))
    if said != (kind.api_version(version), kind.kind):
        raise status.bad_request(
            f"the object provided is of apiVersion {said[0]!r} and kind {said[1]!r}, "
            f"the path is of {kind.api_version(version)!r} and {kind.kind!r}"
        )
    metadata = value.get("metadata")
    if not isinstance(metadata, dict):
        raise status.invalid(kind, name, [status.cause("metadata", "FieldValueRequired", "Required value")])
    if metadata.get("namespace") not in (None, "", namespace):
        raise status.bad_request(
            f"the namespace of the provided object does not match the namespace sent on the request: "
            f"{metadata['namespace']!r} and {namespace!r}"
        )
    if name and metadata.get("name") not in (None, "", name):
        raise status.bad_request(
            f"the name of the object ({metadata['name']}) does not match the name on the URL ({name})"
        )
    chosen = name or metadata.get("name") or _made(metadata.get("generateName"))
    return {**value, "metadata": {**metadata, "name": chosen}}


def _made(prefix: object) -> str:
    alphabet = "bcdfghjklmnpqrstvwxz2456789"
    return f"{prefix[:58]}{''.join(secrets.choice(alphabet) for _ in range(5))}" if isinstance(prefix, str) else ""


def without_nulls(value: Any) -> Any:
    """Return a value without null members, which mean "not set"; plain dicts throughout."""
    if isinstance(value, dict):
        return {key: without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [without_nulls(one) for one in value] if isinstance(value, list) else value


def admit(kind: Kind, version: str, given: Json, namespace: str, strictness: str, tx: Tx) -> Admitted:
    """Return what is to be stored of an object.

    :param strictness: `Strict`, `Warn`, `Ignore`, or empty for our default, which is strict.
    :param tx: what is stored.
    :raises StatusError: 400 for fields that the kind does not have, 422 for whatever else is wrong or not honoured.
    """
    if strictness not in ("", "Strict", "Warn", "Ignore"):
        raise status.bad_request(f'fieldValidation: Unsupported value: "{strictness}": use Strict, Warn or Ignore')
    doubled = [f'duplicate field "{path}"' for path in duplicates(given)]
    clean = without_nulls(given)
    metadata = clean["metadata"]
    name = str(metadata["name"])
    causes = _metadata_causes(kind, metadata)
    if kind.namespaced and (len(namespace) > 63 or not _NAME.fullmatch(namespace)):
        causes.append(status.cause("metadata.namespace", "FieldValueInvalid", f"Invalid value: {_json(namespace)}"))
    kept = {key: value for key, value in metadata.items() if key in _METADATA and value != {} and value != []}
    where = {"name": name, "namespace": namespace} if kind.namespaced else {"name": name}
    body = {key: value for key, value in clean.items() if key not in ("apiVersion", "kind", "metadata", "status")}
    manifest: Json = {"apiVersion": kind.api_version(version), "kind": kind.kind, "metadata": {**where, **kept}, **body}
    unknown = [f"metadata.{key}" for key in metadata if key not in _METADATA | managed_fields.SERVER_OWNED]
    checked = _checked(kind, _for_reader(manifest), tx) if not causes else Findings()
    unknown += [problem.path for problem in checked.problems if problem.cause == "unknown"]
    complaints = [*(f'unknown field "{path}"' for path in unknown), *doubled]
    if complaints and strictness in ("", "Strict"):
        raise status.undecodable(kind, version, complaints)
    causes += [
        status.cause_of(problem, _shown(manifest, problem.path))
        for problem in checked.problems
        if problem.cause != "unknown"
    ]
    if causes:
        raise status.invalid(kind, name, causes)
    for path in unknown:
        _drop(manifest, path)
    warnings = complaints if strictness == "Warn" else []
    found = clean.get("status")
    stored = core.stored_secret(manifest) if kind.kind == "Secret" else manifest
    return Admitted(stored, found if isinstance(found, dict) else {}, tuple(warnings), tuple(checked.notes))


def _checked(kind: Kind, manifest: Json, tx: Tx) -> Findings:
    return kind.check_among(manifest, tx) if kind.check_among else kind.check(manifest)


def _for_reader(manifest: Json) -> Json:
    """Return the manifest without finalizers and owners, which are the server's business, not the kind's."""
    kept = {key: value for key, value in manifest["metadata"].items() if key not in ("finalizers", "ownerReferences")}
    return {**manifest, "metadata": kept}


def _metadata_causes(kind: Kind, metadata: Json) -> list[Json]:
    found: list[Json] = []

    def wrong(path: str, value: object, rule: str) -> None:
        found.append(status.cause(path, "FieldValueInvalid", f"Invalid value: {_json(value)}: {rule}"))

    name = metadata.get("name")
    if not name:
        found.append(
            status.cause("metadata.name", "FieldValueRequired", "Required value: name or generateName is required")
        )
    elif not isinstance(name, str) or len(name) > 253 or not _NAME.fullmatch(name):
        wrong("metadata.name", name, _NAME_RULE)
    for part in ("labels", "annotations"):
        entries = metadata.get(part, {})
        if not isinstance(entries, dict) or not all(isinstance(one, str) for one in entries.values()):
            wrong(f"metadata.{part}", entries, "must be a mapping of texts to texts")
        elif part == "labels":
            for value in entries.values():
                if not _LABEL.fullmatch(value):
                    wrong("metadata.labels", value, _LABEL_RULE)
        elif sum(len(key) + len(value) for key, value in entries.items()) > _MAX_ANNOTATIONS:
            found.append(
                status.cause("metadata.annotations", "FieldValueTooLong", "Too long: may not be more than 262144 bytes")
            )
    finalizers = metadata.get("finalizers", [])
    if not isinstance(finalizers, list) or not all(isinstance(one, str) for one in finalizers):
        wrong("metadata.finalizers", finalizers, "must be a list of texts")
    owners = metadata.get("ownerReferences", [])
    if not isinstance(owners, list) or not all(map(_is_owner, owners)):
        wrong("metadata.ownerReferences", owners, f"must be a list of mappings with {', '.join(_OWNER)}")
    return found


def _is_owner(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(key), str) for key in _OWNER)


def _json(value: object) -> str:
    text = msgspec.json.encode(value).decode()
    return text if len(text) <= 200 else f"{text[:200]}…"


_STEP = re.compile(r"\[(\d+)\]|\[([^\]]+)\]|([^.\[\]]+)")


def _steps(path: str) -> list[str | int]:
    return [int(step[1]) if step[1] else step[2] or step[3] for step in _STEP.finditer(path)]


def _shown(manifest: Json, path: str) -> str:
    value: Any = manifest
    for step in _steps(path):
        try:
            value = value[step]
        except (KeyError, IndexError, TypeError):
            return ""
    return _json(value)


def _drop(manifest: Json, path: str) -> None:
    """Remove a field that the kind does not have."""
    *holders, last = _steps(path)
    value: Any = manifest
    try:
        for step in holders:
            value = value[step]
        del value[last]
    except (KeyError, IndexError, TypeError):
        return
