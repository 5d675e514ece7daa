"""Content addresses: the same content has the same name everywhere.

A digest is written `sha256:<64 hex>`. Must not know what is hashed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_CHUNK = 1 << 20  # bytes read at a time


def of_bytes(data: bytes) -> str:
    """Return the digest of `data`."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


def canonical_json(value: Any) -> bytes:
    """Return the one JSON encoding of a plain value: sorted keys, no spaces, UTF-8, no NaN.

    :raises ValueError: for NaN or infinity, which JSON cannot say.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def of_json(value: Any) -> str:
    """Return the digest of a plain JSON value, whatever the order of its keys."""
    return of_bytes(canonical_json(value))


def of_file(path: Path) -> str:
    """Return the digest of one file's content."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return "sha256:" + digest.hexdigest()


def files_below(root: Path) -> Iterator[Path]:
    """Yield the files below a folder in a stable order, without Python's caches."""
    for path in sorted(root.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            yield path


def of_tree(path: Path) -> str:
    """Return the digest of a file, or of a folder: every file's relative path and content."""
    if path.is_file():
        return of_file(path)
    return of_json({file.relative_to(path).as_posix(): of_file(file) for file in files_below(path)})


def short(digest: str, length: int = 12) -> str:
    """Return the digest as people read it: the first hex digits."""
    return digest.removeprefix("sha256:")[:length]
