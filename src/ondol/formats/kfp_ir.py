"""Kubeflow Pipelines' compiled form (PipelineSpec 2.1, `pipeline.yaml`) as typed records.

Reads one or two YAML documents without importing kfp. Everything the records cannot say is refused by name and path;
what has no meaning on this machine but does no harm becomes a note. Must not run or resolve anything.
Source of the format: `api/v2alpha1/pipeline_spec.proto` in kubeflow/pipelines.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ondol.base import errors
from ondol.formats import kfp_condition, kfp_container, kfp_graph, kfp_platform
from ondol.formats.kfp_container import Code, ContainerCode, PythonCode
from ondol.formats.kfp_graph import (
    ArtifactSlot,
    Claim,
    Component,
    Graph,
    Importer,
    Loop,
    Parameter,
    Pipeline,
    Retry,
    Source,
    Task,
)
from ondol.formats.kfp_node import Node
from ondol.formats.kfp_platform import ELSEWHERE, Platform

_NAME = re.compile(r"[\w-][\w .-]{0,200}")
_KEY = re.compile(r'\[("(?:[^"\\]|\\.)*")\]')
_PICK = re.compile(r'parseJson\(string_value\)((?:\["(?:[^"\\]|\\.)*"\])+)')
_CLAIMS = {"argostub/createpvc": Claim("create"), "argostub/deletepvc": Claim("delete")}
"""Images that stand for what KFP's driver does itself."""


def documents(text: str, where: str) -> list[Any]:
    """Read the YAML (or JSON) documents of a compiled pipeline file.

    :raises InputError: when it is not YAML.
    """
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        return [document for document in yaml.load_all(text, Loader=loader) if document is not None]
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{where}:{mark.line + 1}" if mark else where
        raise errors.InputError(
            f"not a YAML file: {getattr(error, 'problem', error)}", where=place, code="INP-010"
        ) from error


def parse(docs: list[Any], where: str) -> Pipeline:
    """Read a compiled pipeline from its documents: the pipeline and, perhaps, its platform spec.

    :param where: the file, for messages.
    :raises InputError: when it is not a compiled pipeline.
    :raises UnsupportedError: naming what this machine cannot honour, with its path.
    """
    try:
        return _parse(docs)
    except errors.InputError as error:
        error.where = f"{where}: {error.where}" if error.where else where
        raise


def _parse(docs: list[Any]) -> Pipeline:
    if not docs or not isinstance(docs[0], dict) or "pipelineInfo" not in docs[0]:
        raise errors.InputError(
            "not a compiled pipeline: there is no 'pipelineInfo'",
            way_out="Give the .py file with the @dsl.pipeline, or the .yaml that kfp's compiler wrote.",
            code="INP-010",
        )
    if len(docs) > 2:
        raise errors.UnsupportedError(f"{len(docs)} documents in one file", where="document 3", way_out=ELSEWHERE)
    notes: list[str] = []
    platforms = kfp_platform.executors(docs[1], notes) if len(docs) == 2 else {}
    spec = Node(docs[0], "")
    info = spec.node("pipelineInfo")
    name, description = info.text("name"), info.text("description")
    info.take("displayName")
    info.done()
    for key in ("schemaVersion", "sdkVersion"):
        spec.take(key)
    if bucket := spec.take("defaultPipelineRoot"):
        notes.append(f"artifacts stay in Ondol's home, not under the pipeline root {bucket!r}")
    deployment = spec.node("deploymentSpec")
    executors = deployment.node("executors")
    deployment.done()
    components: dict[str, Component] = {}
    for label, node in spec.node("components").members():
        components[label] = _component(label, node, executors, platforms)
    root = _component("root", spec.node("root"), executors, platforms)
    spec.done()
    if not isinstance(root.body, Graph):
        raise errors.InputError("the pipeline's root is not a graph", where="root", code="INP-010")
    root = _after_producers(root, components)
    components = {label: _after_producers(component, components) for label, component in components.items()}
    _check_references(root, components)
    notes += _image_notes(components)
    return Pipeline(name, root, components, description, tuple(dict.fromkeys(notes)))


def _after_producers(component: Component, components: Mapping[str, Component]) -> Component:
    """Let every task wait for those that name its secrets and volumes; kfp's compiler does not say that it must."""
    if not isinstance(component.body, Graph):
        return component
    tasks = {}
    for name, task in component.body.tasks.items():
        body = components[task.component].body if task.component in components else None
        producers = body.platform.producers() if isinstance(body, Code) else set()
        tasks[name] = replace(task, after=tuple(dict.fromkeys((*task.after, *sorted(producers)))))
    return replace(component, body=replace(component.body, tasks=tasks))


def _image_notes(components: Mapping[str, Component]) -> list[str]:
    bodies = [component.body for component in components.values()]
    images = dict.fromkeys(body.image for body in bodies if isinstance(body, PythonCode) and body.image)
    return [f"base image {image!r}: the Python that runs Ondol takes its place" for image in images]


def _component(label: str, node: Node, executors: Node, platforms: Mapping[str, Platform]) -> Component:
    inputs, outputs = node.node("inputDefinitions"), node.node("outputDefinitions")
    parameters = {key: _parameter(member) for key, member in inputs.node("parameters").members()}
    artifacts = {key: _artifact(member) for key, member in inputs.node("artifacts").members()}
    output_parameters = {key: _parameter(member) for key, member in outputs.node("parameters").members()}
    output_artifacts = {key: _artifact(member) for key, member in outputs.node("artifacts").members()}
    for key in (*output_parameters, *output_artifacts):
        _safe(key, outputs.path)
    inputs.done()
    outputs.done()
    node.refuse("platformSpecs", "needs a cluster", ELSEWHERE)
    node.refuse("taskConfigPassthroughs", "passes cluster settings into the step", ELSEWHERE)
    node.refuse("singlePlatformSpecs", "needs a cluster", ELSEWHERE)
    body: Code | Importer | Claim | Graph
    if "dag" in node:
        body = _graph(node.node("dag"))
    else:
        executor_label = node.text("executorLabel")
        if executor_label not in executors:
            raise errors.InputError(f"no executor {executor_label!r}", where=node.at("executorLabel"), code="INP-010")
        executor = Node(executors.take(executor_label), executors.at(executor_label))
        body = _executor(executor_label, executor, platforms.get(executor_label, kfp_platform.NOTHING))
    node.done()
    return Component(label, body, parameters, artifacts, output_parameters, output_artifacts)


def _executor(label: str, node: Node, platform: Platform) -> Code | Importer | Claim:
    node.refuse("resolver", "looks artifacts up in Vertex's metadata", ELSEWHERE)
    node.refuse("customJob", "is a Vertex job", ELSEWHERE)
    body: Code | Importer | Claim
    if "importer" in node:
        body = _importer(node.node("importer"))
    elif "container" in node:
        body = kfp_container.read(label, node.node("container"), platform)
        if isinstance(body, ContainerCode) and body.image in _CLAIMS:
            body = _CLAIMS[body.image]
    else:
        raise errors.InputError(f"executor {label!r} says nothing to run", where=node.path, code="INP-010")
    node.done()
    return body


def _importer(node: Node) -> Importer:
    uri = node.node("artifactUri")
    source = Source(constant=_constant(uri)) if "constant" in uri else Source(input=uri.text("runtimeParameter"))
    uri.done()
    schema = node.node("typeSchema")
    title, version = schema.text("schemaTitle"), schema.text("schemaVersion")
    schema.take("instanceSchema")
    schema.done()
    node.take("reimport")  # the content is read again every time and enters the cache key
    metadata = node.node("metadata")
    values = {key: whole(metadata.take(key)) for key in metadata.names()}
    to_workspace = node.flag("downloadToWorkspace")
    node.done()
    return Importer(source, title, version, values, to_workspace)


def _constant(node: Node) -> Any:
    value = node.take("constant")
    if isinstance(value, dict) and len(value) == 1 and next(iter(value)).endswith("Value"):
        value = next(iter(value.values()))  # the older spelling {stringValue: …}
    return whole(value)


def whole(value: Any) -> Any:
    """Undo what the compiler's protobuf does to integers: 3.0 is 3 again, also inside lists and mappings."""
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, list):
        return [whole(item) for item in value]
    if isinstance(value, dict):
        return {key: whole(item) for key, item in value.items()}
    return value


def _parameter(node: Node) -> Parameter:
    kind = node.text("parameterType") or {"INT": "NUMBER_INTEGER", "DOUBLE": "NUMBER_DOUBLE"}.get(
        node.text("type"), "STRING"
    )
    has_default = "defaultValue" in node
    default = whole(node.take("defaultValue"))
    if kind == "NUMBER_DOUBLE" and isinstance(default, int) and not isinstance(default, bool):
        default = float(default)
    node.take("description")
    literals = tuple(whole(item) for item in node.items("literals"))
    parameter = Parameter(kind, default, has_default, node.flag("isOptional") or has_default, literals)
    node.done()
    return parameter


def _artifact(node: Node) -> ArtifactSlot:
    schema = node.node("artifactType")
    title, version = schema.text("schemaTitle"), schema.text("schemaVersion")
    schema.take("instanceSchema")
    schema.done()
    node.take("description")
    node.take("metadata")
    node.take("properties")
    node.take("customProperties")
    slot = ArtifactSlot(title, version, node.flag("isArtifactList"), node.flag("isOptional"))
    node.done()
    return slot


def _graph(node: Node) -> Graph:
    tasks = {name: _task(name, member) for name, member in node.node("tasks").members()}
    outputs = node.node("outputs")
    parameters: dict[str, tuple[Source, ...]] = {}
    for name, member in outputs.node("parameters").members():
        one_of = member.node("valueFromOneof").items("parameterSelectors")
        selectors = [Node(item, member.at("valueFromOneof")) for item in one_of] or [member.node("valueFromParameter")]
        parameters[name] = tuple(_selector(selector, "outputParameterKey") for selector in selectors)
        member.done()
    artifacts: dict[str, tuple[Source, ...]] = {}
    for name, member in outputs.node("artifacts").members():
        selectors = [Node(item, member.at("artifactSelectors")) for item in member.items("artifactSelectors")]
        artifacts[name] = tuple(_selector(selector, "outputArtifactKey") for selector in selectors)
        member.done()
    outputs.done()
    node.done()
    return Graph(tasks, parameters, artifacts)


def _selector(node: Node, key: str) -> Source:
    source = Source(task=node.text("producerSubtask"), output=node.text(key))
    node.done()
    return source


def _safe(name: str, where: str) -> str:
    """Return a name that becomes part of a path on this machine."""
    if not _NAME.fullmatch(name):
        raise errors.InputError(f"{name!r} is not a name", where=where, code="INP-010")
    return name


def _task(name: str, node: Node) -> Task:
    _safe(name, node.path)
    node.take("taskInfo")
    caching = node.node("cachingOptions")
    cache = caching.flag("enableCache")
    cache_key = caching.text("cacheKey")
    caching.done()
    reference = node.node("componentRef")
    component = reference.text("name")
    reference.done()
    inputs = node.node("inputs")
    parameters = {key: _parameter_source(member) for key, member in inputs.node("parameters").members()}
    artifacts = {key: _artifact_source(member) for key, member in inputs.node("artifacts").members()}
    inputs.done()
    loop = _loop(node)
    trigger = node.node("triggerPolicy")
    condition = trigger.text("condition")
    always = trigger.text("strategy") == "ALL_UPSTREAM_TASKS_COMPLETED"
    where = trigger.at("condition")
    trigger.take("strategy")
    trigger.done()
    task = Task(
        name,
        component,
        tuple(str(item) for item in node.items("dependentTasks")),
        parameters,
        artifacts,
        cache,
        cache_key,
        _retry(node.node("retryPolicy")),
        kfp_condition.parse(condition, where) if condition else None,
        loop,
        always,
    )
    node.done()
    return task


def _loop(node: Node) -> Loop | None:
    policy = node.node("iteratorPolicy")
    limit = int(policy.take("parallelismLimit", 0) or 0)
    policy.done()
    for key, name in (("parameterIterator", "inputParameter"), ("artifactIterator", "inputArtifact")):
        if key not in node:
            continue
        iterator = node.node(key)
        items = iterator.node("items")
        source = Source(input=items.text(name)) if name in items else Source(constant=_raw_items(items))
        items.done()
        loop = Loop(iterator.text("itemInput"), source, key == "artifactIterator", limit)
        iterator.done()
        return loop
    return None


def _raw_items(node: Node) -> list[Any]:
    text = node.text("raw")
    try:
        items = json.loads(text)
    except ValueError:
        items = None
    if not isinstance(items, list):
        raise errors.InputError(f"{text!r} is not a JSON list", where=node.at("raw"), code="INP-010")
    return items


def _picked(node: Node) -> tuple[str, ...]:
    text = node.text("parameterExpressionSelector")
    if not text:
        return ()
    found = _PICK.fullmatch(text)
    if found is None:
        raise errors.UnsupportedError(
            f"the expression {text!r} is not understood", where=node.at("parameterExpressionSelector")
        )
    return tuple(json.loads(key) for key in _KEY.findall(found.group(1)))


def _retry(node: Node) -> Retry | None:
    times = int(node.take("maxRetryCount", 0) or 0)
    wait, longest = _seconds(node, "backoffDuration", 0.0), _seconds(node, "backoffMaxDuration", 3600.0)
    factor = float(node.take("backoffFactor", 2.0) or 2.0)
    node.done()
    return Retry(times, wait, factor, longest) if times else None


def _seconds(node: Node, key: str, default: float) -> float:
    text = node.text(key).removesuffix("s")
    try:
        return float(text) if text else default
    except ValueError:
        raise errors.InputError(f"{text!r} is not a number of seconds", where=node.at(key), code="INP-010") from None


def _parameter_source(node: Node) -> Source:
    pick = _picked(node)
    if "runtimeValue" in node:
        value = node.node("runtimeValue")
        if "runtimeParameter" in value:
            source = Source(input=value.text("runtimeParameter"))
        else:
            source = Source(constant=_constant(value if "constant" in value else value.node("constantValue")))
        value.done()
    elif "taskOutputParameter" in node:
        output = node.node("taskOutputParameter")
        source = Source(task=output.text("producerTask"), output=output.text("outputParameterKey"))
        output.done()
    elif "taskFinalStatus" in node:
        status = node.node("taskFinalStatus")
        source = Source(final_status_of=status.text("producerTask"))
        status.done()
    else:
        source = Source(input=node.text("componentInputParameter"))
    node.done()
    return replace(source, pick=pick) if pick else source


def _artifact_source(node: Node) -> Source:
    if "taskOutputArtifact" in node:
        output = node.node("taskOutputArtifact")
        source = Source(task=output.text("producerTask"), output=output.text("outputArtifactKey"))
        output.done()
    else:
        source = Source(input=node.text("componentInputArtifact"))
    node.done()
    return source


def _check_references(root: Component, components: dict[str, Component]) -> None:
    for component in (root, *components.values()):
        if not isinstance(component.body, Graph):
            continue
        tasks = component.body.tasks
        for task in tasks.values():
            where = f"{component.name}.dag.tasks.{task.name}"
            if task.component not in components:
                raise errors.InputError(f"no component {task.component!r}", where=where, code="INP-010")
            for name, slot in components[task.component].parameters.items():
                if slot.type == "TASK_FINAL_STATUS" and name not in task.parameters:
                    raise errors.InputError(
                        f"{name!r} wants the final status of a task, and the file names none",
                        where=where,
                        way_out="Use the component as the exit task of a dsl.ExitHandler.",
                        code="INP-010",
                    )
            sources = (*task.parameters.values(), *task.artifacts.values())
            for other in (*task.after, *(source.task for source in sources if source.task)):
                if other not in tasks:
                    raise errors.InputError(f"no task {other!r} in this graph", where=where, code="INP-010")
        _refuse_cycle(component.name, tasks)
        _refuse_recursion(component.name, component.name, components, set())


def _refuse_recursion(start: str, current: str, components: dict[str, Component], seen: set[str]) -> None:
    component = components.get(current)
    if component is None or current in seen or not isinstance(component.body, Graph):
        return
    seen.add(current)
    for task in component.body.tasks.values():
        if task.component == start:
            raise errors.InputError(f"the component {start!r} contains itself", where=start, code="INP-010")
        _refuse_recursion(start, task.component, components, seen)


def _refuse_cycle(graph: str, tasks: dict[str, Task]) -> None:
    left = {name: set(kfp_graph.before(task)) for name, task in tasks.items()}
    while left:
        free = [name for name, needs in left.items() if not needs & left.keys()]
        if not free:
            raise errors.InputError(f"tasks wait for each other: {sorted(left)}", where=graph, code="INP-010")
        for name in free:
            del left[name]
