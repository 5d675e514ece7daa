"""Imported by every Python that runs as a worker, before its own code: its servers listen on this machine only.

Containers have a network of their own, so servers in them listen on every address and on fixed ports. Here there is one
network. A server that asks for every address gets the loopback address, and one that asks for its container's port gets
the port it was given (`ONDOL_PORTS`, JSON of wanted to given; 0 is any free one). Covers Python's sockets, uvloop and
gRPC. A stand-alone module of the standard library only: it runs in environments that have no Ondol.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import json
import os
import socket
import sys
from pathlib import Path
from typing import Any

_PORTS = {int(wanted): int(given) for wanted, given in json.loads(os.environ.get("ONDOL_PORTS", "{}")).items()}
_EVERYWHERE = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1", "[::]": "127.0.0.1"}


def _port(wanted: Any) -> Any:
    return _PORTS.get(wanted, wanted)


_bind = socket.socket.bind


def _bind_on_loopback(self: socket.socket, address: Any) -> None:
    if self.family in (socket.AF_INET, socket.AF_INET6) and self.type & socket.SOCK_STREAM:
        host, port, *rest = address
        address = (_EVERYWHERE.get(host, host), _port(port), *rest)
    _bind(self, address)


def _uvloop(module: Any) -> None:
    original = module.Loop.create_server

    async def create_server(
        self: Any, protocol_factory: Any, host: Any = None, port: Any = None, **options: Any
    ) -> Any:
        if options.get("sock") is None:
            host = "127.0.0.1" if host is None else _EVERYWHERE.get(host, host)
            port = _port(port)
        return await original(self, protocol_factory, host, port, **options)

    module.Loop.create_server = create_server


def _grpc(module: Any) -> None:
    for kind in (module.Server, getattr(module, "_Server", None)):
        if kind is not None:
            for name in ("add_insecure_port", "add_secure_port"):
                setattr(kind, name, _on_loopback(getattr(kind, name)))


def _on_loopback(original: Any) -> Any:
    def add_port(self: Any, address: str, *rest: Any, **options: Any) -> Any:
        host, _, port = address.rpartition(":")
        if port.isdigit() and "/" not in address:
            address = f"{_EVERYWHERE.get(host, host)}:{_port(int(port))}"
        return original(self, address, *rest, **options)

    return add_port


def _grpc_sync(module: Any) -> None:
    for name in ("add_insecure_port", "add_secure_port"):
        setattr(module._Server, name, _on_loopback(getattr(module._Server, name)))


_AFTER = {"uvloop": _uvloop, "grpc.aio._server": _grpc, "grpc._server": _grpc_sync}


class _Loader(importlib.abc.Loader):
    """The module's own loader, with a change made once it has run."""

    def __init__(self, own: Any, change: Any) -> None:
        self._own, self._change = own, change

    def create_module(self, spec: Any) -> Any:
        return self._own.create_module(spec)

    def exec_module(self, module: Any) -> None:
        self._own.exec_module(module)
        self._change(module)


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        if name not in _AFTER:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Loader(spec.loader, _AFTER[name])
        return spec


def _next_sitecustomize() -> None:
    """Run the sitecustomize that this one hides."""
    here = Path(__file__).resolve().parent
    others = [folder for folder in sys.path if Path(folder).resolve() != here]
    spec = importlib.machinery.PathFinder.find_spec("sitecustomize", others)
    if spec is not None and spec.loader is not None:
        spec.loader.exec_module(importlib.util.module_from_spec(spec))


socket.socket.bind = _bind_on_loopback  # type: ignore[assignment,method-assign]
sys.meta_path.insert(0, _Finder())
_next_sitecustomize()
