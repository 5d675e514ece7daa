"""What is killed comes back, what is left over is recognised, and two never run in one home."""

from __future__ import annotations

import concurrent.futures
import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest
from tests.conftest import ANY

from ondol.app import running
from ondol.base import errors
from ondol.base.settings import Settings

pytestmark = pytest.mark.slow
PATIENCE = 180.0


def eventually(holds: Callable[[], bool], what: str) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return not Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("Z")
    except OSError:
        return False


def ondol(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "ondol.cli.main", *arguments],
        cwd=settings.project,
        env=running.environment(settings),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def start(settings: Settings, any_port: bool = False) -> running.Running:
    return running.ensure_running(settings, any_port=any_port, timeout=PATIENCE)


@pytest.fixture
def up(home: Settings) -> Iterator[Settings]:
    """A running Ondol of this test's own, its addresses in the settings."""
    found = start(replace(home, control=ANY, data=ANY))
    try:
        yield replace(home, control=found.control, data=found.data)
    finally:
        running.stop(home, PATIENCE)


def pids(settings: Settings) -> dict[str, int]:
    found = running.find(settings.home)
    assert found is not None
    return found.pids


def test_killed_children_come_back_and_connections_wait(up: Settings) -> None:
    before = pids(up)
    for name, address in (("data", up.data), ("control", up.control)):
        os.kill(before[name], signal.SIGKILL)
        eventually(lambda pid=before[name]: not is_alive(pid), "it is dead")  # type: ignore[misc]
        # The supervisor holds the socket: whoever connects meanwhile is answered by the next process.
        answer = httpx.get(f"{address.url}/livez", timeout=PATIENCE)
        assert answer.status_code == 200
        eventually(lambda address=address: running.is_ready(address), f"{name} is ready again")  # type: ignore[misc]
    after = running.find(up.home)
    assert after is not None
    assert after.pids["supervisor"] == before["supervisor"]
    assert after.restarts == {"control": 1, "data": 1}
    assert "signal SIGKILL" in (up.logs / "supervisor.log").read_text()


def test_children_end_with_a_killed_supervisor_and_the_next_up_can_bind(up: Settings) -> None:
    before = pids(up)
    os.kill(before["supervisor"], signal.SIGKILL)
    eventually(lambda: not running.is_locked(up.home), "the lock is free")
    assert running.find(up.home) is None, "its state file is not believed"
    again = start(up)
    assert (again.control, again.data) == (up.control, up.data)
    assert again.started_here
    eventually(lambda: not any(is_alive(pid) for pid in before.values()), "the killed one's processes are gone")


def test_a_second_up_says_where_the_first_one_is(up: Settings) -> None:
    done = ondol(up, "up")
    assert done.returncode == 1
    assert f"process {pids(up)['supervisor']}" in done.stderr
    assert up.control.url in done.stderr
    assert up.data.url in done.stderr
    assert "ondol up --stop" in done.stderr
    assert "Traceback" not in done.stderr

    def both_ready() -> bool:
        shown = json.loads(ondol(up, "status", "--json").stdout)
        assert shown["disagreements_checked"]
        return [one["ready"] for one in shown["processes"]] == [True, True]

    eventually(both_ready, "the first one is ready, as before")


def test_starting_twice_at_once_gives_one(home: Settings) -> None:
    try:
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            first, second = pool.map(lambda _: start(home), range(2))
        assert first.pids["supervisor"] == second.pids["supervisor"]
    finally:
        running.stop(home, PATIENCE)


def test_stopping_leaves_nothing(home: Settings) -> None:
    start(replace(home, control=ANY, data=ANY))
    before = pids(home)
    done = ondol(home, "up", "--stop")
    assert done.returncode == 0
    # The supervisor gives the home free as the last thing it does; its process ends a moment later.
    eventually(lambda: not any(is_alive(pid) for pid in before.values()), "nothing is left")
    assert not (home.home / "supervisor.json").exists()
    assert "Nothing runs" in ondol(home, "up", "--stop").stdout


def test_a_port_in_use_is_one_clear_error(home: Settings) -> None:
    with contextlib.closing(socket.socket()) as taken:
        taken.bind((home.control.host, home.control.port))
        taken.listen()
        for arguments in (["up"], ["up", "--detach"]):
            done = ondol(home, *arguments)
            assert done.returncode == 1
            assert f"port '{home.control.port}' is in use by process {os.getpid()}" in done.stderr
            assert "ondol up --control 127.0.0.1:" in done.stderr
            assert "Traceback" not in done.stderr
        assert not running.is_locked(home.home)
        suggested = done.stderr.rpartition("--control ")[2].split()[0]
        with contextlib.closing(socket.create_server((suggested.split(":")[0], int(suggested.split(":")[1])))):
            pass  # the suggested port is really free
        with pytest.raises(errors.ConflictError):
            running.ensure_running(home)
        try:
            found = start(home, any_port=True)
            assert found.control.port != home.control.port
            assert found.data == home.data
        finally:
            running.stop(home, PATIENCE)


def test_a_foreground_up_stops_on_sigint(home: Settings) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "ondol.cli.main", "up"],
        cwd=home.project,
        env=running.environment(home),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        printed = "".join(itertools.islice(process.stdout, 3))
        process.send_signal(signal.SIGINT)
        printed += process.communicate(timeout=PATIENCE)[0]
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    assert f"control    ready at {home.control.url}" in printed
    assert printed.endswith("Stopped.\n")
