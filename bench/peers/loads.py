"""Runs the load generator on a core of its own: wrk when it is installed, else `load.py` beside this."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


def name() -> str:
    """Return the load generator's name and version."""
    wrk = shutil.which("wrk")
    if wrk is None:
        return "bench/peers/load.py (asyncio, uvloop)"
    said = subprocess.run([wrk, "-v"], capture_output=True, text=True).stdout.split()
    return f"{said[0]} {said[1]}, 1 thread" if len(said) > 1 else "wrk, 1 thread"


def run(port: int, path: str, bodies: Path, connections: int, seconds: float, core: int | None) -> dict[str, Any]:
    """Send the bodies of a file, one a line, and return rate, p50, p99, requests and errors."""
    pinned = [] if core is None else ["taskset", "-c", str(core)]
    wrk = shutil.which("wrk")
    if wrk:
        url = f"http://127.0.0.1:{port}{path}"
        options = ["-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "20s"]
        command = [wrk, *options, "-s", str(HERE / "wrk.lua"), url, "--", str(bodies)]
    else:
        command = [sys.executable, str(HERE / "load.py"), "127.0.0.1", str(port), path]
        command += [str(connections), str(seconds), str(bodies)]
    done = subprocess.run([*pinned, *command], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"the load generator failed: {(done.stderr or done.stdout).strip()[-300:]}")
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found
