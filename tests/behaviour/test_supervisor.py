"""Small parts of the supervisor that need no process."""

from __future__ import annotations

import socket
from dataclasses import replace
from pathlib import Path

import pytest

from ondol.app import listen, running, supervisor
from ondol.base import errors
from ondol.base.settings import Address, Settings


def test_logs_rotate_by_size(tmp_path: Path) -> None:
    log = supervisor.RotatingLog(tmp_path / "x.log", limit=100)
    for number in range(40):
        log.write(f"line {number:04d}\n".encode())
    log.close()
    files = sorted(path.name for path in tmp_path.iterdir())
    assert files == ["x.log", "x.log.1", "x.log.2"]
    kept = b"".join((tmp_path / name).read_bytes() for name in ("x.log.2", "x.log.1", "x.log"))
    assert kept.endswith(b"line 0039\n")
    lines = kept.decode().split("\n")[:-1]
    assert lines == [f"line {number:04d}" for number in range(40 - len(lines), 40)], "nothing is lost in between"


def test_beyond_loopback_needs_a_key(home: Settings) -> None:
    exposed = replace(home, data=Address("0.0.0.0", 8080))
    with pytest.raises(errors.UsageError, match="reachable from other machines") as caught:
        supervisor.check_exposure(exposed)
    assert caught.value.where == "--data"
    assert "ONDOL_API_KEY" in caught.value.way_out
    supervisor.check_exposure(replace(exposed, api_key="secret"))


def test_sockets_have_no_delay_and_know_their_port() -> None:
    with listen.bind(Address("127.0.0.1", 0)) as listening:
        assert listening.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        where = listen.address_of(listening)
        assert not listen.is_free(where)
        with pytest.raises(errors.ConflictError) as caught:
            listen.bind(where, "--data")
    assert listen.is_free(where)
    assert caught.value.way_out.startswith("Stop it, or choose another port: ondol up --data 127.0.0.1:")


def test_an_address_of_another_machine_is_wrong_use() -> None:
    with pytest.raises(errors.UsageError, match="cannot listen"):
        listen.bind(Address("203.0.113.7", 5000))


def test_the_lock_belongs_to_one_and_goes_with_it(home: Settings) -> None:
    first, second = running.Lock(home.home), running.Lock(home.home)
    assert first.take()
    assert (usual := running.patience(home.home)) < 1
    assert not second.take()
    assert running.is_locked(home.home)
    assert running.find(home.home) is None, "locked but nothing written yet: it is just starting"
    running.write_state(home.home, running.Running(home.control, home.data, {"supervisor": 1}))
    found = running.find(home.home)
    assert found is not None
    assert found.control == home.control
    first.release()
    assert running.find(home.home) is None, "a state file without its lock is stale"
    assert running.patience(home.home) > usual
    second.release()
