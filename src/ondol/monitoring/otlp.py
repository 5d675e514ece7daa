"""Spans out by OTLP/HTTP in JSON, to whatever collector `OTEL_EXPORTER_OTLP_ENDPOINT` names.

Attribute names are OpenTelemetry's GenAI conventions where there is one, so that any backend shows tokens and models.
Must not lose a request's time: it is called from the thread that writes spans, and gives up after a few seconds.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ondol.base import errors
from ondol.records.span import Span

Json = dict[str, Any]
log = logging.getLogger("ondol.otlp")


def _value(value: Any) -> Json:
    if isinstance(value, bool):
        return {"boolValue": value}
    if isinstance(value, int):
        return {"intValue": str(value)}
    if isinstance(value, float):
        return {"doubleValue": value}
    if isinstance(value, str):
        return {"stringValue": value}
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return {"arrayValue": {"values": [{"stringValue": one} for one in value]}}
    return {"stringValue": msgspec.json.encode(value).decode()}


def _attributes(values: Mapping[str, Any]) -> list[Json]:
    return [{"key": name, "value": _value(value)} for name, value in values.items() if value is not None]


def payload(spans: Sequence[Span], service: str = "ondol") -> Json:
    """Return an ExportTraceServiceRequest in OTLP's JSON encoding."""
    return {
        "resourceSpans": [
            {
                "resource": {"attributes": _attributes({"service.name": service})},
                "scopeSpans": [{"scope": {"name": "ondol"}, "spans": [_span(one) for one in spans]}],
            }
        ]
    }


def _span(one: Span) -> Json:
    is_call = "gen_ai.request.model" in one.attributes
    span: Json = {
        "traceId": one.trace,
        "spanId": one.id,
        "name": one.name,
        "kind": 3 if is_call else 2 if not one.parent else 1,  # client, server, internal
        "startTimeUnixNano": str(int(one.started * 1e9)),
        "endTimeUnixNano": str(int(one.ended * 1e9)),
        "attributes": _attributes(one.attributes),
        "status": {"code": 2, "message": one.error} if one.error else {"code": 1},
    }
    if one.parent:
        span["parentSpanId"] = one.parent
    return span


class Exporter:
    """Sends spans to one collector.

    :param url: the full address, with `/v1/traces`.
    """

    def __init__(self, url: str, headers: Mapping[str, str] | None = None, timeout: float = 5.0) -> None:
        import httpx

        self.url = url
        self.failed = 0
        self._client = httpx.Client(timeout=timeout, headers={"content-type": "application/json", **(headers or {})})

    def send(self, spans: Sequence[Span]) -> None:
        """Send spans.

        :raises UpstreamError: when the collector does not take them; they are kept in our own store anyway.
        """
        import httpx

        try:
            response = self._client.post(self.url, content=msgspec.json.encode(payload(spans)))
            if response.status_code < 300:
                return
            problem = f"answered {response.status_code}"
        except httpx.HTTPError as error:
            problem = str(error) or type(error).__name__
        self.failed += len(spans)
        log.warning("%d spans were not exported: %s %s", len(spans), self.url, problem)
        raise errors.UpstreamError(f"the OTLP collector {problem}", where=self.url, code="UPS-160")

    def close(self) -> None:
        """Close the connection."""
        self._client.close()


def from_environment(environ: Mapping[str, str]) -> Exporter | None:
    """Return the exporter that OpenTelemetry's own variables ask for, if they do."""
    url = environ.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "")
    if not url and (base := environ.get("OTEL_EXPORTER_OTLP_ENDPOINT", "")):
        url = base.rstrip("/") + "/v1/traces"
    if not url:
        return None
    text = environ.get("OTEL_EXPORTER_OTLP_TRACES_HEADERS") or environ.get("OTEL_EXPORTER_OTLP_HEADERS", "")
    pairs = [pair.partition("=") for pair in text.split(",") if "=" in pair]
    return Exporter(url, {name.strip(): value.strip() for name, _, value in pairs})
