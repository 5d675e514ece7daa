"""What a pickle would run, found without running it.

A pickle is a program for a small machine. Here that machine runs with every import replaced by an inert stand-in, so
that the imports can be listed and the plainly hostile ones refused. That is a look, not a wall: a pickle that names
only harmless modules may still do harm through them, so whoever does not trust a file serves it in safe mode, which
opens no pickle at all.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, ClassVar

from ondol.base import errors

_MODULES = frozenset(
    {
        "os", "posix", "nt", "subprocess", "sys", "socket", "shutil", "ctypes", "pty", "runpy", "importlib",
        "code", "codeop", "commands", "webbrowser", "asyncio", "multiprocessing", "threading", "signal",
        "http", "urllib", "requests", "ftplib", "smtplib", "telnetlib", "pip", "ensurepip", "venv",
    }
)  # fmt: skip
"""No estimator is made of these."""

_BUILTINS = frozenset(
    {
        "eval", "exec", "compile", "__import__", "open", "input", "breakpoint", "globals", "locals", "vars",
    }
)  # fmt: skip
_MAGIC = (b"\x80", b"(", b"c", b"]", b"}")  # protocol 2 and later; the rest are protocols 0 and 1
_OPENERS: tuple[tuple[bytes, Callable[[bytes], bytes]], ...] = (
    (b"\x1f\x8b", gzip.decompress),
    (b"BZh", bz2.decompress),
    (b"\xfd7zXZ", lzma.decompress),
    (b"\x5d\x00\x00", lzma.decompress),
    (b"x\x9c", zlib.decompress),
    (b"x\x01", zlib.decompress),
    (b"x^", zlib.decompress),
    (b"x\xda", zlib.decompress),
)
_LZ4 = b"\x04\x22"


@dataclass(frozen=True, slots=True)
class Report:
    """The imports a pickle makes, as `module.name`, sorted."""

    names: tuple[str, ...]
    complete: bool
    """False: the file could not be followed to its end."""

    @property
    def hostile(self) -> tuple[str, ...]:
        """The imports no model needs: they start programs, open files or sockets, or run text as code."""
        return tuple(name for name in self.names if _is_hostile(name))

    @property
    def packages(self) -> tuple[str, ...]:
        """The top-level packages that are imported."""
        return tuple(dict.fromkeys(name.partition(".")[0] for name in self.names))


def _is_hostile(name: str) -> bool:
    module, _, function = name.rpartition(".")
    top = module.partition(".")[0]
    return top in _MODULES or (top in ("builtins", "__builtin__") and function in _BUILTINS)


def looks_like_one(head: bytes) -> bool:
    """Return whether a file's first bytes are those of a pickle or of a compressed one."""
    return head.startswith((*_MAGIC, _LZ4, *(magic for magic, _ in _OPENERS)))


def contents(file: Path) -> bytes:
    """Return a pickle's bytes, decompressed when joblib or the user compressed it.

    :raises ValueError: when it is compressed and broken.
    """
    data = file.read_bytes()
    for magic, opener in _OPENERS:
        if data.startswith(magic):
            try:
                return opener(data)
            except (OSError, EOFError, zlib.error, lzma.LZMAError) as error:
                raise ValueError(str(error)) from error
    return data


def scan(file: Path) -> Report:
    """List the imports of a pickle or joblib file. Runs nothing of it."""
    try:
        data = contents(file)
    except ValueError:
        return Report((), complete=False)
    names: set[str] = set()
    complete = _follow(io.BytesIO(data), names)
    return Report(tuple(sorted(names)), complete)


def check(file: Path) -> Report:
    """Scan a pickle and refuse it when it imports what no model needs.

    :raises RefusedError: REF-391, naming the imports.
    """
    report = scan(file)
    if report.hostile:
        raise errors.RefusedError(
            f"{file.name!r} is a pickle that would run {', '.join(map(repr, report.hostile[:5]))}",
            where=str(file),
            way_out="A model needs none of these: find out who made the file.",
            code="REF-391",
        )
    return report


def _follow(stream: IO[bytes], names: set[str]) -> bool:
    """Collect the imports of one pickle; return whether it could be followed to its end."""
    try:
        _Machine(stream, names).load()
    except Exception:  # noqa: BLE001 - a pickle that does not fit the stand-ins may raise anything, anywhere
        return False
    return True


class _Stand:
    """An inert stand-in: may be called, filled and asked for anything, and does nothing."""

    def __new__(cls, *_: Any, **__: Any) -> _Stand:
        return object.__new__(cls)

    def __init__(self, *_: Any, **__: Any) -> None:
        pass

    def __call__(self, *_: Any, **__: Any) -> _Stand:
        return _Stand()

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, dict):
            self.__dict__["kept"] = state

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def __getattr__(self, name: str) -> _Stand:
        if name.startswith("__"):
            raise AttributeError(name)
        return self

    def append(self, *_: Any) -> None:
        pass

    extend = add = update = append


class _Array(_Stand):
    """Where joblib says that an array's bytes follow in the file."""


_Unpickler: Any = pickle._Unpickler  # the one written in Python, which can be bent; it has no public name


class _Machine(_Unpickler):  # type: ignore[misc]
    dispatch: ClassVar[dict[int, Any]] = dict(_Unpickler.dispatch)

    def __init__(self, stream: IO[bytes], names: set[str]) -> None:
        super().__init__(stream)
        self._names = names
        self._stream = stream

    def find_class(self, module: str, name: str) -> Any:
        self._names.add(f"{module}.{name}")
        if name == "NumpyArrayWrapper":
            return type("_Array", (_Array,), {})
        if (module, name) == ("numpy", "dtype"):
            import numpy as np

            return np.dtype
        # A class of its own each time: pickles build on classes (`copyreg.__newobj__`) and call functions alike.
        return type("_Stand", (_Stand,), {})

    def persistent_load(self, pid: Any) -> Any:
        return _Stand()

    def _build(self) -> None:
        super().load_build()
        top = self.stack[-1]
        if isinstance(top, _Array):
            self._skip(top.__dict__.get("kept", {}))

    dispatch[pickle.BUILD[0]] = _build

    def _skip(self, wrapper: dict[str, Any]) -> None:
        """Step over an array's bytes as joblib lays them out; arrays of objects are pickles themselves."""
        dtype = wrapper["dtype"]
        if dtype.hasobject:
            _Machine(self._stream, self._names).load()
            return
        if wrapper.get("numpy_array_alignment_bytes") is not None:
            self._stream.seek(self._stream.read(1)[0], io.SEEK_CUR)
        size = dtype.itemsize
        for length in wrapper["shape"]:
            size *= length
        self._stream.seek(size, io.SEEK_CUR)
