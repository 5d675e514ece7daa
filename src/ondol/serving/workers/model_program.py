"""Loads one model in an environment of its own and answers predictions over a socket.

Run by that environment's interpreter with Ondol's own modules, and none of its packages, on the path. What it does is
what the data plane does in memory: check, load, describe, compile where it is provably the same. Messages are a length,
a JSON head and raw bytes. It ends when the socket does, so it cannot outlive who asks.
"""

from __future__ import annotations

import dataclasses
import json
import socket
import struct
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

_LENGTHS = struct.Struct("!II")


def send(connection: socket.socket, head: dict[str, Any], data: bytes = b"") -> None:
    """Write one message."""
    text = json.dumps(head).encode()
    connection.sendall(_LENGTHS.pack(len(text), len(data)) + text + data)


def receive(connection: socket.socket) -> tuple[dict[str, Any], bytes]:
    """Read one message.

    :raises EOFError: when the other side is gone.
    """
    text, data = _LENGTHS.unpack(_exactly(connection, _LENGTHS.size))
    head: dict[str, Any] = json.loads(_exactly(connection, text))
    return head, _exactly(connection, data)


def _exactly(connection: socket.socket, count: int) -> bytes:
    parts = []
    while count:
        part = connection.recv(min(count, 1 << 20))
        if not part:
            raise EOFError
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def _load(asked: dict[str, Any]) -> tuple[Any, Any, dict[str, Any]]:
    from ondol.serving import describing, loading
    from ondol.serving.engines import compiled

    artifact = loading.load(
        Path(asked["path"]), asked["digest"], asked["format"], dialect=asked["dialect"], safe=asked["safe"]
    )
    spec = describing.describe(artifact)
    choice = compiled.choose(artifact.model, spec)
    ready = {
        "spec": dataclasses.asdict(spec),
        "engine": choice.engine.name,
        "reason": choice.reason,
        "probabilities": compiled.has_probabilities(artifact.model),
        "flavour": artifact.flavour,
        "dialect": artifact.dialect,
        "notes": list(artifact.notes),
        "packages": {name: _version(name) for name in asked["packages"]},
    }
    return choice.engine, spec, ready


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _answer(engine: Any, spec: Any, head: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
    import numpy as np

    from ondol.serving import describing

    if spec.frame:
        rows = describing.as_rows(head["rows"], spec)
    else:
        rows = np.frombuffer(data, dtype=np.float64).reshape(head["shape"])
    found = np.asarray(engine.predict_proba(rows) if head["probabilities"] else engine.predict(rows))
    if found.dtype.kind in "biuf":
        return {"shape": found.shape, "dtype": found.dtype.str}, np.ascontiguousarray(found).tobytes()
    return {"values": found.tolist()}, b""


def main(descriptor: int) -> None:
    """Load what the first message names, say what it is, then answer until the other side is gone."""
    connection = socket.socket(fileno=descriptor)
    asked, _ = receive(connection)
    try:
        engine, spec, ready = _load(asked)
    except Exception as error:  # noqa: BLE001 - the model's own code ran; whatever it raised is why it cannot serve
        code = getattr(error, "code", "INP-224")
        send(connection, {"failed": getattr(error, "message", f"{type(error).__name__}: {error}"), "code": code})
        return
    send(connection, ready)
    while True:
        try:
            head, data = receive(connection)
        except EOFError:
            return
        try:
            answer = _answer(engine, spec, head, data)
        except Exception as error:  # noqa: BLE001 - whatever a model raises is an answer to its request
            answer = {"failed": f"{type(error).__name__}: {error}"}, b""
        send(connection, *answer)


if __name__ == "__main__":
    main(int(sys.argv[1]))
