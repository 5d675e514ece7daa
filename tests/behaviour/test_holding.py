"""Locks that end with their holder: who looks at one is in nobody's way."""

from __future__ import annotations

import fcntl
import subprocess
import sys
import threading
from pathlib import Path

from ondol.base import holding

_HOLDER = """
import sys
from ondol.base import holding
with open(sys.argv[1], "a") as file:
    assert holding.take(file)
    print("held", flush=True)
    sys.stdin.read()
"""


def test_who_looks_whether_a_lock_is_held_is_no_holder_and_keeps_nobody_from_taking_it(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not holding.is_held(path), "there is no such file"
    path.touch()
    looking = path.open()
    fcntl.flock(looking, fcntl.LOCK_SH)  # somebody stopped in the middle of `is_held`
    assert not holding.is_held(path)
    goes_on = threading.Timer(0.2, looking.close)
    goes_on.start()
    with path.open("a+") as file:
        assert holding.take(file, 60.0)
        assert holding.is_held(path)
    goes_on.join()


def test_a_lock_that_is_held_is_refused_and_goes_with_its_holder(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    command = [sys.executable, "-c", _HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder, path.open("a+") as file:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        assert not holding.take(file, 0.05)
        assert holding.is_held(path)
        holder.kill()
        holder.wait()
        assert not holding.is_held(path)
