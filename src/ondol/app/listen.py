"""Listening sockets: bound once, with TCP_NODELAY, with one clear error when somebody else has the port.

The supervisor binds the sockets and hands them to its children, so that a connection made while a child is being
restarted waits in the kernel's queue and is not refused. Must not know who listens.
"""

from __future__ import annotations

import errno
import os
import socket
import time
from pathlib import Path

from ondol.base import errors
from ondol.base.settings import Address

FD_VARIABLE = "ONDOL_LISTEN_FD"  # set by the supervisor for a child that inherits its socket
_BACKLOG = 2048


def bind(address: Address, option: str = "--control", patience: float = 0.0) -> socket.socket:
    """Return a socket listening on the address; port 0 picks a free one.

    :param patience: seconds to try again while the port is in use.

    TCP_NODELAY is set here because accepted sockets inherit it: asyncio sets it only on sockets of its own making, and
    without it a small answer written in two parts waits 40 ms for a delayed acknowledgement.

    :raises ConflictError: when the port is taken, naming who has it and a port that is free.
    :raises UsageError: when the host is not an address of this machine or the port needs privileges.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            return _bind(address)
        except OSError as error:
            if error.errno != errno.EADDRINUSE or time.monotonic() >= deadline:
                raise _bind_error(address, option, error) from error
            time.sleep(0.1)


def _bind(address: Address) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        listening.bind((address.host, address.port))
        listening.listen(_BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening


def reserve(address: Address, option: str, patience: float = 0.0) -> socket.socket:
    """Return a socket that keeps a port for a child that binds it itself, as gRPC must; it does not listen.

    :raises OndolError: as `bind` does.
    """
    with bind(address, option, patience) as probe:
        found = address_of(probe)
    try:
        return _kept(found, reuse=False)
    except OSError:  # connections of an earlier process that are just ending; nobody listens, as was seen above
        return _kept(found, reuse=True)


def _kept(address: Address, reuse: bool) -> socket.socket:
    """Bind without listening. With `reuse`, a program that reuses addresses could take the port in between."""
    kept = socket.socket(socket.AF_INET6 if ":" in address.host else socket.AF_INET, socket.SOCK_STREAM)
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, int(reuse))
    try:
        kept.bind((address.host, address.port))
    except OSError:
        kept.close()
        raise
    return kept


def inherited_or_bound(address: Address, option: str = "--control") -> socket.socket:
    """Return the socket the supervisor handed over, or bind one."""
    handed = os.environ.pop(FD_VARIABLE, "")
    return socket.socket(fileno=int(handed)) if handed else bind(address, option)


def address_of(listening: socket.socket) -> Address:
    """Return where a socket really listens (after port 0)."""
    host, port = listening.getsockname()[:2]
    return Address(str(host), int(port))


def is_free(address: Address) -> bool:
    """Say whether nobody listens on the address right now."""
    try:
        bind(address).close()
    except errors.OndolError:
        return False
    return True


def free_port(host: str = "127.0.0.1", near: int = 0) -> int:
    """Return a port nobody listens on: one of the ten after `near` when there is one, else any."""
    for port in range(near + 1, near + 11) if near else ():
        if is_free(Address(host, port)):
            return port
    with bind(Address(host, 0)) as listening:
        return address_of(listening).port


def _bind_error(address: Address, option: str, error: OSError) -> errors.OndolError:
    if error.errno == errno.EADDRINUSE:
        holder = _who_listens(address.port)
        free = free_port("127.0.0.1", near=address.port)
        return errors.ConflictError(
            f"port {str(address.port)!r} is in use{f' by {holder}' if holder else ''}",
            where=str(address),
            way_out=f"Stop it, or choose another port: ondol up {option} 127.0.0.1:{free}",
            code="CON-003",
        )
    return errors.UsageError(
        f"cannot listen on {str(address)!r}: {error.strerror or error}",
        way_out="Use an address of this machine and a port above 1023, like 127.0.0.1:5000.",
        code="USE-004",
    )


def _who_listens(port: int) -> str:
    """Name the process that listens on a port, from Linux' /proc; empty when it cannot be known."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    return next((name for inode in inodes if (name := _owner_of(inode))), "")


def _owner_of(inode: str) -> str:
    for descriptors in Path("/proc").glob("[0-9]*/fd"):
        try:
            if any(str(entry.readlink()) == inode for entry in descriptors.iterdir()):
                command = descriptors.with_name("cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                return f"process {descriptors.parent.name} ({command.strip()[:60]})"
        except OSError:
            continue
    return ""
