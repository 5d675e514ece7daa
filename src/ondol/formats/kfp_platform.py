"""What a pipeline asks of Kubernetes for its steps (the second document, `kfp.kubernetes`), as typed records.

Secrets, config maps, volumes, a workspace and deadlines have a meaning on any machine and are read. Where a pod would
be placed has none on a single one: that becomes a note. Who the step runs as is refused. Must not look anything up.
Source of the format: `kubernetes_executor_config.proto` in kubeflow/pipelines.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from ondol.base import errors
from ondol.formats.kfp_node import Node

ELSEWHERE = "Run this pipeline on Kubeflow, or leave the feature out."
_PLACEMENT = ("nodeSelector", "tolerations", "nodeAffinity", "podAffinity", "imagePullSecret", "imagePullPolicy")
_FIELD = re.compile(r"metadata\.(name|namespace|uid|(labels|annotations)\['[^']+'\])|spec\.nodeName")
_CLAIM = ("accessModes", "size", "defaultStorageClass", "storageClassName", "metadata")


@dataclass(frozen=True, slots=True)
class Named:
    """The name of a secret, config map or claim: a constant, an input of the enclosing graph, or a task's output."""

    constant: str = ""
    input: str = ""
    task: str = ""
    output: str = ""


@dataclass(frozen=True, slots=True)
class Variable:
    """An environment variable whose value is kept outside the pipeline file."""

    name: str
    kind: Literal["secret", "configmap", "field"]
    of: Named
    key: str
    """The key in the secret or config map; of a field: its path, like `metadata.labels['team']`."""

    optional: bool = False


@dataclass(frozen=True, slots=True)
class Mount:
    """A folder that the step finds at a path of its own choice."""

    path: str
    kind: Literal["secret", "configmap", "volume", "scratch"]
    of: Named
    sub_path: str = ""
    optional: bool = False


@dataclass(frozen=True, slots=True)
class Platform:
    """What one executor asks for beyond its container."""

    variables: tuple[Variable, ...] = ()
    mounts: tuple[Mount, ...] = ()
    deadline: float = 0.0
    """Seconds one attempt may take; 0: any."""

    labels: dict[str, str] = field(default_factory=dict)
    annotations: dict[str, str] = field(default_factory=dict)

    def producers(self) -> set[str]:
        """Return the tasks whose outputs name what is asked for."""
        names = [*(variable.of for variable in self.variables), *(mount.of for mount in self.mounts)]
        return {name.task for name in names if name.task}


NOTHING = Platform()


def executors(document: Any, notes: list[str]) -> dict[str, Platform]:
    """Read the platform document and return what it says of each executor, by label.

    :param notes: gets what has no meaning on this machine.
    :raises UnsupportedError: for another platform than Kubernetes, and for what this machine cannot honour.
    """
    platforms = Node(document, "document 2").node("platforms")
    found: dict[str, Platform] = {}
    for platform, spec in platforms.members():
        if platform != "kubernetes":
            raise errors.UnsupportedError(f"the platform {platform!r}", where=spec.path, way_out=ELSEWHERE)
        deployment = spec.node("deploymentSpec")
        for label, node in deployment.node("executors").members():
            found[label] = _executor(label.removeprefix("exec-"), node, notes)
        deployment.done()
        _pipeline_config(spec.node("pipelineConfig"), notes)
        spec.done()
    platforms.done()
    return found


def _pipeline_config(node: Node, notes: list[str]) -> None:
    workspace = node.node("workspace")
    if workspace.names():
        notes.append(f"the workspace is a folder of the run; its size {workspace.take('size')!r} is not enforced")
    workspace.take("kubernetes")
    workspace.done()
    node.done()


def _executor(task: str, node: Node, notes: list[str]) -> Platform:
    notes += [f"{task}: {key!r} has no meaning on a single machine" for key in _PLACEMENT if node.take(key)]
    if node.take("enabledSharedMemory"):
        notes.append(f"{task}: the shared memory is this machine's own")
    node.refuse("securityContext", "would run the step as somebody else", ELSEWHERE)
    pod = node.node("podMetadata")
    labels, annotations = pod.take("labels") or {}, pod.take("annotations") or {}
    pod.done()
    platform = Platform(
        tuple(_variables(node)),
        tuple(_mounts(node)),
        float(node.take("activeDeadlineSeconds", 0) or 0),
        dict(labels),
        dict(annotations),
    )
    node.done()
    return platform


def _variables(node: Node) -> Iterator[Variable]:
    for item in _each(node, "fieldPathAsEnv"):
        path = item.text("fieldPath")
        if not _FIELD.fullmatch(path):
            raise errors.UnsupportedError(
                f"the pod's field {path!r} has no value on this machine", where=item.at("fieldPath"), way_out=ELSEWHERE
            )
        yield Variable(item.text("name"), "field", Named(), path)
        item.done()
    for item in _each(node, "secretAsEnv"):
        of, optional = _named(item, "secretName", "secretNameParameter"), item.flag("optional")
        for pair in _each(item, "keyToEnv"):
            yield Variable(pair.text("envVar"), "secret", of, pair.text("secretKey"), optional)
            pair.done()
        item.done()
    for item in _each(node, "configMapAsEnv"):
        of, optional = _named(item, "configMapName", "configMapNameParameter"), item.flag("optional")
        for pair in _each(item, "keyToEnv"):
            yield Variable(pair.text("envVar"), "configmap", of, pair.text("configMapKey"), optional)
            pair.done()
        item.done()


def _mounts(node: Node) -> Iterator[Mount]:
    for item in _each(node, "secretAsVolume"):
        of = _named(item, "secretName", "secretNameParameter")
        yield Mount(_path(item), "secret", of, optional=item.flag("optional"))
        item.done()
    for item in _each(node, "configMapAsVolume"):
        of = _named(item, "configMapName", "configMapNameParameter")
        yield Mount(_path(item), "configmap", of, optional=item.flag("optional"))
        item.done()
    for item in _each(node, "pvcMount"):
        of = _named(item, "constant", "pvcNameParameter")
        yield Mount(_path(item), "volume", of, item.text("subPath"))
        item.done()
    for key in ("emptyDirMounts", "genericEphemeralVolume"):
        for item in _each(node, key):
            for unused in ("medium", "sizeLimit", *_CLAIM):
                item.take(unused)  # a folder is as large as the disk
            yield Mount(_path(item), "scratch", Named(constant=item.text("volumeName")))
            item.done()


def _each(node: Node, key: str) -> Iterator[Node]:
    for index, item in enumerate(node.items(key)):
        yield Node(item, f"{node.at(key)}[{index}]")


def _path(node: Node) -> str:
    path = node.text("mountPath")
    if not path.startswith("/") or ".." in path.split("/") or path.strip("/") == "":
        raise errors.InputError(f"{path!r} is no path to mount at", where=node.at("mountPath"), code="INP-010")
    return path


def _named(node: Node, plain: str, parameter: str) -> Named:
    """Read a name, given as a parameter source, or in one of the older spellings beside it."""
    source = node.node(parameter)
    runtime = source.node("runtimeValue")
    value = runtime.take("constant")
    newer = Named("" if value is None else str(value), source.text("componentInputParameter"), *_output(source))
    older = Named(node.text(plain), node.text("componentInputParameter"), *_output(node))
    for read in (runtime, source):
        read.done()
    return older if newer == Named() else newer


def _output(node: Node) -> tuple[str, str]:
    """Return the task and the output that a name comes from."""
    output = node.node("taskOutputParameter")
    found = output.text("producerTask"), output.text("outputParameterKey")
    output.done()
    return found
