"""Which Ondol runs in a home: the lock, the state file, and how to reach, start and stop it.

The lock (`supervisor.lock`, flock) is held by the supervisor for as long as it lives and by nobody after it, however
it died; the state file says where it listens. A state file without a held lock is stale and is ignored.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field, replace
from pathlib import Path

from ondol.app import child, listen
from ondol.base import errors, holding
from ondol.base.settings import OFF, Address, Settings
from ondol.records import codec

START_SECONDS = 180.0  # a cold control process compiles MLflow's 1,800 modules when there is no bytecode yet
STOP_SECONDS = 60.0  # the supervisor gives its children ten; a busy machine is slow to let them end
LOOK_SECONDS = 0.5  # somebody who starts at the same moment only looks whether the lock or a port is free
_STATE, _LOCK = "supervisor.json", "supervisor.lock"
_started: list[subprocess.Popen[bytes]] = []  # they outlive us, or are reaped by `stop`


@dataclass(frozen=True, slots=True)
class Running:
    """A running Ondol."""

    control: Address
    data: Address
    pids: dict[str, int]
    """`supervisor`, `control`, `data`."""

    started_at: float = 0.0
    """Seconds since the epoch."""

    grpc: Address | None = None
    """Where the data plane serves gRPC; None when it is switched off."""

    restarts: dict[str, int] = field(default_factory=dict)
    """How often each child had to be started again."""

    started_here: bool = False
    """Whether this call started it (and did not find it running)."""


class Lock:
    """The right to be the one supervisor of a home; released by the kernel when the process ends."""

    def __init__(self, home: Path) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self._file = os.open(home / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def take(self, patience: float = 0.0) -> bool:
        """Take the lock if nobody has it; say whether we have it now.

        :param patience: seconds to try again: who only looks holds it for a moment.
        """
        return holding.take(self._file, patience)

    def release(self) -> None:
        """Give the lock back."""
        os.close(self._file)


def is_locked(home: Path) -> bool:
    """Say whether a supervisor lives in this home."""
    return holding.is_held(home / _LOCK)


def write_state(home: Path, running: Running) -> None:
    """Write where this Ondol runs, whole or not at all."""
    temporary = home / f"{_STATE}.{os.getpid()}"
    temporary.write_text(codec.encode(running), encoding="utf-8")
    temporary.replace(home / _STATE)


def clear_state(home: Path) -> None:
    """Forget it: the supervisor stopped in order."""
    (home / _STATE).unlink(missing_ok=True)


def patience(home: Path) -> float:
    """Return how long a port may be held and yet become free: by children whose supervisor was killed, above all."""
    return child.LAST_SECONDS + 7.0 if (home / _STATE).exists() and not is_locked(home) else LOOK_SECONDS


def find(home: Path) -> Running | None:
    """Return the Ondol that runs in this home, or None; a state file left by kill -9 is not believed."""
    if not is_locked(home):
        return None
    try:
        return codec.decode((home / _STATE).read_bytes(), Running)
    except (OSError, errors.InputError):
        return None  # it is just starting


def is_ready(address: Address, timeout: float = 2.0) -> bool:
    """Say whether `GET /readyz` answers 200."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(address.host, address.host)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy has no business on loopback
    try:
        with opener.open(f"http://{host}:{address.port}/readyz", timeout=timeout) as answer:
            return int(answer.status) == 200
    except (urllib.error.URLError, OSError, ValueError):
        return False


def already_running(running: Running | None, home: Path) -> errors.ConflictError:
    """Return the error of a second `ondol up` in the same home."""
    if running is None:
        message = "another Ondol is just starting in this home"
    else:
        message = (
            f"Ondol runs already in this home (process {running.pids['supervisor']}): "
            f"control {running.control.url}, data plane {running.data.url}"
        )
    return errors.ConflictError(
        message,
        where=str(home),
        way_out="Use it as it is, or stop it first: ondol up --stop",
        code="CON-004",
    )


def with_free_ports(settings: Settings) -> Settings:
    """Return the settings with every taken port replaced by a free one."""
    control = settings.control if listen.is_free(settings.control) else Address("127.0.0.1", listen.free_port())
    data = settings.data if listen.is_free(settings.data) else Address("127.0.0.1", listen.free_port())
    grpc_at = settings.grpc_at
    if settings.grpc is not None and not (data == settings.data and listen.is_free(settings.grpc)):
        grpc_at = str(Address("127.0.0.1", listen.free_port()))
    return replace(settings, control=control, data=data, grpc_at=grpc_at)


def ensure_running(settings: Settings, *, any_port: bool = False, timeout: float = START_SECONDS) -> Running:
    """Attach to the Ondol of this home, or start one that outlives us, and wait until both processes are ready.

    :param any_port: take free ports where the settings' ones are taken by somebody else.
    :raises ConflictError: when a port is taken and `any_port` is not set.
    :raises StateError: when it does not become ready; the message ends with its log.
    """
    if is_locked(settings.home):
        return _wait_ready(settings, None, timeout)
    chosen = with_free_ports(settings) if any_port else settings
    try:
        _look_at_ports(chosen)
    except errors.ConflictError:
        if is_locked(settings.home):  # it was started meanwhile, by somebody else
            return _wait_ready(settings, None, timeout)
        raise
    chosen.logs.mkdir(parents=True, exist_ok=True)
    with (chosen.logs / "supervisor.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "ondol.app.supervisor"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # it must not get the Ctrl-C of the terminal that started it
            cwd=chosen.project,
            env=environment(chosen),
        )
    _started.append(process)
    return replace(_wait_ready(chosen, process, timeout), started_here=True)


def _look_at_ports(settings: Settings) -> None:
    listen.bind(settings.control, "--control", patience(settings.home)).close()
    listen.bind(settings.data, "--data", patience(settings.home)).close()
    if settings.grpc is not None:
        listen.bind(settings.grpc, "--grpc", patience(settings.home)).close()


def environment(settings: Settings) -> dict[str, str]:
    """Return the environment from which a child reads these settings back (`settings.load`)."""
    chosen = {
        "ONDOL_HOME": str(settings.home),
        "ONDOL_CONTROL": str(settings.control),
        "ONDOL_DATA": str(settings.data),
        "ONDOL_GRPC": str(settings.grpc or OFF),
        "ONDOL_DATABASE_URL": settings.database_url,
        "ONDOL_ARTIFACTS": settings.artifacts,
        "ONDOL_API_KEY": settings.api_key,
        "ONDOL_SAFE": "1" if settings.safe else "",
        "ONDOL_PROPAGATE_HEADERS": ",".join(settings.propagate_headers),
        "PYTHONUNBUFFERED": "1",
    }
    return {**os.environ, **chosen}


def tracking(settings: Settings) -> dict[str, str]:
    """Return what points MLflow inside user code at this home's own, when it runs and nothing else is asked for."""
    if os.environ.get("MLFLOW_TRACKING_URI"):
        return {}
    found = find(settings.home)
    return {"MLFLOW_TRACKING_URI": found.control.url} if found else {}


def _wait_ready(settings: Settings, process: subprocess.Popen[bytes] | None, timeout: float) -> Running:
    deadline = time.monotonic() + timeout
    pause = 0.02
    while time.monotonic() < deadline:
        found = find(settings.home)
        if found and is_ready(found.control) and is_ready(found.data):
            return found
        gone = process.poll() is not None if process else not is_locked(settings.home)
        if gone:
            # Two may start at once: the one that lost the race attaches to the winner.
            if process is not None and is_locked(settings.home):
                process = None
                continue
            raise _did_not_start(settings, "Ondol stopped while it was starting", "supervisor")
        time.sleep(pause)
        pause = min(pause * 1.3, 0.2)
    found = find(settings.home)
    late = "supervisor" if found is None else "data" if is_ready(found.control) else "control"
    raise _did_not_start(settings, f"the {late} process was not ready within {timeout:.0f} s", late)


def _did_not_start(settings: Settings, what: str, process: str) -> errors.StateError:
    log = settings.logs / f"{process}.log"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-12:] if log.is_file() else []
    return errors.StateError(
        "\n  | ".join([what, *lines]),
        where=str(log),
        way_out="Run `ondol up` in the foreground to watch it, and `ondol doctor` to check this machine.",
        code="STA-006",
    )


def stop(settings: Settings, timeout: float = STOP_SECONDS) -> Running | None:
    """Stop the Ondol of this home and return what it was, or None when none ran.

    :raises StateError: when it does not stop in time.
    """
    deadline = time.monotonic() + timeout
    found = find(settings.home)
    while found is None and is_locked(settings.home) and time.monotonic() < deadline:
        time.sleep(0.05)
        found = find(settings.home)
    if found is None:
        return None
    try:
        os.kill(found.pids["supervisor"], signal.SIGTERM)
    except ProcessLookupError:
        return found
    while is_locked(settings.home):
        if time.monotonic() > deadline:
            raise errors.StateError(
                f"process {found.pids['supervisor']} did not stop within {timeout:.0f} s",
                where=str(settings.logs / "supervisor.log"),
                way_out=f"kill -9 {found.pids['supervisor']}; its children end with it and nothing is lost.",
                code="STA-007",
            )
        time.sleep(0.05)
    for process in _started:  # reap our own children
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5.0 if process.pid == found.pids["supervisor"] else 0.0)
    _started[:] = [process for process in _started if process.returncode is None]
    return found
