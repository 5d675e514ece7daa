"""What a step finds around it: secrets and settings as variables, folders at paths of its choice.

The rule. The key KEY of the secret NAME is the environment variable `ONDOL_SECRET_NAME_KEY` (upper case, other signs as
`_`), else the file `secrets/NAME/KEY` beside ondol.yaml; of a config map `ONDOL_CONFIGMAP_NAME_KEY` or
`configmaps/NAME/KEY`. As a volume, NAME is the folder. A volume claim is the folder `volumes/NAME` of the home. Values
go to the step's process and nowhere else: they are never written down.
"""

from __future__ import annotations

import platform as machine
import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ondol.base import errors
from ondol.base.settings import Settings
from ondol.formats.kfp_platform import Mount, Named, Platform, Variable

_NAME = re.compile(r"[A-Za-z0-9][\w.-]{0,252}")
PREFIX = "ONDOL_"
_FOLDERS = {"secret": "secrets", "configmap": "configmaps"}


@dataclass(frozen=True, slots=True)
class Place:
    """A folder (or file) and the path at which the step sees it."""

    source: str
    target: str
    read_only: bool


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Everything a step finds around it."""

    environ: dict[str, str] = field(default_factory=dict)
    places: tuple[Place, ...] = ()


def of(
    platform: Platform,
    look_up: Callable[[Named], str],
    *,
    settings: Settings,
    environ: Mapping[str, str],
    facts: Mapping[str, str],
    step: str,
    scratch: Path,
) -> Surroundings:
    """Find what a step's platform asks for.

    :param look_up: gives the name that a source says; empty when its parameter was left out.
    :param environ: where secrets and settings may be given.
    :param facts: the run's own: `pipeline_job_name` …
    :param step: the step's name.
    :param scratch: where folders that live as long as the attempt are made.
    :raises InputError: INP-500 when a secret or config map is not there, INP-501 when a name is none.
    """
    found, places = {}, []
    for variable in platform.variables:
        value = _field(variable.key, platform, facts, step)
        if variable.kind != "field":
            value = _value(variable, look_up(variable.of), settings, environ)
        if value is not None:
            found[variable.name] = value
    for index, mount in enumerate(platform.mounts):
        place = _place(mount, look_up(mount.of), settings, scratch / str(index))
        if place is not None:
            places.append(place)
    return Surroundings(found, tuple(places))


def volume(settings: Settings, name: str) -> Path:
    """Return the folder of a volume claim.

    :raises InputError: when it is no name.
    """
    return settings.home / "volumes" / _checked(name)


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name) or ".." in name:
        raise errors.InputError(f"{name!r} is no name of a secret, config map or volume", code="INP-501")
    return name


def _field(path: str, platform: Platform, facts: Mapping[str, str], step: str) -> str | None:
    """Return what a field of the step's pod would say."""
    if found := re.fullmatch(r"metadata\.(labels|annotations)\['([^']+)'\]", path):
        kept = platform.labels if found.group(1) == "labels" else platform.annotations
        return kept.get(found.group(2), "")
    name = f"{facts.get('pipeline_job_name', '')}-{step.replace('/', '-')}"
    return {
        "metadata.name": name,
        "metadata.namespace": "default",
        "metadata.uid": str(uuid.uuid5(uuid.NAMESPACE_URL, name)),
        "spec.nodeName": machine.node(),
    }.get(path)


def _value(variable: Variable, name: str, settings: Settings, environ: Mapping[str, str]) -> str | None:
    if not name:
        _missing(f"the name of the {variable.kind} for {variable.name!r}", variable.optional, "")
        return None
    kept = re.sub(r"\W", "_", f"{PREFIX}{variable.kind}_{name}_{variable.key}").upper()
    if kept in environ:
        return environ[kept]
    path = settings.project / _FOLDERS[variable.kind] / _checked(name) / _checked(variable.key)
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        what = f"{variable.kind} {name!r}, key {variable.key!r},"
        _missing(what, variable.optional, f"Set {kept}, or write the file {path}.")
        return None


def _missing(what: str, optional: bool, way_out: str) -> None:
    if not optional:
        raise errors.InputError(f"{what} is not there", way_out=way_out, code="INP-500")


def _place(mount: Mount, name: str, settings: Settings, scratch: Path) -> Place | None:
    if mount.kind == "scratch":
        scratch.mkdir(parents=True, exist_ok=True)
        return Place(str(scratch), mount.path, read_only=False)
    if not name:
        _missing(f"the name of the {mount.kind} at {mount.path!r}", mount.optional, "")
        return None
    if mount.kind == "volume":
        folder = volume(settings, name)
        inside = (folder / mount.sub_path.lstrip("/")).resolve()
        if not inside.is_relative_to(folder.resolve()):
            raise errors.InputError(f"{mount.sub_path!r} leads out of the volume {name!r}", code="INP-501")
        inside.mkdir(parents=True, exist_ok=True)
        return Place(str(inside), mount.path, read_only=False)
    folder = settings.project / _FOLDERS[mount.kind] / _checked(name)
    if not folder.is_dir():
        _missing(f"{mount.kind} {name!r}", mount.optional, f"Make the folder {folder} with one file per key.")
        return None
    return Place(str(folder), mount.path, read_only=True)
