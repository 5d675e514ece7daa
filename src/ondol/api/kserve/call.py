"""One request for a prediction, from the moment its service is known. Must not know how it is read or answered."""

from __future__ import annotations

from dataclasses import dataclass

from ondol.api.kserve.answers import Reply
from ondol.api.kserve.caller import Question, RequestHeaders
from ondol.api.kserve.exchange import Write
from ondol.serving.models import Serving


@dataclass(slots=True)
class Call:
    """A whole request, not read yet."""

    serving: Serving
    protocol: str
    """`v1`, `v2`, `mlflow` or `grpc`, as the metrics say it."""

    headers: RequestHeaders
    body: bytes
    reply: Reply
    started: float
    """When it was there, on the performance counter."""

    version: str = ""
    """The version the client names; empty when the route decides."""


Read = tuple[Question, Write, Reply]
"""What a request asks, the function that writes the answer, and the one that sends it."""
