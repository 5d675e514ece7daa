"""A snapshot on disk: one folder named by its digest, written beside and renamed into place, whole or not at all.

    indexes/<64 hex>/manifest.json       identity, documents, options, file sizes
                     chunks.msgpack      the chunks, one after the other; chunk_offsets.npy says where each begins
                     chunk_documents.npy the document of each chunk
                     vectors.npy …       see `vectors`;   terms.npy …  see `lexical`

Must not build or search. Every array is memory-mapped when opened, so that processes share one copy.
"""

from __future__ import annotations

import mmap
import os
import shutil
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from ondol.base import errors, hashing
from ondol.records import codec
from ondol.records.retrieval import Snapshot
from ondol.retrieval import lexical, vectors
from ondol.retrieval.chunking import Chunk

FOLDER = "indexes"
FORMAT = 1
_MANIFEST = "manifest.json"
_BUILDING = ".building-"
_decoder = msgspec.msgpack.Decoder(Chunk)


@dataclass(frozen=True, slots=True)
class Manifest:
    """What `manifest.json` says."""

    format: int
    identity: dict[str, Any]
    """Hashed, it is the snapshot's digest."""

    snapshot: Snapshot
    files: dict[str, int]
    """Size of every other file in bytes: a cheap check that nothing was cut off."""


class Chunks(Sequence[Chunk]):
    """The chunks of a snapshot, decoded when asked for."""

    def __init__(self, folder: Path) -> None:
        self._offsets: NDArray[np.int64] = np.load(folder / "chunk_offsets.npy", mmap_mode="r")
        with (folder / "chunks.msgpack").open("rb") as file:
            self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __getitem__(self, row: Any) -> Any:
        if isinstance(row, slice):
            return [self[number] for number in range(*row.indices(len(self)))]
        if not 0 <= row < len(self):
            raise IndexError(row)
        return _decoder.decode(self._data[int(self._offsets[row]) : int(self._offsets[row + 1])])


@dataclass(frozen=True, slots=True)
class Opened:
    """A snapshot's arrays, mapped."""

    manifest: Manifest
    chunks: Chunks
    documents: NDArray[np.int32]
    """Position of each chunk's document in `manifest.snapshot.documents`."""

    flat: vectors.Flat | None
    """None for a lexical snapshot."""

    lexicon: lexical.Lexicon


def path_of(home: Path, digest: str) -> Path:
    """Return where a snapshot is or would be."""
    return home / FOLDER / digest.removeprefix("sha256:")


def write(
    home: Path,
    identity: dict[str, Any],
    snapshot: Snapshot,
    chunks: Sequence[Chunk],
    flat: vectors.Flat | None,
    lexicon: lexical.Lexicon,
) -> None:
    """Write a snapshot; when this returns it is durable, when it raises there is nothing.

    Somebody else having written the same snapshot meanwhile is no error.

    :raises StateError: when the disk is full or the folder cannot be written.
    """

    def fill(folder: Path) -> None:
        _save_chunks(folder, snapshot, chunks)
        if flat is not None:
            vectors.save(flat, folder)
        lexicon.save(folder)
        files = {file.name: file.stat().st_size for file in sorted(folder.iterdir())}
        manifest = Manifest(FORMAT, identity, snapshot, files)
        (folder / _MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=1))

    try:
        _atomically(path_of(home, snapshot.digest), fill)
    except OSError as error:
        raise errors.StateError(
            f"cannot write the index: {error.strerror or error}",
            where=str(home / FOLDER),
            way_out="Free some disk space or check the folder's permissions; nothing was half-written.",
            code="STA-041",
        ) from error


def _save_chunks(folder: Path, snapshot: Snapshot, chunks: Sequence[Chunk]) -> None:
    encoded = [msgspec.msgpack.encode(chunk) for chunk in chunks]
    (folder / "chunks.msgpack").write_bytes(b"".join(encoded))
    np.save(folder / "chunk_offsets.npy", np.cumsum([0, *map(len, encoded)], dtype=np.int64))
    position = {document.path: number for number, document in enumerate(snapshot.documents)}
    np.save(folder / "chunk_documents.npy", np.asarray([position[chunk.document] for chunk in chunks], dtype=np.int32))


def _atomically(target: Path, fill: Callable[[Path], None]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    _sweep(target.parent)
    temporary = target.parent / f"{_BUILDING}{os.getpid()}-{uuid.uuid4().hex[:8]}"
    temporary.mkdir()
    try:
        fill(temporary)
        for file in temporary.iterdir():
            _sync(file)
        _sync(temporary)
        try:
            temporary.rename(target)
        except OSError:
            if not (target / _MANIFEST).exists():  # else somebody was first with the same content
                raise
        _sync(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sweep(folder: Path) -> None:
    """Remove what builds left behind whose process is gone."""
    for leftover in folder.glob(f"{_BUILDING}*"):
        number = leftover.name.removeprefix(_BUILDING).partition("-")[0]
        if number.isdigit() and int(number) != os.getpid() and not _alive(int(number)):
            shutil.rmtree(leftover, ignore_errors=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def folders(home: Path) -> list[tuple[str, Path]]:
    """Return the digest and the folder of every snapshot of this home."""
    found = sorted((home / FOLDER).glob("[0-9a-f]*")) if (home / FOLDER).is_dir() else []
    return [(f"sha256:{one.name}", one) for one in found if (one / _MANIFEST).is_file()]


def leaving(folder: Path) -> Path:
    """Return where a snapshot is renamed to when it is removed: whoever builds next sweeps what a kill leaves there."""
    return folder.parent / f"{_BUILDING}{os.getpid()}-{uuid.uuid4().hex[:8]}"


def touch(home: Path, digest: str) -> None:
    """Note that a snapshot was wanted again: what was lately wanted is not removed."""
    os.utime(path_of(home, digest))


def exists(home: Path, digest: str) -> bool:
    """Whether this home has the snapshot."""
    return (path_of(home, digest) / _MANIFEST).is_file()


def read_manifest(home: Path, digest: str) -> Manifest:
    """Return a snapshot's manifest.

    :raises NotFoundError: when this home has no such snapshot.
    :raises StateError: when it is damaged or from a newer Ondol.
    """
    folder = path_of(home, digest)
    try:
        manifest = codec.decode((folder / _MANIFEST).read_bytes(), Manifest)
    except FileNotFoundError:
        raise errors.NotFoundError(
            f"no index snapshot {hashing.short(digest)!r}",
            where=str(folder),
            way_out="Build the index again from the same documents: the same content gives the same digest.",
            code="NOF-043",
        ) from None
    except errors.InputError as error:
        raise _damaged(folder, error.message) from error
    if manifest.format != FORMAT:
        raise _damaged(folder, f"format {manifest.format}, this Ondol reads {FORMAT}")
    for name, size in manifest.files.items():
        file = folder / name
        if not file.is_file() or file.stat().st_size != size:
            raise _damaged(folder, f"{name} is missing or cut off")
    return manifest


def _damaged(folder: Path, why: str) -> errors.StateError:
    return errors.StateError(
        f"the index snapshot cannot be used: {why}",
        where=str(folder),
        way_out="Delete that folder and build the index again; vectors are cached.",
        code="STA-043",
    )


def open_at(home: Path, digest: str) -> Opened:
    """Map a snapshot into memory.

    :raises NotFoundError: when this home has no such snapshot.
    :raises StateError: when it is damaged or from a newer Ondol.
    """
    manifest = read_manifest(home, digest)
    folder = path_of(home, digest)
    try:
        flat = vectors.load(folder) if manifest.snapshot.dimensions else None
        documents = np.load(folder / "chunk_documents.npy", mmap_mode="r")
        return Opened(manifest, Chunks(folder), documents, flat, lexical.load(folder, manifest.snapshot.chunks))
    except (OSError, ValueError) as error:
        raise _damaged(folder, str(error)) from error
