"""Many writers, one history: no commit is lost or doubled, and a killed writer leaves a whole history."""

from __future__ import annotations

import itertools
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from ondol.formats.prompt import Prompt
from ondol.prompts.library import Prompts
from ondol.store.connection import Store


def test_parallel_pushes_make_one_line_of_commits(tmp_path: Path) -> None:
    store = Store(tmp_path / "ondol.db")

    def push(number: int) -> None:
        Prompts(store).push_prompt(Prompt("p", ("x",), f"{number} {{x}}"), message=str(number))

    threads = [threading.Thread(target=push, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    history = Prompts(store).history("p")
    assert sorted(commit.number for commit in history) == list(range(1, 13))
    assert all(newer.parent == older.digest for newer, older in itertools.pairwise(history))


def test_a_killed_writer_leaves_a_whole_history(tmp_path: Path) -> None:
    code = (
        "import sys, itertools\nfrom ondol.formats.prompt import Prompt\nfrom ondol.prompts.library import Prompts\n"
        "from ondol.store.connection import Store\np = Prompts(Store(sys.argv[1]))\n"
        "for n in itertools.count():\n"
        "    print(p.push_prompt(Prompt('p', ('x',), f'{n} {{x}}')).digest, flush=True)\n"
    )
    path = tmp_path / "ondol.db"
    writer = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    acknowledged = [writer.stdout.readline().strip() for _ in range(5)]
    time.sleep(0.02)
    os.kill(writer.pid, signal.SIGKILL)
    rest = writer.stdout.read().split()
    writer.wait()
    writer.stdout.close()
    kept = {commit.digest for commit in Prompts(Store(path)).history("p")}
    assert set(acknowledged) <= kept
    assert {digest for digest in rest if len(digest) == 71} <= kept
