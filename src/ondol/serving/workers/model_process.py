"""A model in an environment of its own: the engine that asks its process, and how that is opened.

The engine is called by the batcher's thread and blocks it; one process answers batches one after another, and a new one
is started when it dies. Must not decide which models need one.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import ondol
from ondol.base import errors
from ondol.base.environments import Environment, Need
from ondol.records import codec
from ondol.serving.engines.base import Rows
from ondol.serving.inputs import InputSpec
from ondol.serving.workers import model_program

_PROGRAM = Path(model_program.__file__)
_END_SECONDS = 5.0
_QUICK_DEATHS = 3
_QUICK_SECONDS = 30.0
Json = dict[str, Any]


def code_folder(home: Path) -> Path:
    """Return a folder with Ondol's modules and nothing else, for the path of a foreign interpreter."""
    folder = home / "environments" / "code"
    folder.mkdir(parents=True, exist_ok=True)
    link, source = folder / "ondol", Path(ondol.__file__).parent
    if not link.is_symlink() or link.resolve() != source.resolve():
        fresh = folder / f"ondol.{os.getpid()}.{threading.get_ident()}"
        fresh.symlink_to(source)
        fresh.replace(link)
    return folder


class ModelProcess:
    """The engine of a model that runs elsewhere (`engines.base.Engine`).

    :param asked: what to load: path, digest, format, dialect, safe.
    :raises OndolError: with the reason when the model does not load there.
    """

    exact = False

    def __init__(self, environment: Environment, need: Need, asked: Json, code: Path, log: Path) -> None:
        self._python = environment.python
        self._asked = {**asked, "packages": [one.partition("==")[0] for one in need.packages if "==" in one]}
        self._code = code
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: socket.socket | None = None
        self._deaths: list[float] = []
        self._guard = threading.RLock()
        self._retired = False
        self.ready: Json = {}
        """What the process said of the model: spec, engine, reason, probabilities, flavour, dialect, notes."""

        self._start()
        self.name = f"{self.ready['engine']} in a process"

    @property
    def spec(self) -> InputSpec:
        return codec.typed(self.ready["spec"], InputSpec)

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        environ = {name: value for name, value in os.environ.items() if not name.startswith("ONDOL_")}
        environ["PYTHONPATH"] = str(self._code)
        self._log.parent.mkdir(parents=True, exist_ok=True)
        with self._log.open("ab") as output, theirs:
            self._process = subprocess.Popen(
                [self._python, "-P", str(_PROGRAM), str(theirs.fileno())],
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environ, pass_fds=[theirs.fileno()],
                start_new_session=True,
            )  # fmt: skip
        self._connection = ours
        try:
            model_program.send(ours, self._asked)
            ready, _ = model_program.receive(ours)
        except (OSError, EOFError) as error:
            self.close()
            raise errors.ComponentError(
                f"the process that loads the model ended: {self._last_words()}", where=str(self._log), code="RUN-341"
            ) from error
        if "failed" in ready:
            self.close()
            raise errors.InputError(
                f"in its own environment: {ready['failed']}",
                where=str(self._asked["path"]),
                code=ready["code"] or "INP-224",
            )
        self.ready = ready

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            return self._log.read_text(encoding="utf-8", errors="replace").strip()[-800:]
        return ""

    def predict(self, rows: Rows) -> NDArray[Any]:
        return self._ask(rows, False)

    def predict_proba(self, rows: Rows) -> NDArray[np.float64]:
        return self._ask(rows, True)

    def _ask(self, rows: Rows, probabilities: bool) -> NDArray[Any]:
        """Send a batch and wait for its answer.

        :raises StateError: STA-340 when the process ends meanwhile; the next batch starts another.
        """
        with self._guard:
            if self._connection is None:
                self._start_again()
            assert self._connection is not None  # it was started
            if hasattr(rows, "to_numpy"):
                head, data = {"rows": rows.to_numpy(dtype=object).tolist()}, b""
            else:
                matrix = np.ascontiguousarray(rows, dtype=np.float64)
                head, data = {"shape": matrix.shape}, matrix.tobytes()
            try:
                model_program.send(self._connection, {**head, "probabilities": probabilities}, data)
                answer, raw = model_program.receive(self._connection)
            except (OSError, EOFError) as error:
                self.close()
                self._deaths = [*self._deaths, time.monotonic()][-_QUICK_DEATHS:]
                raise _gone("the model's process ended while it answered") from error
        if "failed" in answer:
            raise RuntimeError(answer["failed"])
        if "values" in answer:
            return np.asarray(answer["values"], dtype=object)
        return np.frombuffer(raw, dtype=answer["dtype"]).reshape(answer["shape"])

    def retire(self) -> None:
        """End the process for good, after the batch it is at."""
        with self._guard:
            self._retired = True
            self.close()

    def _start_again(self) -> None:
        if self._retired:
            raise _gone("the model was unloaded")
        if len(self._deaths) == _QUICK_DEATHS and time.monotonic() - self._deaths[0] < _QUICK_SECONDS:
            raise _gone("the model's process ended three times within half a minute")
        self._start()

    @property
    def pid(self) -> int:
        """Id of the process; 0 when there is none."""
        return self._process.pid if self._process is not None else 0

    def close(self) -> None:
        """End the process: it goes by itself when its socket closes."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        if self._process is not None:
            try:
                self._process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None


def _gone(message: str) -> errors.StateError:
    return errors.StateError(message, way_out="Send it again; a new process is started for it.", code="STA-340")
