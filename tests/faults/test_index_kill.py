"""kill -9 while an index is built: the old snapshot serves, nothing is half there, the next run goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ondol.base.settings import Settings
from ondol.retrieval import index, snapshot
from ondol.store import indexes
from ondol.store.connection import Store

# A build whose embedder stops after some batches, so that it is killed there; the rest is the real thing.
BUILDER = """
import sys, time
from pathlib import Path
import numpy as np
from ondol.retrieval import index
from ondol.store.connection import Store

class Slow:
    id, dimensions, left = "slow-1", 8, int(sys.argv[3])
    def embed_documents(self, texts):
        if not self.left:
            time.sleep(3600)
        self.left -= 1
        time.sleep(0.002 * len(texts))
        print("batch", len(texts), flush=True)
        rows = np.array([[len(t) % 7 + 1, *[ord(c) for c in t[:7].ljust(7)]] for t in texts], dtype=np.float32)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)
    def embed_query(self, query):
        return self.embed_documents([query])[0]

home, pages = Path(sys.argv[1]), Path(sys.argv[2])
with Store(home / "ondol.db") as store:
    built = index.build("docs", pages, home=home, store=store, embedder=Slow())
print("built", built.digest, built.report.embedded, flush=True)
"""


def write_pages(folder: Path, count: int, version: str) -> None:
    folder.mkdir(exist_ok=True)
    for number in range(count):
        (folder / f"{number:02}.md").write_text(
            f"# Page {number}\nThis is {version} of page {number}.", encoding="utf-8"
        )


def start(home: Settings, pages: Path, batches: int = -1) -> subprocess.Popen[str]:
    """Start a build that goes no further than some batches; -1: to its end."""
    command = [sys.executable, "-c", BUILDER, str(home.home), str(pages), str(batches)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> tuple[str, int]:
    out, _ = process.communicate(timeout=180)
    assert process.returncode == 0
    _, digest, embedded = out.splitlines()[-1].split()
    return digest, int(embedded)


@pytest.mark.parametrize("batches", [0, 1, 3])
def test_kill_while_embedding(tmp_path: Path, home: Settings, store: Store, batches: int) -> None:
    pages = tmp_path / "pages"
    write_pages(pages, 40, "version one")
    old, _ = finish(start(home, pages))
    write_pages(pages, 40, "version two")
    process = start(home, pages, batches)
    assert process.stdout is not None
    for _ in range(batches):
        assert process.stdout.readline().startswith("batch")
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert indexes.current(store, "docs") == old
    assert len(snapshot.read_manifest(home.home, old).snapshot.documents) == 40
    new, embedded = finish(start(home, pages))
    assert new != old
    assert embedded <= 40 - 8 * max(0, batches - 1)  # what was acknowledged before the last batch is not done again
    assert indexes.current(store, "docs") == new


def test_kill_while_writing_leaves_no_half_snapshot(tmp_path: Path, home: Settings, store: Store) -> None:
    """Kill at many moments of a build that only writes; whatever is named by a digest is whole."""
    pages = tmp_path / "pages"
    for attempt in range(6):
        write_pages(pages, 300, f"version {attempt}")
        process = start(home, pages)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.01 * attempt)
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        for folder in (home.home / snapshot.FOLDER).glob("[0-9a-f]*"):
            opened = snapshot.open_at(home.home, folder.name)
            assert len(opened.chunks) == 300
            assert opened.chunks[299].document == "99.md"  # the last by name
        for name in indexes.names(store):
            assert snapshot.exists(home.home, indexes.current(store, name))
    digest, _ = finish(start(home, pages))
    assert indexes.current(store, "docs") == digest
    assert not list((home.home / snapshot.FOLDER).glob(".building-*"))  # the next build swept up


def test_two_builds_at_once_agree(tmp_path: Path, home: Settings, store: Store) -> None:
    pages = tmp_path / "pages"
    write_pages(pages, 60, "one")
    both = [start(home, pages) for _ in range(2)]
    digests = {finish(process)[0] for process in both}
    assert digests == {indexes.current(store, "docs")}
    assert index.resolve("docs", store) in digests
