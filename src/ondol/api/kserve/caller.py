"""Who asks, as the request's headers say (ids, the sticky unit, how long the answer is waited for), and what is asked.

The same for all protocols; gRPC's metadata are headers. Must not read a body.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from functools import partial

from ondol.base import errors, ids
from ondol.records.rollout import Arm, Route
from ondol.rollout import units
from ondol.serving import inputs
from ondol.serving.rows import Rows

RequestHeaders = dict[bytes, bytes]
NEVER = float("inf")
_GRPC_TIMEOUT = re.compile(rb"(\d{1,8})([HMSmun])")
_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}


@dataclass(slots=True)
class Question:
    """The rows of one request, whatever protocol they came by."""

    rows: Rows
    features: str
    """The rows as JSON text, for the log; empty when they are too many to be kept."""

    probabilities: bool | None
    """Whether probabilities are wanted instead of labels; None: every output."""

    id: str = ""
    """The id in the request's body, if any."""

    timeout: float = NEVER
    """Seconds, by the request's body."""


@dataclass(slots=True)
class Caller:
    """What one request says of itself."""

    ids: list[str]
    """One id for the whole request, or one per row."""

    unit: str
    """The sticky unit; with `per_row` every row's id is its unit."""

    per_row: bool
    explicit: bool
    """Whether the caller gave an id or a unit."""

    timeout: float
    """Seconds the caller waits; infinite when it did not say."""

    traceparent: bytes = b""
    """The caller's span, as W3C trace context writes it; empty when it is not traced."""

    pinned: Arm | None = None
    """The arm the caller asked for by version; its request is no evidence in a rollout."""


class Callers:
    """Reads callers; gives those without an id this process' own."""

    def __init__(self) -> None:
        # This process' id and a number: a tenth of the cost of a random id each.
        self._prefix = ids.new_id("req") + "-"
        self._numbers = itertools.count(1)

    def read(self, headers: RequestHeaders, rows: int, route: Route, body: bytes = b"", given: str = "") -> Caller:
        """Return who asks.

        :param route: says where the unit is found.
        :param body: the request's JSON, for a route whose units are in it.
        :param given: the id in the request's body, if any.
        :raises InputError: INP-201 for ids that do not fit the rows, INP-373 for a timeout that is none.
        """
        get = headers.get
        timed = get(b"x-request-timeout") is not None or get(b"grpc-timeout") is not None
        timeout = timeout_of(headers) if timed else NEVER
        listed = get(b"x-request-ids")
        if listed is not None:
            named = [one.strip() for one in listed.decode("utf-8", "replace").split(",")]
            if len(named) != rows or not all(named):
                way_out = "Send one id per row, separated by commas."
                raise inputs.wrong(f"{len(named)} ids for {rows} rows", "x-request-ids", "INP-201", way_out)
            return Caller(named, "", True, True, timeout, get(b"traceparent", b""))
        unit, own = get(b"x-ondol-unit"), get(b"x-request-id")
        named_unit = unit.decode("utf-8", "replace") if unit else ""
        if route.unit and not named_unit:
            named_unit = units.find(route.unit, partial(_text, headers), body)
        identifier = own.decode("utf-8", "replace") if own else given or f"{self._prefix}{next(self._numbers)}"
        explicit = bool(own or given or named_unit)
        return Caller([identifier], named_unit or identifier, False, explicit, timeout, get(b"traceparent", b""))


def _text(headers: RequestHeaders, name: str) -> str:
    return headers.get(name.encode(), b"").decode("utf-8", "replace")


def timeout_of(headers: RequestHeaders) -> float:
    """Return how many seconds the caller waits, by `x-request-timeout` (seconds) or `grpc-timeout` (`500m`).

    :raises InputError: INP-373 when a header is there and is no time.
    """
    seconds, short = headers.get(b"x-request-timeout"), headers.get(b"grpc-timeout")
    found = NEVER
    if seconds is not None:
        try:
            found = float(seconds)
        except ValueError:
            raise _no_time(seconds, "x-request-timeout", "Send seconds, like 0.5.") from None
        if not 0 < found < NEVER:
            raise _no_time(seconds, "x-request-timeout", "Send seconds, like 0.5.")
    if short is not None:
        match = _GRPC_TIMEOUT.fullmatch(short)
        if match is None:
            raise _no_time(short, "grpc-timeout", "Send at most 8 digits and one of H, M, S, m, u, n, like 500m.")
        found = min(found, int(match[1]) * _UNITS[match[2]])
    return found


def _no_time(value: bytes, header: str, way_out: str) -> errors.InputError:
    return inputs.wrong(f"{value.decode('latin-1')!r} is no time", header, "INP-373", way_out)
