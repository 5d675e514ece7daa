"""Watches what applications are asked, window by window: are other things asked than before?

Questions are embedded by the model that ships with Ondol, whatever an application's index uses: nothing is sent or
paid for. A window is embedded piece by piece, so that the conductor keeps looking at everything else. What a window is
compared with are vectors, not words: the first window, or the newest without drift; a release that begins to serve
after drift was found begins anew, because what is asked now is what it was made for.
Every full window leaves a decision. Must not quote what people asked: decisions outlive the request log.
"""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ondol.base import ids
from ondol.data import embedding_drift
from ondol.data.drift import Options
from ondol.records import codec
from ondol.records.project import QuestionsSpec
from ondol.records.release import Release
from ondol.records.rollout import Decision, Observation, Route
from ondol.retrieval import snapshot
from ondol.retrieval.embedding import Embedder
from ondol.retrieval.transform import Matrix
from ondol.store import counters, observations, releases, rollouts, routes
from ondol.store.blobs import Blobs
from ondol.store.connection import Store

COLUMN = "question"
TOO_FEW = "not-enough-data"
_LEAST = 30
_SHARE = 0.5  # of a window that must be questions; the rest was refused, or logged without its text
_SECONDS = 0.4  # of embedding in one look: the conductor has other things to do
_BEHIND = 4  # windows that wait before older ones are skipped: a busy application is sampled


@dataclass(frozen=True, slots=True)
class _Judged:
    """What follows from a window."""

    decision: Decision
    kept: dict[str, Any]
    """What later windows are compared with; empty before there is something."""


@dataclass(slots=True)
class Questions:
    """The watch over all applications of a home.

    :param embedder: called when the first window is full; None: there is no embedding model here, and no watch.
    """

    store: Store
    blobs: Blobs
    home: Path
    embedder: Callable[[], Embedder | None]
    seconds: float = _SECONDS
    _vectors: dict[str, dict[str, Matrix]] = field(default_factory=dict)
    """By service and question: of the window that is being embedded. Lost with the process, and made again."""

    def look(self, service: str, spec: QuestionsSpec) -> Decision | None:
        """Judge the next full window of an application; None when there is none, or it is not embedded yet.

        The decision, what later windows are compared with and the position move on at once: a crash before it looks at
        the same window again, and of several conductors one decides.
        """
        route = routes.get(self.store, service)
        if not spec.window or route is None or route.kind != "application":
            return None
        fact = f"watch/{service}"
        known = counters.fact(self.store, fact)
        position = int(known or 0)
        if not observations.has_after(self.store, service, position, spec.window):
            return None
        if skipped := self._skipped(service, position, spec):
            with self.store.write() as tx:
                if not counters.move_in(tx, fact, known, skipped):
                    return None
            known = position = skipped
        found = observations.after(self.store, service, position, spec.window)
        end, asked = found[-1][0], [text for _, one in found if (text := question_of(one))]
        embedder = self.embedder()
        made = None
        if embedder is not None and embedder.dimensions:
            vectors = self._embedded(service, asked, embedder)
            if vectors is None:
                return None
            made = self._judge(route, vectors, embedder.id, (position, end), spec)
        self._vectors.pop(service, None)
        return self._decided(service, made, known, end)

    def _decided(self, service: str, made: _Judged | None, known: Any, end: int) -> Decision | None:
        """Keep everything that follows from a window, unless another conductor has done so meanwhile."""
        fact = f"asked/{service}"
        with self.store.write() as tx:
            if not counters.move_in(tx, f"watch/{service}", known, end) or made is None:
                return None
            rollouts.decide_in(tx, made.decision)
            before = counters.fact_in(tx, fact) or {}
            counters.put_fact_in(tx, fact, made.kept)
        if before.get("vectors") not in (None, made.kept.get("vectors")):
            self.blobs.remove(before["vectors"])
        return made.decision

    def _skipped(self, service: str, position: int, spec: QuestionsSpec) -> int:
        """Return where the next window begins when more wait than can be embedded, so that older ones are left out.

        0: nothing is left out.
        """
        behind = observations.has_after(self.store, service, position, _BEHIND * spec.window)
        if not behind or self._vectors.get(service):
            return 0
        return observations.after(self.store, service, position, (_BEHIND - 1) * spec.window)[-1][0]

    def _embedded(self, service: str, asked: list[str], embedder: Embedder) -> Matrix | None:
        """Return the vectors of a window, shape (n, d), or None when there was no time for all of them yet."""
        known = self._vectors.setdefault(service, {})
        until = time.monotonic() + self.seconds
        for text in asked:
            if text not in known:
                known[text] = embedder.embed_query(text)
                if time.monotonic() > until:
                    return None
        return np.stack([known[text] for text in asked]) if asked else np.zeros((0, embedder.dimensions), np.float32)

    def _judge(
        self, route: Route, vectors: Matrix, embedder: str, window: tuple[int, int], spec: QuestionsSpec
    ) -> _Judged:
        kept: dict[str, Any] = counters.fact(self.store, f"asked/{route.service}") or {}
        evidence: dict[str, Any] = {
            "release": route.stable, "window": list(window), "monitor": codec.plain(spec), "embedder": embedder,
        }  # fmt: skip
        if len(vectors) < max(_LEAST, _SHARE * spec.window):
            said = f"{len(vectors):,} of {spec.window:,} requests have a question that was answered and logged"
            return _Judged(_decision(route, TOO_FEW, said, evidence), kept)
        stale = kept.get("drifted") and kept.get("release") != route.stable
        if stale or kept.get("embedder") != embedder:
            said = f"{len(vectors):,} questions: later windows are compared with them"
            return _Judged(_decision(route, "baseline", said, evidence), self._kept(route, vectors, embedder))
        with np.load(io.BytesIO(self.blobs.get_bytes(kept["vectors"])), allow_pickle=False) as file:
            before: Matrix = file["vectors"]
        options = Options(alpha=spec.alpha, effect=spec.effect)
        found = embedding_drift.difference(before, vectors, spec.blocks, options)
        name = self._namer(releases.get(self.store, route.stable), embedder)
        report = embedding_drift.report(found, COLUMN, (len(before), len(vectors)), options, name)
        drifted = report.drifted
        said = f"what is asked {'changed' if drifted else 'is alike'} in {len(vectors):,} questions: "
        said += report.columns[0].change
        decision = _decision(route, "drift" if drifted else "stable", said, {**evidence, "report": codec.plain(report)})
        if not drifted and spec.reference == "last-good":
            return _Judged(decision, self._kept(route, vectors, embedder))
        return _Judged(decision, {**kept, "drifted": drifted, "release": route.stable})

    def _kept(self, route: Route, vectors: Matrix, embedder: str) -> dict[str, Any]:
        """Return what says that later windows are compared with this one; its vectors are a file of their own."""
        buffer = io.BytesIO()
        np.savez(buffer, vectors=vectors.astype(np.float32), service=np.array(route.service))  # nobody else's file
        blob = self.blobs.put_bytes(buffer.getvalue())
        return {"vectors": blob, "embedder": embedder, "release": route.stable, "drifted": False}

    def _namer(self, release: Release, embedder: str) -> Callable[[embedding_drift.Floats], str]:
        """Return what names a topic: the nearest document of the application's index, or a number."""
        named = str(release.manifest.get("index") or "").partition("@")[2]
        seen: dict[bytes, str] = {}
        opened = snapshot.open_at(self.home, named) if named and snapshot.exists(self.home, named) else None

        def name(centre: embedding_drift.Floats) -> str:
            if opened is not None and opened.flat is not None and opened.manifest.snapshot.embedder == embedder:
                rows, _ = opened.flat.nearest(centre.astype(np.float32), 1)
                return f"near {opened.chunks[int(rows[0])].document}"
            return seen.setdefault(centre.tobytes(), f"topic {len(seen) + 1}")

        return name


def _decision(route: Route, verdict: str, reason: str, evidence: dict[str, Any]) -> Decision:
    return Decision(ids.new_id("decision"), time.time(), route.service, "drift", verdict, reason, evidence)


def question_of(one: Observation) -> str:
    """Return what an application was asked; nothing for copies, errors, and what was logged without its text."""
    if not one.features or one.status >= 400 or one.shadow:
        return ""
    given = json.loads(one.features)
    return str(given.get("question") or "") if isinstance(given, dict) else ""
