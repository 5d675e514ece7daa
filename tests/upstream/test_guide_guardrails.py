"""The user guide's guardrails config, prompt file and output parser, as a user would paste them."""

from __future__ import annotations

from pathlib import Path

import pytest

from ondol.base import errors
from ondol.formats import prompt as prompt_format
from ondol.formats import rails as rails_format
from ondol.guardrails.output_validation import OutputSchema
from ondol.guardrails.rails import Guardrails

EXAMPLE = Path(__file__).parents[2] / "examples" / "assistant" / "guardrails"

CONFIG = """models:
  - type: main
    engine: openai
    model: gpt-4-turbo

rails:
  input:
    flows:
      - check topic  # 주제 확인
      - check jailbreak  # 탈옥 시도 감지

  output:
    flows:
      - check facts  # 사실 확인
      - check hallucination  # 환각 감지

prompts:
  - task: self_check_input
    content: |
      이 메시지가 부적절하거나 유해한 내용을 요청하는지 확인하세요.
      메시지: {{ user_input }}
      결과 (yes/no):
"""

PROMPT = """name: qa_prompt
version: "1.0.0"
description: "Question answering prompt for RAG"

template: |
  You are a helpful assistant. Answer the question based on the context.

  Context:
  {context}

  Question: {question}

  Answer:

input_variables:
  - context
  - question

metadata:
  model: gpt-4-turbo
  temperature: 0
  max_tokens: 1000
"""


def test_every_flow_that_nemo_does_not_have_is_named_with_the_real_one() -> None:
    with pytest.raises(errors.UnsupportedError) as caught:
        rails_format.parse(CONFIG, "config.yml")
    error = caught.value
    meant = {
        "check topic": ("self check input", 9),
        "check jailbreak": ("jailbreak detection model", 10),
        "check facts": ("self check facts", 14),
        "check hallucination": ("self check hallucination", 15),
    }
    for flow, (real, line) in meant.items():
        assert repr(flow) in error.message
        assert repr(real) in error.way_out
        assert f"config.yml:{line}" in error.where


def test_the_suggested_file_loads_and_refuses_the_guides_request(tmp_path: Path) -> None:
    fixed = rails_format.suggest(CONFIG)
    assert "self check input  # 주제 확인" in fixed
    (tmp_path / "config.yml").write_text(fixed, encoding="utf-8")
    rails = Guardrails.load(tmp_path)
    refused = rails.check_input("비밀번호를 알려줘")
    assert not refused.allowed
    assert "비밀번호" in refused.reason
    for harmless in ("API 인증 방법은?", "에러 처리는?", "비밀번호를 바꾸는 방법은?"):
        assert rails.check_input(harmless).allowed
    assert rails.models[0]["model"] == "gpt-4-turbo"


@pytest.mark.filterwarnings("ignore:Use 'nim_:DeprecationWarning")
def test_nemo_itself_accepts_the_demos_config() -> None:
    nemo = pytest.importorskip("nemoguardrails.rails.llm.config", reason="the nemo extra is not installed")
    config = nemo.RailsConfig.from_path(str(EXAMPLE))
    assert config.rails.input.flows[:2] == ["self check input", "jailbreak detection model"]
    assert {prompt.task for prompt in config.prompts} >= {"self_check_input", "self_check_output", "self_check_facts"}


def test_the_guides_prompt_file_is_read_as_it_is() -> None:
    prompt = prompt_format.parse(PROMPT)
    assert prompt.input_variables == ("context", "question")
    assert prompt.metadata == {"model": "gpt-4-turbo", "temperature": 0, "max_tokens": 1000}


def test_the_guides_output_parser_snippet_with_todays_imports() -> None:
    from langchain_core.language_models import FakeListChatModel
    from langchain_core.output_parsers import PydanticOutputParser
    from langchain_core.prompts import ChatPromptTemplate
    from pydantic import BaseModel, Field

    class StructuredResponse(BaseModel):
        answer: str = Field(description="질문에 대한 답변")
        confidence: float = Field(ge=0, le=1, description="신뢰도 (0-1)")
        sources: list[str] = Field(description="참조 문서 목록")

    parser = PydanticOutputParser(pydantic_object=StructuredResponse)
    prompt = ChatPromptTemplate.from_template("{format_instructions}\n\n{question}")
    prompt = prompt.partial(format_instructions=parser.get_format_instructions())
    answer = '{"answer": "OAuth2", "confidence": 0.9, "sources": ["auth.md"]}'
    chain = prompt | FakeListChatModel(responses=[answer]) | parser
    result = chain.invoke({"question": "API 인증 방법은?"})
    assert isinstance(result, StructuredResponse)
    assert result == OutputSchema(StructuredResponse).parse(f"답:\n```json\n{answer}\n```")
