"""Keeping spans: a sink that collects, a thread that writes in batches, and the way out by OTLP.

`add` costs a list append; a full buffer drops the newest and counts them, it never blocks a request. Secrets are masked
before anything is written or sent: values of environment variables that look like secrets, and well-known key formats.

Must not be asked on a request's path for anything but `add`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import threading
from collections.abc import Mapping
from typing import Any

from ondol.base import errors
from ondol.base.telemetry import ActiveSpan
from ondol.monitoring import otlp
from ondol.records.span import Span
from ondol.store import spans as rows
from ondol.store.connection import Store

log = logging.getLogger("ondol.spans")
_LIMIT = 100_000  # spans waiting to be written
_PERIOD = 0.2  # seconds
_LONGEST = 20_000  # characters of one attribute
_SECRET_NAME = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL)S?$", re.I)
_SECRET_VALUE = re.compile(
    r"\b(?:sk|pk|rk|lsv2|ghp|gho|ghs|github_pat|glpat|xox[abpr]|hf|gsk|AKIA|ASIA|AIza)[-_]?[A-Za-z0-9_\-]{14,}"
    r"|(?<=[Bb]earer )[A-Za-z0-9._~+/=\-]{12,}"
)


class Masker:
    """Replaces secrets in text by `[secret]`."""

    def __init__(self, environ: Mapping[str, str] | None = None) -> None:
        values = (os.environ if environ is None else environ).items()
        found = {value for name, value in values if _SECRET_NAME.search(name) and len(value) >= 8}
        self._values = sorted(found, key=len, reverse=True)
        self._short: dict[str, str] = {}

    def text(self, text: str) -> str:
        """Return the text without secrets, cut to a length that can be kept."""
        for value in self._values:
            if value in text:
                text = text.replace(value, "[secret]")
        text = _SECRET_VALUE.sub("[secret]", text)
        return text if len(text) <= _LONGEST else text[:_LONGEST] + f"… ({len(text)} characters)"

    def value(self, value: Any) -> Any:
        """Mask every string inside a plain value."""
        if isinstance(value, str):
            if len(value) > 64:
                return self.text(value)
            known = self._short.get(value)  # names of models, operations … come again with every span
            if known is None:
                known = self.text(value)
                if len(self._short) < 4096:
                    self._short[value] = known
            return known
        if isinstance(value, dict):
            return {self.value(str(name)): self.value(one) for name, one in value.items()}
        if isinstance(value, list | tuple):
            return [self.value(one) for one in value]
        if isinstance(value, bool | int | float) or value is None:
            return value
        return self.text(str(value))


class Spans:
    """Takes finished spans and keeps them.

    :param exporter: sends them on by OTLP too, when one is configured.
    """

    def __init__(self, store: Store, exporter: otlp.Exporter | None = None) -> None:
        self._store, self._exporter, self._masker = store, exporter, Masker()
        self._buffer: list[ActiveSpan] = []
        self._guard = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.dropped = 0

    def start(self) -> Spans:
        """Begin to write."""
        if self._thread is None:
            self._stop.clear()
            self._thread = threading.Thread(target=self._run, name="ondol-spans", daemon=True)
            self._thread.start()
        return self

    def stop(self) -> None:
        """Write what is there and end."""
        if self._thread is not None:
            self._stop.set()
            self._thread.join(timeout=10)
            self._thread = None
        self.flush()
        if self._exporter is not None:
            self._exporter.close()

    def add(self, span: ActiveSpan) -> None:
        """Take a finished span."""
        if len(self._buffer) >= _LIMIT:
            self.dropped += 1
            return
        self._buffer.append(span)

    def _run(self) -> None:
        while not self._stop.wait(_PERIOD):
            self.flush()

    def flush(self) -> None:
        """Write what was taken so far; what can not be written is kept for the next time."""
        with self._guard:
            batch, self._buffer = self._buffer, []
            if not batch:
                return
            spans = [self._kept(one) for one in batch]
            try:
                rows.append(self._store, spans)
            except errors.StateError as error:
                log.error("spans could not be written: %s", error)
                self._buffer = [*batch, *self._buffer][:_LIMIT]
                return
        if self._exporter is not None:
            with contextlib.suppress(errors.UpstreamError):
                self._exporter.send(spans)

    def _kept(self, one: ActiveSpan) -> Span:
        attributes = {name: self._masker.value(value) for name, value in one.attributes.items()}
        return Span(
            one.trace, one.id, one.parent, one.name, one.started, one.ended, self._masker.text(one.error), attributes
        )
