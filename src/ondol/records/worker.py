"""A server that runs as a process beside the data plane: what it is, and how many of it there should be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class VariableSource:
    """Where variables of a process are: in a Secret or ConfigMap, read when the process starts and kept nowhere."""

    kind: str
    """`Secret` or `ConfigMap`."""

    namespace: str
    resource: str
    """Its name."""

    variable: str = ""
    """What the variable is called; with no `key`, what is put before the name of each."""

    key: str = ""
    """Empty: every key is a variable."""

    optional: bool = False
    """Whether it may be absent."""


def argument(command: Sequence[str], name: str) -> str:
    """Return the value of an option in a command, `--name value` or `--name=value`; empty when it is not there."""
    for index, part in enumerate(command):
        for option in (f"--{name}", f"--{name.replace('_', '-')}"):
            if part == option and index + 1 < len(command):
                return command[index + 1]
            if part.startswith(f"{option}="):
                return part.partition("=")[2]
    return ""


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """One container of the field's files as a local process. In `command` and `env`, `$(NAME)` is a variable's value,
    as in Kubernetes; `PORT` and `PREDICTOR_HOST` are set when the process starts."""

    command: tuple[str, ...]
    """The program and its arguments; run in `folder`."""

    env: dict[str, str] = field(default_factory=dict)
    sources: tuple[VariableSource, ...] = ()
    """More of `env`, by reference; a later one wins, and `env` wins over all."""

    folder: str = ""
    """Working folder: the project's."""

    packages: tuple[str, ...] = ()
    """Requirements of the environment it runs in; none: the running one."""

    python: str = ""
    """Version of that environment's Python; empty: the running one's."""

    port: int = 8080
    """Port it would listen on in a container of its own; mapped to a free one here."""

    ready_path: str = ""
    """Path that answers 200 once it can serve; empty: it can serve as soon as it accepts connections."""

    protocol: str = "v1"
    """V1 or V2, as the manifest says it speaks."""

    memory: int = 0
    """Bytes of resident memory over which it is killed and started again; 0: no limit."""

    threads: int = 0
    """Threads that numerical libraries may use (`resources.limits.cpu`); 0: their own default."""

    mounts: dict[str, str] = field(default_factory=dict)
    """Paths as the container knows them (`/mnt/models`) to digests of blobs; replaced in `command` and `env`."""

    model_name: str = ""
    """What the server calls its model in paths (`--model_name`); empty: the service's name."""

    image: str = ""
    """What the manifest calls it; for people."""


@dataclass(frozen=True, slots=True)
class Scaling:
    """How many processes of a worker there should be, in Knative's terms."""

    least: int = 1
    """0: it may stop when nobody asks for it; the next request starts it and waits."""

    most: int = 0
    """0: as many as the machine has processors."""

    metric: str = "concurrency"
    """`concurrency` (requests being answered) or `rps` (requests per second)."""

    target: float = 0.0
    """Of the metric, per process; 0: Knative's own, 70 % of `limit` or of 100, or 140 requests per second."""

    limit: int = 0
    """Requests at once per process (`containerConcurrency`); 0: no limit."""

    window_seconds: float = 60.0
    """The average of this long decides."""

    panic_share: float = 0.1
    """Part of the window that decides when load doubles suddenly."""

    retention_seconds: float = 0.0
    """How long the last process stays after the window in which nobody asked."""
