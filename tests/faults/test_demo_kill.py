"""The demo while somebody kills its processes, one after the other, and the demo itself: run again, it goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.behaviour import demo_tools as tools
from tests.behaviour.demo_tools import Demo

from ondol.store import rollouts

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def wait(what: str, done: Callable[[], bool], process: subprocess.Popen[str], seconds: float = 240.0) -> None:
    """Wait for something that happens while the demo runs."""
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"{what} did not happen in {seconds:g} s"
        assert process.poll() is None, f"the demo ended before {what}: {process.communicate()}"
        time.sleep(0.05)


def trials(demo: Demo, state: str = "") -> int:
    """Return how many rollouts there are in a state."""
    if not (demo.settings.home / "ondol.db").exists():
        return 0
    with demo.store() as store:
        return len(rollouts.of_service(store, "flights", state))


def kill(demo: Demo, name: str) -> None:
    """kill -9 one of Ondol's processes."""
    pids = json.loads((demo.settings.home / "supervisor.json").read_text())["pids"]
    os.kill(pids[name], signal.SIGKILL)


def test_killed_and_interrupted_it_goes_on_to_the_end(tmp_path: Path) -> None:
    demo = tools.new(tmp_path)
    try:
        _first_run_is_killed(demo)
        _second_run_is_interrupted(demo)
        process = demo.start("demo", "--act", "flights", "--json")
        out, err = process.communicate()
        assert process.returncode == 0, err
        _check(demo, json.loads(out)["happened"])
    finally:
        demo.stop()


def _first_run_is_killed(demo: Demo) -> None:
    """The data plane, then the control process, then the demo, in the middle of the first canary."""
    process = demo.start("demo", "--act", "flights")
    wait("the first canary", lambda: trials(demo, "progressing") == 1, process)
    kill(demo, "data")
    time.sleep(0.5)
    if trials(demo, "progressing"):
        kill(demo, "control")
        time.sleep(0.5)
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL


def _second_run_is_interrupted(demo: Demo) -> None:
    """Ctrl-C in a later canary."""
    process = demo.start("demo", "--act", "flights")
    wait("the second canary", lambda: trials(demo) >= 2, process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    assert process.returncode == 130, (out, err)
    assert "run the same command again" in err
    assert "Traceback" not in err


def _check(demo: Demo, happened: list[dict[str, object]]) -> None:
    names = [one["what"] for one in happened]
    assert names[:4] == ["first model", "more trees", "units bug", "stale join"]
    assert len(names) > 4
    assert happened[0]["on_record"] is True
    tools.settled(demo, "flights")
    with demo.store() as store:
        decided = rollouts.decisions(store, "flights", limit=10_000)
        for rollout in rollouts.of_service(store, "flights"):
            mine = [one for one in decided if one.evidence.get("rollout") == rollout.id]
            last = [one for one in mine if one.verdict != "progressing"]
            assert len(last) == (rollout.state != "progressing"), (rollout, last)
        tried = [one.candidate for one in rollouts.of_service(store, "flights")]
    assert len(tried) == len(set(tried))
    for one in decided:
        assert tools.again(one) in ("-", one.verdict)
    (model,) = demo.json("model", "list")
    digests = [one["digest"] for one in model["versions"]]
    assert len(digests) == len(set(digests))
    releases = demo.json("release", "list")
    versions = [one["manifest"]["version"] for one in releases]
    assert len(versions) == len(set(versions)) == len(digests)
    status = demo.json("status")
    assert all(one["ready"] for one in status["processes"])
    assert sum(one["restarts"] for one in status["processes"]) >= 1
