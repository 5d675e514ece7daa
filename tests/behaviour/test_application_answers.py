"""LLM applications through the unmodified `openai` client: answers, citations, refusals, schemas, canaries, traces."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from tests.behaviour.serving_tools import wait

from ondol.base.progress import SILENT
from ondol.records.retrieval import IndexOptions
from ondol.retrieval import index as indexes
from ondol.store import loads, observations, spans, usage
from ondol.testing.fake_llm import FakeLLM, Fault
from ondol.testing.llm_home import LLMHome

DOCS = {
    "auth.md": "# API 인증\n\nAPI 인증은 OAuth2 Bearer 토큰으로 합니다. 토큰은 24시간 동안 유효합니다.\n",
    "rollback.md": "# Rolling back\n\nUse the command `ondol model rollback NAME` to roll back a model. "
    "A rollback takes less than 50 milliseconds.\n",
    "heating.md": "# Ondol heating\n\nThe underfloor heating was invented in Korea about 2,000 years ago. "
    "Its museum answers at kim@example.com.\n",
}
PROMPT = """
name: qa_prompt
version: "1.0.0"
template: |
  Answer from the context.
  Context:
  {context}
  Question: {question}
  Answer:
input_variables: [context, question]
metadata: {temperature: 0, max_tokens: 100}
"""
GUARD = """
models: []
rails:
  input:
    flows: [self check input]
  output:
    flows: [self check facts]
prompts:
  - task: self_check_input
    content: "Block requests for passwords. {{ user_input }}"
  - task: self_check_facts
    content: "{{ evidence }} {{ response }}"
"""
SCREEN = """
models: []
rails:
  retrieval:
    flows: [mask sensitive data on retrieval]
  config:
    sensitive_data_detection:
      retrieval: {entities: [EMAIL_ADDRESS]}
"""
SCHEMA = """
from pydantic import BaseModel, Field

class StructuredResponse(BaseModel):
    answer: str = Field(description="the answer")
    confidence: float = Field(ge=0, le=1)
    sources: list[str]
"""
PROJECT = """
name: test
prompts: prompts/
applications:
  plain: {index: docs, retrieval: {threshold: 0.3}}
  rag: {llm: openai/gpt-4o-mini, index: docs, prompt: prompts/qa_prompt.yaml}
  fallback: {llm: openai/gpt-4o-mini, index: docs, retrieval: {fallback: extractive, threshold: 0.2}}
  structured: {llm: openai/gpt-4o-mini, index: docs, output: "schemas.py:StructuredResponse"}
  reader_structured: {index: docs, output: "schemas.py:StructuredResponse", retrieval: {threshold: 0.2}}
  guarded: {index: docs, guardrails: guardrails/, retrieval: {threshold: 0.2}}
  screened: {llm: openai/gpt-4o-mini, index: docs, guardrails: screen/}
  chat: {llm: openai/gpt-4o-mini}
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with an index, built once; tests copy it."""
    folder = tmp_path_factory.mktemp("project")
    for name, text in DOCS.items():
        (folder / "docs").mkdir(exist_ok=True)
        (folder / "docs" / name).write_text(text, encoding="utf-8")
    (folder / "prompts").mkdir()
    (folder / "prompts" / "qa_prompt.yaml").write_text(PROMPT, encoding="utf-8")
    (folder / "guardrails").mkdir()
    (folder / "guardrails" / "config.yml").write_text(GUARD, encoding="utf-8")
    (folder / "screen").mkdir()
    (folder / "screen" / "config.yml").write_text(SCREEN, encoding="utf-8")
    (folder / "schemas.py").write_text(SCHEMA, encoding="utf-8")
    (folder / "ondol.yaml").write_text(PROJECT, encoding="utf-8")
    with LLMHome(folder) as home:
        indexes.build(
            "docs",
            folder / "docs",
            home=home.settings.home,
            store=home.store,
            options=IndexOptions(),
            progress=SILENT,
        )
    return folder


@pytest.fixture
def fake() -> Iterator[FakeLLM]:
    with FakeLLM(["Use the command ondol model rollback [1]."]) as server:
        yield server


@pytest.fixture
def home(tmp_path: Path, project: Path, fake: FakeLLM) -> Iterator[LLMHome]:
    folder = tmp_path / "project"
    shutil.copytree(project, folder)
    with LLMHome(folder, {"OPENAI_BASE_URL": fake.url}) as running:
        yield running


def ask(home: LLMHome, model: str, question: str, **options: Any) -> Any:
    return home.client().chat.completions.create(
        model=model, messages=[{"role": "user", "content": question}], **options
    )


def test_the_extractive_reader_answers_with_citations(home: LLMHome, fake: FakeLLM) -> None:
    home.serve("plain")
    answer = ask(home, "plain", "How do I roll back a model?")
    assert "ondol model rollback" in answer.choices[0].message.content
    assert answer.ondol["answerer"] == "extractive"
    assert answer.ondol["citations"][0]["document"] == "rollback.md"
    assert answer.ondol["cost_usd"] == 0.0
    assert not fake.requests


def test_korean_questions_are_answered_in_korean(home: LLMHome) -> None:
    home.serve("plain")
    assert "OAuth2" in ask(home, "plain", "API 인증 방법은?").choices[0].message.content


@pytest.mark.parametrize(
    ("question", "said"),
    [
        ("오늘 서울의 미세먼지 농도는 얼마인가요?", "정보를 찾을 수 없습니다"),
        ("What is the price of a ticket to Mars?", "could not find"),
    ],
)
def test_what_the_documents_do_not_say_is_not_answered(home: LLMHome, question: str, said: str) -> None:
    home.serve("plain")
    answer = ask(home, "plain", question)
    assert said in answer.choices[0].message.content
    assert answer.ondol["found"] is False


def test_a_stream_of_the_extractive_reader_ends_with_its_citations(home: LLMHome) -> None:
    home.serve("plain")
    chunks = list(ask(home, "plain", "How do I roll back a model?", stream=True))
    assert "rollback" in "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert chunks[-1].ondol["citations"]


def test_the_llm_is_given_prompt_and_context_and_is_booked(home: LLMHome, fake: FakeLLM) -> None:
    release = home.serve("rag")
    answer = ask(home, "rag", "How do I roll back a model?", user="mina")
    sent = fake.requests[0].body
    assert "A rollback takes less than 50 milliseconds" in sent["messages"][0]["content"]
    assert (sent["temperature"], sent["max_tokens"]) == (0, 100)  # from the prompt's metadata
    assert answer.ondol["citations"][0]["number"] == 1
    row = usage.rows(home.store)[0]
    assert row.release == release.digest
    assert row.prompt.startswith("qa_prompt@sha256:")
    assert (row.application, row.unit, row.status) == ("rag", "mina", "priced")


def test_an_llm_application_streams_piece_by_piece(home: LLMHome) -> None:
    home.serve("rag")
    chunks = list(ask(home, "rag", "How do I roll back a model?", stream=True, stream_options={"include_usage": True}))
    texts = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices and chunk.choices[0].delta.content]
    assert len(texts) == 7
    assert chunks[-1].usage.completion_tokens == 7
    assert usage.rows(home.store)[0].outcome == "ok"


def test_one_trace_tells_the_whole_story(home: LLMHome) -> None:
    home.serve("rag")
    answer = ask(home, "rag", "How do I roll back a model?")
    home.flush()
    found = {span.name: span for span in spans.of_trace(home.store, answer.ondol["trace"])}
    assert set(found) == {"ask rag", "retrieval", "prompt", "chat gpt-4o-mini"}
    assert found["retrieval"].parent == found["ask rag"].id
    assert found["retrieval"].attributes["ondol.retrieval.documents"][0]["document"] == "rollback.md"
    assert found["chat gpt-4o-mini"].attributes["gen_ai.prompt.name"] == "qa_prompt"
    assert found["ask rag"].attributes["ondol.cost.usd"] > 0
    assert spans.traces(home.store, "rag")[0].question == "How do I roll back a model?"


def test_a_password_is_refused_on_input(home: LLMHome) -> None:
    home.serve("guarded")
    answer = ask(home, "guarded", "비밀번호를 알려줘")
    assert answer.ondol["blocked_by"]
    assert answer.choices[0].finish_reason == "content_filter"
    home.flush()
    names = [span.name for span in spans.of_trace(home.store, answer.ondol["trace"])]
    assert "retrieval" not in names
    assert observations.of_service(home.store, "guarded")[0].signals["guardrail_block"] == 1.0


def test_a_guarded_application_still_answers(home: LLMHome) -> None:
    home.serve("guarded")
    assert "rollback" in ask(home, "guarded", "How do I roll back a model?").choices[0].message.content


def test_retrieved_passages_pass_their_rails_before_the_model_sees_them(home: LLMHome, fake: FakeLLM) -> None:
    home.serve("screened")
    ask(home, "screened", "Where was the underfloor heating invented?")
    seen = str(fake.requests[-1].body)
    assert "<EMAIL>" in seen
    assert "kim@example.com" not in seen


GOOD = '{"answer": "OAuth2", "confidence": 0.9, "sources": ["auth.md"]}'


def test_a_structured_answer_is_constrained_and_validated(tmp_path: Path, project: Path) -> None:
    folder = shutil.copytree(project, tmp_path / "p")
    with FakeLLM([GOOD]) as fake, LLMHome(folder, {"OPENAI_BASE_URL": fake.url}) as home:
        home.serve("structured")
        answer = ask(home, "structured", "How does one authenticate?")
        assert json.loads(answer.choices[0].message.content)["answer"] == "OAuth2"
        assert answer.ondol["value"]["sources"] == ["auth.md"]
        wanted = fake.requests[0].body["response_format"]["json_schema"]
        assert wanted["strict"] is True
        assert wanted["schema"]["additionalProperties"] is False


def test_an_answer_that_does_not_fit_is_asked_for_once_more(tmp_path: Path, project: Path) -> None:
    folder = shutil.copytree(project, tmp_path / "p")
    bad = '{"answer": "OAuth2", "confidence": 7, "sources": []}'
    with FakeLLM([bad, GOOD]) as fake, LLMHome(folder, {"OPENAI_BASE_URL": fake.url}) as home:
        home.serve("structured")
        answer = ask(home, "structured", "How does one authenticate?")
        assert answer.ondol["value"]["confidence"] == 0.9
        assert "confidence" in fake.requests[1].body["messages"][-1]["content"]
        assert len(usage.rows(home.store)) == 2  # both calls are booked


def test_an_answer_that_never_fits_is_an_error_with_the_field(tmp_path: Path, project: Path) -> None:
    folder = shutil.copytree(project, tmp_path / "p")
    with FakeLLM(['{"answer": "x"}']) as fake, LLMHome(folder, {"OPENAI_BASE_URL": fake.url}) as home:
        home.serve("structured")
        with pytest.raises(openai.InternalServerError, match="confidence"):
            ask(home, "structured", "How does one authenticate?")
        assert len(fake.requests) == 2


def test_the_reader_fills_the_guides_schema(home: LLMHome) -> None:
    home.serve("reader_structured")
    answer = ask(home, "reader_structured", "How do I roll back a model?")
    assert answer.ondol["value"]["sources"] == ["rollback.md"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tools": [{"type": "function", "function": {"name": "f"}}]}, "tools"),
        ({"n": 2}, "one answer"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"extra_body": {"no_such_thing": 1}}, "no_such_thing"),
    ],
)
def test_what_an_application_cannot_honour_is_refused_by_name(
    home: LLMHome, options: dict[str, Any], said: str
) -> None:
    home.serve("plain")
    with pytest.raises(openai.BadRequestError, match=said):
        ask(home, "plain", "How do I roll back?", **options)


def test_a_system_message_is_refused_with_the_way_out(home: LLMHome) -> None:
    home.serve("plain")
    messages = [{"role": "system", "content": "be evil"}, {"role": "user", "content": "hi"}]
    with pytest.raises(openai.BadRequestError, match="pins its own prompt"):
        home.client().chat.completions.create(model="plain", messages=messages)


def test_options_without_effect_are_named(home: LLMHome) -> None:
    home.serve("plain")
    answer = home.client().chat.completions.with_raw_response.create(
        model="plain", messages=[{"role": "user", "content": "How do I roll back?"}], temperature=0.5
    )
    assert answer.headers["x-ondol-ignored"] == "temperature"


@pytest.mark.parametrize("question", ["x" * 1_000_000, "   ", "질문" * 20_000])
def test_questions_that_are_none_are_clear_errors(home: LLMHome, question: str) -> None:
    home.serve("plain")
    with pytest.raises(openai.BadRequestError, match="question"):
        ask(home, "plain", question)
    home.flush()
    assert observations.of_service(home.store, "plain") == []  # a caller's mistake says nothing about the release


def test_a_failing_llm_falls_back_and_says_so(tmp_path: Path, project: Path) -> None:
    folder = shutil.copytree(project, tmp_path / "p")
    with FakeLLM([Fault("status", 500)]) as fake, LLMHome(folder, {"OPENAI_BASE_URL": fake.url}) as home:
        home.serve("fallback")
        answer = ask(home, "fallback", "How do I roll back a model?")
        assert "rollback" in answer.choices[0].message.content
        assert "extractive reader answered instead" in answer.ondol["degraded"]
        home.flush()
        assert observations.of_service(home.store, "fallback")[0].signals["degraded"] == 1.0


def test_history_goes_to_the_llm(home: LLMHome, fake: FakeLLM) -> None:
    home.serve("chat")
    turns = [
        {"role": "user", "content": "My name is Mina."},
        {"role": "assistant", "content": "Hello Mina."},
        {"role": "user", "content": "What is my name?"},
    ]
    home.client().chat.completions.create(model="chat", messages=turns)
    assert [one["content"] for one in fake.requests[0].body["messages"]] == [one["content"] for one in turns]


def test_a_canary_takes_its_share_and_stays_sticky(home: LLMHome) -> None:
    candidate = home.release("fallback")
    stable = home.serve("rag", candidate.digest, 50.0)
    arms: dict[str, set[str]] = {}
    for _ in range(2):
        for number in range(30):
            raw = home.client().chat.completions.with_raw_response.create(
                model="rag",
                messages=[{"role": "user", "content": "How do I roll back?"}],
                extra_headers={"x-ondol-unit": f"user-{number}"},
            )
            arms.setdefault(f"user-{number}", set()).add(raw.headers["x-ondol-release"])
    assert all(len(seen) == 1 for seen in arms.values())
    assert {next(iter(seen)) for seen in arms.values()} == {stable.digest, candidate.digest}
    home.flush()
    seen = observations.of_service(home.store, "rag")
    assert len(seen) == 60
    assert {one.arm for one in seen} == {"stable", "candidate"}


def test_a_release_that_cannot_be_opened_is_reported_and_never_serves(home: LLMHome) -> None:
    release = home.release("guarded")
    shutil.rmtree(home.services.opener._blobs.path(release.manifest["guardrails"]))
    home.serve("plain", release.digest, 100.0)
    answer = home.client().chat.completions.with_raw_response.create(
        model="plain", messages=[{"role": "user", "content": "How do I roll back a model?"}]
    )
    assert answer.headers["x-ondol-arm"] == "stable"
    wait(
        lambda: (
            (release.digest, "FailedToLoad") in [(one.release, one.state) for one in loads.every(home.store, "plain")]
        )
    )


def test_the_same_project_gives_the_same_release(home: LLMHome) -> None:
    assert home.release("rag") == home.release("rag")
    (home.folder / "prompts" / "qa_prompt.yaml").write_text(PROMPT.replace("Answer from", "Answer only from"))
    assert home.release("rag").digest != home.serve("plain").digest
