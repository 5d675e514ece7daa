"""What every process under the supervisor does first: die with the supervisor, then run its `main(settings)`.

`python -m ondol.app.child control` is how the supervisor starts `ondol.app.control.main`. A child that outlived its
supervisor would keep the port and the next `ondol up` could not bind it.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import os
import signal
import sys
import threading
import time
from pathlib import Path

from ondol.base import errors, settings

LAST_SECONDS = 3.0  # to stop in order when the supervisor is gone
_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def die_with_parent() -> None:
    """Make sure this process ends when the one that started it does, however that ends.

    On Linux the kernel sends SIGTERM. Everywhere, standard input is a pipe whose other end only the supervisor holds:
    when it closes, the process gets SIGTERM and, if it is still there three seconds later, ends hard. Standard input is
    /dev/null from then on for whoever reads it.
    """
    watched = os.dup(0)
    with Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), 0)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)

    def watch() -> None:
        with contextlib.suppress(OSError):
            while os.read(watched, 1):
                pass
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(LAST_SECONDS)
        os._exit(70)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def spare_the_processors() -> None:
    """Keep numerical libraries from spinning: two processes with a thread per core each starve one another.

    Read by OpenBLAS and OpenMP when numpy is imported, so this comes first. What the user has set stays.
    """
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def main(name: str) -> int:
    """Run one process of Ondol's; errors raised on purpose are one line in its log, with exit code 1 or 2."""
    die_with_parent()
    spare_the_processors()
    try:
        importlib.import_module(f"ondol.app.{name}").main(settings.load())
    except errors.OndolError as error:
        lines = [f"error[{error.code}]: {error.message}", error.where, error.way_out]
        print("\n  ".join(filter(None, lines)), file=sys.stderr, flush=True)
        return error.exit_code
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
