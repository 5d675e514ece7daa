"""Fixtures that every test may use: a home of its own, a control process, a whole running Ondol."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from hypothesis import settings as hypothesis_settings

from ondol.app import listen
from ondol.app import running as processes
from ondol.base.settings import Address, Settings
from ondol.store.connection import Store

# The gate is the same every time; `make explore` looks for what it does not know yet.
hypothesis_settings.register_profile("gate", derandomize=True)
hypothesis_settings.register_profile("explore", derandomize=False, print_blob=True)
hypothesis_settings.load_profile("gate")

ANY = Address("127.0.0.1", 0)
_READY_SECONDS = 90.0


def new_settings(folder: Path) -> Settings:
    """Return settings for a fresh home below a folder, with ports that are free now."""
    folder.mkdir(parents=True, exist_ok=True)
    control, data = (Address("127.0.0.1", listen.free_port()) for _ in range(2))
    return Settings(home=folder / ".ondol", project=folder, control=control, data=data, grpc_at="off")


@pytest.fixture
def home(tmp_path: Path) -> Settings:
    """Settings of a home that only this test has; nothing runs in it."""
    return new_settings(tmp_path)


@pytest.fixture
def store(home: Settings) -> Iterator[Store]:
    """The open database of `home`."""
    with Store(home.database) as opened:
        yield opened


@dataclass(frozen=True)
class ControlProcess:
    """A control process that answers."""

    url: str
    settings: Settings
    store: Store
    pid: int


def start_control(settings: Settings) -> tuple[subprocess.Popen[bytes], Settings]:
    """Start the real control process alone, as the supervisor would, and wait until it is ready."""
    listening = listen.bind(settings.control)
    listening.set_inheritable(True)
    where = listen.address_of(listening)
    settings = replace(settings, control=where)
    settings.logs.mkdir(parents=True, exist_ok=True)
    with (settings.logs / "control.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "ondol.app.child", "control"],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=[listening.fileno()],
            cwd=settings.project,
            env={**processes.environment(settings), listen.FD_VARIABLE: str(listening.fileno())},
        )
    listening.close()
    deadline = time.monotonic() + _READY_SECONDS
    while not processes.is_ready(where):
        if process.poll() is not None or time.monotonic() > deadline:
            process.kill()
            raise AssertionError((settings.logs / "control.log").read_text())
        time.sleep(0.1)
    return process, settings


def end(process: subprocess.Popen[bytes]) -> None:
    """Stop a process in order, and make sure of it."""
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdin:
        process.stdin.close()


@pytest.fixture(scope="session")
def control(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlProcess]:
    """One control process (pages, MLflow, admin API) for the whole session; use names of your own in it."""
    settings = replace(new_settings(tmp_path_factory.mktemp("control")), control=ANY)
    process, settings = start_control(settings)
    with Store(settings.database) as opened:
        yield ControlProcess(settings.control.url, settings, opened, process.pid)
    end(process)


@dataclass(frozen=True)
class RunningOndol:
    """Control process and data plane under their supervisor."""

    control: str
    data: str
    settings: Settings
    store: Store


@pytest.fixture(scope="session")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningOndol]:
    """A whole Ondol, started once per session by the real supervisor on free ports."""
    settings = new_settings(tmp_path_factory.mktemp("up"))
    found = processes.ensure_running(settings, any_port=True)
    settings = replace(settings, control=found.control, data=found.data)
    try:
        with Store(settings.database) as opened:
            yield RunningOndol(found.control.url, found.data.url, settings, opened)
    finally:
        processes.stop(settings)


def shared_folder(name: str) -> Path:
    """Return a folder of evaluation material beside the repository, or skip the test visibly.

    `ONDOL_SHARED` names the folder that holds them; it is `../shared` when not set.
    """
    root = Path(os.environ.get("ONDOL_SHARED", Path(__file__).parents[2] / "shared"))
    if not (root / name).is_dir():
        pytest.skip(f"needs the folder {name!r} of ONDOL_SHARED")
    return root / name
