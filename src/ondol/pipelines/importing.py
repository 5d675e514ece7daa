"""From an importer's address to content on this machine.

Paths and `file://` stay where they are. What fsspec has a driver for (`s3://`, `gs://`, `https://` …) is downloaded at
every run and kept once per content; `models:/` and `runs:/` are MLflow's and are fetched by whoever starts the run. The
content's digest enters the cache key, never the address. Must not run anything.
"""

from __future__ import annotations

import contextlib
import posixpath
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ondol.base import errors, hashing
from ondol.formats.kfp_graph import Importer
from ondol.pipelines import caching
from ondol.records.pipeline import Artifact

Fetch = Callable[[str, Path], Path]
"""Brings what an address names into an empty folder and returns the path."""

_CLUSTER_ONLY = {"oci": "an image registry", "minio": "a store inside a cluster", "pvc": "a volume of a cluster"}


@dataclass(frozen=True, slots=True)
class Importing:
    """Brings artifacts in.

    :param home: where downloads are kept, in `imports/`.
    :param registry: fetches `models:/` and `runs:/`; None: refused.
    """

    home: Path
    registry: Fetch | None = None

    def check(self, uri: str, where: str) -> None:
        """Refuse an address that cannot mean anything here, before anything runs.

        :raises UnsupportedError: for an address of a cluster, or of MLflow without one.
        :raises InputError: when there is nothing at a local path.
        """
        scheme = _scheme(uri)
        if scheme in _CLUSTER_ONLY:
            raise errors.UnsupportedError(
                f"the importer's address {uri!r} is {_CLUSTER_ONLY[scheme]}",
                where=where,
                way_out="Give a path, file://, s3://, gs://, https:// or models:/.",
            )
        if scheme in ("models", "runs") and self.registry is None:
            raise errors.UnsupportedError(
                f"the importer's address {uri!r} needs MLflow",
                where=where,
                way_out="Start it with `ondol up`, or set MLFLOW_TRACKING_URI.",
            )
        if scheme in ("", "file"):
            _existing(uri, where)

    def artifact(
        self, name: str, importer: Importer, uri: str, metadata: dict[str, Any], workspace: Path | None = None
    ) -> Artifact:
        """Return the artifact at an address, with the digest of its content.

        :param workspace: gets a copy, which is then what the artifact names.
        :raises InputError: when there is nothing.
        :raises DependencyError: when fsspec has no driver for the address.
        :raises UpstreamError: when the storage does not answer.
        """
        where = f"importer {name!r}"
        self.check(uri, where)
        path, digest = self._local(uri, where)
        if workspace is not None:
            path = _copied(path, workspace / ".artifacts" / hashing.short(digest, 12) / path.name)
        stamp = caching.stamp(path)
        return Artifact("artifact", importer.type, str(path), str(path), digest, metadata, importer.version, stamp)

    def _local(self, uri: str, where: str) -> tuple[Path, str]:
        """Return the content's path and digest."""
        scheme = _scheme(uri)
        if scheme in ("", "file"):
            path = _existing(uri, where)
            return path, hashing.of_tree(path)
        kept = self.home / "imports"
        kept.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="getting-", dir=kept) as folder:
            if scheme in ("models", "runs"):
                assert self.registry is not None
                path = self.registry(uri, Path(folder))
            else:
                path = _download(uri, scheme, where, Path(folder))
            digest = hashing.of_tree(path)
            if not path.is_relative_to(folder):
                return path, digest  # MLflow's files are on this machine already
            target = kept / hashing.short(digest, 24) / path.name
            target.parent.mkdir(exist_ok=True)
            with contextlib.suppress(OSError):  # somebody else brought the same content in
                path.rename(target)
            return target, digest


def _download(uri: str, scheme: str, where: str, folder: Path) -> Path:
    try:
        import fsspec

        # a driver of its own: a kept one remembers the endpoint and the keys that the environment had when it was made
        system, root = fsspec.core.url_to_fs(uri, skip_instance_cache=True)
    except (ImportError, ValueError) as error:
        raise errors.DependencyError(
            f"the importer's address {uri!r} cannot be read: {error}",
            where=where,
            way_out={"s3": "pip install 'ondol[s3]'"}.get(scheme, f"Install fsspec's driver for {scheme}://."),
            code="DEP-500",
        ) from error
    target = folder / (posixpath.basename(urlsplit(uri).path.rstrip("/")) or "content")
    try:
        if scheme in ("http", "https") or system.isfile(root):
            system.get_file(root, str(target))
        else:
            system.get(root.rstrip("/") + "/", str(target), recursive=True)
    except FileNotFoundError:
        raise _nothing(uri, where, "The storage says that there is nothing.") from None
    except Exception as error:  # drivers raise whatever their service's client raises
        raise errors.UpstreamError(
            f"the importer's address {uri!r} cannot be read: {type(error).__name__}: {error}",
            where=where,
            way_out="Check the address and the credentials in the environment.",
            code="UPS-500",
        ) from error
    return target


def _scheme(uri: str) -> str:
    if uri.startswith(("models:/", "runs:/")):
        return uri.partition(":")[0]
    return uri.partition("://")[0].lower() if "://" in uri else ""


def _existing(uri: str, where: str) -> Path:
    text = unquote(urlsplit(uri).path) if _scheme(uri) == "file" else uri
    path = Path(text).expanduser().absolute()
    if not path.exists():
        raise _nothing(uri, where, f"Looked at {path}.")
    return path


def _nothing(uri: str, where: str, way_out: str) -> errors.InputError:
    return errors.InputError(f"nothing to import at {uri!r}", where=where, way_out=way_out, code="INP-017")


def _copied(path: Path, target: Path) -> Path:
    target.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        shutil.copytree(path, target, dirs_exist_ok=True)
    else:
        shutil.copyfile(path, target)
    return target
