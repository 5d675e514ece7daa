"""From a `storageUri` to the model's files on this machine.

Paths and `file://`, MLflow's `models:/` and `runs:/`, and whatever fsspec has a driver for (`s3://`, `gs://`, `https://`,
`hf://` …). Credentials are the drivers' own business: they read the environment. Must not open what it fetched.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ondol.base import errors
from ondol.base.settings import Settings

_CLUSTER_ONLY = {
    "pvc": "a volume claim of a cluster",
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


def fetch(uri: str, settings: Settings, into: Path) -> Source:
    """Return the files behind a storage URI; what is not on this machine is downloaded into an empty folder.

    :raises InputError: INP-230 when there is nothing, or the address cannot be read.
    :raises UnsupportedError: for addresses that mean something on a cluster only.
    :raises DependencyError: when fsspec needs a driver that is not installed.
    :raises UpstreamError: when MLflow or the storage does not answer.
    """
    scheme = urlsplit(uri).scheme.lower() if "://" in uri or uri.startswith(("models:/", "runs:/")) else ""
    if scheme in ("", "file"):
        return _local(uri, settings)
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
    return Source(_remote(uri, scheme, into), uri)


def for_importers(settings: Settings) -> Callable[[str, Path], Path]:
    """Return what brings `models:/` and `runs:/` into a pipeline, out of this home's MLflow."""
    return lambda uri, into: fetch(uri, settings, into).path


def _local(uri: str, settings: Settings) -> Source:
    text = unquote(urlsplit(uri).path) if uri.startswith("file:") else uri
    path = (settings.project / Path(text).expanduser()).resolve()
    if not path.exists():
        raise errors.InputError(
            f"storageUri {uri!r}: there is nothing at {str(path)!r}",
            way_out=f"Relative paths begin at {str(settings.project)!r}.",
            code="INP-230",
        )
    return Source(path, str(path))


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


def _remote(uri: str, scheme: str, into: Path) -> Path:
    import fsspec

    try:
        system, root = fsspec.core.url_to_fs(uri)
    except (ImportError, ValueError) as error:
        raise errors.DependencyError(
            f"storageUri {uri!r}: {error}",
            way_out={"s3": "pip install 'ondol[s3]'"}.get(scheme, f"Install fsspec's driver for {scheme}://."),
            code="DEP-030",
        ) from error
    target = into / "model"
    target.mkdir(parents=True, exist_ok=True)
    try:
        if scheme in ("http", "https") or system.isfile(root):
            file = target / (posixpath.basename(urlsplit(uri).path) or "model")
            system.get_file(root, str(file))
        else:
            system.get(root.rstrip("/") + "/", str(target), recursive=True)
    except FileNotFoundError as error:
        raise errors.InputError(f"storageUri {uri!r}: there is nothing there", code="INP-230") from error
    except Exception as error:  # drivers raise whatever their service's client raises
        raise errors.UpstreamError(
            f"storageUri {uri!r} cannot be read: {type(error).__name__}: {error}",
            way_out="Check the address and the credentials in the environment.",
            code="UPS-031",
        ) from error
    if not any(target.rglob("*")):
        raise errors.InputError(f"storageUri {uri!r}: the folder is empty", code="INP-230")
    return target
