"""Kubernetes' `Status`: how the resource API says that something is wrong, and where.

Source: Kubernetes' API conventions and `meta.k8s.io/v1`. A client's mistake is always one of these, never a 500.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ondol.api.kubernetes.kinds import Kind
from ondol.formats.resource.checking import Problem

Json = dict[str, Any]


class StatusError(Exception):
    """An answer that is an error.

    :param code: HTTP status.
    :param reason: Kubernetes' machine-readable reason.
    """

    def __init__(self, code: int, reason: str, message: str, details: Json | None = None) -> None:
        super().__init__(message)
        self.code, self.reason, self.message, self.details = code, reason, message, details or {}

    def to_json(self) -> Json:
        """Return the `Status` object."""
        found: Json = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"}
        found |= {"message": self.message, "reason": self.reason, "code": self.code}
        return {**found, "details": self.details} if self.details else found


def _details(kind: Kind, name: str, **more: Any) -> Json:
    return {"name": name, "group": kind.group, "kind": kind.plural, **more}


def not_found(kind: Kind, name: str) -> StatusError:
    return StatusError(404, "NotFound", f'{kind.resource} "{name}" not found', _details(kind, name))


def no_such_path() -> StatusError:
    return StatusError(404, "NotFound", "the server could not find the requested resource")


def already_exists(kind: Kind, name: str) -> StatusError:
    return StatusError(409, "AlreadyExists", f'{kind.resource} "{name}" already exists', _details(kind, name))


def conflict(kind: Kind, name: str, why: str = "") -> StatusError:
    why = why or ("the object has been modified; please apply your changes to the latest version and try again")
    message = f'Operation cannot be fulfilled on {kind.resource} "{name}": {why}'
    return StatusError(409, "Conflict", message, _details(kind, name))


def bad_request(message: str) -> StatusError:
    return StatusError(400, "BadRequest", message)


def method_not_allowed(method: str) -> StatusError:
    return StatusError(405, "MethodNotAllowed", f"the server does not allow {method} on the requested resource")


def forbidden(kind: Kind, name: str, why: str) -> StatusError:
    message = f'{kind.resource} "{name}" is forbidden: {why}'
    return StatusError(403, "Forbidden", message, _details(kind, name))


def unsupported_media_type(accepted: Sequence[str]) -> StatusError:
    message = f"the body of the request was in an unknown format - accepted media types include: {', '.join(accepted)}"
    return StatusError(415, "UnsupportedMediaType", message)


def too_large(limit: int) -> StatusError:
    return StatusError(413, "RequestEntityTooLarge", f"Request entity too large: limit is {limit}")


def expired(oldest: int, asked: int) -> StatusError:
    return StatusError(410, "Expired", f"too old resource version: {asked} ({oldest})")


def cause(path: str, reason: str, message: str) -> Json:
    return {"reason": reason, "message": message, "field": path}


def invalid(kind: Kind, name: str, causes: Sequence[Json]) -> StatusError:
    """Return 422 with every cause, one line of text for each."""
    lines = [f"{one['field']}: {one['message']}" for one in causes]
    text = lines[0] if len(lines) == 1 else f"[{', '.join(lines)}]"
    message = f'{kind.qualified} "{name}" is invalid: {text}'
    return StatusError(422, "Invalid", message, _details(kind, name, causes=list(causes)))


_REASONS = {
    "refused": ("FieldValueForbidden", "Forbidden"),
    "required": ("FieldValueRequired", "Required value"),
    "type": ("FieldValueTypeInvalid", "Invalid value: {value}"),
    "duplicate": ("FieldValueDuplicate", "Duplicate value: {value}"),
}


def cause_of(problem: Problem, value: str) -> Json:
    """Return a problem as a cause: Forbidden for what is not honoured here, Invalid value for most that is wrong.

    :param value: the offending value as JSON; empty when there is none.
    """
    reason, words = _REASONS.get(problem.cause, ("FieldValueInvalid", "Invalid value: {value}"))
    said = words.format(value=value) if value else words.partition(":")[0]
    return cause(problem.path, reason, f"{said}: {problem.reason}")


def undecodable(kind: Kind, version: str, complaints: Sequence[str]) -> StatusError:
    """Return 400 for fields that the kind does not have, in the words kubectl's users know."""
    said = ", ".join(complaints)
    return bad_request(
        f'{kind.kind} in version "{version}" cannot be handled as a {kind.kind}: strict decoding error: {said}'
    )


def success(kind: Kind, name: str, uid: str) -> Json:
    """Return the answer to a deletion."""
    found: Json = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"}
    return {**found, "details": _details(kind, name, uid=uid)}
