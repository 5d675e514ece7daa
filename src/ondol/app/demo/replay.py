"""Sends recorded requests to the data plane, and their labels afterwards, as fast as it answers.

An ordinary client: it knows a URL and the V1 protocol.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ondol.base import errors
from ondol.base.settings import Address

BATCH = 200  # rows in a request: each is one observation with an id and a label of its own


class Replayer:
    """One keep-alive connection to a data plane."""

    def __init__(self, data: Address, service: str) -> None:
        self._address, self._service = data, service
        self._connection: http.client.HTTPConnection | None = None

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def send(self, ids: Sequence[str], rows: Sequence[Sequence[float]]) -> None:
        """Ask for predictions of some rows, each under its own id.

        :raises UpstreamError: when the data plane refuses; a server error is an answer too and only counted by it.
        """
        status, body = self._post(
            f"/v1/models/{self._service}:predict", {"instances": list(rows)}, {"x-request-ids": ",".join(ids)}
        )
        if 400 <= status < 500 and status != 429:
            raise errors.UpstreamError(f"the data plane answered {status}: {body[:200]!r}", code="UPS-030")

    def label(self, labels: Mapping[str, Any]) -> None:
        """Post what became known about earlier requests."""
        status, body = self._post("/ondol/v1/labels", {"labels": dict(labels)}, {})
        if status != 200:
            raise errors.UpstreamError(f"the data plane answered {status}: {body[:200]!r}", code="UPS-030")

    def _post(self, path: str, body: Any, headers: Mapping[str, str]) -> tuple[int, bytes]:
        payload = json.dumps(body).encode()
        for attempt in range(40):  # the data plane may be restarting: somebody may have killed it
            try:
                if self._connection is None:
                    self._connection = http.client.HTTPConnection(self._address.host, self._address.port, timeout=30)
                self._connection.request("POST", path, payload, {"content-type": "application/json", **headers})
                answer = self._connection.getresponse()
                return answer.status, answer.read()
            except (OSError, http.client.HTTPException):
                self.close()
                if attempt == 39:
                    break
                import time

                time.sleep(0.25)
        raise errors.UpstreamError(
            "the data plane does not answer", where=self._address.url, way_out="`ondol up` starts it.", code="UPS-031"
        )


def replay(
    client: Replayer,
    ids: Sequence[str],
    rows: Sequence[Sequence[float]],
    labels: Sequence[Any],
    stop: Callable[[int], bool],
) -> int:
    """Send rows in order, each batch's labels right after it, until `stop(sent)` says so; return how many were sent.

    A label of None never became known.
    """
    sent = 0
    for start in range(0, len(ids), BATCH):
        part = slice(start, start + BATCH)
        client.send(ids[part], rows[part])
        known = {one: label for one, label in zip(ids[part], labels[part], strict=True) if label is not None}
        if known:
            client.label(known)
        sent = min(start + BATCH, len(ids))
        if stop(sent):
            break
    return sent
