"""From a container of KServe's files to a process of this machine: which program, arguments, variables, limits.

The image says nothing by itself: `images` of ondol.yaml does. The arguments that KServe's controller gives transformers
and explainers are added here too. Must not start anything.
"""

from __future__ import annotations

import math
import re
import shutil

from ondol.base import errors
from ondol.base.settings import PROJECT_FILE, Settings
from ondol.formats import project
from ondol.formats.inference_service import Component, Container, InferenceService
from ondol.records.project import ImageSpec, Project
from ondol.records.worker import VariableSource, WorkerSpec, argument

_UNITS = {
    "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18, "m": 1e-3, "u": 1e-6, "n": 1e-9,
    "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50, "Ei": 2.0**60,
}  # fmt: skip
_GRPC = ("grpc-v1", "grpc-v2")


def worker(
    service: InferenceService, part: str, component: Component, settings: Settings, where: str = ""
) -> WorkerSpec:
    """Return what runs for a component that is a container.

    :param part: `predictor`, `transformer` or `explainer`.
    :param where: the container's place, when it is none of the manifest's own.
    :raises UnsupportedError: UNS-340 for an image without a rule, UNS-342 for what a process cannot be given.
    :raises InputError: INP-340 when there is no program to run.
    """
    where = where or f"spec.{part}.containers[0]"
    container = component.server
    if container is None or len(component.containers) != 1:
        raise errors.UnsupportedError(
            f"{len(component.containers)} containers in one {part}: one process each is served",
            where=f"spec.{part}.containers",
            way_out="Make a transformer beside the predictor a `transformer` of its own.",
            code="UNS-342",
        )
    _refuse_references(container, where)
    rule = _rule(container, settings, where)
    command = _command(container, rule, where)
    ports = [one.number for one in container.ports if one.protocol == "TCP" and "h2c" not in one.name]
    asked = argument(command, "http_port")
    port = ports[0] if ports else int(asked) if asked.isdigit() else 8080
    if part != "predictor":
        command = _with_kserves_arguments(command, service.name, where)
    env = {one.name: one.value for one in container.env if one.name != "STORAGE_URI" and not one.key}
    return WorkerSpec(
        command=command,
        env=env,
        sources=_sources(container, service.namespace),
        folder=str((settings.project / container.working_dir).resolve()),
        packages=rule.packages,
        python=rule.python,
        port=port,
        ready_path=container.readiness_path,
        protocol=container.value_of("PROTOCOL") or "v1",
        memory=int(quantity(container.limits.get("memory", "0"))),
        threads=math.ceil(quantity(container.limits.get("cpu", "0"))),
        model_name=argument(command, "model_name"),
        image=container.image,
    )


def quantity(text: str) -> float:
    """Read a Kubernetes quantity such as `500m`, `1.5` or `512Mi`."""
    parts = re.fullmatch(r"([0-9.]+(?:[eE][-+]?[0-9]+)?)([A-Za-z]*)", text)
    return float(parts.group(1)) * _UNITS[parts.group(2)] if parts else 0.0


def _refuse_references(container: Container, where: str) -> None:
    for index, one in enumerate(container.env):
        if one.key and one.name in ("STORAGE_URI", "PROTOCOL"):
            raise errors.UnsupportedError(
                f"the value of {one.name!r} is in a Secret or ConfigMap, but it is needed before the process starts",
                where=f"{where}.env[{index}]",
                way_out="Write the value itself.",
                code="UNS-342",
            )


def _sources(container: Container, namespace: str) -> tuple[VariableSource, ...]:
    """Return where variables are, in the order in which Kubernetes lets a later one win."""
    whole = [
        VariableSource("Secret" if one.secret else "ConfigMap", namespace, one.secret or one.config_map, one.prefix,
                       optional=one.optional)
        for one in container.env_from
    ]  # fmt: skip
    single = [
        VariableSource("Secret" if one.secret else "ConfigMap", namespace, one.secret or one.config_map, one.name,
                       one.key, one.optional)
        for one in container.env if one.key
    ]  # fmt: skip
    return (*whole, *single)


def _rule(container: Container, settings: Settings, where: str) -> ImageSpec:
    """Return what the image means; a command that is a file of the project needs no rule."""
    named = (container.command or container.args or ("",))[0]
    if "/" in named and shutil.which(str(settings.project / named)):
        own = ImageSpec()
        if not container.image:
            return own
        try:
            return _project(settings).image(container.image, where)
        except errors.UnsupportedError:
            return own
    if not container.image:
        return ImageSpec()
    return _project(settings).image(container.image, where=f"{where}.image")


def _project(settings: Settings) -> Project:
    if not (settings.project / PROJECT_FILE).is_file():
        return Project(name="")
    return project.load(settings.project)


def _command(container: Container, rule: ImageSpec, where: str) -> tuple[str, ...]:
    """Return program and arguments: as in Kubernetes, the container's command takes the entrypoint's place."""
    command = (*(container.command or rule.command), *container.args)
    if not command or command[0].startswith("-"):
        raise errors.InputError(
            f"image {container.image!r}: the program of its entrypoint is not known here",
            where=where,
            way_out=f"Write `command`, or images: {{{container.image!r}: {{command: [./program]}}}} in ondol.yaml.",
            code="INP-340",
        )
    return command


def _with_kserves_arguments(command: tuple[str, ...], name: str, where: str) -> tuple[str, ...]:
    """Add the arguments that KServe's controller adds unless they are there."""
    if {argument(command, option) for option in ("protocol", "predictor_protocol")} & set(_GRPC):
        raise errors.UnsupportedError(
            "transformers ask their predictor over HTTP here", where=where, way_out="Use v1 or v2.", code="UNS-342"
        )
    added = [("model_name", name), ("predictor_host", "$(PREDICTOR_HOST)"), ("http_port", "$(PORT)")]
    extra = [part for option, value in added if not argument(command, option) for part in (f"--{option}", value)]
    return (*command, *extra)
