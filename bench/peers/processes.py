"""A server as a tree of processes: started on one core, timed to its first right answer, weighed, ended.

Reads Linux's /proc; memory is PSS, so that pages which processes share are counted once.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
from bench.peers.servers import Server, Start, Work

from ondol.app import listen

START_SECONDS = 90.0
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass
class Running:
    """A server that answers."""

    server: Server
    port: int
    root: int
    """The process that was started."""

    first_answer_seconds: float

    def ask(self, work: Work, body: str) -> httpx.Response:
        """Send one request."""
        url = f"http://127.0.0.1:{self.port}{self.server.path(work)}"
        return httpx.post(url, content=body, headers={"content-type": "application/json"}, timeout=30)

    def cpu_seconds(self) -> float:
        """Return the processor time that the whole tree has used."""
        return sum(_cpu(pid) for pid in _members(self.root))

    def megabytes(self) -> float:
        """Return the PSS of the whole tree."""
        return sum(_pss(pid) for pid in _members(self.root))

    def count(self) -> int:
        """Return how many processes there are."""
        return len(_members(self.root))


@contextlib.contextmanager
def running(server: Server, work: Work, folder: Path, core: int | None) -> Iterator[Running]:
    """Start a server on a core, wait for its first right answer, and end the whole tree afterwards.

    :raises RuntimeError: with the end of its log when it does not answer rightly.
    """
    port = listen.free_port()
    folder.mkdir(parents=True)
    start = server.start(work, port, folder)
    log = folder / "server.log"
    began = time.perf_counter()
    with log.open("wb") as output:
        process = _popen(start, output.fileno(), core)
    try:
        _wait(server, work, port, process, log)
        yield Running(server, port, process.pid, time.perf_counter() - began)
    finally:
        _end(process)


def _popen(start: Start, output: int, core: int | None) -> subprocess.Popen[bytes]:
    command = start.command if core is None else ["taskset", "-c", str(core), *start.command]
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        env=start.variables(),
        cwd=start.folder,
        start_new_session=True,
    )


def _wait(server: Server, work: Work, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    url = f"http://127.0.0.1:{port}{server.path(work)}"
    body = server.body(work.rows[:1])
    deadline = time.monotonic() + START_SECONDS
    trouble = "no answer"
    with httpx.Client(timeout=10, headers={"content-type": "application/json"}) as client:
        while time.monotonic() < deadline and process.poll() is None:
            try:
                answer = client.post(url, content=body)
            except httpx.HTTPError:
                time.sleep(0.01)
                continue
            if answer.status_code == 200:
                labels = server.labels(answer.json())
                if labels != work.labels[:1]:
                    raise RuntimeError(f"answers {labels}, the model {work.labels[:1]}")
                return
            trouble = f"{answer.status_code} {answer.text[:200]}"
            time.sleep(0.01)
    raise RuntimeError(f"does not start: {trouble}; log: {log.read_text(errors='replace')[-400:]!r}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """End every process of the session: some servers leave orphans behind."""
    left = set(_members(process.pid))
    for sent in (signal.SIGTERM, signal.SIGKILL):
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sent)
        deadline = time.monotonic() + 10
        while left and time.monotonic() < deadline:
            process.poll()
            left = {pid for pid in left if _stat(pid)[:1] not in ([], ["Z"])}
            time.sleep(0.05)
    process.wait()


def _members(root: int) -> list[int]:
    """Return a process, its session and all its descendants: some servers begin sessions of their own."""
    stats = {int(folder.name): _stat(int(folder.name)) for folder in Path("/proc").iterdir() if folder.name.isdigit()}
    alive = {pid: fields for pid, fields in stats.items() if fields and fields[0] != "Z"}
    found = {pid for pid, fields in alive.items() if pid == root or int(fields[3]) == root}
    grown = True
    while grown:
        children = {pid for pid, fields in alive.items() if int(fields[1]) in found} - found
        found |= children
        grown = bool(children)
    return sorted(found)


def _stat(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat after the name: state, ppid, pgrp, session …; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return []


def _cpu(pid: int) -> float:
    fields = _stat(pid)
    return (int(fields[11]) + int(fields[12])) / _TICKS if fields else 0.0


def _pss(pid: int) -> float:
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8")
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in text.splitlines() if line.startswith("Pss:")), 0.0)
