"""From a `storageUri` to the model's files on this machine.

Paths and `file://`, `pvc://` as a folder of the home, MLflow's `models:/` and `runs:/`, `hf://`, and whatever fsspec
has a driver for (`s3://`, `gs://`, `https://` …). Credentials are the drivers' own business: they read the environment.
Must not open what it fetched.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ondol.backends.local import remote_files
from ondol.base import errors
from ondol.base.settings import Settings
from ondol.formats.inference_service import Storage

_CLUSTER_ONLY = {
    "hdfs": "Hadoop's file system",
    "webhdfs": "Hadoop's file system",
    "oci": "an image registry",
    "oci+native": "an image registry",
    "oci+fetch": "an image registry",
}


@dataclass(frozen=True, slots=True)
class Source:
    """A model's files and what is known of where they came from."""

    path: Path
    uri: str
    """The address with every alias resolved, so that it means the same tomorrow."""

    model: str = ""
    version: str = ""
    run: str = ""


def fetch(uri: str, settings: Settings, into: Path, options: Mapping[str, Any] | None = None) -> Source:
    """Return the files behind a storage URI; what is not on this machine is downloaded.

    :param into: an empty folder for what is unpacked or given by MLflow.
    :param options: of the storage's driver, such as an endpoint.

    :raises InputError: INP-230 when there is nothing, or the address cannot be read.
    :raises UnsupportedError: for addresses that mean something on a cluster only.
    :raises DependencyError: when fsspec needs a driver that is not installed.
    :raises UpstreamError: when MLflow or the storage does not answer.
    """
    scheme = urlsplit(uri).scheme.lower() if "://" in uri or uri.startswith(("models:/", "runs:/")) else ""
    if scheme in ("", "file"):
        return _local(uri, settings, into)
    if scheme == "pvc":
        return _claimed(uri, settings)
    if scheme == "models":
        return _registered(uri, settings, into)
    if scheme in ("runs", "mlflow-artifacts"):
        return Source(_mlflow_download(uri, settings, into), uri, run=uri.split("/")[1] if scheme == "runs" else "")
    if scheme in _CLUSTER_ONLY:
        raise errors.UnsupportedError(
            f"storageUri {uri!r} is {_CLUSTER_ONLY[scheme]}",
            way_out="Use a path, file://, s3://, models:/ or another address this machine can read.",
            code="UNS-011",
        )
    if scheme == "hf":
        return Source(_hugging_face(uri, settings), uri)
    cache = settings.home / "cache" / "storage"
    return Source(remote_files.fetch(uri, cache, options or {}), uri)


def for_importers(settings: Settings) -> Callable[[str, Path], Path]:
    """Return what brings `models:/` and `runs:/` into a pipeline, out of this home's MLflow."""
    return lambda uri, into: fetch(uri, settings, into).path


def _local(uri: str, settings: Settings, into: Path) -> Source:
    text = unquote(urlsplit(uri).path) if uri.startswith("file:") else uri
    path = (settings.project / Path(text).expanduser()).resolve()
    if not path.exists():
        raise errors.InputError(
            f"storageUri {uri!r}: there is nothing at {str(path)!r}",
            way_out=f"Relative paths begin at {str(settings.project)!r}.",
            code="INP-230",
        )
    if path.is_file() and path.name.endswith(remote_files.ARCHIVES):
        copy = into / "archive" / path.name
        copy.parent.mkdir(parents=True)
        copy.symlink_to(path)
        return Source(remote_files.unpacked(copy.parent, into / "unpacked"), str(path))
    return Source(path, str(path))


def _claimed(uri: str, settings: Settings) -> Source:
    """A volume claim is a folder of the home: `pvc://NAME/PATH` is `.ondol/pvc/NAME/PATH`."""
    parts = urlsplit(uri)
    volume = settings.home / "pvc" / parts.netloc
    path = (volume / unquote(parts.path).lstrip("/")).resolve()
    if not path.exists() or not path.is_relative_to(volume.resolve()):
        raise errors.InputError(
            f"storageUri {uri!r}: there is nothing at {str(path)!r}",
            way_out=f"Make {str(volume)!r}, or let it be a link to the folder that is the volume.",
            code="INP-230",
        )
    return Source(path, uri)


def _hugging_face(uri: str, settings: Settings) -> Path:
    """Fetch `hf://OWNER/MODEL[:REVISION]`, as KServe writes it."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise errors.DependencyError(
            f"storageUri {uri!r} needs huggingface_hub", way_out="pip install huggingface_hub", code="DEP-030"
        ) from error
    name, _, revision = uri.removeprefix("hf://").partition(":")
    folder = settings.home / "cache" / "hf" / name.replace("/", "--") / (revision or "main")
    try:
        snapshot_download(name, revision=revision or None, local_dir=str(folder))
        shutil.rmtree(folder / ".cache", ignore_errors=True)  # the client's own notes are no part of the model
        return folder
    except Exception as error:  # the client raises a dozen kinds of its own
        raise errors.UpstreamError(
            f"storageUri {uri!r} cannot be read: {type(error).__name__}: {error}",
            way_out="Check the name, the revision and HF_TOKEN.", code="UPS-031",
        ) from error  # fmt: skip


def _registered(uri: str, settings: Settings, into: Path) -> Source:
    """Resolve `models:/NAME/VERSION`, `models:/NAME@ALIAS`, `models:/NAME/STAGE` or `models:/NAME/latest`."""
    from ondol.registry.models import Registry

    registry = Registry(settings.control.url, settings.artifacts_root)
    rest = uri.removeprefix("models:").lstrip("/")
    name, at, alias = rest.partition("@")
    if at:
        version = registry.aliases(name).get(alias, "")
        if not version:
            raise errors.NotFoundError(
                f"model {name!r} has no alias {alias!r}", way_out="`ondol model list` shows them.", code="NOF-030"
            )
    else:
        name, _, version = rest.partition("/")
        if not version.isdigit():
            version = _by_stage(registry, name, version, uri)
    found = registry.version(name, version)
    path = Path(found.source_path)
    if not path.is_absolute() or not path.exists():
        path = _mlflow_download(f"models:/{name}/{version}", settings, into)
    return Source(path, f"models:/{name}/{version}", name, version, found.run_id)


def _by_stage(registry: object, name: str, stage: str, uri: str) -> str:
    models = registry.list()  # type: ignore[attr-defined]  # the adapter's class is imported only where it is made
    for model in models:
        if model.name == name:
            for version in model.versions:  # newest first
                if stage.lower() in ("", "latest") or version.stage.lower() == stage.lower():
                    return str(version.version)
    raise errors.NotFoundError(
        f"storageUri {uri!r}: no such model, version or stage", way_out="`ondol model list` shows them.", code="NOF-030"
    )


def _mlflow_download(uri: str, settings: Settings, into: Path) -> Path:
    import mlflow.artifacts
    from mlflow.exceptions import MlflowException

    into.mkdir(parents=True, exist_ok=True)
    try:
        got = mlflow.artifacts.download_artifacts(
            artifact_uri=uri, dst_path=str(into), tracking_uri=settings.control.url, registry_uri=settings.control.url
        )
    except (MlflowException, OSError) as error:
        raise errors.UpstreamError(f"MLflow cannot give {uri!r}: {error}", code="UPS-030") from error
    return Path(got)


def of_storage(storage: Storage, settings: Settings, into: Path) -> Source:
    """Return the files behind `model.storage`: an entry of KServe's storage Secret, and a path in it.

    The entry is the JSON that KServe keeps in the Secret `storage-config`, here in `ONDOL_STORAGE_<KEY>`; without a key
    the parameters say everything.

    :raises InputError: INP-342 when there is no such entry, or its type is none that is known.
    """
    variable = "ONDOL_STORAGE_" + re.sub(r"[^A-Z0-9]", "_", (storage.key or "default").upper())
    try:
        entry = json.loads(os.environ.get(variable, "" if storage.key else "{}"))
    except ValueError:
        raise errors.InputError(
            f"storage entry {storage.key!r} is not known here",
            way_out=f'Set {variable} to its JSON: {{"type": "s3", "endpoint_url": …, "access_key_id": …}}.',
            code="INP-342",
        ) from None
    entry = {**entry, **storage.parameters}
    kind, bucket = str(entry.get("type", "")), str(entry.get("bucket", ""))
    if kind not in ("s3", "gs", "hdfs", "webhdfs") or not bucket:
        raise errors.InputError(
            f"storage entry {storage.key!r}: type {kind!r} and bucket {bucket!r} do not say where the files are",
            way_out="Give `type` (s3 or gs) and `bucket`, in the entry or in `parameters`.",
            code="INP-342",
        )
    return fetch(f"{kind}://{bucket}/{storage.path.lstrip('/')}", settings, into, _driver_options(kind, entry))


def _driver_options(kind: str, entry: dict[str, str]) -> dict[str, Any]:
    if kind != "s3":
        return {}
    client = {"endpoint_url": entry.get("endpoint_url"), "region_name": entry.get("region")}
    found: dict[str, Any] = {"client_kwargs": {name: value for name, value in client.items() if value}}
    if str(entry.get("anonymous", "")).lower() == "true":
        found["anon"] = True
    elif entry.get("access_key_id"):
        found.update(key=entry["access_key_id"], secret=entry.get("secret_access_key"))
    return found
