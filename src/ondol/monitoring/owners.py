"""Which process made a booking, and whether it still lives."""

from __future__ import annotations

import os
import socket
from pathlib import Path


def _started(pid: int) -> str:
    """Return when a process started, in the kernel's ticks: tells a new process from an old one with its number."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        return stat.rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def this_process() -> str:
    """Return the name of this process: host, number, start."""
    return f"{socket.gethostname()}|{os.getpid()}|{_started(os.getpid())}"


def is_alive(owner: str) -> bool:
    """Whether the process may still settle its calls; another host's is believed to live until its bookings expire."""
    host, _, rest = owner.partition("|")
    number, _, started = rest.partition("|")
    if host != socket.gethostname() or not number.isdigit():
        return True
    if started:
        return _started(int(number)) == started
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
