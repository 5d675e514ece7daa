"""Providers that fail, hang, talk nonsense or stop half-way; callers that leave; processes that are killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import httpx
import openai
import pytest
from tests.behaviour.serving_tools import wait

from ondol.monitoring.ledger import Ledger
from ondol.records.usage import UsageRow
from ondol.store import observations, spans, usage
from ondol.store.connection import Store
from ondol.testing.fake_llm import FakeLLM, Fault
from ondol.testing.llm_home import LLMHome

ASK = [{"role": "user", "content": "Count to six."}]
PROJECT = """
name: t
llms:
  flaky: {base_url: "FAKE", timeout: TIMEOUT, price: {input: 1, output: 2}}
applications:
  chat: {llm: flaky/m}
"""


def _project(folder: Path, url: str, timeout: float = 60.0) -> Path:
    (folder / "ondol.yaml").write_text(PROJECT.replace("FAKE", url).replace("TIMEOUT", str(timeout)))
    return folder


def _settled(home: LLMHome) -> UsageRow:
    """Return the one booking once it is settled."""
    found: list[UsageRow] = []

    def settled() -> bool:
        found[:] = usage.rows(home.store)
        return bool(found) and found[0].outcome != "pending"

    wait(settled)
    return found[0]


@pytest.mark.parametrize("model", ["flaky/m", "chat"])
@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault("status", 500), "scripted failure"),
        (Fault("hang"), "no answer within"),
        (Fault("garbage"), "no chat completion"),
        (Fault("hang_up"), "hung up|stopped"),
    ],
)
def test_a_failing_provider_is_a_502_with_the_reason(tmp_path: Path, model: str, fault: Fault, said: str) -> None:
    seconds = 2.0 if fault.kind == "hang" else 60.0
    with FakeLLM([fault]) as fake, LLMHome(_project(tmp_path, fake.url, seconds)) as home:
        home.serve("chat")
        with pytest.raises(openai.InternalServerError, match=said) as caught:
            home.client().chat.completions.create(model=model, messages=ASK)
        assert caught.value.status_code == 502
        row = _settled(home)
        assert row.outcome == "error"
        assert row.status == ("priced" if fault.kind == "status" else "estimated") or fault.kind == "garbage"
        if model == "chat":
            home.flush()
            assert observations.of_service(home.store, "chat")[0].status == 502
            assert spans.traces(home.store)[0].error


def test_a_provider_that_is_down_is_a_502(tmp_path: Path) -> None:
    with LLMHome(_project(tmp_path, "http://127.0.0.1:9/v1")) as home:
        with pytest.raises(openai.InternalServerError, match="cannot connect"):
            home.client().chat.completions.create(model="flaky/m", messages=ASK)
        assert _settled(home).cost == 0.0


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_provider_is_asked_once_more(tmp_path: Path, status: int) -> None:
    with FakeLLM([Fault("status", status), "fine"]) as fake, LLMHome(_project(tmp_path, fake.url)) as home:
        answer = home.client().chat.completions.create(model="flaky/m", messages=ASK)
        assert answer.choices[0].message.content == "fine"
        assert len(fake.requests) == 2
        assert len(usage.rows(home.store)) == 1


def test_a_long_retry_after_is_handed_on(tmp_path: Path) -> None:
    with FakeLLM([Fault("status", 429, "60")]) as fake, LLMHome(_project(tmp_path, fake.url)) as home:
        with pytest.raises(openai.RateLimitError) as caught:
            home.client().chat.completions.create(model="flaky/m", messages=ASK)
        assert caught.value.response.headers["retry-after"] == "60"
        assert len(fake.requests) == 1


@pytest.mark.parametrize("model", ["flaky/m", "chat"])
@pytest.mark.parametrize("kind", ["half_stream", "error_event"])
def test_half_a_stream_ends_in_an_error_and_is_booked_as_estimated(tmp_path: Path, model: str, kind: str) -> None:
    with FakeLLM([Fault(kind)]) as fake, LLMHome(_project(tmp_path, fake.url)) as home:  # type: ignore[arg-type]
        home.serve("chat")
        pieces = []
        stream = home.client().chat.completions.create(model=model, messages=ASK, stream=True)
        with pytest.raises(openai.APIError):  # noqa: PT012  what came before the error is what is tested
            for chunk in stream:
                pieces.append(chunk.choices[0].delta.content or "")  # noqa: PERF401
        assert "".join(pieces).startswith("one")
        row = _settled(home)
        assert (row.outcome, row.status) == ("error", "estimated")
        assert row.output_tokens > 0
        assert row.input_tokens > 0


def test_half_a_stream_has_no_end_mark(tmp_path: Path) -> None:
    with FakeLLM([Fault("half_stream")]) as fake, LLMHome(_project(tmp_path, fake.url)) as home:
        body = {"model": "flaky/m", "messages": ASK, "stream": True}
        text = httpx.post(f"{home.url}/chat/completions", json=body, timeout=60).text
        assert "[DONE]" not in text
        last = json.loads(text.strip().split("data: ")[-1])
        assert last["error"]["code"].startswith("UPS-")


@pytest.mark.parametrize("model", ["flaky/m", "chat"])
def test_a_caller_who_leaves_stops_the_provider_and_is_booked(tmp_path: Path, model: str) -> None:
    with FakeLLM(["word " * 5000], piece_latency=0.005) as fake, LLMHome(_project(tmp_path, fake.url)) as home:
        home.serve("chat")
        stream = home.client().chat.completions.create(model=model, messages=ASK, stream=True)
        for number, _ in enumerate(stream):
            if number == 5:
                break
        stream.close()
        row = _settled(home)
        assert (row.outcome, row.status) == ("aborted", "estimated")
        assert 0 < row.output_tokens < 4900
        wait(lambda: fake.requests[0].hung_up)
        assert fake.requests[0].pieces < 4900


def test_secrets_never_reach_a_span(tmp_path: Path) -> None:
    environ = {"MY_SERVICE_TOKEN": "very-secret-value-123"}
    key = "sk-abcdefghijklmnopqrstuvwxyz012345"
    with FakeLLM() as fake, LLMHome(_project(tmp_path, fake.url), environ) as home:
        home.serve("chat")
        text = f"my key is {key} and the token very-secret-value-123"
        home.client().chat.completions.create(model="chat", messages=[{"role": "user", "content": text}])
        home.flush()
        with home.store.read() as tx:
            kept = str(tx.rows("SELECT * FROM spans")) + str(tx.rows("SELECT * FROM traces"))
        assert key not in kept
        assert "very-secret-value-123" not in kept
        assert "test-key-for-openai" not in kept
        assert "[secret]" in kept


_SERVER = """
    import sys
    from pathlib import Path
    from ondol.testing.llm_home import LLMHome
    with LLMHome(Path(sys.argv[1])) as home:
        print(home.url, flush=True)
        sys.stdin.read()
"""


def test_kill_9_during_a_stream_leaves_a_booking_that_is_settled(tmp_path: Path) -> None:
    with FakeLLM(["word " * 10_000], piece_latency=0.01) as fake:
        folder = _project(tmp_path, fake.url)
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(_SERVER), str(folder)],
            stdout=subprocess.PIPE,
            stdin=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        assert process.stdin is not None
        url = process.stdout.readline().strip()
        body = {"model": "flaky/m", "messages": ASK, "stream": True}
        with httpx.stream("POST", f"{url}/chat/completions", json=body, timeout=60) as response:
            lines = response.iter_lines()
            assert "word" in next(lines)
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            with pytest.raises(httpx.HTTPError):
                list(lines)
        process.stdout.close()
        process.stdin.close()
    with Store(folder / ".ondol" / "ondol.db") as store:
        assert usage.rows(store)[0].outcome == "pending"
        Ledger(store).start().stop()
        row = usage.rows(store)[0]
        assert (row.outcome, row.status) == ("crashed", "estimated")
        assert row.cost is not None
        assert row.cost > 0
