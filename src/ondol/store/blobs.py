"""Content-addressed files and folders: written once under their digest, whole or not at all.

Must not interpret what is stored. Layout: `blobs/ab/cdef…` for `sha256:abcdef…`; a blob is a file or a folder.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from pathlib import Path

from ondol.base import errors, hashing


class Blobs:
    """Blobs below one folder.

    :param root: made when first written to.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, digest: str) -> Path:
        """Return where the blob is or would be."""
        name = digest.removeprefix("sha256:")
        return self.root / name[:2] / name[2:]

    def has(self, digest: str) -> bool:
        return self.path(digest).exists()

    def put_bytes(self, data: bytes) -> str:
        """Store bytes and return their digest."""
        digest = hashing.of_bytes(data)
        if not self.has(digest):
            temporary = self._temporary()
            try:
                with temporary.open("wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                self._adopt(temporary, digest)
            except OSError as error:
                raise self._no_room(error) from error
            finally:
                temporary.unlink(missing_ok=True)
        return digest

    def put_path(self, source: Path) -> str:
        """Store a copy of a file or folder and return its digest (`hashing.of_tree`)."""
        digest = hashing.of_tree(source)
        if not self.has(digest):
            temporary = self._temporary()
            try:
                if source.is_dir():
                    shutil.copytree(source, temporary, ignore=shutil.ignore_patterns("__pycache__"))
                else:
                    shutil.copyfile(source, temporary)
                self._adopt(temporary, digest)
            except OSError as error:
                raise self._no_room(error) from error
            finally:
                _remove(temporary)
        return digest

    def remove(self, digest: str) -> None:
        """Remove a file blob, if it is there; nothing must name it any more."""
        self.path(digest).unlink(missing_ok=True)

    def get_bytes(self, digest: str) -> bytes:
        """Return a file blob's bytes.

        :raises NotFoundError: when there is no such blob.
        """
        try:
            return self.path(digest).read_bytes()
        except FileNotFoundError:
            raise errors.NotFoundError(f"no blob {digest!r}", where=str(self.root), code="NOF-002") from None

    def _temporary(self) -> Path:
        folder = self.root / "incoming"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / uuid.uuid4().hex

    def _adopt(self, temporary: Path, digest: str) -> None:
        target = self.path(digest)
        target.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError, OSError):
            if not target.exists():
                temporary.rename(target)
        if not target.exists():  # the rename failed for another reason than somebody else being first
            temporary.rename(target)

    def _no_room(self, error: OSError) -> errors.StateError:
        return errors.StateError(
            f"cannot store a blob: {error.strerror or error}",
            where=str(self.root),
            way_out="Free some disk space, or set ONDOL_HOME to a folder with room; nothing was half-written.",
            code="STA-005",
        )


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
