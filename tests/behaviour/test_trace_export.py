"""Spans: kept whole at a rate, exported by OTLP, continued from a caller's trace."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

from ondol.base import errors, telemetry
from ondol.monitoring import otlp, spans
from ondol.monitoring.spans import Masker, Spans
from ondol.store import spans as rows
from ondol.store.connection import Store
from ondol.testing.fake_llm import FakeLLM
from ondol.testing.llm_home import LLMHome

ASK = [{"role": "user", "content": "안녕"}]


class _Collector(BaseHTTPRequestHandler):
    got: ClassVar[list[tuple[str, dict[str, Any], str]]] = []

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        _Collector.got.append((self.path, body, self.headers.get("x-team", "")))
        self.send_response(200)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[str]:
    _Collector.got.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Collector)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_spans_reach_an_otlp_collector_with_the_conventions_names(tmp_path: Path, collector: str) -> None:
    environ = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector, "OTEL_EXPORTER_OTLP_HEADERS": "x-team=ml"}
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    with FakeLLM() as fake, LLMHome(tmp_path, {"OPENAI_BASE_URL": fake.url, **environ}) as home:
        home.client().chat.completions.create(
            model="openai/gpt-4o-mini", messages=ASK, extra_headers={"traceparent": parent}
        )
        home.flush()
    path, body, team = _Collector.got[0]
    assert (path, team) == ("/v1/traces", "ml")
    span = body["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
    assert span["traceId"] == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert span["parentSpanId"] == "00f067aa0ba902b7"
    assert (span["name"], span["kind"]) == ("chat gpt-4o-mini", 3)
    values = {one["key"]: one["value"] for one in span["attributes"]}
    assert values["gen_ai.provider.name"] == {"stringValue": "openai"}
    assert values["gen_ai.operation.name"] == {"stringValue": "chat"}
    assert int(values["gen_ai.usage.output_tokens"]["intValue"]) > 0
    assert int(span["endTimeUnixNano"]) > int(span["startTimeUnixNano"])


def test_a_dead_collector_costs_nobody_anything(tmp_path: Path) -> None:
    with Store(tmp_path / "o.db") as store:
        sink = Spans(store, otlp.Exporter("http://127.0.0.1:9/v1/traces", timeout=1)).start()
        span = telemetry.start(sink, "ask", {"ondol.root": True})
        span.finish()
        sink.stop()
        assert rows.of_trace(store, span.trace)[0].name == "ask"


def test_a_burst_of_spans_is_kept_whole(tmp_path: Path) -> None:
    with Store(tmp_path / "o.db") as store:
        sink = Spans(store).start()
        for number in range(1000):
            root = telemetry.start(sink, "ask", {"ondol.root": True, "ondol.application": "a"})
            with root.part("retrieval"), telemetry.span("inner"):
                pass
            root.put("gen_ai.usage.input_tokens", number)
            root.finish()
        sink.stop()
        with store.read() as tx:
            counted = tx.rows("SELECT (SELECT COUNT(*) FROM spans) AS s, (SELECT COUNT(*) FROM traces) AS t")[0]
        assert (counted["s"], counted["t"], sink.dropped) == (3000, 1000, 0)
        tree = rows.of_trace(store, root.trace)
        by_name = {one.name: one for one in tree}
        assert by_name["inner"].parent == by_name["retrieval"].id
        assert by_name["retrieval"].parent == by_name["ask"].id
        assert rows.remove_before(store, time.time() + 1) == 1000


def test_a_full_buffer_drops_and_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spans, "_LIMIT", 3)
    with Store(tmp_path / "o.db") as store:
        sink = Spans(store)
        for _ in range(5):
            telemetry.start(sink, "x").finish()
        assert sink.dropped == 2
        sink.stop()


def test_failures_are_on_the_span(tmp_path: Path) -> None:
    with Store(tmp_path / "o.db") as store:
        sink = Spans(store)
        root = telemetry.start(sink, "ask", {"ondol.root": True})
        with pytest.raises(ValueError, match="broken"), root.part("retrieval"):
            raise ValueError("broken index")
        root.finish("broken index")
        sink.stop()
        assert {one.error for one in rows.of_trace(store, root.trace)} == {"broken index"}
        with pytest.raises(errors.NotFoundError):
            rows.of_trace(store, "ffffffffffff")


@pytest.mark.parametrize(
    "secret",
    ["sk-proj-abcdefghijklmnop1234", "ghp_abcdefghijklmnopqrst", "AKIAIOSFODNN7EXAMPLE", "Bearer abcdef.ghijkl.mnopqr"],
)
def test_well_known_keys_are_masked(secret: str) -> None:
    assert secret not in Masker({}).text(f"use {secret} please")


def test_ordinary_text_is_left_alone() -> None:
    text = "The skeleton key opens the door; ask-me-anything. 비밀번호는 잊으세요. sha256:0123456789abcdef0123"
    assert Masker({"PATH": "/usr/bin", "A_KEY": "short"}).text(text) == text
