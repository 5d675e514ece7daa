"""Which TCP ports the processes of a session listen on, from Linux' /proc; elsewhere nothing is known."""

from __future__ import annotations

import contextlib
import ipaddress
import sys
from pathlib import Path

_LISTEN = "0A"


def of_session(session: int) -> list[tuple[str, int]] | None:
    """Return (address, port) of every listening socket of a session's processes; None where that cannot be known."""
    if not sys.platform.startswith("linux"):
        return None
    inodes = _inodes(session)
    found: set[tuple[str, int]] = set()
    for table in ("tcp", "tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/net/{table}").read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                if fields[3] == _LISTEN and fields[9] in inodes:
                    address, _, port = fields[1].rpartition(":")
                    found.add((_address(address), int(port, 16)))
    return sorted(found)


def is_loopback(address: str) -> bool:
    """Return whether only this machine reaches the address."""
    parsed = ipaddress.ip_address(address)
    mapped = getattr(parsed, "ipv4_mapped", None)
    return (mapped or parsed).is_loopback


def _inodes(session: int) -> set[str]:
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            if int((folder / "stat").read_text().rpartition(")")[2].split()[3]) != session:
                continue
            for entry in (folder / "fd").iterdir():
                with contextlib.suppress(OSError):
                    target = str(entry.readlink())
                    if target.startswith("socket:["):
                        found.add(target[8:-1])
    return found


def _address(text: str) -> str:
    """Read the kernel's hexadecimal form: 32-bit words in the machine's byte order."""
    words = [bytes.fromhex(text[start : start + 8]) for start in range(0, len(text), 8)]
    raw = b"".join(word[::-1] if sys.byteorder == "little" else word for word in words)
    return str(ipaddress.ip_address(raw))
