"""One worker process: started behind its guard, looked at until it serves, stopped in order.

Every call returns quickly; a thread of the pool calls them, the event loop only reads `url` and counts `in_flight`.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import InitVar, dataclass, field
from pathlib import Path

from ondol.base import errors
from ondol.records.worker import WorkerSpec, argument
from ondol.serving.workers import listening

GRACE_SECONDS = 8.0
"""Between SIGTERM and SIGKILL."""

_GUARD = Path(__file__).with_name("guard.py")
_LOOPBACK = Path(__file__).with_name("loopback")
_VARIABLE = re.compile(r"\$\(([A-Za-z_][A-Za-z0-9_]*)\)")
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_HTTP_PORT, _GRPC_PORT = 8080, 8081  # KServe's, whether the manifest names them or not


@dataclass(eq=False)
class Worker:
    """A process and what is known of it.

    :param python: the interpreter of its environment; programs beside it are found first.
    :param extra: variables that depend on this machine, such as `PREDICTOR_HOST`.
    :param secrets: variables that the spec names by reference, for the process only.
    :param mounts: the spec's mounts with their folders on this machine.
    """

    spec: WorkerSpec
    python: str
    log: Path
    extra: Mapping[str, str] = field(default_factory=dict)
    mounts: Mapping[str, Path] = field(default_factory=dict)
    secrets: InitVar[Mapping[str, str] | None] = None
    url: str = ""
    """Where it serves; empty until it does."""

    model_name: str = ""
    """What it calls its one model, when it says so at `/v1/models` as KServe's SDK does."""

    grpc_port: int = 0
    """Where it serves gRPC, if it does: the port that it gets for KServe's."""

    in_flight: int = 0
    """Requests it is answering; counted by the event loop."""

    suspect: bool = False
    """Whether a connection to it broke and it was not looked at since; it gets no requests meanwhile."""

    started: float = field(default_factory=time.monotonic)

    def __post_init__(self, secrets: Mapping[str, str] | None) -> None:
        self._port, self.grpc_port = _free_ports(2)
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        environ = self._environ(secrets or {})
        command = [self._filled(part, environ) for part in self.spec.command]
        program = _find_program(command[0], environ["PATH"], self.spec.folder)
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-I",
                    "-S",
                    str(_GUARD),
                    str(self.spec.memory),
                    str(GRACE_SECONDS),
                    program,
                    *command[1:],
                ],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=environ,
                cwd=self.spec.folder or None,
                start_new_session=True,
            )

    def _environ(self, secrets: Mapping[str, str]) -> dict[str, str]:
        """Return the process' whole environment: ours without what is Ondol's, the manifest's, and the machine's."""
        found = {name: value for name, value in os.environ.items() if not name.startswith("ONDOL_")}
        found["PATH"] = os.pathsep.join([str(Path(self.python).parent), found.get("PATH", os.defpath)])
        if self.python != sys.executable:
            found["VIRTUAL_ENV"] = str(Path(self.python).parent.parent)
        if self.spec.threads:
            found.update(dict.fromkeys(_THREADS, str(self.spec.threads)))
        found.update(self.extra)
        found["PORT"], found["GRPC_PORT"] = str(self._port), str(self.grpc_port)
        found.update(secrets)
        for name, value in self.spec.env.items():
            found[name] = self._filled(value, found)
        found["PYTHONPATH"] = os.pathsep.join(filter(None, [str(_LOOPBACK), found.get("PYTHONPATH", "")]))
        found["PYTHONUNBUFFERED"] = "1"
        named = argument(self.spec.command, "grpc_port")
        over_grpc = int(named) if named.isdigit() else _GRPC_PORT
        ports = {_HTTP_PORT: 0, over_grpc: self.grpc_port, self.spec.port: self._port}
        found["ONDOL_PORTS"] = json.dumps(ports)
        return found

    def _filled(self, text: str, environ: Mapping[str, str]) -> str:
        """Put in variables as Kubernetes does, an unknown one stays as it is; then the mounts' folders."""
        text = _VARIABLE.sub(lambda match: environ.get(match.group(1), match.group(0)), text)
        for path, folder in self.mounts.items():
            text = re.sub(rf"(?<![\w/.-]){re.escape(path)}(?![\w.-])", str(folder), text)
        return text

    @property
    def pid(self) -> int:
        """Id of the guard, which leads the worker's session."""
        return self._process.pid

    def exit_code(self) -> int | None:
        """Return how it ended, or None while it lives."""
        return self._process.poll()

    def look(self) -> bool:
        """Return whether it serves now; once it did, `url` is set.

        :raises StateError: STA-341 when it listens where others than this machine reach it.
        """
        known = listening.of_session(self.pid)
        if known is None:
            return self._try("127.0.0.1", self._port)
        open_to_all = [f"{address}:{port}" for address, port in known if not listening.is_loopback(address)]
        if open_to_all:
            raise errors.StateError(
                f"the worker {self.spec.command[0]!r} listens on {open_to_all[0]!r}, which other machines reach",
                where=str(self.log),
                way_out="Let it listen on 127.0.0.1; servers in Python do so by themselves here.",
                code="STA-341",
            )
        wanted = [one for one in known if one[1] in (self._port, self.spec.port)] or (known if len(known) == 1 else [])
        return any(self._try(address, port) for address, port in wanted)

    def _try(self, host: str, port: int) -> bool:
        """Ask whether it is ready, as a readiness probe would."""
        with contextlib.suppress(OSError, http.client.HTTPException):
            if self.spec.ready_path:
                connection = http.client.HTTPConnection(host, port, timeout=1.0)
                try:
                    connection.request("GET", self.spec.ready_path)
                    if not 200 <= connection.getresponse().status < 400:
                        return False
                finally:
                    connection.close()
            else:
                socket.create_connection((host, port), timeout=1.0).close()
            self.model_name = self.spec.model_name or _only_model(host, port)
            self.url = f"http://{f'[{host}]' if ':' in host else host}:{port}"
            return True
        return False

    def last_words(self, most: int = 1500) -> str:
        """Return the end of what it printed since it was started, in whole lines."""
        with contextlib.suppress(OSError), self.log.open("rb") as file:
            start = max(self._log_start, self.log.stat().st_size - most)
            file.seek(start)
            text = file.read().decode("utf-8", "replace")
            return (text if start == self._log_start else text.partition("\n")[2]).strip()
        return ""

    def ask_to_stop(self) -> None:
        """Send SIGTERM to the guard, which passes it on; returns at once."""
        with contextlib.suppress(OSError):
            self._process.send_signal(signal.SIGTERM)

    def end(self) -> None:
        """Wait until it is gone; kill what does not go."""
        with contextlib.suppress(OSError):
            if self._process.stdin is not None:
                self._process.stdin.close()
        try:
            self._process.wait(GRACE_SECONDS + 2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _only_model(host: str, port: int) -> str:
    """Ask a server for its models; return the name of the only one, empty when it has none or does not say."""
    connection = http.client.HTTPConnection(host, port, timeout=2.0)
    try:
        connection.request("GET", "/v1/models")
        answer = connection.getresponse()
        listed = json.loads(answer.read()).get("models") if answer.status == 200 else None
        return str(listed[0]) if isinstance(listed, list) and len(listed) == 1 else ""
    except (OSError, http.client.HTTPException, ValueError, AttributeError):
        return ""
    finally:
        connection.close()


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as opened:
        probes = [opened.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def _find_program(name: str, path: str, folder: str) -> str:
    """Return the program to run; a relative path begins at the worker's folder.

    :raises InputError: INP-340 when there is no such program.
    """
    import shutil

    if "/" in name:
        found = Path(folder or ".").joinpath(name)
        if found.is_file() and os.access(found, os.X_OK):
            return str(found)
    elif program := shutil.which(name, path=path):
        return program
    raise errors.InputError(
        f"the command {name!r} is not a program of this machine",
        where=folder,
        way_out="Give its path below the project, make it executable, or set `images` in ondol.yaml.",
        code="INP-340",
    )
