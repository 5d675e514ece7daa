"""Compiled engines kept beside the models, so that a restart neither opens a model nor tests it again.

One file per model, format, protocol, and version of everything that computes; the name is their hash. It holds numbers
and text, never a pickle, and the model's own recorded answers, which the engine has to give again before it serves.
Written in one piece, checked by its checksum, and safe to delete: what is missing or broken is made anew.

Must not decide what is served, nor open a model.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import logging
import os
import platform
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ondol.base import hashing
from ondol.serving.engines.base import Parts
from ondol.serving.engines.proof import Proof
from ondol.serving.inputs import InputSpec

log = logging.getLogger("ondol.serving")

MOST_FILES = 64
"""The least recently used beyond these are deleted."""

_MAGIC = b"ondol engine 1\n"
_DIGEST_BYTES = 32
_PACKAGES = ("ondol", "numpy", "scikit-learn")


@dataclass(frozen=True, slots=True)
class Kept:
    """A compiled engine and what else is known of its model."""

    spec: InputSpec
    probabilities: bool
    platform: str
    dialect: str
    notes: tuple[str, ...]
    parts: Parts | None
    proof: Proof | None


class _File(msgspec.Struct):
    spec: InputSpec
    probabilities: bool
    platform: str
    dialect: str
    notes: tuple[str, ...]
    parts: Any
    proof: Any


_decoder = msgspec.msgpack.Decoder(_File)


class KeptEngines:
    """The files in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, digest: str, model_format: str, dialect: str) -> Kept | None:
        """Return what was kept of a model; None when there is nothing that can be trusted.

        :param digest: of the model's files.
        """
        path = self._path(digest, model_format, dialect)
        try:
            data = path.read_bytes()
            if hasattr(os, "getuid") and path.stat().st_uid != os.getuid():
                raise ValueError("it is another user's file")
            found = _read(data)
            path.touch()
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError, msgspec.MsgspecError) as error:
            log.warning("%s is made anew: %s", path, error)
            return None
        return found

    def put(self, digest: str, model_format: str, dialect: str, kept: Kept) -> None:
        """Keep an engine. What cannot be kept is only slower the next time."""
        path = self._path(digest, model_format, dialect)
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            fresh = path.with_suffix(f".{os.getpid()}")
            fresh.write_bytes(_written(kept))
            fresh.replace(path)
            files = sorted(self._folder.iterdir(), key=lambda file: file.stat().st_mtime, reverse=True)
            for old in files[MOST_FILES:]:
                old.unlink(missing_ok=True)
        except (OSError, TypeError) as error:
            log.warning("the engine is not kept: %s: %s", type(error).__name__, error)

    def _path(self, digest: str, model_format: str, dialect: str) -> Path:
        key = hashing.of_json([digest, model_format, dialect, *_versions()])
        return self._folder / hashing.short(key, 64)


@cache
def _versions() -> tuple[str, ...]:
    """Return what decides how an engine computes: the machine, the libraries, and our own code."""
    code = hashlib.sha256()
    here = Path(__file__).parent
    for file in sorted([Path(__file__), here / "describing.py", here / "inputs.py", *here.glob("engines/*.py")]):
        code.update(file.read_bytes())
    packages = [importlib.metadata.version(name) for name in _PACKAGES]
    return (platform.machine(), sys.byteorder, platform.python_version(), *packages, code.hexdigest())


def _written(kept: Kept) -> bytes:
    proof = kept.proof
    recorded = proof and {"rows": proof.rows, "predictions": proof.predictions, "probabilities": proof.probabilities}
    body = msgspec.msgpack.encode(
        _File(
            kept.spec, kept.probabilities, kept.platform, kept.dialect, kept.notes,
            _packed(kept.parts), _packed(recorded),
        )
    )  # fmt: skip
    return _MAGIC + hashlib.sha256(body).digest() + body


def _read(data: bytes) -> Kept:
    start = len(_MAGIC) + _DIGEST_BYTES
    body = data[start:]
    if data[:start] != _MAGIC + hashlib.sha256(body).digest():
        raise ValueError("its checksum does not fit")
    found = _decoder.decode(body)
    parts, recorded = _unpacked(found.parts), _unpacked(found.proof)
    return Kept(
        found.spec, found.probabilities, found.platform, found.dialect, found.notes, parts, Proof(**recorded),
    )  # fmt: skip


def _packed(value: Any) -> Any:
    """Return a value with its arrays written out.

    :raises TypeError: when an array holds what is neither numbers nor text.
    """
    if isinstance(value, dict):
        return {name: _packed(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_packed(one) for one in value]
    if not isinstance(value, np.ndarray):
        return value
    if value.dtype.kind in "fiub":
        return {"array": [value.dtype.str, list(value.shape), value.tobytes()]}
    texts = value.ravel().tolist()
    if not all(isinstance(one, str) for one in texts):
        raise TypeError(f"an array of {value.dtype}")
    return {"texts": [value.dtype.str, list(value.shape), texts]}


def _unpacked(value: Any) -> Any:
    if isinstance(value, list):
        return [_unpacked(one) for one in value]
    if not isinstance(value, dict):
        return value
    if "array" in value:
        kind, shape, data = value["array"]
        return np.frombuffer(data, dtype=kind).reshape(shape)
    if "texts" in value:
        kind, shape, texts = value["texts"]
        return np.array(texts, dtype=kind).reshape(shape)
    return {name: _unpacked(one) for name, one in value.items()}
