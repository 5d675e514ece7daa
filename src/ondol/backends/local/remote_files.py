"""Files of other machines, copied here once: through fsspec's drivers, kept by what the storage says of each file.

A second fetch of the same address downloads only what changed, an interrupted download goes on where it stopped, and a
file is there whole or not at all. A single archive is unpacked. Must not know what the files are for.
"""

from __future__ import annotations

import hashlib
import json
import logging
import posixpath
import re
import shutil
import tarfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from ondol.base import errors, hashing

log = logging.getLogger("ondol.storage")

_CHUNK = 8 << 20
_MD5 = re.compile(r"[0-9a-f]{32}")
ARCHIVES = (".tar.gz", ".tgz", ".tar", ".zip")
_MOST_UNPACKED_BYTES = 200 << 30
_EXTRAS = {"s3": "pip install 'ondol[s3]'", "gs": "pip install gcsfs", "gcs": "pip install gcsfs"}
_FINGERPRINTS = ("ETag", "etag", "md5Hash", "blob_id", "LastModified", "mtime", "updated")
Json = dict[str, Any]


def fetch(uri: str, cache: Path, options: Mapping[str, Any]) -> Path:
    """Return the folder with the files behind an address.

    :param cache: where copies are kept, one folder per address and options.
    :param options: the driver's own, such as an endpoint.
    :raises InputError: INP-230 when there is nothing, INP-341 when an archive is broken or wants out of its folder.
    :raises DependencyError: when fsspec needs a driver that is not installed.
    :raises UpstreamError: when the storage does not answer, or gave other bytes than it says.
    """
    scheme = urlsplit(uri).scheme
    folder = cache / hashing.short(hashing.of_json([uri, sorted(options)]), 16)
    try:
        import fsspec

        # a driver of its own: a kept one remembers what folders held, and the environment's endpoint and keys
        system, root = fsspec.core.url_to_fs(uri, skip_instance_cache=True, **options)
    except (ImportError, ValueError) as error:
        way_out = _EXTRAS.get(scheme, f"Install fsspec's driver for {scheme}://.")
        raise errors.DependencyError(f"storageUri {uri!r}: {error}", way_out=way_out, code="DEP-030") from error
    try:
        wanted = _listing(system, root, uri)
        _bring(system, wanted, folder)
    except FileNotFoundError as error:
        raise errors.InputError(f"storageUri {uri!r}: there is nothing there", code="INP-230") from error
    except errors.OndolError:
        raise
    except Exception as error:  # drivers raise whatever their service's client raises
        raise errors.UpstreamError(
            f"storageUri {uri!r} cannot be read: {type(error).__name__}: {error}",
            way_out="Check the address and the credentials in the environment.",
            code="UPS-031",
        ) from error
    return unpacked(folder / "files", folder / "unpacked")


def _listing(system: Any, root: str, uri: str) -> dict[str, tuple[str, Json]]:
    """Return the files by their path below the folder: the driver's name of each, and what it says of it."""
    if urlsplit(uri).scheme in ("http", "https"):
        name = posixpath.basename(urlsplit(uri).path) or "model"
        return {name: (root, system.info(root))}
    found = {path: info for path, info in system.find(root, detail=True).items() if info.get("type") != "directory"}
    if not found:
        raise errors.InputError(f"storageUri {uri!r}: there is nothing there", code="INP-230")
    base = root.rstrip("/")
    if set(found) == {base}:
        return {posixpath.basename(base): (base, found[base])}
    listed = {path[len(base) :].lstrip("/"): (path, info) for path, info in found.items()}
    for name in listed:
        if ".." in name.split("/"):
            raise errors.InputError(f"storageUri {uri!r}: a file is called {name!r}", code="INP-341")
    return {name: one for name, one in listed.items() if name}


def _bring(system: Any, wanted: Mapping[str, tuple[str, Json]], folder: Path) -> None:
    """Make the copies what the storage has."""
    files, state = folder / "files", folder / "state.json"
    files.mkdir(parents=True, exist_ok=True)
    try:
        known: Json = json.loads(state.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        known = {}
    for path in [path for path in files.rglob("*") if path.is_file()]:
        name = path.relative_to(files).as_posix().removesuffix(".part")
        if name not in wanted:
            path.unlink()
    for name, (source, info) in wanted.items():
        version, target, part = _fingerprint(info), files / name, f"{name}.part"
        if target.is_file() and version and known.get(name) == version:
            continue
        go_on = bool(version) and known.get(part) == version
        known[part] = version
        _write(state, known)
        _download(system, source, info, target, go_on)
        del known[part]
        known[name] = version
        _write(state, known)


def _write(state: Path, known: Json) -> None:
    fresh = state.with_suffix(".new")
    fresh.write_text(json.dumps(known), encoding="utf-8")
    fresh.replace(state)


def _fingerprint(info: Json) -> str:
    """Return what tells one version of a file from another; empty when the storage says nothing of the kind."""
    said = next((str(info[name]) for name in _FINGERPRINTS if info.get(name)), "")
    return f"{info.get('size')}:{said}" if said else ""


def _download(system: Any, source: str, info: Json, target: Path, go_on: bool) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    if not go_on:
        part.unlink(missing_ok=True)
    size = info.get("size")
    log.info("downloading %s (%s bytes)", source, "?" if size is None else size)
    with system.open(source, "rb", block_size=_CHUNK) as stream, part.open("ab") as output:
        if output.tell():
            stream.seek(output.tell())
        while chunk := stream.read(_CHUNK):
            output.write(chunk)
    _check(part, info, source)
    part.replace(target)


def _check(part: Path, info: Json, source: str) -> None:
    """Compare size, and the MD5 where the storage's tag is one, with what the storage says."""
    size, tag = info.get("size"), str(info.get("ETag") or "").strip('"')
    wrong = size is not None and part.stat().st_size != size
    if not wrong and _MD5.fullmatch(tag) and str(source).partition("://")[0] not in ("http", "https"):
        with part.open("rb") as file:
            wrong = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest() != tag
    if wrong:
        got = part.stat().st_size
        part.unlink()
        raise errors.UpstreamError(
            f"{source!r} arrived broken: {got} bytes of {size}, or another checksum",
            way_out="It is fetched again by itself; look at the storage if it happens twice.",
            code="UPS-341",
        )


def unpacked(files: Path, into: Path) -> Path:
    """Return the folder, or what is in it when it holds one archive and nothing else.

    :raises InputError: INP-341 when the archive is broken, too large, or wants out of its folder.
    """
    listed = [path for path in files.rglob("*") if path.is_file()]
    if len(listed) != 1 or not listed[0].name.endswith(ARCHIVES):
        return files
    archive = listed[0]
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir(parents=True)
    try:
        if archive.name.endswith(".zip"):
            _unzip(archive, into)
        else:
            with tarfile.open(archive) as opened:
                if sum(member.size for member in opened.getmembers()) > _MOST_UNPACKED_BYTES:
                    raise tarfile.TarError("it unpacks to more than 200 GiB")
                opened.extractall(into, filter="data")
    except (tarfile.TarError, zipfile.BadZipFile, OSError, EOFError) as error:
        raise errors.InputError(f"{archive.name!r} cannot be unpacked: {error}", code="INP-341") from error
    return into


def _unzip(archive: Path, into: Path) -> None:
    with zipfile.ZipFile(archive) as opened:
        for member in opened.infolist():
            target = (into / member.filename).resolve()
            if not target.is_relative_to(into.resolve()):
                raise zipfile.BadZipFile(f"{member.filename!r} is outside of it")
        if sum(member.file_size for member in opened.infolist()) > _MOST_UNPACKED_BYTES:
            raise zipfile.BadZipFile("it unpacks to more than 200 GiB")
        opened.extractall(into)
