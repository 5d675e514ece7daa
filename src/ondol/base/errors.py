"""The one exception tree.

    OndolError                      exit 1   something failed, and here is the way out
    ├── UsageError        USE-*     exit 2   the command or request was used wrongly
    ├── InputError        INP-*     exit 2   a file or value given to us is wrong
    │   └── UnsupportedError UNS-*  exit 2   a foreign file asks for what this backend does not honour
    ├── NotFoundError     NOF-*     exit 1   a named thing does not exist
    ├── ConflictError     CON-*     exit 1   somebody else changed it first, or it is running already
    ├── StateError        STA-*     exit 1   the thing exists but is not in a state that allows this
    ├── ComponentError    RUN-*     exit 1   the user's own code failed
    ├── DependencyError   DEP-*     exit 1   an optional package or program is missing
    ├── UpstreamError     UPS-*     exit 1   a service we call failed, timed out or answered nonsense
    └── RefusedError      REF-*     exit 1   refused on purpose: budget, guardrail, gate

A message says what is wrong with the value in quotes; `where` says the place (`file:line`, a field path, a URL);
`way_out` says one thing to do about it. Codes are stable: they may be searched for and scripted against.
"""

from __future__ import annotations

from typing import Any, ClassVar


class OndolError(Exception):
    """Base of every error that Ondol raises on purpose.

    :param message: what is wrong, with the offending value in quotes.
    :param where: file and line, field path or URL, when there is one.
    :param way_out: one sentence telling the reader what to do.
    :param code: overrides the class' default code with a more specific stable one.
    """

    default_code: ClassVar[str] = "ERR-000"
    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500

    def __init__(self, message: str, *, where: str = "", way_out: str = "", code: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.where = where
        self.way_out = way_out
        self.code = code or self.default_code

    def to_json(self) -> dict[str, Any]:
        """Return the error as `--json` output and HTTP bodies show it."""
        return {"error": self.message, "code": self.code, "where": self.where, "way_out": self.way_out}


class UsageError(OndolError):
    """The command or request was used wrongly."""

    default_code = "USE-001"
    exit_code = 2
    http_status = 400


class InputError(OndolError):
    """A file or value given to us is wrong."""

    default_code = "INP-001"
    exit_code = 2
    http_status = 400


class UnsupportedError(InputError):
    """A foreign file asks for something this backend does not honour; never ignored silently."""

    default_code = "UNS-001"
    http_status = 422


class NotFoundError(OndolError):
    """A named thing does not exist."""

    default_code = "NOF-001"
    http_status = 404


class ConflictError(OndolError):
    """Somebody else changed it first, or it is already running."""

    default_code = "CON-001"
    http_status = 409


class StateError(OndolError):
    """The thing exists but is not in a state that allows this."""

    default_code = "STA-001"
    http_status = 409


class ComponentError(OndolError):
    """The user's own code failed; `details` carries its traceback."""

    default_code = "RUN-001"

    def __init__(self, message: str, *, where: str = "", way_out: str = "", code: str = "", details: str = "") -> None:
        super().__init__(message, where=where, way_out=way_out, code=code)
        self.details = details

    def to_json(self) -> dict[str, Any]:
        return {**super().to_json(), "details": self.details}


class DependencyError(OndolError):
    """An optional package or program is missing."""

    default_code = "DEP-001"


class UpstreamError(OndolError):
    """A service we call failed, timed out or answered nonsense."""

    default_code = "UPS-001"
    http_status = 502


class RefusedError(OndolError):
    """Refused on purpose: a budget, a guardrail or a gate said no."""

    default_code = "REF-001"
    http_status = 403
    retry_after: float = 0.0
    """Seconds after which another try may succeed; 0: not known."""
