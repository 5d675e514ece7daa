"""Locks on files that the kernel lets go of when their holder dies, however it dies.

Who looks whether a lock is held takes it for a moment, shared, so that many may look at once. Whoever wants it tries
again for a while before it believes that somebody has it. Must not know what is locked.
"""

from __future__ import annotations

import fcntl
import time
from pathlib import Path
from typing import IO

_LOOKED_AT_SECONDS = 1.0
"""Far longer than anybody looks, even one whom a busy machine stopped just then."""


def take(file: IO[str] | int, patience: float = _LOOKED_AT_SECONDS) -> bool:
    """Hold an open file's lock until the file is closed; False when another holds it.

    :param patience: seconds to try.
    """
    deadline = time.monotonic() + patience
    while not _locked(file, fcntl.LOCK_EX):
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.01)
    return True


def is_held(path: Path) -> bool:
    """Say whether some process holds the lock of a file; nobody holds that of a file that does not exist."""
    try:
        with path.open() as file:
            return not _locked(file, fcntl.LOCK_SH)
    except FileNotFoundError:
        return False


def _locked(file: IO[str] | int, how: int) -> bool:
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
