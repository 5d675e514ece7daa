"""Reading and cutting documents: what is read, what is refused with which reason, and exact positions."""

from __future__ import annotations

import itertools
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ondol.base import errors, text
from ondol.records.retrieval import ChunkOptions
from ondol.retrieval import chunking, documents, markup
from ondol.retrieval.documents import Document


def read_one(folder: Path, name: str, data: bytes) -> Document:
    (folder / name).write_bytes(data)
    sources, skipped = documents.scan(folder / name)
    assert not skipped
    return documents.read(sources[0])


def reason(folder: Path, name: str, data: bytes) -> str:
    """Why a file beside a good one is left out, whether that shows when it is listed or when it is parsed."""
    (folder / name).write_bytes(data)
    sources, skipped = documents.scan(folder)
    for source in sources:
        if source.name == name:
            with pytest.raises(documents.Unreadable) as caught:
                documents.read(source)
            return str(caught.value)
    return next(item.reason for item in skipped if item.path == name)


def document(content: str) -> Document:
    return Document("a.md", "sha256:0", content, "A")


@pytest.mark.parametrize(
    ("name", "data", "why"),
    [
        ("empty.md", b"", "is empty"),
        ("blank.md", b" \n\n", "has no text"),
        ("binary.txt", b"MZ\x00\x01\x02", "is binary"),
        ("latin.txt", "Señor Muñoz está aquí".encode("latin-1"), "neither UTF-8 nor CP949"),
        ("broken.pdf", b"%PDF-1.4\nnothing more", "is a broken PDF"),
        ("no.pdf", b"hello", "is no PDF"),
        ("word.docx", b"PK", "Word files are not read"),
        ("photo.png", b"\x89PNG", "is no document: '.png'"),
    ],
)
def test_a_file_that_cannot_be_a_document_says_why(tmp_path: Path, name: str, data: bytes, why: str) -> None:
    assert why in reason(tmp_path, name, data)


def test_a_file_of_200_mb_is_refused_without_being_read(tmp_path: Path) -> None:
    with (tmp_path / "huge.txt").open("wb") as file:
        file.truncate(200_000_000)  # sparse: takes no room
    _, skipped = documents.scan(tmp_path)
    assert skipped[0].reason == "is 200 MB; a document may have 52 MB: split it"


def test_a_single_bad_file_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "a.docx").write_bytes(b"PK")
    with pytest.raises(errors.InputError, match="Word files are not read") as caught:
        documents.scan(tmp_path / "a.docx")
    assert caught.value.where.endswith("a.docx")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp949"])
def test_korean_is_read_in_the_encodings_it_comes_in(tmp_path: Path, encoding: str) -> None:
    sentence = "배포는 포인터를 옮기는 일입니다."
    found = read_one(tmp_path, "a.txt", sentence.encode(encoding))
    assert found.text == sentence
    assert found.metadata["language"] == "ko"
    assert bool(found.note) == (encoding in ("utf-16", "cp949"))


def test_decomposed_hangul_of_macos_is_composed(tmp_path: Path) -> None:
    decomposed = unicodedata.normalize("NFD", "한국어 문서")
    assert read_one(tmp_path, "a.txt", decomposed.encode()).text == "한국어 문서"


def test_hidden_files_and_folders_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "a.md").write_text("x")
    (tmp_path / "b.md").write_text("x")
    sources, skipped = documents.scan(tmp_path)
    assert [source.name for source in sources] == ["b.md"]
    assert not skipped


def test_html_becomes_markdown_with_its_headings_and_code(tmp_path: Path) -> None:
    page = (
        "<html lang=ko><head><title>안내</title><style>p{}</style></head><body><nav>menu</nav><h2>설치</h2>"
        "<p>먼저   <b>설치</b>합니다.<pre>pip install\n  x</pre><ul><li>one<li>two</ul><script>evil()</script></body>"
    )
    found = read_one(tmp_path, "a.html", page.encode())
    assert found.title == "안내"
    assert found.metadata["language"] == "ko"
    assert "## 설치" in found.text
    assert "먼저 설치합니다." in found.text
    assert "```\npip install\n  x\n```" in found.text
    assert "evil" not in found.text
    assert "menu" not in found.text


def test_a_pdf_gives_text_and_pages(tmp_path: Path) -> None:
    found = read_one(tmp_path, "a.pdf", tiny_pdf(["First page about cats.", "Second page about dogs."]))
    chunks = chunking.cut(found, ChunkOptions(tokens=20))
    assert "cats" in found.text
    assert [chunk.page for chunk in chunks if "dogs" in chunk.text] == [2]


def tiny_pdf(pages: list[str]) -> bytes:
    """Write a PDF by hand: one line of Helvetica a page."""
    kids = " ".join(f"{4 + 2 * number} 0 R" for number in range(len(pages)))
    objects = [
        "<</Type/Catalog/Pages 2 0 R>>",
        f"<</Type/Pages/Kids[{kids}]/Count {len(pages)}>>",
        "<</Type/Font/Subtype/Type1/BaseFont/Helvetica>>",
    ]
    for number, line in enumerate(pages):
        stream = f"BT /F1 12 Tf 72 720 Td ({line}) Tj ET"
        objects.append(
            "<</Type/Page/Parent 2 0 R/MediaBox[0 0 612 792]/Resources<</Font<</F1 3 0 R>>>>"
            f"/Contents {5 + 2 * number} 0 R>>"
        )
        objects.append(f"<</Length {len(stream)}>>stream\n{stream}\nendstream")
    body = b"%PDF-1.4\n"
    offsets = []
    for number, item in enumerate(objects, 1):
        offsets.append(len(body))
        body += f"{number} 0 obj{item}endobj\n".encode()
    table = "".join(f"{offset:010} 00000 n \n" for offset in offsets)
    end = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}trailer<</Size {len(objects) + 1}/Root 1 0 R>>\n"
    return body + f"{end}startxref\n{len(body)}\n%%EOF".encode()


def test_front_matter_becomes_metadata(tmp_path: Path) -> None:
    found = read_one(tmp_path, "a.md", b"---\ntitle: T\ntags: [x, 1]\ndate: 2026-01-02\n---\n# Heading\nText.\n")
    assert found.title == "T"
    assert found.metadata["tags"] == ["x", "1"]
    assert found.metadata["date"] == "2026-01-02"
    assert all("title:" not in chunk.text for chunk in chunking.cut(found, ChunkOptions()))


def test_headings_in_code_are_no_headings() -> None:
    content = "# A\n```bash\n# no heading\nrun\n```\n## B\ntext\n"
    assert [section.headings for section in markup.sections(content)] == [("A",), ("A", "B")]


def test_a_chunk_knows_the_headings_above_it_and_code_stays_whole() -> None:
    code = "```bash\n" + "\n".join(f"ondol run step-{number}" for number in range(9)) + "\n```"
    chunks = chunking.cut(document(f"# A\nIntro.\n\n## Install\nDo this:\n\n{code}\n\n# C\nEnd."), ChunkOptions())
    assert [chunk.title for chunk in chunks] == ["A", "A > Install", "A > C"]
    assert code in chunks[1].text


def test_ids_follow_the_content_not_the_place() -> None:
    before = chunking.cut(document("# A\nOne.\n\n# B\nTwo.\n\n# B\nTwo."), ChunkOptions())
    after = chunking.cut(document("# New\nFirst.\n\n# A\nOne.\n\n# B\nTwo.\n\n# B\nTwo."), ChunkOptions())
    assert [chunk.id for chunk in before] == [chunk.id for chunk in after[1:]]
    assert len({chunk.id for chunk in after}) == 4


MARKDOWN = st.lists(
    st.sampled_from(
        [
            "# 제목",
            "## Sub",
            "```",
            "```py",
            "~~~",
            "- item",
            "| a | b |",
            "",
            "",
            "문장입니다. 다음 문장이에요!",
            "A sentence. e.g. this one.",
        ]
    )
    | st.text(max_size=400),
    max_size=30,
).map("\n".join)


@given(content=MARKDOWN, tokens=st.integers(20, 120), overlap=st.integers(0, 10))
@settings(max_examples=150, deadline=None)
def test_chunks_are_exact_ordered_and_lose_nothing(content: str, tokens: int, overlap: int) -> None:
    content = text.normalise(content)
    chunks = chunking.cut(document(content), ChunkOptions(tokens=tokens, overlap=overlap))
    covered = bytearray(len(content))
    for chunk in chunks:
        assert content[chunk.start : chunk.end] == chunk.text
        assert chunking.estimate_tokens(chunk.text) <= 1.5 * tokens + overlap + 1
        covered[chunk.start : chunk.end] = b"\x01" * (chunk.end - chunk.start)
    for section in markup.sections(content):
        for place in range(section.start, section.end):
            assert covered[place] or content[place].isspace()
    if not overlap:
        assert all(before.end <= after.start for before, after in itertools.pairwise(chunks))
    assert len({chunk.id for chunk in chunks}) == len(chunks)


@given(content=st.text(max_size=300) | MARKDOWN)
@settings(max_examples=150, deadline=None)
def test_sentences_are_exact_and_in_order(content: str) -> None:
    spans = text.sentences(content)
    assert all(start < end for start, end in spans)
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))
    left = content
    for start, end in reversed(spans):
        left = left[:start] + left[end:]
    assert not left.strip()


def test_sentences_of_korean_and_english() -> None:
    content = (
        '먼저 설치합니다. 그다음 "실행"하세요! See e.g. the guide. '
        "Version 3.11 is needed (or newer.) Done\n\n- one\n- two"
    )
    assert [content[start:end] for start, end in text.sentences(content)] == [
        "먼저 설치합니다.",
        '그다음 "실행"하세요!',
        "See e.g. the guide.",
        "Version 3.11 is needed (or newer.)",
        "Done",
        "- one",
        "- two",
    ]


def test_words_cut_particles_from_identifiers() -> None:
    assert text.words("ERR-4821는 min_requests") == ["err", "4821", "는", "min_requests", "min", "request"]
    assert text.words("모델을") == ["모델", "델을"]


@pytest.mark.parametrize(
    ("question", "words"),
    [
        ("API 인증 방법은 무엇인가요?", ["api", "인증", "방법"]),
        ("How do I roll back a release?", ["roll", "back", "release"]),
        ("무엇인가요?", ["무엇", "엇인", "인가", "가요"]),
    ],
)
def test_a_question_is_about_its_subject(question: str, words: list[str]) -> None:
    assert text.subject_words(question) == words
