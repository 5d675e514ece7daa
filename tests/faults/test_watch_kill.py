"""kill -9 of a conductor after any of its commits while it watches: every window is decided, and counted, once."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from tests.behaviour import loop_tools as tools
from tests.behaviour.loop_tools import MODEL

from ondol.records.release import ApplicationManifest
from ondol.records.rollout import Observation, Route
from ondol.store import counters, observations, releases, rollouts, routes
from ondol.store.connection import Store

APPLICATION, WINDOW, WINDOWS = "support", 60, 2

# Watches what `sys.argv[2]` names until nothing is left to look at, or is killed after commit number `sys.argv[3]`.
WORKER = f"""
import contextlib, os, signal, sys
from pathlib import Path
from ondol.loop import quality
from ondol.loop.questions import Questions
from ondol.records.project import MonitorSpec, QuestionsSpec
from ondol.records.rollout import JudgePolicy
from ondol.retrieval import embedding
from ondol.store.blobs import Blobs
from ondol.store.connection import Store

home, what, last = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
store, blobs, commits = Store(home / "ondol.db"), Blobs(home / "blobs"), 0
plain = store.write


@contextlib.contextmanager
def write():
    global commits
    with plain() as tx:
        yield tx
    commits += 1
    if commits == last:
        os.kill(os.getpid(), signal.SIGKILL)


class Letters:
    def embed_query(self, text):
        return [1.0 + text.count(letter) for letter in "aeiou"]


store.write = write
questions = Questions(store, blobs, home, lambda: embedding.wrap(Letters(), "letters"), seconds=1e9)
watched = quality.Watched(MonitorSpec(window={WINDOW}, blocks=10), JudgePolicy())
looks = {{
    "quality": lambda: quality.look(store, blobs, {MODEL!r}, watched),
    "drift": lambda: questions.look({APPLICATION!r}, QuestionsSpec(window={WINDOW})),
}}
while looks[what]() is not None:
    pass
"""


def watch(home: Path, what: str, last: int = 0) -> int:
    """Run the worker; return its exit code."""
    done = subprocess.run(
        [sys.executable, "-c", WORKER, str(home), what, str(last)],
        cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    assert done.stderr == ""
    return done.returncode


def prepared(folder: Path) -> Store:
    """Some windows of labelled requests of a model, and of questions to an application, that nobody has looked at."""
    store, generator = Store(folder / "ondol.db"), np.random.default_rng(3)
    model = tools.serving(store)
    application = releases.put(store, APPLICATION, ApplicationManifest("fake/model")).digest
    routes.put(store, Route(APPLICATION, "application", application))
    asked, labels = [], {}
    for number in range(WINDOWS * WINDOW):
        one = Observation(f"r{number}", time.time() - 100, MODEL, model, "stable", "u", 200, 1.0)
        chance = float(generator.uniform(0.02, 0.98))
        asked.append(replace(one, features="[[1.0]]", prediction=json.dumps([chance])))
        labels[one.id] = str(int(generator.random() < chance))
        question = {"question": "".join(generator.choice(list("aeioubcd"), 20))}
        other = replace(one, id=f"q{number}", service=APPLICATION, release=application, features=json.dumps(question))
        asked.append(other)
    observations.append(store, asked)
    observations.label(store, labels)
    with store.write() as tx:
        tx.execute("UPDATE labels SET at = at - 10", ())
    return store


@pytest.mark.slow
@pytest.mark.parametrize(("what", "service"), [("quality", MODEL), ("drift", APPLICATION)])
def test_killed_after_any_commit_each_window_is_decided_once(tmp_path: Path, what: str, service: str) -> None:
    for last in range(1, 10):
        home = tmp_path / f"killed{last}"
        store = prepared(home)
        code = watch(home, what, last)
        if code != 0:
            assert code == -signal.SIGKILL
            assert watch(home, what) == 0
        found = [one.verdict for one in reversed(rollouts.decisions(store, service, what))]
        assert (found[0], len(found)) == ("baseline", WINDOWS), f"killed after commit {last}"
        if what == "quality":
            assert counters.fact(store, f"quality/{MODEL}/baseline")["windows"] == WINDOWS - 1
        store.close()
        if code == 0:  # there were not so many commits
            break
    assert last > WINDOWS
